"""
Temperature scaling (Guo et al. 2017) of exits, and how far scores are from the truth.

Logits of exit c are divided by a positive T_c that minimises the negative log-likelihood of labelled rows. It changes
no exit's label. It changes entropies, so under the rule of Alg. 2 it may change which exit answers. A temperature is
folded into the last layer of its head, so the file format and the engine know nothing of it.
"""

from typing import Any, Literal

import numpy as np
import torch

from beexformer.model import exits
from beexformer.training.network import BEExformer

Kind = Literal["per_exit", "common", "none"]
BOUNDS = (0.2, 20.0)
"""Of a temperature. A few rows that an exit gets all right, or no better than by chance, ask for 0 or infinity."""
APART = 1.25
"""How far an exit's temperature may be from the common one. A first exit that knows nothing asks for an infinite one;
its entropy would be that of no answer at all, and by the rule everything would leave there."""
BINS = 15


def temperatures(logits: np.ndarray, labels: np.ndarray, kind: Kind = "per_exit") -> np.ndarray:
    """Logits [N, exits, m] and labels [N] -> temperatures [exits] float64, those of "common" all the same, those of
    "per_exit" within a factor `APART` of them.

    With b = 1 / T the loss is convex and its slope is E_p[z] - z_label, summed over rows: bisection in log T finds
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
        hotter = slope > 0  # b is too large
        low, high = np.where(hotter, middle, low), np.where(hotter, high, middle)
    return np.exp((low + high) / 2)


def cross_fitted(logits: np.ndarray, labels: np.ndarray, kind: Kind = "per_exit", seed: int = 0) -> np.ndarray:
    """Logits [N, exits, m] of rows that are also all there is to fit on -> the same, each half divided by the
    temperatures of the other; halves are drawn at random."""
    order = np.random.default_rng(seed).permutation(len(labels))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    scaled = np.asarray(logits, dtype=np.float64).copy()
    for ours, other in (halves, halves[::-1]):
        scaled[ours] /= temperatures(logits[other], labels[other], kind)[:, None]
    return scaled


def recorded(evaluation: dict[str, Any], exits: int) -> np.ndarray:
    """The temperatures that a checkpoint's evaluation says are folded into it, [exits], or a label's own [exits, m];
    ones where it says nothing."""
    return np.array(evaluation.get("calibration", {}).get("temperatures", np.ones(exits)), dtype=np.float64)


def unscaled(logits: np.ndarray, temperatures: np.ndarray) -> np.ndarray:
    """Logits of all exits [N, exits, m] as they were before they were divided by temperatures, [exits] or
    [exits, m]."""
    return np.asarray(logits * temperatures.reshape(len(temperatures), -1))


@torch.no_grad()
def fold(network: BEExformer, temperatures: np.ndarray) -> None:
    """Divide the scales (of real or 8-bit layers the weights) and biases of every head's last layer by its exit's
    temperature, in place."""
    for c, temperature in zip(network.config.exits, temperatures, strict=True):
        out: Any = network.heads[str(c)].out
        for part in (out.alpha if hasattr(out, "alpha") else out.weight, out.bias):
            part.div_(float(temperature))


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


def measure(raw: np.ndarray, scaled: np.ndarray, labels: np.ndarray, delta: float) -> dict[str, Any]:
    """Before and after, at the exit that serves each row; logits [N, exits, m], JSON-ready."""
    before, after = (served(logits, delta, labels.ndim == 2) for logits in (raw, scaled))
    return {
        "rows": len(labels),
        "ece_before": expected_calibration_error(before, labels),
        "ece_after": expected_calibration_error(after, labels),
        "reliability_before": reliability(before, labels),
        "reliability_after": reliability(after, labels),
    }
