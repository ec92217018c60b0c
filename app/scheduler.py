"""
One bounded queue, batches of what is waiting, threads that run them. Knows neither HTTP nor models.

- a batch is what waits when a thread is free, at most `max_batch_rows`; nothing is ever delayed to fill one
- items wait in lanes (one a model); a batch holds items of one lane, and the lane that has waited longest goes first
- a full queue refuses now; an item past its deadline or left by its caller never reaches a thread
- everything but `run` happens on the event loop, so there is nothing to lock
"""

import asyncio
import math
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Generic, TypeVar

Lane = TypeVar("Lane", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")


class Overloaded(Exception):
    """The queue is full; `retry_after` seconds is when it should have room again."""

    def __init__(self, waiting: int, retry_after: int) -> None:
        super().__init__(f"{waiting} rows are already waiting; try again in {retry_after} s")
        self.retry_after = retry_after


class Draining(Exception):
    """The process is about to end and takes nothing new."""

    retry_after = 1

    def __init__(self) -> None:
        super().__init__("the service is shutting down; try again, another process will answer")


class DeadlineExceeded(Exception):
    """The deadline passed before there was a result."""

    def __init__(self) -> None:
        super().__init__("the deadline passed before there was an answer")


@dataclass(frozen=True, slots=True)
class Done(Generic[Result]):
    """A result, the seconds its item waited and the seconds its batch ran."""

    result: Result
    queued: float
    computed: float


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Item]):
    item: Item
    since: float


class Scheduler(Generic[Lane, Item, Result]):
    """`run(lane, items)` is called on one of `threads` threads and returns one result for each item, in order."""

    def __init__(
        self,
        run: Callable[[Lane, list[Item]], Sequence[Result]],
        *,
        threads: int,
        max_batch_rows: int,
        max_queue: int,
        on_depth: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._run, self._on_depth = run, on_depth
        self._threads, self._max_batch_rows, self._max_queue = threads, max_batch_rows, max_queue
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="engine")
        self._lanes: dict[Lane, dict[asyncio.Future[Done[Result]], _Waiting[Item]]] = {}
        self._waiting = 0  # items in all lanes
        self._running = 0  # batches
        self._cutting = False  # a cut is already on its way
        self._row_seconds = 0.0  # what a row takes on one thread, measured; recent batches count more
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False

    @property
    def waiting(self) -> int:
        return self._waiting

    def submit(self, lane: Lane, item: Item, timeout: float) -> asyncio.Future[Done[Result]]:
        """Queue an item; the future has its result, or DeadlineExceeded after `timeout` seconds. Cancel it to leave."""
        if self.draining:
            raise Draining
        if timeout <= 0:
            raise DeadlineExceeded
        if self._waiting >= self._max_queue:
            raise Overloaded(self._waiting, self.retry_after())
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Done[Result]] = loop.create_future()
        timer = loop.call_later(timeout, _expire, future)

        def leave(future: asyncio.Future[Done[Result]]) -> None:
            timer.cancel()
            if self._lanes[lane].pop(future, None):  # expired or cancelled before a batch took it
                self._moved(-1)

        future.add_done_callback(leave)
        self._lanes.setdefault(lane, {})[future] = _Waiting(item, time.perf_counter())
        self._moved(+1)
        if not self._cutting:  # after this turn of the loop, so that items submitted together share batches
            self._cutting = True
            loop.call_soon(self._cut)
        return future

    def retry_after(self) -> int:
        """Whole seconds in which the measured rate drains what is waiting now."""
        return max(1, min(60, math.ceil(self._waiting * self._row_seconds / self._threads)))

    async def drain(self) -> None:
        """Refuse new items and return when the last one has its result."""
        self.draining = True
        await self._idle.wait()

    def close(self) -> None:
        """End the threads. The batch that is running ends first; what waits is refused."""
        self.draining = True
        for future in [future for queue in self._lanes.values() for future in queue if not future.done()]:
            future.set_exception(Draining())
        self._executor.shutdown(cancel_futures=True)

    def _cut(self) -> None:
        self._cutting = False
        loop = asyncio.get_running_loop()
        while self._waiting and self._running < self._threads:
            rows = min(self._max_batch_rows, math.ceil(self._waiting / (self._threads - self._running)))
            lane = min((lane for lane, queue in self._lanes.items() if queue), key=self._waiting_since)
            queue = self._lanes[lane]
            batch = {future: queue.pop(future) for future in list(islice(queue, rows))}
            live = {future: waiting for future, waiting in batch.items() if not future.done()}
            if live:
                self._running += 1
                job = loop.run_in_executor(self._executor, self._timed, lane, [w.item for w in live.values()])
                job.add_done_callback(partial(self._finish, live))
            self._moved(-len(batch))
        self._note_idle()

    def _waiting_since(self, lane: Lane) -> float:
        return next(iter(self._lanes[lane].values())).since

    def _timed(self, lane: Lane, items: list[Item]) -> tuple[float, Sequence[Result], float]:
        start = time.perf_counter()
        results = self._run(lane, items)
        return start, results, time.perf_counter()

    def _finish(
        self,
        batch: dict[asyncio.Future[Done[Result]], _Waiting[Item]],
        job: asyncio.Future[tuple[float, Sequence[Result], float]],
    ) -> None:
        self._running -= 1
        error = Draining() if job.cancelled() else job.exception()
        if error:
            for future in batch:
                if not future.done():
                    future.set_exception(error)
        else:
            start, results, stop = job.result()
            measured = (stop - start) / len(batch)
            self._row_seconds += (measured - self._row_seconds) * (0.1 if self._row_seconds else 1.0)
            for (future, waiting), result in zip(batch.items(), results, strict=True):
                if not future.done():
                    future.set_result(Done(result, start - waiting.since, stop - start))
        self._cut()

    def _moved(self, rows: int) -> None:
        self._waiting += rows
        self._on_depth(self._waiting)
        self._note_idle()

    def _note_idle(self) -> None:
        if self._waiting or self._running:
            self._idle.clear()
        else:
            self._idle.set()


def _expire(future: "asyncio.Future[Done[Result]]") -> None:
    if not future.done():
        future.set_exception(DeadlineExceeded())
