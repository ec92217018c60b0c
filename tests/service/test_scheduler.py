"""The scheduler alone: neither HTTP nor a model is needed to see what it promises."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
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
            await idle(scheduler)
        assert scheduler.backlog == 0
        scheduler.close()

    asyncio.run(run())


async def idle(scheduler: Scheduler) -> None:
    while scheduler.waiting:
        await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def one_step_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a test says how many turns work takes."""
    monkeypatch.setattr(module, "TURN", 0.0)
    monkeypatch.setattr(module, "AT_ONCE", 0.0)


def threads(n: int, seen: list[Any]) -> Generator[float, None, int]:
    """Work of n steps that notes the thread of each."""
    for left in range(n - 1, 0, -1):
        seen.append(threading.get_ident())
        yield float(left)
    seen.append(threading.get_ident())
    return n


def steps(n: int, result: Any = None, seen: list[Any] | None = None) -> Generator[float, None, Any]:
    """Work of n steps, which are `n - 1 ... 1` milliseconds before its end; each notes the result in `seen`."""
    for left in range(n - 1, 0, -1):
        if seen is not None:
            seen.append(result)
        yield float(left)
    if seen is not None:
        seen.append(result)
    return result


def test_what_is_short_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 60.0)

    async def test(scheduler: Scheduler) -> None:
        for n in (1, 2, 3):
            seen: list[Any] = []
            future = scheduler.submit(threads(n, seen), 30)
            assert future.done()
            assert await future == n
            assert set(seen) == {threading.get_ident()}

    scheduled(test)


def test_what_is_longer_has_its_turns_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 60.0)

    async def test(scheduler: Scheduler) -> None:
        seen: list[Any] = []
        futures = [scheduler.submit(threads(n, seen), 30) for n in (4, 50)]
        assert not any(future.done() for future in futures)
        assert await asyncio.gather(*futures) == [4, 50]
        assert seen.count(threading.get_ident()) == 2, "only where each said how much it is"
        assert len(set(seen)) == 2

    scheduled(test)


def test_a_turn_has_as_many_steps_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN", 60.0)

    async def test(scheduler: Scheduler) -> None:
        seen: list[Any] = []
        first, second = scheduler.submit(steps(99, 1, seen), 30), scheduler.submit(steps(9, 2, seen), 30)
        assert await asyncio.gather(first, second) == [1, 2]
        assert seen[-8:] == [2] * 8, "no step of another between those of a turn"

    scheduled(test)


def test_the_loop_runs_meanwhile() -> None:
    async def test(scheduler: Scheduler) -> None:
        gate, looked = threading.Event(), 0

        def held() -> Generator[float, None, str]:
            yield 99.0
            assert gate.wait(30)
            return "held"

        future = scheduler.submit(held(), 30)
        for _ in range(9):
            await asyncio.sleep(0)
            looked += scheduler.submit(steps(1, 1), 30).result()
        assert not future.done()
        gate.set()
        assert await future == "held"
        assert looked == 9

    scheduled(test)


def test_least_left_goes_first() -> None:
    async def test(scheduler: Scheduler) -> None:
        seen: list[Any] = []
        gate = threading.Event()

        def held() -> Generator[float, None, None]:
            yield 0.5
            assert gate.wait(30)

        first = scheduler.submit(held(), 30)
        futures = [scheduler.submit(steps(n, n, seen), 30) for n in (9, 5, 2, 7)]
        gate.set()
        assert await asyncio.gather(*futures) == [9, 5, 2, 7]
        ends = [len(seen) - 1 - seen[::-1].index(n) for n in (2, 5, 7, 9)]
        assert ends == sorted(ends)
        await first

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
        await idle(scheduler)
        scheduler.admit(1.9, behind=True)

    scheduled(test, limit=2.0)


def test_work_that_would_wait_too_long_for_its_turn_is_refused_at_once() -> None:
    async def test(scheduler: Scheduler) -> None:
        gate = threading.Event()

        def held() -> Generator[float, None, None]:
            yield 5.0
            assert gate.wait(30)

        first = scheduler.submit(held(), 30)
        futures = [scheduler.submit(steps(101), 30) for _ in range(30)]  # a tenth of a second is left of each
        refused = [future for future in futures if future.done()]
        assert refused == futures[21:]
        assert all(isinstance(future.exception(), Overloaded) for future in refused)
        sooner = scheduler.submit(steps(6), 30)  # goes before all of them
        assert not sooner.done()
        gate.set()
        await asyncio.gather(first, sooner, *futures[:21])

    scheduled(test, limit=2.0)


def test_the_wait_is_that_of_the_pace_at_which_work_gets_done() -> None:
    async def test(scheduler: Scheduler) -> None:
        def slow() -> Generator[float, None, None]:
            for left in range(100, 0, -1):
                yield left / 100
                time.sleep(0.001)  # of which a hundredth was expected

        await scheduler.submit(slow(), 30)
        gate = threading.Event()

        def held() -> Generator[float, None, None]:
            yield 1000.0
            assert gate.wait(30)

        waits = scheduler.submit(held(), 30)
        assert scheduler.backlog > 2.0  # a second's work
        gate.set()
        await waits

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
        await idle(scheduler)
        assert seen == ["closed"]

    scheduled(test)


def test_work_whose_caller_left_gets_no_turn() -> None:
    async def test(scheduler: Scheduler) -> None:
        seen: list[Any] = []
        gone, stays = scheduler.submit(steps(9, "gone", seen), 30), scheduler.submit(steps(3, "stays", seen), 30)
        gone.cancel()
        assert await stays == "stays"
        assert seen.count("gone") <= 2, "it had begun on the thread already"

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
            assert seen.count(i) == arrival.length if result == i else 1 <= seen.count(i) <= arrival.length

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TURN", 0.0)
        patch.setattr(module, "AT_ONCE", 0.0)
        scheduled(test)
