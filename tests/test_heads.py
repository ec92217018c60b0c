"""Heads in closed form and by regression, against what is known of them."""

import warnings

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from beexformer.training import heads


def clouds(rows: int, classes: int, apart: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    width, seed = 12, 0
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    spread = rng.uniform(0.3, 3, width)
    means = rng.normal(0, apart, (classes, width))
    return ((means[labels] + rng.normal(size=(rows, width))) * spread).astype(np.float32), labels


def test_the_discriminant_is_that_of_scikit_learn() -> None:
    x, labels = clouds(400, 3)
    targets = np.eye(3)[labels]
    ours = heads.Discriminant(x, targets)(0.0)(x)
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(x, labels).decision_function(x)
    np.testing.assert_allclose(ours - ours.mean(1, keepdims=True), theirs - theirs.mean(1, keepdims=True), atol=0.05)


def test_a_soft_target_counts_as_a_share_of_a_row() -> None:
    x, labels = clouds(60, 2)
    targets = np.eye(2)[labels]
    twice = np.concatenate([x, x])
    half = heads.Discriminant(x, 0.5 * targets + 0.5 * targets[:, ::-1])(0.5)
    both = heads.Discriminant(twice, np.concatenate([targets, targets[:, ::-1]]))(0.5)
    np.testing.assert_allclose(half.weight, both.weight, atol=1e-9)


def test_a_weak_pull_is_logistic_regression_and_a_strong_one_the_discriminant() -> None:
    x, labels = clouds(300, 3, apart=0.7)
    targets = np.eye(3)[labels]
    result = heads.Discriminant(x, targets)
    start = result(0.5)
    assert heads.cross_entropy(start(x), targets) > heads.cross_entropy(
        heads.regression(x, targets, result, 0.5, start, 0.01)(x), targets
    )
    strong = heads.regression(x, targets, result, 0.5, start, 1e6)
    np.testing.assert_allclose(strong.weight, start.weight, atol=1e-3)
    weak = heads.cross_entropy(heads.regression(x, targets, result, 0.5, start, 1e-6)(x), targets)
    exact = LogisticRegression(C=1e6, max_iter=5000).fit(x, labels)
    assert weak == pytest.approx(heads.cross_entropy(exact.decision_function(x), targets), abs=0.01)


def test_choices_and_predictions_are_of_rows_that_were_not_seen() -> None:
    """Noise can be learned by heart, and a head that is judged by its own rows would look good on it."""
    rng = np.random.default_rng(1)
    states = rng.normal(size=(120, 2, 64)).astype(np.float32)
    labels = rng.integers(0, 2, 120)
    result = heads.fit(states, np.eye(2)[labels])
    assert abs((result.cross_validated[:, 1].argmax(1) == labels).mean() - 0.5) < 0.15
    assert heads.cross_entropy(result.cross_validated[:, 1], np.eye(2)[labels]) == pytest.approx(np.log(2), abs=0.03)


def test_each_exit_has_its_own_head_and_threads_change_nothing() -> None:
    good, labels = clouds(200, 3)
    states = np.stack([np.random.default_rng(0).normal(size=good.shape).astype(np.float32), good], 1)
    result, again = (heads.fit(states, np.eye(3)[labels], threads) for threads in (1, 2))
    assert (result.cross_validated[:, 0].argmax(1) == labels).mean() < 0.6
    assert (result.cross_validated[:, 1].argmax(1) == labels).mean() > 0.95
    assert (result.heads[1](good).argmax(1) == labels).mean() > 0.95
    assert (result.cross_validated == again.cross_validated).all()


def test_temperatures_are_folded_in() -> None:
    x, labels = clouds(200, 2, apart=0.4)
    targets = np.eye(2)[labels]
    result = heads.fit(x[:, None], targets)
    assert heads.sharpness(result.cross_validated[:, 0], targets) == pytest.approx(1, abs=0.02)
    unfolded = result.choices[0].fit(x, targets)
    np.testing.assert_allclose(result.heads[0].weight * result.temperatures[0], unfolded.weight, rtol=1e-9)


def test_a_class_of_one_row_is_learned_without_a_word() -> None:
    x, labels = clouds(50, 2)
    labels = np.append(labels, 2)
    x = np.concatenate([x, x[:1] + 50])
    result = heads.fit(x[:, None], np.eye(3)[labels])
    assert result.heads[0](x[-1:]).argmax() == 2


def test_balanced_heads_find_what_is_rare() -> None:
    """One row in twenty is of the second class, and the two overlap: accuracy never says it, balance does."""
    rng = np.random.default_rng(0)
    labels = (np.arange(2000) % 20 == 0).astype(int)
    states = (rng.normal(size=(2000, 1, 4)) + 1.5 * labels[:, None, None]).astype(np.float32)
    targets = np.eye(2)[labels]
    plain = heads.fit(states, targets)
    even = heads.balanced(plain, targets)
    recall = [float((result.cross_validated[labels == 1, 0].argmax(1) == 1).mean()) for result in (plain, even)]
    assert recall[1] > recall[0] + 0.1
    assert recall[1] > 0.8
    assert np.allclose(even.heads[0](states[:, 0]), plain.heads[0](states[:, 0]) - np.log([0.95, 0.05]))


def test_few_rows_of_a_class_are_no_warning() -> None:
    states, targets = np.random.default_rng(0).normal(size=(22, 3, 8)), np.eye(3)[[0] * 10 + [1] * 10 + [2] * 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        heads.fit(states, targets, threads=3)


def test_the_seed_draws_the_folds_and_their_number_is_the_owners() -> None:
    labels = np.arange(60) % 3
    assert len(heads.folds_of(labels, 10)) == 10
    assert len(heads.folds_of(labels[:6], 10)) == 2, "no more than the largest class has rows"
    one, same, other = (heads.folds_of(labels, 5, seed)[0][1].tolist() for seed in (1, 1, 2))
    assert one == same != other
    states, targets = np.random.default_rng(0).normal(size=(60, 1, 8)), np.eye(3)[labels]
    first, second = (heads.fit(states, targets, seed=seed).cross_validated for seed in (1, 2))
    assert not np.array_equal(first, second)
