"""Resampled scores against sklearn's, and the verdicts."""

import numpy as np
import pytest

from beexformer.report import bootstrap
from beexformer.training.evaluate import METRICS


@pytest.mark.parametrize(
    ("metric", "m"), [(metric, m) for metric in METRICS for m in (2, 4) if (metric, m) != ("f1", 4)]
)
def test_scores_are_those_of_the_rows_that_were_drawn(metric: str, m: int) -> None:
    rng = np.random.default_rng(m)
    labels, predicted = rng.integers(0, m, 30), rng.integers(0, m, 30)
    counts = bootstrap.draws(30, resamples=50)
    result = bootstrap.resample(labels, predicted, m, metric, counts)
    assert result.value == pytest.approx(METRICS[metric](labels, predicted))
    for row, score in zip(counts, result.resampled, strict=True):
        drawn = np.repeat(np.arange(30), row.astype(int))
        assert score == pytest.approx(METRICS[metric](labels[drawn], predicted[drawn]))


@pytest.mark.parametrize("metric", METRICS)
def test_one_class_only_is_no_division_by_zero(metric: str) -> None:
    labels = np.array([1, 1, 0, 1])
    for predicted in (np.ones(4, int), np.zeros(4, int)):
        result = bootstrap.resample(labels, predicted, 2, metric, bootstrap.draws(4, resamples=20))
        assert np.isfinite(result.resampled).all()
        assert result.value == pytest.approx(METRICS[metric](labels, predicted))


def test_draws_are_drawn_with_replacement_and_from_a_seed() -> None:
    counts = bootstrap.draws(200, resamples=100)
    assert (counts.sum(1) == 200).all()
    assert np.mean(counts == 0) == pytest.approx(np.exp(-1), abs=0.02)
    assert (counts == bootstrap.draws(200, resamples=100)).all()
    assert (counts != bootstrap.draws(200, seed=1, resamples=100)).any()


def test_an_interval_covers_what_theory_says() -> None:
    """Accuracy of n rows: 1.96 standard errors of sqrt(p (1 - p) / n)."""
    labels = np.zeros(400, int)
    predicted = (np.arange(400) < 100).astype(int)
    counts = bootstrap.draws(400)
    right = bootstrap.resample(labels, predicted, 2, "accuracy", counts)
    nothing = bootstrap.resample(labels, 1 - labels, 2, "accuracy", counts)
    result = bootstrap.difference(right, nothing)
    assert result.value == 0.75
    assert (result.high - result.low) / 2 == pytest.approx(1.96 * np.sqrt(0.75 * 0.25 / 400), rel=0.05)


def test_pairing_knows_that_equal_answers_differ_by_nothing() -> None:
    labels = np.arange(50) % 2
    one = bootstrap.resample(labels, labels * 0, 2, "accuracy", bootstrap.draws(50, resamples=99))
    result = bootstrap.difference(one, one)
    assert (result.value, result.low, result.high) == (0, 0, 0)
    assert (result.at_least(), result.above()) == ("confirmed", "refuted")


def test_verdicts() -> None:
    assert bootstrap.Difference(0.1, 0.01, 0.2).above() == "confirmed"
    assert bootstrap.Difference(0.1, -0.01, 0.2).at_least() == "undecided"
    assert bootstrap.Difference(-0.1, -0.2, -0.01).at_least() == "refuted"
    assert bootstrap.Difference(-0.1, -0.2, -0.01).above(-0.3) == "confirmed"


def test_the_mean_is_taken_within_each_resample() -> None:
    a, b = bootstrap.Scores(0.5, np.array([0.4, 0.6])), bootstrap.Scores(1.0, np.array([0.8, 1.0]))
    result = bootstrap.mean([a, b])
    assert result.value == 0.75
    assert result.resampled == pytest.approx([0.6, 0.8])
