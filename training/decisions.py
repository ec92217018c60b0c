"""
From logits to what is answered: the most probable class, or of several labels a text those whose score reaches a
threshold; and how these thresholds are chosen.

Labels of rows are [N] int64, classes, or [N, m] bool, whether each label applies; decisions have the same form.
"""

import numpy as np

from beexformer.model.exits import sigmoid

RARE = 10  # rows of a label, below which it has the threshold of all labels together
BOUNDS = (0.05, 0.95)


def decide(logits: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
    """Logits [N, m] -> classes [N]; with thresholds, [m] or a row's own [N, m], which labels apply [N, m] bool."""
    if thresholds is None:
        result: np.ndarray = logits.argmax(-1)
        return result
    return np.asarray(sigmoid(logits) >= thresholds)


def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether rows have the same class, or the same set of labels, [N] bool."""
    equal = a == b
    return np.asarray(equal.all(1) if equal.ndim == 2 else equal)


def thresholds(scores: np.ndarray, applies: np.ndarray) -> np.ndarray:
    """The score from which on each label is to apply [m], with the highest F1 on rows whose scores [N, m] come from
    heads that haven't seen them. A rare label, whose few rows say little, has the one with the highest micro F1."""
    common = _best(scores.ravel(), applies.ravel())
    each = [
        _best(scores[:, j], applies[:, j]) if applies[:, j].sum() >= RARE else common for j in range(scores.shape[1])
    ]
    return np.array(each)


def cross_fitted(scores: np.ndarray, applies: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Thresholds [N, m] for every row by the rows of the other folds, so that no row is judged by one it chose."""
    result = np.empty(scores.shape)
    for fold in np.unique(folds):
        inside = folds == fold
        result[inside] = thresholds(scores[~inside], applies[~inside])
    return result


def _best(scores: np.ndarray, applies: np.ndarray) -> float:
    """The threshold with the highest F1, halfway between two scores, within BOUNDS; one half where no row has it."""
    if not applies.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    sorted_ = scores[order]
    right = np.cumsum(applies[order])
    f1 = 2 * right / (np.arange(1, len(scores) + 1) + applies.sum())
    below = np.append(sorted_[1:], 0.0)
    f1[sorted_ == below] = -1.0  # no threshold parts equal scores
    best = int(f1.argmax())
    return float(np.clip((sorted_[best] + below[best]) / 2, *BOUNDS))
