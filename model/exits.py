"""
When to leave: entropy of an exit's answer and the rule that reads it. Pure functions in float64, for torch and engine.

The rule (Alg. 2): with S_0 = ln m, leave after the first block c where (S_{c-1} - S_c) / S_{c-1} < delta, and in any
case after the last one. With an entropy_threshold, a row also leaves once S_c < entropy_threshold * S_0: DeeBERT's
criterion (Xin et al. 2020), the entropy as a share of what it can be (FastBERT, Liu et al. 2020).

Of several labels a text, each with a sigmoid of its own, an answer is one of 2^m sets of labels. With labels that are
independent given the text, eq. 12 over these sets is the sum of the m binary entropies, and S_0 is ln 2^m. All else
stays as it is.

What serves is `should_exit`, which the kernels compile and call after every block. A `Policy` reads the logits of all
exits so far; it is there to be compared in evaluations. docs/design.md ("Another exit policy") says where one is tried,
compared and served.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from beexformer.model.config import DEFAULT_DELTA

NOTHING_TO_GAIN = 1e-9  # an entropy (nats) below this can't fall by a fraction that means anything

Trace = Sequence[np.ndarray] | np.ndarray
Policy = Callable[[Trace], bool | np.ndarray]
"""Logits of exits 1..c, each [m] -> whether to leave after exit c; or each [N, m] -> [N] bool."""


def softmax(logits: np.ndarray) -> np.ndarray:
    """[..., m] -> probabilities [..., m], float64."""
    z = np.asarray(logits, dtype=np.float64)
    p: np.ndarray = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return p


def entropy(logits: np.ndarray) -> np.ndarray:
    """[..., m] -> entropy of the softmax in nats [...], float64 (eq. 12, in the form of eq. 13)."""
    z = np.asarray(logits, dtype=np.float64)
    z = z - z.max(-1, keepdims=True)  # eq. 13 is invariant to a shift; unshifted, exp overflows at 710
    e = np.exp(z)
    total = e.sum(-1)
    nats: np.ndarray = np.maximum(np.log(total) - (z * e).sum(-1) / total, 0.0)
    return nats


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """[...] -> 1 / (1 + exp(-logits)) [...], float64; exp never overflows."""
    z = np.asarray(logits, dtype=np.float64)
    e = np.exp(-np.abs(z))
    p: np.ndarray = np.where(z < 0, e, 1.0) / (1.0 + e)
    return p


def entropy_of_label_sets(logits: np.ndarray) -> np.ndarray:
    """[..., m] -> entropy (nats) of which labels apply, each by its own sigmoid: the sum of m binary entropies [...],
    float64. One of them is ln(1 + e) + |z| e / (1 + e) with e = exp(-|z|), eq. 13 of the two logits 0 and -|z|."""
    z = np.abs(np.asarray(logits, dtype=np.float64))
    e = np.exp(-z)
    nats: np.ndarray = (np.log(1.0 + e) + z * e / (1.0 + e)).sum(-1)
    return nats


def should_exit(previous: float, current: float, delta: float, threshold: float) -> bool:
    """Alg. 2's condition: entropies (nats) before and after a block -> whether the block no longer paid; or whether
    the entropy is below `threshold` (nats) already, which it never is below 0."""
    # an entropy never falls to zero, so delta = 1 always leaves; but float64 says that it does
    if current < threshold or previous < NOTHING_TO_GAIN or delta >= 1.0:
        return True
    return (previous - current) / previous < delta


_each_should_exit = np.vectorize(should_exit, otypes=[bool])


def entropy_gain(delta: float = DEFAULT_DELTA, entropy_threshold: float = 0.0, *, multi_label: bool = False) -> Policy:
    """The paper's policy, what serves: leave when the entropy no longer falls by the fraction delta; and once it is
    below the share `entropy_threshold` of S_0, of which 0 is none."""
    nats = entropy_of_label_sets if multi_label else entropy

    def policy(trace: Trace) -> np.ndarray:
        m = trace[-1].shape[-1]
        most = m * math.log(2) if multi_label else math.log(m)
        previous = nats(trace[-2]) if len(trace) > 1 else most
        return _each_should_exit(previous, nats(trace[-1]), delta, entropy_threshold * most)

    return policy


def leaving(nats: np.ndarray, most: float, delta: float, entropy_threshold: float) -> np.ndarray:
    """What `entropy_gain` says after every exit, [N, C] bool, by entropies [N, C] and S_0 (nats): for those who ask
    about many settings, so that entropies are computed once."""
    previous = np.concatenate([np.full((len(nats), 1), most), nats[:, :-1]], 1)
    return np.asarray(_each_should_exit(previous, nats, delta, entropy_threshold * most))


def absolute_entropy(threshold: float) -> Policy:
    """DeeBERT (Xin et al. 2020): leave when the entropy (nats) is below a threshold."""
    return lambda trace: entropy(trace[-1]) < threshold


def patience(steps: int) -> Policy:
    """PABEE (Zhou et al. 2020): leave when the label has stayed the same over `steps` further exits."""

    def policy(trace: Trace) -> np.ndarray:
        labels = np.argmax(np.asarray(trace[-steps - 1 :]), -1)
        return (labels == labels[0]).all(0) & (len(trace) > steps)

    return policy


def max_probability(threshold: float) -> Policy:
    """Leave when the largest probability reaches a threshold."""
    return lambda trace: softmax(trace[-1]).max(-1) >= threshold


def exit_layer(logits: np.ndarray, policy: Policy, min_blocks: int = 1, max_blocks: int | None = None) -> int:
    """Logits of all exits [C, m] of one row -> the exit it takes, 1-based, within min_blocks..max_blocks."""
    last = min(max_blocks or len(logits), len(logits))
    for c in range(1, last):
        if c >= min_blocks and policy(logits[:c]):
            return c
    return last


def exit_layers(logits: np.ndarray, policy: Policy, first: int = 1, last: int | None = None) -> np.ndarray:
    """`exit_layer` of every row at once: logits of all exits [N, C, m] -> exits taken [N] int64, none before exit
    `first` or after `last`."""
    traces = np.moveaxis(np.asarray(logits), 1, 0)
    last = len(traces) if last is None else last
    taken = np.full(len(logits), last, dtype=np.int64)
    for c in range(last - 1, first - 1, -1):
        taken[policy(traces[:c])] = c
    return taken


def surest(logits: np.ndarray, taken: int) -> int:
    """Logits of all exits [C, m] of a row that left at exit `taken` -> the exit among 1..taken whose answer has the
    lowest entropy, the first of equals. There to be compared with: paper and engine answer from `taken`."""
    return int(np.argmin(entropy(logits[:taken]))) + 1
