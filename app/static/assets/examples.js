// Texts to click, by what they are examples of: those of a shipped model, or of film reviews for any other.

const FILMS = [
  ["Easy", "a warm, funny film"],
  ["Mixed", "it never finds its feet, yet it dances"],
  ["Negated", "it's not that the film is bad, it just isn't any good"],
  ["Undecided", "an honest failure is still more interesting than this polished success"],
  [
    "Long",
    "Two brothers keep a lighthouse through one winter, and that is all that happens, and it is enough. " +
      "The camera knows when to look away, the silence between the two is funnier than most comedies, and when " +
      "the storm finally comes you find that you have been holding your breath for an hour. I have rarely been " +
      "so moved by so little. Go and see it on the largest screen you can find, and sit at the front.",
  ],
];

const OF_MODELS = {
  cola: [
    ["Plain", "The book was written by a student."],
    ["Wrong order", "The book written was a by student."],
    ["Agreement", "The children likes the new teacher."],
    ["A question", "Who did you say that left?"],
  ],
  mrpc: [
    ["The same", "Shares of the company fell five percent on Monday.", "The company's shares dropped 5 percent Monday."],
    ["Alike", "Shares of the company fell five percent on Monday.", "Shares of its rival rose two percent on Tuesday."],
    ["Another", "Shares of the company fell five percent on Monday.", "The storm left thousands without power."],
  ],
  rte: [
    ["Follows", "The treaty was signed in Rome in 1957 by six countries.", "Six countries signed the treaty."],
    ["Doesn't", "The treaty was signed in Rome in 1957 by six countries.", "The treaty was signed in Paris."],
    ["Who knows", "The treaty was signed in Rome in 1957 by six countries.", "The treaty is still in force."],
  ],
};

export const examplesOf = (name) => OF_MODELS[name] ?? FILMS;

export const FIRST = FILMS[2][1];

export const LINES = [
  "a warm, funny film",
  "an utterly joyless two hours",
  "not a bad film at all",
  "it never finds its feet, yet it dances",
  "it's not that the film is bad, it just isn't any good",
  "hardly a masterpiece, but never dull",
  "a gorgeous, witty, seductive movie",
  "I wanted to love it, and for an hour I did, but the ending is a mess",
  "the kind of film that makes you check your watch, twice",
  "one of the best of the year",
  "neither as good nor as bad as its trailer",
  "a story told a hundred times, rarely this well",
];
