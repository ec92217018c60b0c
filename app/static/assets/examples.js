// Texts to click: the model's own, which its checkpoint holds where its owner has consented, or neutral ones that belong
// to no subject.

const NEUTRAL = [
  ["Short", "Thank you, that was quick."],
  ["A question", "Can you send me the bill once more?"],
  ["A complaint", "I have asked twice now, and nobody has answered."],
  [
    "Long",
    "I wrote to you on Monday about the order that came on Friday. The box was open, one of the two parts was " +
      "missing, and the bill says that both were sent. I would like to know what happens next, and whether I have " +
      "to send anything back.",
  ],
];

const NEUTRAL_PAIRS = [
  ["Alike", "The office is closed on Friday.", "On Friday nobody is in the office."],
  ["Different", "The office is closed on Friday.", "The office opens at nine every day."],
  ["Unrelated", "The office is closed on Friday.", "The train was late again."],
];

/** [what it is called, text, second text or none] of a model as /models/{name} describes it. */
export function examplesOf({ input, examples = [] }) {
  if (examples.length)
    return examples.map(({ title, text, text_pair: pair }) => [title || shortened(text), text, ...(pair ? [pair] : [])]);
  return input === "pair" ? NEUTRAL_PAIRS : NEUTRAL;
}

const shortened = (text) => (text.length > 28 ? `${text.slice(0, 27).trimEnd()}\u2026` : text);

/** The example that stands there first: of those of the model the third, the first ones being the plainest. */
export const firstOf = (model) => examplesOf(model).at(2) ?? examplesOf(model)[0];

/** Lines to fill in; a tab parts the two texts of a pair. */
export const linesOf = (model) =>
  model.name === "sst2" ? FILM_LINES : examplesOf(model).map(([, ...texts]) => texts.join("\t"));

const FILM_LINES = [
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
