"""
What a backbone reads: rows of every kind that users send, cut anew from running text in every epoch.

Most are sentences. Some are parts of a sentence, as short as a label; some are pairs; some are running text of up to
510 tokens. Knows no torch.
"""

from dataclasses import dataclass

import numpy as np

from beexformer.training.corpus import DOCUMENT, Corpus


@dataclass(frozen=True)
class Shares:
    """Shares of the sentences that begin a row of each kind; the rest are rows by themselves."""

    parts: float = 0.09  # of a sentence, 1 to 12 tokens
    pairs: float = 0.16
    unrelated: float = 0.2  # of the pairs: the second text is from anywhere
    premises: float = 0.4  # of the pairs: the first text is several sentences
    short_text: float = 0.08  # running text of 30 to 126 tokens
    middle_text: float = 0.04  # up to 254
    long_text: float = 0.025  # up to 510


class Mixture:
    """Specs of an epoch: [N, 4] int64 (start, length, start, length) into the ids of a corpus, the second length 0 in
    a single text. `continues` [V] bool says which tokens go on a word; no row has more than `most` tokens."""

    def __init__(self, corpus: Corpus, continues: np.ndarray, mix: Shares | None = None, most: int = 510) -> None:
        self.mix, self.most = mix or Shares(), most
        self.n = len(corpus)
        self.ends_at = np.concatenate([[0], np.cumsum(corpus.lengths, dtype=np.int64)])  # [S + 1]
        begins = ~continues[corpus.ids]
        last = np.flatnonzero(corpus.ends == DOCUMENT)
        self.document = last[np.minimum(np.searchsorted(last, np.arange(self.n)), len(last) - 1)]  # its last sentence
        # where the next word begins, from every token on
        at = np.where(begins, np.arange(len(begins)), len(begins))
        self.word = np.minimum.accumulate(at[::-1])[::-1].astype(np.int32)

    def _until(self, first: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """The sentence after the last one that fits, in the same document; at least one is taken."""
        fits = np.searchsorted(self.ends_at, self.ends_at[first] + tokens, "right") - 1
        return np.maximum(np.minimum(fits, self.document[first] + 1), first + 1)

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        mix, n = self.mix, self.n
        specs = np.zeros((n, 4), np.int64)
        specs[:, 0], specs[:, 1] = self.ends_at[:-1], np.diff(self.ends_at)
        shares = [mix.parts, mix.pairs, mix.short_text, mix.middle_text, mix.long_text]
        kind = np.searchsorted(np.cumsum(shares), rng.random(n), "right")
        self._parts(specs, np.flatnonzero(kind == 0), rng)
        self._pairs(specs, np.flatnonzero(kind == 1), rng)
        for which, longest in ((2, 126), (3, 254), (4, 510)):
            first = np.flatnonzero(kind == which)
            longest = min(longest, self.most)
            least = min(30, longest)
            most = rng.integers(least, longest + 1, len(first)) if which == 2 else np.full(len(first), longest)
            specs[first, 1] = self.ends_at[self._until(first, most)] - self.ends_at[first]
        return self._cut(specs)

    def _cut(self, specs: np.ndarray) -> np.ndarray:
        """No row longer than `most`, a pair's special token counted; the second text gives way first."""
        pair = specs[:, 3] > 0
        specs[:, 1] = np.minimum(specs[:, 1], self.most - 2 * pair)
        specs[:, 3] = np.where(pair, np.clip(specs[:, 3], 1, self.most - 1 - specs[:, 1]), 0)
        return specs

    def _parts(self, specs: np.ndarray, at: np.ndarray, rng: np.random.Generator) -> None:
        start, length = specs[at, 0], specs[at, 1]
        end = start + length
        first = np.minimum(self.word[start + (rng.random(len(at)) * length).astype(np.int64)], end)
        first = np.where(first >= end, start, first)
        reach = np.minimum(first + rng.integers(1, 13, len(at)), end)
        last = np.where(reach < end, self.word[np.minimum(reach, len(self.word) - 1)], end)
        specs[at, 0], specs[at, 1] = first, np.maximum(np.minimum(last, end) - first, 1)

    def _pairs(self, specs: np.ndarray, at: np.ndarray, rng: np.random.Generator) -> None:
        several = rng.random(len(at)) < self.mix.premises
        room = np.where(several, rng.integers(40, 121, len(at)), 0)
        second = self._until(at, room)
        specs[at, 1] = self.ends_at[second] - self.ends_at[at]
        anywhere = (rng.random(len(at)) < self.mix.unrelated) | (second > self.document[at])
        second = np.where(anywhere, rng.integers(0, self.n, len(at)), second)
        specs[at, 2], specs[at, 3] = self.ends_at[second], self.ends_at[second + 1] - self.ends_at[second]
