"""The cost model: finds the coefficients of what it times, whatever they are. Tests never assert a real time."""

import itertools

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
    before = model.milliseconds(25, 2)
    for _ in range(100):
        model.observe(9, 3, 1.5 * cost.CostModel(model.coefficients, 0.0, "").milliseconds(9, 3))
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


def test_what_is_assumed_grows_with_the_network_and_shrinks_with_instructions() -> None:
    small, large = cost.assumed(384, "x86-64-v4-vpopcntdq"), cost.assumed(768, "x86-64-v4-vpopcntdq")
    assert 2 < large.milliseconds(128, 6) / small.milliseconds(128, 6) < 4
    assert small.milliseconds(25, 6) < cost.assumed(384, "x86-64-v3").milliseconds(25, 6)
    assert small.milliseconds(25, 6) < cost.assumed(384, "native").milliseconds(25, 6)
    assert small.calibrated_at is None


def test_nothing_costs_less_than_nothing(clock: list[float]) -> None:
    def run(tokens: int, blocks: int) -> None:
        clock[0] += (0.5 + 0.01 * tokens - 0.001 * blocks * tokens) / 1000

    assert min(cost.calibrate(run, 128, (1, 6)).coefficients) == 0
