"""
Turns for work that comes in steps: short work on the event loop at once, the rest on one thread. Knows neither HTTP nor
models.

Work is a generator: each step does some of it and yields the milliseconds it expects to be left; what it returns is the
result.

- work begins at once, on the loop, and goes on while little is left of it, for two milliseconds at most: it never
  waited, and no thread was asked
- what says that more is left has further turns on the thread, the least first; what has waited counts as less, so that
  all of it gets there. A thread, because the system lets a waking loop go before it at once (docs/log.md)
- work past its deadline or left by its caller gets no further turn
"""

import asyncio
import heapq
import math
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

Result = TypeVar("Result")
Work = Generator[float, None, Result]

SHORT = 2.0  # milliseconds left up to which work goes on where it began
AT_ONCE = 0.002  # seconds that it may have there; it ends with the step in which they are over
TURN = 0.004  # seconds, likewise, of a turn on the thread
AGEING = 0.5  # milliseconds that count as less left, for each that has passed since the work came
LEARNING, SLOWEST = 0.05, 20.0  # of the pace at which work gets done: share of the newest turn, and bound


class Overloaded(Exception):
    """Too much waits already; `retry_after` seconds is when that should be over."""

    def __init__(self, wait: float, retry_after: int) -> None:
        super().__init__(f"requests wait {wait:.1f} s for their turn; try again in {retry_after} s")
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


@dataclass(slots=True, eq=False)
class _Waiting:
    """Work that waits for a turn on the thread; `left` milliseconds, `came` seconds on the loop's clock."""

    work: Work[Any]
    left: float
    came: float
    future: "asyncio.Future[Any]"
    timer: asyncio.TimerHandle

    def __lt__(self, other: "_Waiting") -> bool:
        # all grow older alike, so that two change places only when one has had a turn
        return self.left + AGEING * 1000 * self.came < other.left + AGEING * 1000 * other.came


class Scheduler:
    """One a process. `limit` is how many seconds of waiting `admit` allows."""

    def __init__(self, *, limit: float = math.inf) -> None:
        self.limit = limit
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="turns")
        self._heap: list[_Waiting] = []
        self._running: _Waiting | None = None  # it has a turn, and is not in the heap
        self._began = 0.0  # that turn
        self._pace = 1.0  # milliseconds that pass for each that is expected: the loop, and others, have the CPU as well

    @property
    def waiting(self) -> int:
        """Pieces of work that have, or wait for, a turn on the thread."""
        return len(self._heap) + (self._running is not None)

    @property
    def backlog(self) -> float:
        """Seconds in which what waits should be done."""
        running = self._running.left if self._running else 0.0
        return self._pace * (running + sum(waiting.left for waiting in self._heap)) / 1000

    def _ahead(self, newest: _Waiting) -> float:
        """Seconds in which what has its turns before that should be done."""
        running = min(self._running.left, 1000 * TURN) if self._running else 0.0
        return self._pace * (running + sum(waiting.left for waiting in self._heap if waiting < newest)) / 1000

    def admit(self, waited: float, *, behind: bool) -> None:
        """Raise Overloaded where a request that has `waited` seconds should be refused. `behind`: it is so long that
        what waits now is done before it."""
        wait = waited + (self.backlog if behind else 0.0)
        if wait > self.limit:
            raise overloaded(wait)

    def submit(self, work: "Work[Result]", timeout: float) -> "asyncio.Future[Result]":
        """Begin `work`; the future has its result, at once where it is short, or DeadlineExceeded after `timeout`
        seconds; or Overloaded at once, where it isn't short and would wait longer than `limit`. Cancel it to leave."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        if timeout <= 0:
            _expire(future)
            return future
        try:
            done, result = _turn(work, AT_ONCE, SHORT)
        except Exception as error:
            future.set_exception(error)
            return future
        if done:
            future.set_result(result)
            return future
        waiting = _Waiting(work, result, loop.time(), future, loop.call_later(timeout, _expire, future))
        if result > SHORT and (wait := self._ahead(waiting)) > self.limit:
            waiting.timer.cancel()
            work.close()
            future.set_exception(overloaded(wait))
            return future
        future.add_done_callback(lambda _: self._leave(waiting))
        heapq.heappush(self._heap, waiting)
        self._next()
        return future

    def close(self) -> None:
        """Whoever still waits is refused."""
        waiting = [*self._heap, *([self._running] if self._running else [])]
        for future in [one.future for one in waiting if not one.future.done()]:
            future.set_exception(Draining())
        self._heap.clear()
        self._thread.shutdown(wait=False)

    def _next(self) -> None:
        """A turn on the thread for the first in the heap, if there isn't one already."""
        if self._heap and not self._running:
            self._running = waiting = heapq.heappop(self._heap)
            self._began = waiting.future.get_loop().time()
            turn = asyncio.get_running_loop().run_in_executor(self._thread, _turn, waiting.work, TURN, math.inf)
            turn.add_done_callback(partial(self._turned, waiting))

    def _turned(self, waiting: _Waiting, turn: "asyncio.Future[tuple[bool, Any]]") -> None:
        self._running = None
        error = turn.exception()
        self._learn(waiting, 0.0 if error or turn.result()[0] else turn.result()[1])
        if waiting.future.done():  # late, or its caller left meanwhile
            waiting.work.close()
        elif error:
            waiting.future.set_exception(error)
        else:
            done, result = turn.result()
            if done:
                waiting.future.set_result(result)
            else:
                waiting.left = result
                heapq.heappush(self._heap, waiting)
        self._next()

    def _learn(self, waiting: _Waiting, left: float) -> None:
        """A turn has left that many milliseconds of what waited."""
        done, passed = waiting.left - left, 1000 * (waiting.future.get_loop().time() - self._began)
        if done > 0:
            self._pace += LEARNING * (min(max(passed / done, 1.0), SLOWEST) - self._pace)

    def _leave(self, waiting: _Waiting) -> None:
        """The future has its result, or nobody waits for it any more."""
        waiting.timer.cancel()
        if waiting in self._heap:
            self._heap.remove(waiting)
            heapq.heapify(self._heap)
            waiting.work.close()


def _turn(work: Work[Any], seconds: float, most: float) -> tuple[bool, Any]:
    """Steps while at most `most` milliseconds are left, until `seconds` are over: (True, the result), or (False,
    milliseconds left)."""
    end = time.perf_counter() + seconds
    try:
        left = next(work)
        while left <= most and time.perf_counter() < end:
            left = next(work)
    except StopIteration as stop:
        return True, stop.value
    return False, left


def overloaded(wait: float) -> Overloaded:
    """The refusal of what would wait, or has waited, so many seconds."""
    return Overloaded(wait, max(1, min(60, math.ceil(wait))))


def _expire(future: "asyncio.Future[Any]") -> None:
    if not future.done():
        future.set_exception(DeadlineExceeded())
