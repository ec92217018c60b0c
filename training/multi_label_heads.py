"""
Heads of several labels a text on frozen states: a linear discriminant for each label, in closed form.

For each label alone its rows are told from all others by Fisher's discriminant with a shrunken covariance, so that the
logit is that of two normal distributions. All labels share the axes of one covariance, that of all rows: with T it,
p a label's share and d the difference of the two means, the covariance within is T - p(1-p) dd', whose inverse on d is
T^-1 d / (1 - p(1-p) d'T^-1 d) (Sherman, Morrison 1950). Shrinkage is chosen by cross-validation over folds in which
every label is about as frequent, and so is each label's temperature at every exit.

Shapes: N rows, C exits, D = d_model, m labels; targets are whether labels apply, [N, m], or how probably.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from threadpoolctl import threadpool_limits

from beexformer.model.exits import sigmoid
from beexformer.training import decisions, label_sets
from beexformer.training.heads import FOLDS, Choice, Heads, Linear
from beexformer.training.progress import Report

SHRINKAGES = (4.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05)
"""What is added to the covariance's diagonal, in units of its mean, to choose from."""
APART = 2.0
"""How far a label's temperature may be from that of all labels together: a label of few rows, which are all told right,
asks for none at all."""


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    """Mean over rows of the sum over labels, nats; logits and targets [N, m]."""
    return float((np.logaddexp(0, logits) - targets * logits).sum(1).mean())


def sharpness(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The factors of the logits [m] with the least cross-entropy, 1 / temperatures: each within APART of the best
    common one, which is within 0.01 and 20."""

    def best(z: np.ndarray, t: np.ndarray, low: float, high: float) -> float:
        result = minimize_scalar(
            lambda log: float((np.logaddexp(0, np.exp(log) * z) - np.exp(log) * t * z).mean()),
            bounds=np.log([low, high]),
            method="bounded",
        )
        return float(np.exp(result.x))

    common = best(logits, targets, 0.01, 20)
    return np.array([best(logits[:, j], targets[:, j], common / APART, common * APART) for j in range(logits.shape[1])])


class Discriminants:
    """Of one set of rows: states [N, D], targets [N, m]. A label that no row has, or every row, is as probable as its
    share of rows, half a row at least, whatever the text."""

    def __init__(self, states: np.ndarray, targets: np.ndarray) -> None:
        x, t = np.asarray(states, np.float64), np.asarray(targets, np.float64)
        N = len(x)
        self.center = x.mean(0)
        x = x - self.center
        count = t.sum(0)
        both = (count > 0) & (count < N)
        total = t.T @ x
        inside = total / count.clip(1e-9)[:, None]
        outside = -total / (N - count).clip(1e-9)[:, None]  # rows are centered
        self.apart = np.where(both[:, None], inside - outside, 0.0)  # d
        self.middle = (inside + outside) / 2
        share = (count / N).clip(0.5 / N, 1 - 0.5 / N)
        self.share = share * (1 - share)
        self.prior = np.log(share / (1 - share))
        self.variances, self.axes = np.linalg.eigh(x.T @ x / N)
        self.variances = self.variances.clip(0)
        self.unit = float(self.variances.mean()) or 1.0

    def __call__(self, shrinkage: float) -> Linear:
        turned = self.apart @ self.axes
        solved = turned / (self.variances + shrinkage * self.unit)  # T^-1 d, shrunken
        left = 1 - self.share * (turned * solved).sum(1)
        weight = solved / left.clip(1e-3)[:, None] @ self.axes.T
        bias = self.prior - (weight * self.middle).sum(1)
        return Linear(weight, bias - weight @ self.center)


@dataclass(frozen=True)
class Validation:
    """Rows with their folds [N], and what heads say of rows they haven't seen."""

    states: np.ndarray
    targets: np.ndarray
    folds: np.ndarray

    def choose(self) -> tuple[float, np.ndarray, float]:
        """(shrinkage, logits [N, m], cross-entropy) with the least one, once each label has its temperature."""
        held = [self.folds == fold for fold in np.unique(self.folds)]
        result = [Discriminants(self.states[~each], self.targets[~each]) for each in held]
        best: tuple[float, np.ndarray, float] | None = None
        for shrinkage in SHRINKAGES:
            said = np.empty(self.targets.shape)
            for each, discriminants in zip(held, result, strict=True):
                said[each] = discriminants(shrinkage)(self.states[each])
            nats = cross_entropy(sharpness(said, self.targets) * said, self.targets)
            if best is None or nats < best[2]:
                best = shrinkage, said, nats
        assert best is not None
        return best


def fit(
    states: np.ndarray,
    targets: np.ndarray,
    threads: int = 1,
    report: Report = lambda *_: None,
    *,
    folds: int = FOLDS,
    seed: int = 0,
) -> Heads:
    """Heads for states [N, C, D] and targets [N, m], temperatures [C, m] folded in. Thresholds are chosen by what is
    said at the exit with the least cross-entropy."""
    exits = states.shape[1]
    applies = targets > 0.5
    parts = label_sets.folds(applies, int(min(folds, max(2, applies.sum(0).max()))), seed)

    def one(c: int) -> tuple[Linear, np.ndarray, np.ndarray, Choice, float]:
        validation = Validation(states[:, c], np.asarray(targets, np.float64), parts)
        shrinkage, said, nats = validation.choose()
        sharp = sharpness(said, validation.targets)
        whole = Discriminants(validation.states, validation.targets)(shrinkage)
        head = Linear(whole.weight * sharp[:, None], whole.bias * sharp)
        return head, 1 / sharp, sharp * said, Choice(shrinkage, float(sharp.mean())), nats

    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        result = []
        for each in pool.map(one, range(exits)):
            result.append(each)
            report(len(result), exits, "heads")
    heads, temperatures, said, choices, nats = zip(*result, strict=True)
    scores = sigmoid(said[int(np.argmin(nats))])
    return Heads(
        [*heads],
        np.stack(temperatures),
        np.stack(said, 1),
        [*choices],
        tuple(decisions.thresholds(scores, applies).tolist()),
        decisions.cross_fitted(scores, applies, parts),
    )
