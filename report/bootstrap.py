"""
How sure a difference of scores is: paired bootstrap over the rows of a development set (Efron and Tibshirani 1993).

A resample draws as many rows as there are, with replacement, and scores every model on the same draw. All four
metrics are functions of a confusion matrix, so all resamples are one matrix product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

RESAMPLES = 10_000
Verdict = Literal["confirmed", "refuted", "undecided"]


def draws(rows: int, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """How often each row is drawn: [resamples, rows] float32; every resample sums to `rows`."""
    rng = np.random.default_rng(seed)
    counts = np.empty((resamples, rows), np.float32)
    for i in range(resamples):
        counts[i] = np.bincount(rng.integers(0, rows, rows), minlength=rows)
    return counts


def confusions(labels: np.ndarray, predicted: np.ndarray, m: int, counts: np.ndarray) -> np.ndarray:
    """Labels and predictions [N], draws [R, N] -> confusion matrices [R, m, m] float64, rows are labels."""
    cells = np.zeros((len(labels), m * m), np.float32)
    cells[np.arange(len(labels)), labels * m + predicted] = 1
    # float32 holds integers up to 2^24, more rows than a development set has
    result: np.ndarray = (counts @ cells).astype(np.float64)
    return result.reshape(-1, m, m)


def scores(metric: str, confusion: np.ndarray) -> np.ndarray:
    """Confusion matrices [R, m, m] -> scores [R] as sklearn's functions of the same names give them."""
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    actual, given, total = confusion.sum(2), confusion.sum(1), confusion.sum((1, 2))
    if metric in ("accuracy", "micro_f1"):  # the same where a row has one label
        accuracy: np.ndarray = hits.sum(1) / total
        return accuracy
    if metric == "matthews":
        # Gorodkin's form for any number of classes; 0 where only one class is there or is ever answered
        covariance = hits.sum(1) * total - (actual * given).sum(1)
        spread = (total**2 - (actual**2).sum(1)) * (total**2 - (given**2).sum(1))
        return np.where(spread > 0, covariance / np.sqrt(np.maximum(spread, 1)), 0.0)
    either = actual + given
    f1: np.ndarray = 2 * hits / np.maximum(either, 1)
    if metric == "f1":
        return f1[:, 1]
    present = (either > 0).sum(1)  # a class that is in neither is left out
    return np.asarray(f1.sum(1) / present)


@dataclass(frozen=True)
class Difference:
    """A difference of scores and its 95 % interval."""

    value: float
    low: float
    high: float

    def at_least(self, least: float = 0.0) -> Verdict:
        """Whether it is `least` or more."""
        return "confirmed" if self.low >= least else "refuted" if self.high < least else "undecided"

    def above(self, least: float = 0.0) -> Verdict:
        """Whether it is more than `least`."""
        return "confirmed" if self.low > least else "refuted" if self.high <= least else "undecided"


@dataclass(frozen=True)
class Scores:
    """One model on one development set: its score, and its scores over the resamples [R]."""

    value: float
    resampled: np.ndarray


def resample(labels: np.ndarray, predicted: np.ndarray, m: int, metric: str, counts: np.ndarray) -> Scores:
    """The score of predictions [N], and its resampled scores with the draws [R, N]."""
    once = np.ones((1, len(labels)), np.float32)
    value = scores(metric, confusions(labels, predicted, m, once))[0]
    return Scores(float(value), scores(metric, confusions(labels, predicted, m, counts)))


def mean(parts: Sequence[Scores]) -> Scores:
    """Over seeds of one set, which share its draws; or over sets, whose draws are independent."""
    return Scores(float(np.mean([part.value for part in parts])), np.mean([part.resampled for part in parts], axis=0))


def difference(a: Scores, b: Scores) -> Difference:
    """a - b, where both were resampled with the same draws."""
    low, high = np.percentile(a.resampled - b.resampled, [2.5, 97.5])
    return Difference(a.value - b.value, float(low), float(high))
