"""
Heads on the states of a frozen backbone: a linear one for every exit, found in seconds.

Bits need many steps and a task of a thousand rows hasn't got them; a linear head on frozen mean states is there at
once. Two methods of the textbooks, one after the other (Hastie, Tibshirani, Friedman 2009, section 4):

- linear discriminant analysis with a shrunken covariance (Friedman 1989), in closed form
- logistic regression that begins there and is drawn back to it: with many classes it tells neighbours apart better

Where rows are few, what the classes are called says more than they do: heads of their names (`training.label_names`)
are added to the discriminant's, with a share of their own.

How much is shrunk, that share, and whether the regression pays, is chosen by cross-validation on the training rows. The
predictions of the folds are also what exits are calibrated and judged by, so no row has to be held out.

Shapes: N rows, C exits, D = d_model, m classes. A row's target is a distribution over the classes [m], so that soft
labels are learned from as they are.
"""

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from beexformer.training.progress import Report

FOLDS = 5
SHRINKAGES = (16.0, 4.0, 2.0, 1.0, 0.5, 0.2, 0.1)
"""What is added to the covariance's diagonal, in units of its mean, to choose from."""
PULLS = (0.1, 0.03)
"""Weight of the squared distance from the discriminant beside the mean cross-entropy, to choose from."""
SHARES = (0.0, 0.5, 2.0, 8.0, 32.0)
"""Of the heads of names beside the discriminant, to choose from."""
GAIN = 0.99  # of the cross-entropy that is left by a step from one pull to the next, for it to be taken
ITERATIONS = 25  # of L-BFGS at most


@dataclass(frozen=True)
class Linear:
    """logits = states @ weight.T + bias: weight [m, D] and bias [m], float64."""

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, states: np.ndarray) -> np.ndarray:
        """[N, D] -> [N, m] float64."""
        return np.asarray(states @ self.weight.T + self.bias, dtype=np.float64)

    @classmethod
    def through_origin(cls, weight: np.ndarray) -> "Linear":
        """Without a bias."""
        return cls(weight, np.zeros(len(weight)))

    def scaled(self, factor: float) -> "Linear":
        return Linear(self.weight * factor, self.bias * factor)

    def plus(self, other: "Linear") -> "Linear":
        return Linear(self.weight + other.weight, self.bias + other.bias)


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    """Mean over rows, nats; logits and targets [N, m]."""
    z = logits - logits.max(1, keepdims=True)
    return float((np.log(np.exp(z).sum(1)) - (targets * z).sum(1)).mean())


def sharpness(logits: np.ndarray, targets: np.ndarray) -> float:
    """The factor of the logits with the least cross-entropy: 1 / temperature, within 0.01 and 20."""
    result = minimize_scalar(
        lambda log: cross_entropy(np.exp(log) * logits, targets), bounds=np.log([0.01, 20]), method="bounded"
    )
    return float(np.exp(result.x))


class Discriminant:
    """Shrunken discriminants of one set of rows: states [N, D], targets [N, m]; `names` [m, D] are heads of what the
    classes are called, and a class without a row is then as likely as one with a row."""

    def __init__(self, states: np.ndarray, targets: np.ndarray, names: np.ndarray | None = None) -> None:
        x, t = np.asarray(states, np.float64), np.asarray(targets, np.float64)
        self.center = x.mean(0)
        x = x - self.center
        count = t.sum(0).clip(1e-9)
        self.means = t.T @ x / count[:, None]  # [m, D]
        seen = count if names is None else count + 1
        self.prior = np.log((seen / seen.sum()).clip(1e-9))
        self.names = None if names is None else Linear.through_origin(names)
        within = (x.T @ x - (self.means * count[:, None]).T @ self.means) / len(x)
        self.variances, self.axes = np.linalg.eigh(within)
        self.variances = self.variances.clip(0)
        self.unit = float(self.variances.mean()) or 1.0

    def __call__(self, shrinkage: float, share: float = 0.0) -> Linear:
        """With `share` of the heads of names."""
        turned = self.means @ self.axes
        weight = turned / (self.variances + shrinkage * self.unit) @ self.axes.T
        bias = self.prior - (weight * self.means).sum(1) / 2
        result = Linear(weight, bias - weight @ self.center)
        return result if self.names is None else result.plus(self.names.scaled(share))

    def whitener(self, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
        """[D, D] and its inverse: (states - center) @ it has the shrunken covariance within classes as its unit."""
        size = np.sqrt(self.variances + shrinkage * self.unit)
        return self.axes / size, (self.axes * size).T


def regression(
    states: np.ndarray, targets: np.ndarray, result: Discriminant, shrinkage: float, start: Linear, pull: float
) -> Linear:
    """Logistic regression from `start` on: least mean cross-entropy + pull / 2 * squared distance of the weights from
    those of `start`, measured where states are white within classes."""
    white, back = result.whitener(shrinkage)
    x = ((states - result.center) @ white).astype(np.float32)
    t = targets.astype(np.float32)
    origin = np.vstack([back @ start.weight.T, start.bias + start.weight @ result.center]).astype(np.float32)
    curvature = np.sqrt(np.append((x.astype(np.float64) ** 2).mean(0) / 2 + pull, 0.5))
    scale = (1 / curvature).astype(np.float32)[:, None]  # where the loss is about as steep along every axis

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        moved = flat.reshape(origin.shape).astype(np.float32) * scale
        weights = origin + moved
        z = x @ weights[:-1] + weights[-1]
        z -= z.max(1, keepdims=True)
        e = np.exp(z)
        total = e.sum(1, keepdims=True)
        nats = float((np.log(total[:, 0]) - (t * z).sum(1)).mean(dtype=np.float64))
        apart = (e / total - t) / np.float32(len(z))
        slope = np.vstack([x.T @ apart + np.float32(pull) * moved[:-1], apart.sum(0)])
        norm = float((moved[:-1].astype(np.float64) ** 2).sum())
        return nats + pull / 2 * norm, (slope * scale).astype(np.float64).ravel()

    options = {"maxiter": ITERATIONS, "ftol": 1e-5}
    best = minimize(loss, np.zeros(origin.size), jac=True, method="L-BFGS-B", options=options)
    weights = origin + best.x.reshape(origin.shape) * scale
    weight = (white @ weights[:-1]).T
    return Linear(weight, weights[-1] - weight @ result.center)


@dataclass(frozen=True)
class Choice:
    """How an exit's head is found: shrinkage of the discriminant, its sharpness, the pull of the regression, None
    without one, and the share of the heads of names."""

    shrinkage: float
    sharpness: float
    pull: float | None = None
    names: float = 0.0

    def fit(self, states: np.ndarray, targets: np.ndarray, result: Discriminant | None = None) -> Linear:
        result = result or Discriminant(states, targets)
        start = result(self.shrinkage, self.names).scaled(self.sharpness)
        return start if self.pull is None else regression(states, targets, result, self.shrinkage, start, self.pull)


Folds = list[tuple[np.ndarray, np.ndarray]]
"""Of each fold the rows that are learned from, and those that are held out."""


def folds_of(labels: np.ndarray, folds: int = FOLDS, seed: int = 0) -> Folds:
    """So many folds of labels [N], stratified by them. A class of a single row is in some fold alone, which then learns
    nothing of it."""
    count = int(min(folds, max(2, np.bincount(labels).max())))
    order = StratifiedKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # which is not for several threads
        warnings.simplefilter("ignore", UserWarning)  # that a class has fewer rows than there are folds
        return [*order.split(labels, labels)]


class CrossValidation:
    """What heads say of rows they haven't seen, by folds of them. `names`: as `Discriminant`."""

    def __init__(
        self, states: np.ndarray, targets: np.ndarray, folds: Folds | None = None, names: np.ndarray | None = None
    ) -> None:
        self.states, self.targets, self.names = states, np.asarray(targets, np.float64), names
        self.folds = folds or folds_of(targets.argmax(1))
        self.discriminants = [Discriminant(states[train], self.targets[train], names) for train, _ in self.folds]
        self._regressions: dict[Choice, np.ndarray] = {}  # what `said` answers, of those that `pull` has tried

    def discriminant(self) -> tuple[Choice, float]:
        """The shrinkage, and the share of names, with the least cross-entropy at its best sharpness, and that."""
        best: tuple[float, Choice] | None = None
        for share in self._shares():
            for shrinkage in SHRINKAGES:
                choice = Choice(shrinkage, 1.0, names=share)
                said = self.said(choice)
                sharp = sharpness(said, self.targets)
                nats = cross_entropy(sharp * said, self.targets)
                if best is None or nats < best[0]:
                    best = nats, replace(choice, sharpness=sharp)
        assert best is not None
        return best[1], best[0]

    def _shares(self) -> tuple[float, ...]:
        """Rows know nothing of a class that has none of them: then its name has to weigh something."""
        if self.names is None:
            return (0.0,)
        return SHARES if self.targets.sum(0).min() > 0 else SHARES[-2:]

    def fit(self, choice: Choice) -> Linear:
        """The head of all rows."""
        return choice.fit(self.states, self.targets, Discriminant(self.states, self.targets, self.names))

    def pull(self, choice: Choice, nats: float) -> float | None:
        """The strongest pull of a regression after which a weaker one gains nothing; None if none pays."""
        kept = None
        for pull in PULLS:
            tried = replace(choice, pull=pull)
            said = self._regressions[tried] = self.said(tried)
            left = cross_entropy(sharpness(said, self.targets) * said, self.targets)
            if left > GAIN * nats:
                break
            kept, nats = pull, left
        return kept

    def said(self, choice: Choice) -> np.ndarray:
        """Logits [N, m] for every row by the head that was fitted without it."""
        if choice in self._regressions:
            return self._regressions[choice]
        logits = np.empty(self.targets.shape)
        for (train, held_out), result in zip(self.folds, self.discriminants, strict=True):
            logits[held_out] = choice.fit(self.states[train], self.targets[train], result)(self.states[held_out])
        return logits


@dataclass(frozen=True)
class Heads:
    """Heads of all exits with their temperatures [C] folded in; what they say of training rows that they haven't seen,
    calibrated too, [N, C, m]; and how they were chosen. Of several labels a text temperatures are [C, m], and there are
    thresholds [m], and for each row such as were chosen without it, `unseen` [N, m]."""

    heads: list[Linear]
    temperatures: np.ndarray
    cross_validated: np.ndarray
    choices: list[Choice]
    thresholds: tuple[float, ...] | None = None
    unseen: np.ndarray | None = None


def balanced(result: Heads, targets: np.ndarray) -> Heads:
    """The same heads for classes that are equally frequent: less the logarithm of their share in `targets` [N, m], so
    that small classes count for as much as large ones (logit adjustment, Menon et al. 2021)."""
    share = np.log(targets.sum(0).clip(1) / targets.sum())  # a class of none, whose name alone is known, as one of one
    return replace(
        result,
        heads=[Linear(head.weight, head.bias - share) for head in result.heads],
        cross_validated=result.cross_validated - share,
    )


Tried = tuple[CrossValidation, Choice, float]
"""An exit's best discriminant, and its cross-entropy."""


def discriminants(
    states: np.ndarray,
    targets: np.ndarray,
    parts: Folds,
    threads: int = 1,
    report: Report = lambda *_: None,
    names: np.ndarray | None = None,
) -> list[Tried]:
    """The best discriminant of every exit, in exits' order; arguments are as those of `fit`."""

    def choose(c: int) -> Tried:
        validation = CrossValidation(states[:, c], targets, parts, None if names is None else names[c])
        return validation, *validation.discriminant()

    exits, result = states.shape[1], []
    # exits side by side, each on one thread: threads that share a small product wait for each other
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        for tried in pool.map(choose, range(exits)):
            result.append(tried)
            report(len(result), 2 * exits, "discriminants")
    return result


def completed(tried: list[Tried], threads: int = 1, report: Report = lambda *_: None) -> Heads:
    """Heads of exits whose discriminants were chosen, by a regression where that pays, each with its temperature."""
    validation, choice, nats = min(tried, key=lambda one: one[2])

    def fit_again(one: Tried) -> tuple[Linear, float, np.ndarray, Choice]:
        validation, choice, _ = one
        choice = replace(choice, pull=pull)
        said = validation.said(choice)
        sharp = sharpness(said, validation.targets)
        return validation.fit(choice).scaled(sharp), 1 / sharp, sharp * said, choice

    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        pull, result = validation.pull(choice, nats), []
        for head in pool.map(fit_again, tried):
            result.append(head)
            report(len(tried) + len(result), 2 * len(tried), "heads")
    heads, temperatures, said, choices = zip(*result, strict=True)
    return Heads([*heads], np.array(temperatures), np.stack(said, 1), [*choices])


def fit(
    states: np.ndarray,
    targets: np.ndarray,
    threads: int = 1,
    report: Report = lambda *_: None,
    *,
    folds: int = FOLDS,
    seed: int = 0,
    names: np.ndarray | None = None,
) -> Heads:
    """Heads for states [N, C, D] and targets [N, m], every choice by cross-validation in so many folds, which `seed`
    draws. Whether a regression pays is tried at the exit whose discriminant is best, and holds for all. `names`
    [C, m, D] are heads of what the classes are called, where that says something."""
    parts = folds_of(targets.argmax(1), folds, seed)
    return completed(discriminants(states, targets, parts, threads, report, names), threads, report)
