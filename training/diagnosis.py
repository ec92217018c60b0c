"""
Where a network is wrong: precision, recall and F1 of each class, which class is taken for which, how sure the score is,
which texts are answered wrong most surely, and what its curves recommend.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from beexformer.model.exits import sigmoid, softmax
from beexformer.model.options import ExitOptions
from beexformer.training.data import Input, sides
from beexformer.training.decisions import decide, same

DRAWS = 500  # of the bootstrap
PAYS = 0.05  # share of full depth's FLOPs that other options have to save on top, to be recommended
LEVEL = 0.95


def by_class(labels: np.ndarray, predicted: np.ndarray, classes: int) -> list[dict[str, Any]]:
    """{rows, precision, recall, f1} of each class, in their order; 0 where there is nothing to divide by."""
    result = precision_recall_fscore_support(labels, predicted, labels=range(classes), zero_division=0)
    return [
        {"rows": int(rows), "precision": float(precision), "recall": float(recall), "f1": float(f1)}
        for precision, recall, f1, rows in zip(*result, strict=True)
    ]


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> list[list[int]]:
    """Rows of class i that were taken for j, [m][m]."""
    result: list[list[int]] = confusion_matrix(labels, predicted, labels=range(classes)).tolist()
    return result


def majority(
    train: np.ndarray, labels: np.ndarray, score: Callable[[np.ndarray, np.ndarray], float]
) -> tuple[int, float]:
    """The largest class of training labels, and the score of always saying it, and no other, where `labels` are
    right."""
    if train.ndim == 2:
        largest = int(train.sum(0).argmax())
        said = np.tile(np.arange(train.shape[1]) == largest, (len(labels), 1))
    else:
        largest = int(np.bincount(train).argmax())
        said = np.full(len(labels), largest)
    return largest, float(score(labels, said))


def interval(
    labels: np.ndarray, predicted: np.ndarray, score: Callable[[np.ndarray, np.ndarray], float], accuracy: bool
) -> tuple[float, float]:
    """A 95 % interval of a score over draws of rows like these: Wilson's of accuracy, else a bootstrap's."""
    if accuracy:
        result = binomtest(int(same(labels, predicted).sum()), len(labels)).proportion_ci(LEVEL, "wilson")
        return float(result.low), float(result.high)
    rng = np.random.default_rng(0)
    drawn = (rng.integers(0, len(labels), len(labels)) for _ in range(DRAWS))
    low, high = np.quantile([score(labels[i], predicted[i]) for i in drawn], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def confused_pairs(matrix: list[list[int]], names: Sequence[str], most: int = 10) -> list[tuple[str, str, int]]:
    """(class, what it was taken for, rows), the most frequent first."""
    pairs = [(names[i], names[j], n) for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j and n > 0]
    return sorted(pairs, key=lambda pair: -pair[2])[:most]


def surely_wrong(
    inputs: Sequence[Input],
    logits: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    most: int = 10,
    thresholds: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Texts that were answered wrong with the highest score: {text, label, predicted, score}. logits [N, m] are those
    of the exits taken. Of several labels a text the score is the probability of its label that is most surely wrong.
    They are the owner's rows, so they are shown and stored nowhere."""
    if thresholds is not None:
        return _surely_wrong_sets(inputs, logits, labels, names, most, thresholds)
    scores = softmax(logits)
    predicted = scores.argmax(1)
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-scores[wrong, predicted[wrong]], kind="stable")][:most]
    return [
        {
            "text": " | ".join(sides(inputs[i])),
            "label": names[labels[i]],
            "predicted": names[predicted[i]],
            "score": float(scores[i, predicted[i]]),
        }
        for i in wrong.tolist()
    ]


def _surely_wrong_sets(
    inputs: Sequence[Input],
    logits: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    most: int,
    thresholds: np.ndarray,
) -> list[dict[str, Any]]:
    said = decide(logits, thresholds)
    sure = np.where(said != labels, np.where(said, sigmoid(logits), sigmoid(-logits)), 0.0).max(1)
    wrong = np.argsort(-sure, kind="stable")[: min(most, int((said != labels).any(1).sum()))]

    def listed(applies: np.ndarray) -> str:
        return ", ".join(names[j] for j in np.flatnonzero(applies).tolist()) or "none"

    return [
        {
            "text": " | ".join(sides(inputs[i])),
            "label": listed(labels[i]),
            "predicted": listed(said[i]),
            "score": float(sure[i]),
        }
        for i in wrong.tolist()
    ]


def recommended(result: dict[str, Any]) -> tuple[ExitOptions, dict[str, Any]] | None:
    """Of an evaluation, the options with the fewest FLOPs that score no worse than full depth and than its defaults,
    with their point on the curves; None where the defaults are as good."""
    least = max(result["score"], result["full_depth_score"])
    options = [
        *((ExitOptions(delta=p["delta"], entropy_threshold=0.0), p) for p in result["delta_curve"]),
        *(
            (ExitOptions(delta=p["delta"], entropy_threshold=p["entropy_threshold"]), p)
            for p in result["entropy_curve"]
        ),
        *((ExitOptions(min_blocks=p["exit"], max_blocks=p["exit"]), p) for p in result["per_exit"]),
    ]
    fit = [(asked, point) for asked, point in options if point["score"] >= least]
    if not fit:
        return None
    asked, point = max(fit, key=lambda each: (each[1]["flops_saved_ratio"], each[1]["score"]))
    better = point["score"] > result["score"] or point["flops_saved_ratio"] > result["flops_saved_ratio"] + PAYS
    return (asked, point) if better else None


def advice(result: dict[str, Any]) -> list[str]:
    """Sentences on an evaluation that its numbers alone don't say."""
    full, metric = result["full_depth_score"], result["metric"]
    best = max(result["per_exit"], key=lambda point: (point["score"], -point["exit"]))
    said = []
    if best["score"] > full and best["exit"] < result["per_exit"][-1]["exit"]:
        said.append(
            f"leaving after block {best['exit']} always is better than full depth on these rows: {metric} "
            f"{best['score']:.4f} against {full:.4f}, with {best['flops_saved_ratio']:.0%} of the FLOPs saved "
            f"(--min-blocks {best['exit']} --max-blocks {best['exit']})"
        )
    if fit := recommended(result):
        options, point = fit
        said.append(
            f"no worse on these rows and with {point['flops_saved_ratio']:.0%} of the FLOPs saved: {options.stated()}, "
            f"{metric} {point['score']:.4f}; `--take` makes that the checkpoint's default"
        )
    low, high = result["interval"]
    said.append(
        f"on other rows like these {metric} lies between {low:.4f} and {high:.4f} (95 %, {result['rows']} rows)"
    )
    return said
