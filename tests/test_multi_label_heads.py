"""Discriminants of several labels a text, against what is known of them."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from beexformer.training import heads, multi_label_heads
from beexformer.training.decisions import decide
from beexformer.training.evaluate import METRICS


def rows(count: int, seed: int = 0, apart: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Three labels that apply independently, each along an axis of its own, and one that never does."""
    rng = np.random.default_rng(seed)
    applies = rng.random((count, 4)) < [0.5, 0.2, 0.05, 0.0]
    mixed = np.random.default_rng(9).normal(size=(4, 12))
    spread = np.random.default_rng(9).uniform(0.5, 2, 12)
    return ((apart * applies @ mixed + rng.normal(size=(count, 12))) * spread).astype(np.float32), applies


def test_each_label_has_the_discriminant_of_scikit_learn() -> None:
    x, applies = rows(400)
    ours = multi_label_heads.Discriminants(x, applies)(0.0)(x)
    for j in range(3):
        theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(x, applies[:, j]).decision_function(x)
        np.testing.assert_allclose(ours[:, j], theirs, atol=0.02 * np.abs(theirs).max())


def test_a_label_that_no_row_has_is_as_improbable_as_that() -> None:
    x, applies = rows(200)
    head = multi_label_heads.Discriminants(x, applies)(0.5)
    assert (head.weight[3] == 0).all()
    assert head.bias[3] == pytest.approx(np.log(0.5 / 199.5))


def test_predictions_are_of_rows_that_were_not_seen() -> None:
    rng = np.random.default_rng(1)
    states = rng.normal(size=(150, 2, 64)).astype(np.float32)
    noise = rng.random((150, 3)) < 0.5
    result = multi_label_heads.fit(states, noise.astype(float))
    right = (result.cross_validated[:, 1] > 0) == noise
    assert abs(right.mean() - 0.5) < 0.1
    assert multi_label_heads.cross_entropy(result.cross_validated[:, 1], noise) == pytest.approx(
        3 * np.log(2), abs=0.06
    )


def test_heads_tell_labels_and_choose_thresholds_and_threads_change_nothing() -> None:
    good, applies = rows(500)
    states = np.stack([np.random.default_rng(0).normal(size=good.shape).astype(np.float32), good], 1)
    result, again = (multi_label_heads.fit(states, applies.astype(float), threads) for threads in (1, 2))
    assert (result.cross_validated == again.cross_validated).all()
    assert result.thresholds == again.thresholds
    assert result.thresholds is not None
    x, new = rows(500, seed=5)
    said = decide(result.heads[1](x), np.array(result.thresholds))
    assert METRICS["micro_f1"](new, said) > 0.9
    assert result.unseen is not None
    cross_validated = METRICS["micro_f1"](applies, decide(result.cross_validated[:, 1], result.unseen))
    assert cross_validated == pytest.approx(METRICS["micro_f1"](new, said), abs=0.05), "the judgement holds on new rows"
    nothing = METRICS["micro_f1"](applies, decide(result.cross_validated[:, 0], result.unseen))
    assert nothing < 0.6, "and the exit that knows nothing is seen to"


def test_temperatures_are_a_labels_own_and_folded_in() -> None:
    x, applies = rows(300, apart=0.5)
    result = multi_label_heads.fit(x[:, None], applies.astype(float))
    assert result.temperatures.shape == (1, 4)
    assert len(set(result.temperatures[0].tolist())) > 1
    assert result.temperatures.max() <= result.temperatures.min() * multi_label_heads.APART**2 * 1.01
    unfolded = multi_label_heads.Discriminants(x, applies)(result.choices[0].shrinkage)
    np.testing.assert_allclose(result.heads[0].weight * result.temperatures[0][:, None], unfolded.weight, rtol=1e-9)


def test_scores_are_probabilities() -> None:
    """Of rows that were said to have a label with 30 %, about 30 % have it."""
    x, applies = rows(3000, apart=0.6)
    result = multi_label_heads.fit(x[:, None], applies.astype(float))
    p = 1 / (1 + np.exp(-result.cross_validated[:, 0, 0]))
    for low in (0.2, 0.4, 0.6):
        inside = (p >= low) & (p < low + 0.2)
        assert applies[inside, 0].mean() == pytest.approx(p[inside].mean(), abs=0.08)


def test_they_are_heads_as_others() -> None:
    x, applies = rows(60)
    assert isinstance(multi_label_heads.fit(x[:, None], applies.astype(float)), heads.Heads)
