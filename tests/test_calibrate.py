"""Temperatures, with numbers worked out by hand and against sklearn, and class biases."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tiny import random_checkpoint

from beexformer.model.exits import entropy, softmax
from beexformer.training import calibrate
from beexformer.training.export import network_of

SHIFT = np.array([0.6, -0.1, -0.5])


def drawn(
    n: int, spread: float = 2.0, exits: int = 2, m: int = 3, seed: int = 0, shift: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Logits [n, exits, m] and labels that are distributed as the first exit says once `shift` [m] is added to it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (n, exits, m))
    labels = np.array([rng.choice(m, p=p) for p in softmax(logits[:, 0] + shift)])
    return logits, labels


def loss(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(softmax(logits)[np.arange(len(labels)), labels]).mean())


def test_by_hand() -> None:
    """Three of four rows are right: the probability that fits best is 3/4, a difference of logits of ln 3."""
    logits = np.tile([0.0, 4.0], (4, 1, 1))
    [temperature] = calibrate.temperatures(logits, np.array([1, 1, 1, 0]))
    assert temperature == pytest.approx(4 / np.log(3))


def test_overconfidence_is_taken_back() -> None:
    logits, labels = drawn(4000, exits=1)
    assert calibrate.temperatures(logits * 3, labels) == pytest.approx(3, rel=0.1)
    assert calibrate.temperatures(logits / 3, labels) == pytest.approx(1 / 3, rel=0.1)


def test_it_is_the_minimum_that_a_regression_finds() -> None:
    """For two classes 1 / T is the one coefficient of a logistic regression without intercept or penalty."""
    logits, labels = drawn(300, exits=1, m=2)
    margin = logits[:, 0, 1] - logits[:, 0, 0]
    regression = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8).fit(margin[:, None], labels)
    assert calibrate.temperatures(logits, labels) == pytest.approx(1 / regression.coef_[0], rel=1e-4)


def test_each_exit_has_its_own_or_all_share_one() -> None:
    logits, labels = drawn(500)
    own, common = calibrate.temperatures(logits, labels), calibrate.temperatures(logits, labels, "common")
    assert own / common == pytest.approx([1 / calibrate.APART, calibrate.APART]), "the second exit knows nothing"
    assert common[0] == common[1]
    pooled = logits.reshape(-1, 1, 3)
    assert common[0] == pytest.approx(calibrate.temperatures(pooled, labels.repeat(2))[0])
    assert loss(logits[:, 1] / own[1], labels) < loss(logits[:, 1] / common[1], labels) < loss(logits[:, 1], labels)
    assert (calibrate.temperatures(logits, labels, "none") == 1).all()


def test_what_asks_for_nothing_or_for_ever_stays_within_bounds() -> None:
    right, wrong = np.array([[[0.0, 9.0]]]), np.array([[[9.0, 0.0]]])
    for logits, bound in zip((right, wrong), calibrate.BOUNDS, strict=True):
        assert calibrate.temperatures(logits, np.array([1])) == pytest.approx(bound)


def test_an_exit_that_knows_nothing_still_is_an_exit() -> None:
    """Its entropy stays below that of no answer, ln m, or every row would leave there."""
    logits, labels = drawn(500)
    logits = logits[:, ::-1].copy()
    entropies = entropy(logits[:, 0] / calibrate.temperatures(logits, labels)[0])
    assert np.mean(entropies < 0.99 * np.log(3)) > 0.8


def test_temperatures_are_finite_where_nothing_is_said() -> None:
    assert np.isfinite(calibrate.temperatures(np.zeros((3, 2, 2)), np.array([0, 1, 1]))).all()


def test_cross_fitting_measures_on_rows_it_has_not_seen() -> None:
    logits, labels = drawn(40, exits=1)
    scaled = calibrate.cross_fitted(logits, labels)
    divided = (logits / scaled)[:, 0, 0]
    halves = [np.flatnonzero(np.isclose(divided, value)) for value in np.unique(divided.round(9))]
    assert [len(half) for half in halves] == [20, 20]
    for ours, other in (halves, halves[::-1]):
        assert divided[ours] == pytest.approx(calibrate.temperatures(logits[other], labels[other])[0])


def test_a_class_bias_is_the_shift_that_labels_have() -> None:
    logits, labels = drawn(4000, exits=1, shift=SHIFT)
    bias = calibrate.class_bias(logits, labels)
    assert bias == pytest.approx(SHIFT, abs=0.1)
    assert bias.mean() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("n", "spread"), [(60, 2.0), (500, 9.0)], ids=["few rows", "sure exits"])
def test_with_its_bias_every_class_is_as_probable_as_it_is_frequent(n: int, spread: float) -> None:
    """Over rows and exits, but for the half row of every class that is counted in: one row at most, of three."""
    logits, labels = drawn(n, spread, shift=SHIFT)
    said = softmax(logits + calibrate.class_bias(logits, labels)).sum((0, 1))
    assert said == pytest.approx(2 * np.bincount(labels), abs=1)


def test_the_bias_of_a_class_without_a_row_is_finite() -> None:
    logits, labels = drawn(200)
    bias = calibrate.class_bias(logits[labels < 2], labels[labels < 2])
    assert -9 < bias[2] < -1
    assert softmax(logits + bias).mean((0, 1))[2] < 0.02


def test_a_class_bias_is_fitted_to_exits_that_may_answer_and_at_their_temperatures() -> None:
    logits, labels = drawn(2000, shift=SHIFT)
    too_little, too_much = logits[:, 0], logits[:, 0] + 2 * SHIFT
    raw = 3 * np.stack([too_little, too_much], 1)
    fitted = calibrate.fit(raw, labels, biased=slice(0, 1))
    assert (fitted.temperatures == calibrate.temperatures(raw, labels)).all(), "as without a bias"
    assert fitted.bias == pytest.approx(calibrate.class_bias(raw[:, :1] / fitted.temperatures[0], labels))
    assert fitted.bias == pytest.approx(SHIFT, abs=0.15)
    assert calibrate.fit(raw, labels, biased=slice(1, 2)).bias == pytest.approx(-SHIFT, abs=0.25)
    assert not calibrate.fit(raw, labels).biased


def test_a_class_bias_is_adopted_where_it_pays() -> None:
    every = slice(0, 1)
    shifted, calibrated = drawn(400, exits=1, shift=SHIFT), drawn(400, exits=1)
    fitted = calibrate.fit_what_pays(*shifted, "per_exit", every)
    assert fitted.bias == pytest.approx(calibrate.fit(*shifted, biased=every).bias)
    assert fitted.biased
    assert calibrate.fit_what_pays(*shifted, "common", every).biased
    assert not calibrate.fit_what_pays(*shifted, "none", every).biased
    assert not calibrate.fit_what_pays(*calibrated, "per_exit", every).biased
    some = [part[: calibrate.FEWEST - 1] for part in drawn(400, exits=1, shift=5 * SHIFT)]
    assert not calibrate.fit_what_pays(some[0], some[1], "per_exit", every).biased, "too few rows"


def test_a_class_bias_that_pays_by_luck_is_not_adopted() -> None:
    """Of sets of rows that are calibrated as they are, few are given a bias: one standard error bounds luck."""
    adopted = [calibrate.bias_pays(*drawn(100, exits=1, seed=seed), "per_exit", slice(0, 1)) for seed in range(40)]
    assert np.mean(adopted) < 0.1


def test_halves_are_calibrated_by_the_bias_of_the_other_half() -> None:
    logits, labels = drawn(60, exits=1, shift=SHIFT)
    calibrated = calibrate.cross_fitted(logits, labels, biased=slice(0, 1))
    for ours, other in calibrate._folds(60, 2):
        fitted = calibrate.fit(logits[other], labels[other], biased=slice(0, 1))
        assert fitted.biased
        np.testing.assert_allclose(calibrated[ours], logits[ours] / fitted.temperatures[0] + fitted.bias)


def test_what_is_recorded_is_what_was_fitted() -> None:
    config = random_checkpoint().config
    nothing = calibrate.recorded({}, config)
    assert (nothing.temperatures == 1).all()
    assert not nothing.biased
    assert nothing.bias.shape == (config.n_class,)
    before_biases = calibrate.recorded({"calibration": {"kind": "per_exit", "temperatures": [2.0] * 6}}, config)
    assert before_biases.to_dict() == {"temperatures": [2.0] * 6}
    fitted = calibrate.Calibration(np.linspace(0.5, 3, 6), SHIFT[: config.n_class])
    again = calibrate.recorded({"calibration": fitted.to_dict()}, config)
    assert (again.temperatures == fitted.temperatures).all()
    assert (again.bias == fitted.bias).all()
    raw = drawn(5, exits=6, m=config.n_class)[0]
    np.testing.assert_allclose(fitted.of(raw)[:, 1], raw[:, 1] / fitted.temperatures[1] + fitted.bias)
    np.testing.assert_allclose(fitted.undo(fitted.of(raw)), raw)


@pytest.mark.parametrize("binary", [True, False])
def test_a_folded_network_says_what_is_calibrated(binary: bool) -> None:
    from beexformer.training.network import BEExformer

    network = network_of(random_checkpoint())
    if not binary:
        torch.manual_seed(1)
        network = BEExformer(type(network.config)(**{**network.config.to_dict(), "binary": False})).eval()
    ids, mask = torch.arange(1, 13).reshape(2, 6), torch.ones(2, 6, dtype=torch.bool)
    before = network(ids, mask).detach().numpy()
    fitted = calibrate.Calibration(np.linspace(0.5, 3, 6), SHIFT[: network.config.n_class])
    fitted.fold(network)
    np.testing.assert_allclose(network(ids, mask).detach().numpy(), fitted.of(before), rtol=1e-5, atol=1e-6)
    fitted.take_back(network)
    np.testing.assert_allclose(network(ids, mask).detach().numpy(), before, rtol=1e-5, atol=1e-6)


def test_calibration_error_by_hand() -> None:
    """Two rows at 3/4, one of them right; two at 1/2 (the bin [7/15, 8/15)), both right: (2 * 1/4 + 2 * 1/2) / 4."""
    sure, even = [0.0, np.log(3)], [0.0, 0.0]
    logits, labels = np.array([sure, sure, even, even]), np.array([1, 0, 0, 0])
    assert calibrate.expected_calibration_error(logits, labels) == pytest.approx(0.375)
    low, high = calibrate.reliability(logits, labels)
    assert low == {"rows": 2, "confidence": pytest.approx(0.5), "accuracy": 1.0}
    assert high == {"rows": 2, "confidence": pytest.approx(0.75), "accuracy": 0.5}
    assert calibrate.reliability(np.array([[0.0, 99.0]]), np.array([1]))[0]["accuracy"] == 1, "a probability of 1"


def test_the_exit_that_serves_is_the_one_that_is_measured() -> None:
    sure = [0.0, np.log(3)]
    logits = np.array([[[0.0, 0.1], sure, [5.0, 0.0]], [sure, [0.0, 0.1], [5.0, 0.0]]])
    assert calibrate.served(logits, 1.0).tolist() == [[0.0, 0.1], sure]
    assert calibrate.served(logits, 1e-4).tolist() == [[5.0, 0.0], [0.0, 0.1]]
    result = calibrate.measure(logits, logits / 2, np.array([0, 1]), 1e-4)
    assert result["rows"] == 2
    assert result["ece_before"] != result["ece_after"]
