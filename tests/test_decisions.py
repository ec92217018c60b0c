"""What is answered, and from which score on."""

import numpy as np
import pytest

from beexformer.training import decisions
from beexformer.training.evaluate import METRICS

LOGIT = np.log([0.2, 0.5, 0.8]) - np.log([0.8, 0.5, 0.2])  # of scores 0.2, 0.5, 0.8


def test_one_label_is_the_largest_and_several_are_those_that_reach_their_thresholds() -> None:
    assert decisions.decide(LOGIT[None]).tolist() == [2]
    assert decisions.decide(LOGIT[None], np.array([0.1, 0.5, 0.9])).tolist() == [[True, True, False]]
    each = np.array([[0.9, 0.9, 0.9], [0.1, 0.1, 0.1]])
    assert decisions.decide(np.stack([LOGIT, LOGIT]), each).tolist() == [[False] * 3, [True] * 3]


def test_sets_are_the_same_only_as_a_whole() -> None:
    a, b = np.array([[True, False], [True, True]]), np.array([[True, False], [True, False]])
    assert decisions.same(a, b).tolist() == [True, False]
    assert decisions.same(np.array([1, 2]), np.array([1, 3])).tolist() == [True, False]


def rows(count: int, share: float, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    applies = rng.random((count, 1)) < share
    return 1 / (1 + np.exp(-rng.normal(2 * applies - 2 + shift, 1))), applies


@pytest.mark.slow
def test_a_threshold_is_the_one_with_the_highest_f1() -> None:
    scores, applies = rows(400, 0.2, 0)
    [result] = decisions.thresholds(scores, applies)
    best = max(METRICS["f1"](applies[:, 0], scores[:, 0] >= t) for t in np.linspace(0.05, 0.95, 500))
    assert METRICS["f1"](applies[:, 0], scores[:, 0] >= result) >= best - 1e-3
    assert result < 0.45, "half is far too much for a label of a fifth of the rows"


def test_a_rare_label_takes_the_threshold_of_all() -> None:
    scores, applies = rows(400, 0.3, 0)
    rare, never = np.zeros((400, 1), bool), np.zeros((400, 1), bool)
    rare[:3] = True
    noise = np.random.default_rng(1).random((400, 2))
    everything = np.hstack([scores, noise]), np.hstack([applies, rare, never])
    result = decisions.thresholds(*everything)
    assert result[1] == result[2] != result[0]
    assert result[1] == decisions.thresholds(*(each.reshape(-1, 1) for each in everything))[0]
    assert decisions.thresholds(scores, np.zeros_like(applies)).tolist() == [0.5]


def test_no_row_is_judged_by_a_threshold_that_it_chose() -> None:
    scores, applies = rows(60, 0.4, 0)
    folds = np.arange(60) % 3
    result = decisions.cross_fitted(scores, applies, folds)
    changed = applies.copy()
    changed[folds == 0] ^= True
    again = decisions.cross_fitted(scores, changed, folds)
    assert (result[folds == 0] == again[folds == 0]).all()
    assert (result[folds == 1] != again[folds == 1]).any()


def test_equal_scores_are_not_parted() -> None:
    scores, applies = np.array([[0.5]] * 20), np.array([[True]] * 12 + [[False]] * 8)
    assert decisions.thresholds(scores, applies)[0] <= 0.5
