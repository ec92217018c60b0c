"""
What makes scores of exits probabilities, and how far from the truth they are: temperatures, and a class bias where that
pays.

Logits of exit c are divided by a positive T_c that minimises the negative log-likelihood of labelled rows (Guo et al.
2017). That changes no exit's label, but entropies, so under the rule of Alg. 2 it may change which exit answers. What
all exits say too often or too rarely of a class is put right by a bias that is then added to them all, as in
bias-corrected temperature scaling (Alexandari, Kundaje, Shrikumar 2020); that may change labels. Both are folded into
the last layer of a head, so the file format and the engine know nothing of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from beexformer.model import exits
from beexformer.model.config import BEEConfig
from beexformer.training.network import BEExformer

Kind = Literal["per_exit", "common", "none"]
BOUNDS = (0.2, 20.0)
"""Of a temperature. A few rows that an exit gets all right, or no better than by chance, ask for 0 or infinity."""
APART = 1.25
"""How far an exit's temperature may be from the common one. A first exit that knows nothing asks for an infinite one;
its entropy would be that of no answer at all, and by the rule everything would leave there."""
FOLDS = 10
"""Parts of the rows, each of which is asked whether the class bias of the others pays."""
FEWEST = 50  # rows, below which folds say nothing and there is no class bias
ITERATIONS, SETTLED = 1000, 1e-6
"""Of a class bias at most, and the step (a difference of logits) below which it no longer moves."""
BINS = 15


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibrated logits of exit c are raw / T_c + b: temperatures T [exits], or a label's own [exits, m], and a class
    bias b [m] that all exits share, of mean zero; zeros where it didn't pay."""

    temperatures: np.ndarray
    bias: np.ndarray

    @property
    def biased(self) -> bool:
        """Whether it has a class bias."""
        return bool(self.bias.any())

    @property
    def divisors(self) -> np.ndarray:
        """Temperatures [exits, 1 or m]."""
        return self.temperatures.reshape(len(self.temperatures), -1)

    def of(self, raw: np.ndarray) -> np.ndarray:
        """Raw logits of all exits [N, exits, m] -> calibrated ones, float64."""
        return np.asarray(raw / self.divisors + self.bias)

    def undo(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated logits of all exits [N, exits, m] -> raw ones, float64."""
        return np.asarray((logits - self.bias) * self.divisors)

    @torch.no_grad()
    def fold(self, network: BEExformer) -> None:
        """Make what `of` says of a network's logits its logits: divide the scales (of real or 8-bit layers the weights)
        and biases of every head's last layer, then add the class bias to the latter, in place."""
        for scale, bias, temperature in self._last_layers(network):
            scale.div_(temperature)
            bias.div_(temperature).add_(torch.from_numpy(self.bias))

    @torch.no_grad()
    def take_back(self, network: BEExformer) -> None:
        """Undo `fold`."""
        for scale, bias, temperature in self._last_layers(network):
            scale.mul_(temperature)
            bias.sub_(torch.from_numpy(self.bias)).mul_(temperature)

    def _last_layers(self, network: BEExformer) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
        """(scale, bias, temperature) of every exit."""
        for c, temperature in zip(network.config.exits, self.temperatures, strict=True):
            out: Any = network.heads[str(c)].out
            yield out.alpha if hasattr(out, "alpha") else out.weight, out.bias, float(temperature)

    def to_dict(self) -> dict[str, Any]:
        """What evaluation.json says of it, see `recorded`; a bias only where there is one."""
        temperatures = {"temperatures": self.temperatures.tolist()}
        return {**temperatures, "bias": self.bias.tolist()} if self.biased else temperatures


def recorded(evaluation: dict[str, Any], config: BEEConfig) -> Calibration:
    """What a checkpoint's evaluation says is folded into it; ones and zeros where it says nothing."""
    said = evaluation.get("calibration", {})
    return Calibration(
        np.array(said.get("temperatures", np.ones(len(config.exits))), dtype=np.float64),
        np.array(said.get("bias", np.zeros(config.n_class)), dtype=np.float64),
    )


def temperatures(logits: np.ndarray, labels: np.ndarray, kind: Kind = "per_exit") -> np.ndarray:
    """Logits [N, exits, m] and labels [N] -> temperatures [exits] float64, those of "common" all the same, those of
    "per_exit" within a factor `APART` of them.

    With s = 1 / T the loss is convex and its slope is E_p[z] - z_label, summed over rows: bisection in log T finds
    where the slope is zero, all exits at once.
    """
    z = np.asarray(logits, dtype=np.float64)
    z = z - z.max(-1, keepdims=True)
    right = np.take_along_axis(z, labels[:, None, None], -1)[..., 0]
    if kind == "none":
        return np.ones(z.shape[1])
    low, high = (np.full(z.shape[1], np.log(bound)) for bound in BOUNDS)
    if kind == "per_exit":
        common = np.log(temperatures(logits, labels, "common"))
        low, high = np.maximum(low, common - np.log(APART)), np.minimum(high, common + np.log(APART))
    for _ in range(50):
        middle = (low + high) / 2
        p = exits.softmax(z / np.exp(middle)[:, None])
        slope = ((p * z).sum(-1) - right).sum(0)
        if kind == "common":
            slope = np.full_like(slope, slope.sum())
        hotter = slope > 0  # 1 / T is too large
        low, high = np.where(hotter, middle, low), np.where(hotter, high, middle)
    return np.exp((low + high) / 2)


def class_bias(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Logits [N, exits, m], already divided by temperatures, and labels [N] -> the bias [m] float64 of mean zero that,
    added to all of them, minimises their mean cross-entropy.

    There the mean probability of every class is its share of rows, which iterative scaling finds (Darroch, Ratcliff
    1972): each step adds log(rows / expected rows). Beside the rows stands half a row of every class whose logits say
    nothing, or a class without a row would be pushed down for ever.
    """
    m = logits.shape[-1]
    z = np.asarray(logits, dtype=np.float64).reshape(-1, m)
    odds = np.exp(z - z.max(-1, keepdims=True))
    rows = logits.shape[1] * np.bincount(labels, minlength=m) + 0.5
    factor = np.ones(m)  # exp(bias)
    for _ in range(ITERATIONS):
        expected = factor * ((1 / (odds @ factor)) @ odds) + m / 2 * factor / factor.sum()
        step = rows / expected
        factor *= step
        if np.abs(np.log(step)).max() < SETTLED:
            break
    bias = np.log(factor)
    return np.asarray(bias - bias.mean())


def fit(raw: np.ndarray, labels: np.ndarray, kind: Kind = "per_exit", biased: slice | None = None) -> Calibration:
    """Of raw logits [N, exits, m] and labels [N]: temperatures, and then at these a class bias, over the exits
    `biased`; none where that is None."""
    fitted = Calibration(temperatures(raw, labels, kind), np.zeros(raw.shape[-1]))
    if biased is None:
        return fitted
    return Calibration(fitted.temperatures, class_bias(fitted.of(raw)[:, biased], labels))


def fit_what_pays(raw: np.ndarray, labels: np.ndarray, kind: Kind, answering: slice) -> Calibration:
    """`fit`, with a class bias over the exits that may answer where `bias_pays`: what a network is exported with."""
    return fit(raw, labels, kind, answering if bias_pays(raw, labels, kind, answering) else None)


def bias_pays(raw: np.ndarray, labels: np.ndarray, kind: Kind, answering: slice) -> bool:
    """Whether a class bias lowers the cross-entropy of rows that it wasn't fitted on, each the mean over the exits that
    may answer, by more than one standard error of the mean (the rule of Breiman et al. 1984). Arguments as of `fit`."""
    if kind == "none" or len(labels) < FEWEST:
        return False
    gain = np.empty(len(labels))
    for held_out, others in _folds(len(labels), FOLDS):
        fitted = fit(raw[others], labels[others], kind, answering)
        logits = fitted.of(raw[held_out])[:, answering]
        without, with_it = (_cross_entropy(z, labels[held_out]) for z in (logits - fitted.bias, logits))
        gain[held_out] = (without - with_it).mean(1)
    return bool(gain.mean() > gain.std(ddof=1) / len(gain) ** 0.5)


def cross_fitted(
    raw: np.ndarray, labels: np.ndarray, kind: Kind = "per_exit", biased: slice | None = None
) -> np.ndarray:
    """Raw logits [N, exits, m] of rows that are also all there is to fit on -> calibrated ones, each half by what was
    fitted on the other, see `fit`."""
    calibrated = np.empty(raw.shape)
    for held_out, others in _folds(len(labels), 2):
        calibrated[held_out] = fit(raw[others], labels[others], kind, biased).of(raw[held_out])
    return calibrated


def _folds(n: int, folds: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(some rows, all others) of n, drawn at random, the same at every call; every row is once among the first."""
    parts = np.split(np.random.default_rng(0).permutation(n), [n * i // folds for i in range(1, folds)])
    for i, part in enumerate(parts):
        yield part, np.concatenate(parts[:i] + parts[i + 1 :])


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of every row at every exit [N, exits], nats; logits [N, exits, m]."""
    z = logits - logits.max(-1, keepdims=True)
    right = np.take_along_axis(z, labels[:, None, None], -1)[..., 0]
    return np.asarray(np.log(np.exp(z).sum(-1)) - right)


def served(logits: np.ndarray, delta: float, multi_label: bool = False) -> np.ndarray:
    """Logits of all exits [N, exits, m] -> logits of the exit that answers each row at `delta` [N, m]."""
    taken = exits.exit_layers(logits, exits.entropy_gain(delta, multi_label=multi_label))
    answering: np.ndarray = logits[np.arange(len(logits)), taken - 1]
    return answering


def reliability(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> list[dict[str, Any]]:
    """Rows by the probability of their answer, in bins of equal width, empty ones left out; logits [N, m].

    Each is {rows, confidence, accuracy}: mean probability of the answer, share of right answers. Of several labels a
    text, labels being [N, m], every label of every row is an answer of its own: that it applies, or that it doesn't.
    """
    if labels.ndim == 2:
        p = exits.sigmoid(logits).ravel()
        confidence, right = np.maximum(p, 1 - p), (p >= 0.5) == labels.ravel()
    else:
        p = exits.softmax(logits)
        confidence, right = p.max(-1), p.argmax(-1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "rows": int(inside.sum()),
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(right[inside].mean()),
        }
        for inside in (bin_of == b for b in range(bins))
        if inside.any()
    ]


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Mean distance of confidence from accuracy over the bins of `reliability`, weighted by rows; logits [N, m]."""
    result = reliability(logits, labels, bins)
    return float(sum(bin["rows"] * abs(bin["confidence"] - bin["accuracy"]) for bin in result) / labels.size)


def measure(raw: np.ndarray, calibrated: np.ndarray, labels: np.ndarray, delta: float) -> dict[str, Any]:
    """Before and after, at the exit that serves each row; logits [N, exits, m], JSON-ready."""
    before, after = (served(logits, delta, labels.ndim == 2) for logits in (raw, calibrated))
    return {
        "rows": len(labels),
        "ece_before": expected_calibration_error(before, labels),
        "ece_after": expected_calibration_error(after, labels),
        "reliability_before": reliability(before, labels),
        "reliability_after": reliability(after, labels),
    }
