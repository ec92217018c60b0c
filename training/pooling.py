"""
Which means of a text's states heads read: that of all tokens alone, or beside it one that weighs the beginning most.

What a question asks for is in its first words, which a mean over all of them dilutes; elsewhere a second mean says
nothing new and doubles the weights. So cross-validation on training rows chooses, once for all exits of a network.
"""

from dataclasses import dataclass

import numpy as np

from beexformer.model.config import Pooling
from beexformer.training import heads
from beexformer.training.heads import FOLDS, GAIN
from beexformer.training.progress import Report

MOST = 20_000  # rows for which both are tried: their states take twice the memory


@dataclass(frozen=True)
class Pooled:
    """The heads of a task, what they read, and the cross-validated cross-entropy in nats by which that was chosen; none
    where the mean was all there was."""

    pooling: Pooling
    heads: heads.Heads
    nats: dict[Pooling, float]


def worth_trying(rows: int, *, apart: bool) -> Pooling:
    """What states are to be read of so many training rows: of two texts apart, and of many rows, the mean alone."""
    return "mean" if apart or rows > MOST else "mean_and_start"


def fit(
    states: np.ndarray,
    targets: np.ndarray,
    given: Pooling,
    threads: int = 1,
    report: Report = lambda *_: None,
    *,
    folds: int = FOLDS,
    seed: int = 0,
    names: np.ndarray | None = None,
) -> Pooled:
    """`heads.fit` to what is `given`: mean states [N, C, D], or with start-weighted ones beside them [N, C, 2 D], where
    `names` have no part. Both are read where that leaves less than GAIN of the cross-entropy of discriminants, at the
    exit at which the mean alone has the least."""
    if given == "mean":
        return Pooled(given, heads.fit(states, targets, threads, report, folds=folds, seed=seed, names=names), {})
    D, parts = states.shape[2] // 2, heads.folds_of(targets.argmax(1), folds, seed)
    tried = heads.discriminants(states[..., :D], targets, parts, threads, report)
    alone = [nats for _, _, nats in tried]
    best = int(np.argmin(alone))
    [(_, _, both)] = heads.discriminants(states[:, [best]], targets, parts)
    nats: dict[Pooling, float] = {"mean": alone[best], "mean_and_start": both}
    if both >= GAIN * alone[best]:
        return Pooled("mean", heads.completed(tried, threads, report), nats)
    tried = heads.discriminants(states, targets, parts, threads)  # without a report: the bar would go back
    return Pooled("mean_and_start", heads.completed(tried, threads, report), nats)
