"""The scheduler alone: neither HTTP nor a model is needed to see what it promises."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from beexformer.app.scheduler import DeadlineExceeded, Draining, Overloaded, Scheduler


class Work:
    """A `run` that doubles numbers, notes its batches and can be held."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, lane: str, items: list[int]) -> list[int]:
        self.batches.append((lane, items))
        assert self.gate.wait(30)
        if -1 in items:
            raise ZeroDivisionError("unlucky")
        return [2 * item for item in items]

    @property
    def sizes(self) -> list[int]:
        return [len(items) for _, items in self.batches]


def scheduled(test: Callable[[Work, Scheduler[str, int, int]], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Run the coroutine `test(work, scheduler)` on a loop of its own."""

    async def run() -> None:
        work = Work()
        scheduler = Scheduler(work, **{"threads": 1, "max_batch_rows": 8, "max_queue": 100, **options})
        try:
            await test(work, scheduler)
        finally:
            work.gate.set()
            scheduler.close()

    asyncio.run(run())


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.001)


def test_waiting_rows_share_batches_and_get_their_own_results() -> None:
    async def test(work: Work, scheduler: Scheduler[str, int, int]) -> None:
        futures = [scheduler.submit("a", i, 30) for i in range(100, 120)]
        assert [(await future).result for future in futures] == list(range(200, 240, 2))
        assert work.sizes == [8, 8, 4]

    scheduled(test)


def test_a_lone_row_runs_at_once_and_says_how_long_it_took() -> None:
    async def test(work: Work, scheduler: Scheduler[str, int, int]) -> None:
        done = await scheduler.submit("a", 1, 30)
        assert done.queued >= 0
        assert done.computed >= 0
        assert work.sizes == [1]

    scheduled(test)


def test_free_threads_share_what_waits() -> None:
    async def test(work: Work, scheduler: Scheduler[str, int, int]) -> None:
        await asyncio.gather(*(scheduler.submit("a", i, 30) for i in range(6)))
        assert work.sizes == [2, 2, 2]

    scheduled(test, threads=3)


def test_lanes_are_not_mixed_and_the_one_that_waited_longest_goes_first() -> None:
    async def test(work: Work, scheduler: Scheduler[str, int, int]) -> None:
        work.gate.clear()
        first = scheduler.submit("a", 0, 30)
        await until(lambda: work.batches)
        rest = [scheduler.submit(lane, item, 30) for lane, item in (("b", 1), ("a", 2), ("b", 3))]
        work.gate.set()
        await asyncio.gather(first, *rest)
        assert work.batches == [("a", [0]), ("b", [1, 3]), ("a", [2])]

    scheduled(test)


def test_a_full_queue_says_so_at_once_and_recovers() -> None:
    async def test(work: Work, scheduler: Scheduler[str, int, int]) -> None:
        work.gate.clear()
        running = scheduler.submit("a", 0, 30)
        await until(lambda: work.batches)
        waiting = [scheduler.submit("a", i, 30) for i in (1, 2)]
        with pytest.raises(Overloaded, match="2 rows are already waiting") as refused:
            scheduler.submit("a", 3, 30)
        assert refused.value.retry_after >= 1
        work.gate.set()
        await asyncio.gather(running, *waiting)
        assert (await scheduler.submit("a", 4, 30)).result == 8

    scheduled(test, max_queue=2)


def test_retry_after_follows_the_measured_rate() -> None:
    async def test(work: Work, scheduler: Scheduler[str, int, int]) -> None:
        work.gate.clear()
        running = scheduler.submit("a", 0, 30)
        await until(lambda: work.batches)
        time.sleep(0.05)  # the row takes this long at least
        work.gate.set()
        await running
        work.gate.clear()
        held = [scheduler.submit("a", i, 30) for i in range(101)]
        await until(lambda: len(work.batches) == 2)
        assert scheduler.waiting == 100
        assert 5 <= scheduler.retry_after() <= 60  # 100 rows of 0.05 s
        work.gate.set()
        await asyncio.gather(*held)

    scheduled(test, max_batch_rows=1, max_queue=200)


def test_a_row_past_its_deadline_never_reaches_a_thread() -> None:
    async def test(work: Work, scheduler: Scheduler[str, int, int]) -> None:
        work.gate.clear()
        running = scheduler.submit("a", 0, 30)
        await until(lambda: work.batches)
        with pytest.raises(DeadlineExceeded):
            await scheduler.submit("a", 1, 0.01)
        assert scheduler.waiting == 0
        with pytest.raises(DeadlineExceeded):
            scheduler.submit("a", 2, 0)
        work.gate.set()
        await running
        await scheduler.drain()
        assert work.batches == [("a", [0])]

    scheduled(test)


def test_a_caller_who_left_costs_nothing() -> None:
    async def test(work: Work, scheduler: Scheduler[str, int, int]) -> None:
        work.gate.clear()
        running = scheduler.submit("a", 0, 30)
        await until(lambda: work.batches)
        gone, stays = scheduler.submit("a", 1, 30), scheduler.submit("a", 2, 30)
        gone.cancel()
        work.gate.set()
        await asyncio.gather(running, stays)
        assert work.batches == [("a", [0]), ("a", [2])]

    scheduled(test)


def test_a_caller_who_leaves_before_the_first_cut_costs_nothing() -> None:
    async def test(work: Work, scheduler: Scheduler[str, int, int]) -> None:
        scheduler.submit("a", 1, 30).cancel()
        await scheduler.drain()
        assert work.batches == []

    scheduled(test)


def test_a_failing_batch_fails_alone() -> None:
    async def test(work: Work, scheduler: Scheduler[str, int, int]) -> None:
        unlucky, next_batch = scheduler.submit("a", -1, 30), scheduler.submit("b", 2, 30)
        with pytest.raises(ZeroDivisionError):
            await unlucky
        assert (await next_batch).result == 4

    scheduled(test)


def test_draining_refuses_new_rows_and_finishes_the_waiting_ones() -> None:
    async def test(work: Work, scheduler: Scheduler[str, int, int]) -> None:
        work.gate.clear()
        futures = [scheduler.submit("a", i, 30) for i in range(3)]
        draining = asyncio.create_task(scheduler.drain())
        await until(lambda: work.batches)
        with pytest.raises(Draining):
            scheduler.submit("a", 9, 30)
        assert not draining.done()
        work.gate.set()
        await draining
        assert [future.result().result for future in futures] == [0, 2, 4]

    scheduled(test, max_batch_rows=1)


def test_the_depth_is_told_as_it_changes() -> None:
    depths: list[int] = []

    async def test(work: Work, scheduler: Scheduler[str, int, int]) -> None:
        await asyncio.gather(*(scheduler.submit("a", i, 30) for i in range(3)))
        assert depths == [1, 2, 3, 0]

    scheduled(test, on_depth=depths.append)
