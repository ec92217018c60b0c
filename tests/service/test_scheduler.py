"""The scheduler alone: neither HTTP nor a model is needed to see what it promises."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beexformer.app import scheduler as module
from beexformer.app.scheduler import DeadlineExceeded, Draining, Overloaded, Scheduler

Test = Callable[[Scheduler], Coroutine[Any, Any, None]]


def scheduled(test: Test, **options: Any) -> None:
    """Run the coroutine `test(scheduler)` on a loop of its own."""

    async def run() -> None:
        scheduler = Scheduler(**options)
        async with asyncio.timeout(60):
            await test(scheduler)
        assert not scheduler.waiting
        assert scheduler.backlog == 0

    asyncio.run(run())


@pytest.fixture(autouse=True)
def one_step_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a test says how many turns work takes."""
    monkeypatch.setattr(module, "TURN", 0.0)


def steps(n: int, result: Any = None, seen: list[Any] | None = None) -> Generator[float, None, Any]:
    """Work of n steps, which are `n - 1 ... 1` milliseconds before its end; each notes the result in `seen`."""
    for left in range(n - 1, 0, -1):
        if seen is not None:
            seen.append(result)
        yield float(left)
    if seen is not None:
        seen.append(result)
    return result


def test_what_one_turn_finishes_never_waits() -> None:
    async def test(scheduler: Scheduler) -> None:
        future = scheduler.submit(steps(1, "now"), 30)
        assert future.done()
        assert await future == "now"

    scheduled(test)


def test_a_turn_has_as_many_steps_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN", 60.0)

    async def test(scheduler: Scheduler) -> None:
        assert scheduler.submit(steps(1000, "all"), 30).done()

    scheduled(test)


def test_the_loop_runs_between_two_turns() -> None:
    async def test(scheduler: Scheduler) -> None:
        seen: list[Any] = []
        future = scheduler.submit(steps(4, "step", seen), 30)
        while not future.done():
            seen.append("loop")
            await asyncio.sleep(0)
        assert [one for one in seen if one == "step"] == ["step"] * 4
        at = [i for i, one in enumerate(seen) if one == "step"]
        assert all("loop" in seen[i:j] for i, j in pairwise(at))

    scheduled(test)


def test_least_left_goes_first() -> None:
    async def test(scheduler: Scheduler) -> None:
        seen: list[Any] = []
        futures = [scheduler.submit(steps(n, n, seen), 30) for n in (9, 5, 2, 7)]
        assert await asyncio.gather(*futures) == [9, 5, 2, 7]
        ends = [len(seen) - 1 - seen[::-1].index(n) for n in (2, 5, 7, 9)]
        assert ends == sorted(ends)

    scheduled(test)


def test_what_has_waited_long_comes_before_what_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGEING", 1e9)

    async def test(scheduler: Scheduler) -> None:
        seen: list[Any] = []
        first = scheduler.submit(steps(100, "long", seen), 30)
        await asyncio.sleep(0.002)
        await asyncio.gather(scheduler.submit(steps(3, "short", seen), 30), first)
        assert seen[-1] == "short"

    scheduled(test)


def test_too_long_a_wait_is_refused_with_a_time_to_come_back() -> None:
    async def test(scheduler: Scheduler) -> None:
        scheduler.admit(1.9, behind=True)
        long = scheduler.submit(steps(3001), 30)  # three seconds are left of it
        scheduler.admit(1.9, behind=False)
        with pytest.raises(Overloaded, match=r"wait 3\.0 s") as refused:
            scheduler.admit(0.0, behind=True)
        assert refused.value.retry_after == 3
        with pytest.raises(Overloaded):
            scheduler.admit(2.1, behind=False)
        long.cancel()
        await asyncio.sleep(0)
        scheduler.admit(1.9, behind=True)

    scheduled(test, limit=2.0)


def test_the_backlog_follows_the_share_that_turns_get() -> None:
    async def test(scheduler: Scheduler) -> None:
        def slow() -> Generator[float, None, None]:
            for left in range(100, 0, -1):
                time.sleep(0.001)
                yield float(left)

        future = scheduler.submit(slow(), 30)
        alone = scheduler.backlog * 1000
        for _ in range(50):  # as long for something else as for the work
            time.sleep(0.001)
            await asyncio.sleep(0)
        assert alone == 100
        assert scheduler.backlog * 1000 > 1.1 * (100 - 51)
        future.cancel()
        await asyncio.sleep(0)

    scheduled(test)


def test_a_deadline_ends_work() -> None:
    async def test(scheduler: Scheduler) -> None:
        seen: list[Any] = []
        with pytest.raises(DeadlineExceeded):
            await scheduler.submit(steps(1, 1, seen), 0)
        assert seen == []

        def forever() -> Generator[float, None, None]:
            try:
                while True:
                    yield 1.0
            finally:
                seen.append("closed")

        with pytest.raises(DeadlineExceeded):
            await scheduler.submit(forever(), 0.01)
        assert seen == ["closed"]

    scheduled(test)


def test_work_whose_caller_left_gets_no_turn() -> None:
    async def test(scheduler: Scheduler) -> None:
        seen: list[Any] = []
        gone, stays = scheduler.submit(steps(9, "gone", seen), 30), scheduler.submit(steps(3, "stays", seen), 30)
        gone.cancel()
        assert await stays == "stays"
        assert seen.count("gone") == 1

    scheduled(test)


def test_work_fails_alone() -> None:
    async def test(scheduler: Scheduler) -> None:
        def unlucky(at: int) -> Generator[float, None, None]:
            yield from steps(at)
            raise ZeroDivisionError("unlucky")

        at_once, later, other = scheduler.submit(unlucky(1), 30), scheduler.submit(unlucky(5), 30), steps(7, "other")
        with pytest.raises(ZeroDivisionError):
            at_once.result()
        assert await scheduler.submit(other, 30) == "other"
        with pytest.raises(ZeroDivisionError):
            await later

    scheduled(test)


def test_what_still_waits_at_the_end_is_refused() -> None:
    async def test(scheduler: Scheduler) -> None:
        future = scheduler.submit(steps(99), 30)
        scheduler.close()
        with pytest.raises(Draining):
            await future
        await asyncio.sleep(0)

    scheduled(test)


@dataclass(frozen=True)
class Arrival:
    """What comes: after how many turns of the loop, how long, and after how many its caller leaves."""

    after: int
    length: int
    leaves: int | None


ARRIVALS = st.lists(
    st.builds(Arrival, st.integers(0, 5), st.integers(1, 30), st.none() | st.integers(0, 20)), max_size=20
)


@given(ARRIVALS)
def test_in_any_order_each_is_done_exactly_once_or_was_left(arrivals: list[Arrival]) -> None:
    async def test(scheduler: Scheduler) -> None:
        seen: list[int] = []

        async def caller(i: int, arrival: Arrival) -> Any:
            for _ in range(arrival.after):
                await asyncio.sleep(0)
            future = scheduler.submit(steps(arrival.length, i, seen), 30)
            if arrival.leaves is not None:
                for _ in range(arrival.leaves):
                    await asyncio.sleep(0)
                if future.cancel():
                    return "left"
            return await future

        results = await asyncio.gather(*(caller(i, arrival) for i, arrival in enumerate(arrivals)))
        for i, (arrival, result) in enumerate(zip(arrivals, results, strict=True)):
            assert result == i or (result == "left" and arrival.leaves is not None)
            assert seen.count(i) == arrival.length if result == i else 1 <= seen.count(i) < arrival.length
        await asyncio.sleep(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TURN", 0.0)
        scheduled(test)
