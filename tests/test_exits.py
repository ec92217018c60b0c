"""The rule and its rivals, with numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beexformer.model import exits

EVEN = np.array([0.0, 0.0])
SURE = np.array([0.0, math.log(3)])  # probabilities 1/4 and 3/4


def test_entropy_by_hand() -> None:
    assert exits.entropy(EVEN) == pytest.approx(math.log(2))
    assert exits.entropy(SURE) == pytest.approx(2 * math.log(2) - 0.75 * math.log(3))  # 0.5623 nats
    assert exits.entropy(np.array([1000.0, -1000.0])) == 0.0
    assert exits.entropy(np.zeros((4, 6))) == pytest.approx(np.full(4, math.log(6)))


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=6))
def test_entropy_is_that_of_the_softmax(logits: list[float]) -> None:
    p = exits.softmax(np.array(logits))
    assert p.sum() == pytest.approx(1)
    assert exits.entropy(np.array(logits)) == pytest.approx(-(p * np.log(np.maximum(p, 1e-300))).sum(), abs=1e-9)


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=4))
def test_the_entropy_of_several_labels_is_that_of_all_their_sets(logits: list[float]) -> None:
    """Eq. 12 over 2^m answers: a set's probability is the product of what each label says."""
    p = exits.sigmoid(np.array(logits))
    sets = np.array([1.0])
    for each in p:
        sets = np.concatenate([sets * each, sets * (1 - each)])
    assert sets.sum() == pytest.approx(1)
    expected = -(sets * np.log(np.maximum(sets, 1e-300))).sum()
    assert exits.entropy_of_label_sets(np.array(logits)) == pytest.approx(expected, abs=1e-9)


def test_the_rule_of_several_labels_begins_at_the_logarithm_of_all_their_sets() -> None:
    nothing, half = np.zeros((1, 2)), np.array([[0.0, 100.0]])  # 2 ln 2 nats, ln 2 nats
    leave = exits.entropy_gain(0.4, multi_label=True)
    assert leave(np.stack([nothing])).tolist() == [True], "nothing was gained"
    assert leave(np.stack([half])).tolist() == [False], "half of the entropy went"
    assert leave(np.stack([half, half])).tolist() == [True]
    assert exits.entropy_gain(-1, 0.51, multi_label=True)(np.stack([half])).tolist() == [True]
    assert exits.entropy_gain(-1, 0.49, multi_label=True)(np.stack([half])).tolist() == [False]


@pytest.mark.parametrize(
    ("previous", "current", "delta", "sure", "leaves"),
    [
        (0.5, 0.4, 0.1, 0.0, False),  # fell by a fifth
        (0.5, 0.4, 0.3, 0.0, True),
        (0.5, 0.5, 0.0, 0.0, False),  # a gain of nothing is not below nothing
        (0.5, 0.5, 1e-4, 0.0, True),
        (0.5, 0.6, -0.1, 0.0, True),  # rose by a fifth
        (0.5, 0.6, -0.3, 0.0, False),
        (0.5, 0.0, 1.0, 0.0, True),  # delta = 1 always leaves, also where the entropy underflows
        (0.5, 1e-6, 1.0, 0.0, True),
        (0.0, 0.0, -1.0, 0.0, True),  # nothing left to gain
        (0.5, 0.4, 0.1, 0.41, True),  # sure enough, whatever the block brought
        (0.5, 0.4, 0.1, 0.4, False),  # not below it
        (0.5, 0.6, -0.1, 0.4, True),  # not sure, but the entropy rose
        (0.5, 0.0, 0.1, 0.0, False),  # no threshold: even an entropy of nothing is not below it
    ],
)
def test_the_rule_by_hand(previous: float, current: float, delta: float, sure: float, leaves: bool) -> None:
    assert exits.should_exit(previous, current, delta, sure) is leaves


def test_a_row_leaves_where_the_entropy_stops_falling() -> None:
    trace = np.stack([SURE, 2 * SURE, 2 * SURE, 3 * SURE])
    assert exits.exit_layer(trace, exits.entropy_gain(1e-4)) == 3
    assert exits.exit_layer(trace, exits.entropy_gain(-1e-4)) == 4
    assert exits.exit_layer(trace, exits.entropy_gain(1.0)) == 1
    assert exits.exit_layer(trace, exits.entropy_gain(1.0), min_blocks=4) == 4
    assert exits.exit_layer(trace, exits.entropy_gain(-1.0), max_blocks=2) == 2


def test_a_row_leaves_at_once_where_the_answer_is_sure() -> None:
    trace = np.stack([SURE, 2 * SURE, 3 * SURE, 3 * SURE])  # 0.81, 0.47 and 0.22 of ln 2
    assert exits.exit_layer(trace, exits.entropy_gain(1e-4)) == 4
    assert [exits.exit_layer(trace, exits.entropy_gain(1e-4, share)) for share in (1.0, 0.82, 0.8, 0.48, 0.4)] == [
        1,
        1,
        2,
        2,
        3,
    ]
    assert exits.exit_layer(trace, exits.entropy_gain(1e-4, 1.0), min_blocks=3) == 3, "bounds hold for it too"


def test_the_other_policies() -> None:
    trace = np.stack([EVEN, SURE, 2 * SURE, 4 * SURE])
    assert exits.exit_layer(trace, exits.absolute_entropy(0.57)) == 2
    assert exits.exit_layer(trace, exits.max_probability(0.85)) == 3
    assert exits.exit_layer(trace, exits.max_probability(2.0)) == 4
    assert exits.exit_layer(np.stack([SURE, -SURE, SURE, SURE, SURE]), exits.patience(2)) == 5
    assert exits.exit_layer(np.stack([SURE, SURE, SURE, -SURE]), exits.patience(2)) == 3


@pytest.mark.parametrize(
    "policy",
    [
        *(exits.entropy_gain(delta) for delta in (-0.3, 1e-4, 0.3, 1.0)),
        *(exits.entropy_gain(delta, 0.6) for delta in (-1.0, 1e-4)),
        *(exits.absolute_entropy(nats) for nats in (0.1, 0.8)),
        *(exits.max_probability(share) for share in (0.6, 0.99)),
        *(exits.patience(steps) for steps in (0, 1, 3, 9)),
    ],
)
def test_all_rows_at_once_leave_as_each_alone(policy: exits.Policy) -> None:
    logits = np.random.default_rng(0).normal(0, 1, (50, 5, 3)).cumsum(1)
    logits[:5] *= 1000  # entropies of zero
    assert exits.exit_layers(logits, policy).tolist() == [exits.exit_layer(z, policy) for z in logits]
    between = exits.exit_layers(logits, policy, 2, 4).tolist()
    assert between == [exits.exit_layer(z, policy, 2, 4) for z in logits]


def test_the_surest_exit_is_one_that_was_walked() -> None:
    trace = np.stack([SURE, -2 * SURE, EVEN, 4 * SURE])
    assert [exits.surest(trace, taken) for taken in (1, 2, 3, 4)] == [1, 2, 2, 4]
    assert exits.surest(np.stack([SURE, -SURE, SURE]), 3) == 1, "the first of equals"
