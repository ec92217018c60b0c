"""
New text out of old, for a teacher to label: perturbed sentences, pairs of neighbours, rewritten pairs.

Nothing here knows what a label is. What comes out only has to lie where the task's rows lie: sentences a native speaker
might refuse, pairs that share most of their words and may or may not say the same. Pure functions of their arguments
and a seeded generator: streams, of which `distinct` takes what is wanted.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeVar

import numpy as np

from beexformer.training.data import Input, cut, key, sides

Rng = np.random.Generator
Parts = list[str]

CLASSES = [
    line.split()
    for line in """
    a an the this that these those some any every each no all both
    my your his her its our their
    i you he she it we they me him them us
    myself yourself himself herself itself ourselves themselves
    in on at by for with from to of into onto over under about between through during against
    is are was were be been being am
    has have had having
    do does did done doing
    will would can could should may might must
    who whom which what that whose whether if because although
    and or but nor
    not never n't
    """.strip().splitlines()
]
"""Function words that stand in each other's place, rightly or wrongly."""

ALIKE = {word: others for others in CLASSES for word in others}
FUNCTION_WORDS = [word for others in CLASSES for word in others]
ROUNDS = 20  # over a source, before it counts as used up
TRIES = 20  # edits that are tried on a sentence before it is left as it is


class Words:
    """The words of some texts: drawn from by frequency, and what counts as a word when an ending is changed."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.all: list[str] = [word for text in texts for word in re.findall(r"[^\W\d_]+(?:['-][^\W\d_]+)*", text)] or [
            "the"
        ]
        self.known = {word.lower() for word in self.all}

    def draw(self, rng: Rng) -> str:
        return self.all[rng.integers(len(self.all))]

    def forms(self, word: str) -> list[str]:
        """Other forms of a word by -s, -ed and -ing that occur: walks -> walk, walked, walking."""
        word = word.lower()
        stems = {word}
        for ending in ("s", "es", "d", "ed", "ing"):
            if word.endswith(ending) and len(word) > len(ending) + 2:
                stem = word.removesuffix(ending)
                stems |= {stem, f"{stem}e"} | ({stem[:-1]} if stem[-1] == stem[-2] else set())
        made = {stem + ending for stem in stems for ending in ("", "s", "es", "d", "ed", "ing")}
        made |= {stem[:-1] + "ing" for stem in stems if stem.endswith("e")}
        return sorted((made & self.known) - {word})


# ---------------------------------------------------------------- edits: words -> words, unchanged where none applies


def _drop(parts: Parts, words: Words, rng: Rng) -> Parts:
    i = rng.integers(len(parts))
    return parts[:i] + parts[i + 1 :]


def _swap(parts: Parts, words: Words, rng: Rng) -> Parts:
    i = rng.integers(max(1, len(parts) - 1))
    return parts[:i] + parts[i : i + 2][::-1] + parts[i + 2 :]


def _repeat(parts: Parts, words: Words, rng: Rng) -> Parts:
    i = rng.integers(len(parts))
    return parts[: i + 1] + parts[i:]


def _replace(parts: Parts, words: Words, rng: Rng) -> Parts:
    i = rng.integers(len(parts))
    return [*parts[:i], words.draw(rng), *parts[i + 1 :]]


def _move(parts: Parts, words: Words, rng: Rng) -> Parts:
    i = rng.integers(len(parts))
    rest = parts[:i] + parts[i + 1 :]
    j = rng.integers(len(parts))
    return [*rest[:j], parts[i], *rest[j:]]


def _exchange_function_word(parts: Parts, words: Words, rng: Rng) -> Parts:
    places = [i for i, word in enumerate(parts) if word.lower() in ALIKE]
    if not places:
        return parts
    i = places[rng.integers(len(places))]
    others = [word for word in ALIKE[parts[i].lower()] if word != parts[i].lower()]
    return [*parts[:i], others[rng.integers(len(others))], *parts[i + 1 :]]


def _drop_function_word(parts: Parts, words: Words, rng: Rng) -> Parts:
    places = [i for i, word in enumerate(parts) if word.lower() in ALIKE]
    if not places:
        return parts
    i = places[rng.integers(len(places))]
    return parts[:i] + parts[i + 1 :]


def _insert_function_word(parts: Parts, words: Words, rng: Rng) -> Parts:
    i = rng.integers(len(parts) + 1)
    return [*parts[:i], FUNCTION_WORDS[rng.integers(len(FUNCTION_WORDS))], *parts[i:]]


def _change_ending(parts: Parts, words: Words, rng: Rng) -> Parts:
    i = rng.integers(len(parts))
    forms = words.forms(parts[i])
    return [*parts[:i], forms[rng.integers(len(forms))], *parts[i + 1 :]] if forms else parts


EDITS: list[Callable[[Parts, Words, Rng], Parts]] = [
    _drop,
    _swap,
    _repeat,
    _replace,
    _move,
    _move,
    _exchange_function_word,
    _exchange_function_word,
    _drop_function_word,
    _insert_function_word,
    _change_ending,
    _change_ending,
]


def _unstopped(text: str) -> tuple[str, str]:
    """A sentence without its final punctuation, and that."""
    unstopped = re.sub(r"[\s.!?\"']+$", "", text)
    return unstopped, text[len(unstopped) :]


def perturb(text: str, words: Words, rng: Rng, edits: int = 1) -> str:
    """A sentence after so many random edits; final punctuation stays where it is."""
    unstopped, stop = _unstopped(text)
    parts, done = unstopped.split(), 0
    for _ in range(TRIES):
        if done == edits or len(parts) < 2:
            break
        changed = EDITS[rng.integers(len(EDITS))](parts, words, rng)
        done += changed != parts
        parts = changed
    return " ".join(parts) + stop


def plain(text: str) -> bool:
    """A sentence from beginning to end, without brackets or quotation marks: what acceptability is judged on."""
    return re.fullmatch(r"[A-Z][^\"()\[\]{}<>:;*_=/]*[.!?]", text) is not None


def _clauses(unstopped: str) -> list[str]:
    return re.split(r"\s*[,;:]\s+|\s+--?\s+", unstopped)


def shorten(text: str, length: int, rng: Rng) -> str:
    """About `length` words of a sentence: a clause that fits, or its beginning, now and then its end."""
    unstopped, stop = _unstopped(text)
    parts = unstopped.split()
    if len(parts) <= length:
        return text
    fitting = [clause for clause in _clauses(unstopped) if 0.5 * length <= len(clause.split()) <= 1.3 * length]
    if fitting and rng.random() < 0.7:
        return fitting[rng.integers(len(fitting))] + stop
    kept = parts[-length:] if rng.random() < 0.25 else parts[:length]
    while len(kept) > 3 and kept[-1].lower() in ALIKE:  # "a company of the"
        kept = kept[:-1]
    return " ".join(kept).rstrip(",;:") + stop


def _reorder(text: str, rng: Rng) -> str:
    """The clauses of a sentence from another one on: `a, b and c` -> `b and c, a`."""
    unstopped, stop = _unstopped(text)
    clauses = _clauses(unstopped)
    at = int(rng.integers(1, len(clauses))) if len(clauses) > 1 else 0
    return ", ".join(clauses[at:] + clauses[:at]) + stop


def _named(parts: Parts) -> list[int]:
    """Places of names and numbers."""
    return [i for i, word in enumerate(parts) if word[:1].isdigit() or (i and word[:1].isupper())]


def _exchange_names(text: str, other: str, rng: Rng) -> str:
    """A name or number of a sentence replaced by one of another sentence, or of its own."""
    parts = text.split()
    foreign = other.split()
    ours, theirs = _named(parts), _named(foreign) or _named(parts)
    if not ours:
        return text
    source = foreign if _named(foreign) else parts
    parts[ours[rng.integers(len(ours))]] = source[theirs[rng.integers(len(theirs))]]
    return " ".join(parts)


def rewrite(text: str, other: str, length: int, words: Words, rng: Rng) -> str:
    """What might be said of a sentence in about `length` words, truly or not: it or `other`, cut, reordered, with names
    exchanged, joined with a part of `other`, with words changed."""
    way = rng.integers(8)
    made = text
    if way == 0:
        made = other
    elif way == 1:
        made = _reorder(text, rng)
    elif way in (2, 3):
        made = _exchange_names(text, other, rng)
    elif way == 4:
        mine, theirs = text.split(), other.split()
        made = " ".join(mine[: len(mine) // 2] + theirs[len(theirs) // 2 :])
    made = shorten(made, max(4, length), rng)
    fewest = int(made == text)
    most = max(fewest, min(3, len(made.split()) // 7))  # of a few words, two wrong ones leave nothing to judge
    return perturb(made, words, rng, int(rng.integers(fewest, most + 1)))


# ---------------------------------------------------------------- streams

Row = TypeVar("Row", bound=Input)


def perturbed(texts: list[str], words: Words, rng: Rng, share: float) -> Iterator[str]:
    """Texts at random, a `share` of them after one edit, a few of those after two."""
    for _ in range(ROUNDS):
        for i in rng.permutation(len(texts)):
            yield perturb(texts[i], words, rng, 1 + (rng.random() < 0.2)) if rng.random() < share else texts[i]


def _runs(
    paragraphs: list[str], lengths: np.ndarray, rng: Rng
) -> Iterator[tuple[str, list[str], int, tuple[int, int]]]:
    """One to three sentences of a random paragraph that together have about as many words as the first text of a random
    row of the task; with all sentences of the paragraph, the place of the next one, and the lengths that were aimed at.
    """
    longest = int(lengths[:, 0].max())
    for _ in range(ROUNDS):
        for i in rng.permutation(len(paragraphs)):
            result = [s for s in cut(paragraphs[i]) if len(s.split()) >= 3]
            if len(result) < 2:
                continue
            for start in rng.permutation(len(result) - 1)[:4]:
                first, second = (int(n) for n in lengths[rng.integers(len(lengths))])
                end, said = int(start) + 1, len(result[start].split())
                while end < min(start + 3, len(result) - 1) and said + len(result[end].split()) <= 1.2 * first:
                    said += len(result[end].split())
                    end += 1
                if said <= longest and said >= 0.5 * first:
                    yield " ".join(result[start:end]), result, end, (first, second)


def neighbours(paragraphs: list[str], lengths: np.ndarray, rng: Rng) -> Iterator[tuple[str, str]]:
    """One to three sentences of a paragraph, and the next one; `lengths` [N, 2] are words of the task's own rows."""
    longest = int(lengths[:, 1].max())
    for text, result, end, _ in _runs(paragraphs, lengths, rng):
        if len(result[end].split()) <= longest:
            yield text, result[end]


def rewritten(paragraphs: list[str], lengths: np.ndarray, words: Words, rng: Rng) -> Iterator[tuple[str, str]]:
    """One to three sentences of a paragraph, and one of them rewritten, with what stands next to it at hand."""
    for text, result, end, (_, second) in _runs(paragraphs, lengths, rng):
        one = cut(text)
        yield text, rewrite(one[rng.integers(len(one))], result[end], second, words, rng)


def rewritten_pairs(pairs: list[tuple[str, str]], words: Words, rng: Rng) -> Iterator[tuple[str, str]]:
    """The task's own pairs with a side perturbed, one side rewritten into the other, sides swapped or recombined."""
    for _ in range(ROUNDS):
        for i, j in zip(rng.permutation(len(pairs)), rng.permutation(len(pairs)), strict=True):
            (a, b), other = pairs[i], pairs[j]
            way = rng.integers(8)
            if way < 3:
                yield a, perturb(b, words, rng, int(rng.integers(1, 4)))
            elif way == 3:
                yield perturb(a, words, rng, int(rng.integers(1, 4))), b
            elif way < 6:
                one = cut(a)
                yield a, rewrite(one[rng.integers(len(one))], b, len(b.split()), words, rng)
            elif way == 6:
                yield (b, a) if len(a.split()) < 2 * len(b.split()) else (a, _exchange_names(b, a, rng))
            else:
                yield a, _exchange_names(other[1], a, rng)


def distinct(rows: Iterator[Row], count: int, without: Collection[Input]) -> list[Row]:
    """The first `count` rows that differ from each other and are not in `without`, neither whole nor with a side; all
    there are where the source gives fewer. Compared by `data.key`, and `without` holds such keys."""
    taken: list[Row] = []
    seen: set[Input] = set()
    for row in rows:
        if len(taken) == count:
            break
        compared = key(row)
        if compared not in seen and compared not in without and not any(side in without for side in sides(compared)):
            seen.add(compared)
            taken.append(row)
    return taken
