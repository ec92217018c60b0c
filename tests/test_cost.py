"""The cost model: finds the coefficients of what it times, whatever they are. Tests never assert a real time."""

import itertools

import numpy as np
import pytest

from beexformer.model import cost


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still unless a test moves it."""
    now = [0.0]
    monkeypatch.setattr(cost.time, "perf_counter", lambda: now[0])
    return now


def test_it_finds_the_coefficients_of_what_it_times(clock: list[float]) -> None:
    truth = cost.CostModel((0.03, 0.01, 0.004, 0.00002), 0.0, "")

    def run(tokens: int, blocks: int) -> None:
        clock[0] += truth.milliseconds(tokens, blocks) / 1000

    result = cost.calibrate(run, 128, (1, 3, 6))
    assert result.coefficients == pytest.approx(truth.coefficients, rel=1e-6)
    assert result.fit_error < 1e-9
    assert result.milliseconds(25, 2) == pytest.approx(truth.milliseconds(25, 2))


def test_a_run_that_was_held_up_now_and_then_does_not_count(clock: list[float]) -> None:
    truth, held_up = cost.CostModel((0.03, 0.01, 0.004, 0.00002), 0.0, ""), itertools.cycle([9, *[1] * 10])

    def run(tokens: int, blocks: int) -> None:
        clock[0] += next(held_up) * truth.milliseconds(tokens, blocks) / 1000

    assert cost.calibrate(run, 128, (1, 6)).milliseconds(25, 2) == pytest.approx(truth.milliseconds(25, 2), rel=1e-6)


def test_lengths_that_were_held_up_every_time_do_not_count(clock: list[float]) -> None:
    truth = cost.CostModel((0.03, 0.01, 0.004, 0.00002), 0.0, "")

    def run(tokens: int, blocks: int) -> None:
        clock[0] += (1.6 if tokens in (96, 128) else 1) * truth.milliseconds(tokens, blocks) / 1000

    result = cost.calibrate(run, 512, (1, 6))
    for tokens in (8, 25, 64, 256):
        assert result.milliseconds(tokens, 2) == pytest.approx(truth.milliseconds(tokens, 2), rel=0.02)


def test_it_follows_a_machine_that_becomes_busy_and_is_deaf_to_single_rows(clock: list[float]) -> None:
    model = cost.CostModel((0.03, 0.01, 0.004, 0.00002), 0.0, "")
    before, now = model.milliseconds(25, 2), 1.5 * model.milliseconds(9, 3)
    for _ in range(100):
        model.observe(9, 3, now)
    assert model.milliseconds(25, 2) == pytest.approx(1.5 * before, rel=0.02)
    model.observe(25, 2, 1e6)
    assert model.milliseconds(25, 2) == pytest.approx(1.5 * before, rel=0.03)


@pytest.mark.parametrize(("max_tokens", "depths"), [(3, (1,)), (48, (6,)), (512, (1, 2, 3))])
def test_every_length_and_depth_of_a_network_is_within_reach(
    clock: list[float], max_tokens: int, depths: tuple[int, ...]
) -> None:
    timed: list[tuple[int, int]] = []

    def run(tokens: int, blocks: int) -> None:
        timed.append((tokens, blocks))
        clock[0] += 0.2

    cost.calibrate(run, max_tokens, depths)
    assert max(timed) == (max_tokens, depths[-1])
    assert {blocks for _, blocks in timed} == set(depths)
    assert all(timed.count(point) >= 3 for point in timed), "the quickest of fewer would be an accident"


def test_it_learns_another_machine_from_the_rows_that_are_run() -> None:
    truth = cost.CostModel((0.05, 0.004, 0.006, 0.00009))
    model = cost.of_level(384, "x86-64-v4-vpopcntdq")
    rng = np.random.default_rng(0)
    for tokens, blocks, late in zip(
        np.exp(rng.uniform(1.5, 6, 20_000)).astype(int), rng.integers(1, 7, 20_000), rng.random(20_000), strict=True
    ):
        held_up = 5 if late < 0.1 else 1  # a tenth of the rows says nothing about the machine
        model.observe(tokens, blocks, held_up * truth.milliseconds(tokens, blocks))
    for tokens, blocks in itertools.product((6, 25, 64, 128, 400), (1, 3, 6)):
        assert model.milliseconds(tokens, blocks) == pytest.approx(truth.milliseconds(tokens, blocks), rel=0.15)


def test_days_of_texts_of_one_length_leave_what_is_known_of_others() -> None:
    model, truth = cost.of_level(384, "x86-64-v4-vpopcntdq"), cost.of_level(384, "x86-64-v4-vpopcntdq")
    for noise in np.random.default_rng(0).normal(1, 0.1, 200_000):
        model.observe(25, 3, noise * truth.milliseconds(25, 3))
    assert model.coefficients == pytest.approx(truth.coefficients, rel=0.1)
    for tokens in (8, 128, 512):
        assert model.milliseconds(tokens, 6) == pytest.approx(truth.milliseconds(tokens, 6), rel=0.1)


def test_a_level_costs_more_with_the_network_and_less_with_instructions() -> None:
    small, large = cost.of_level(384, "x86-64-v4-vpopcntdq"), cost.of_level(768, "x86-64-v4-vpopcntdq")
    assert 2 < large.milliseconds(128, 6) / small.milliseconds(128, 6) < 4
    assert small.milliseconds(25, 6) < cost.of_level(384, "x86-64-v3").milliseconds(25, 6)
    assert small.milliseconds(25, 6) < cost.of_level(384, "x86-64-v2").milliseconds(25, 6)
    assert small.calibrated_at is None
    assert cost.of_level(384, "armv8-a").coefficients == cost.of_level(384, "x86-64-v3").coefficients


def test_nothing_costs_less_than_nothing(clock: list[float]) -> None:
    def run(tokens: int, blocks: int) -> None:
        clock[0] += (0.5 + 0.01 * tokens - 0.001 * blocks * tokens) / 1000

    assert min(cost.calibrate(run, 128, (1, 6)).coefficients) == 0
