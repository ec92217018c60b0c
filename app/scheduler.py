"""
Turns on one event loop, for work that comes in slices. Knows neither HTTP nor models.

Work is a generator: each step does a slice of it, of a millisecond or so, and yields the milliseconds it expects to be
left; what it returns is the result.

- work begins at once and has one turn: what is done by then never waited, and no thread was asked
- what is left waits for further turns, the least first; what has waited counts as less, so that all of it gets there
- between two turns the loop looks after everything else: nothing here holds it for longer than a turn and one step
- work past its deadline or left by its caller gets no further turn
"""

import asyncio
import heapq
import math
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

Result = TypeVar("Result")
Work = Generator[float, None, Result]

TURN = 0.001  # seconds; a turn ends with the step in which they are over
AGEING = 0.5  # milliseconds that count as less left, for each that has passed since the work came
RECENT = 0.02  # weight of one turn in the share of time that turns get


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
    """Work that has had its first turn; `left` milliseconds, `came` seconds on the loop's clock."""

    work: Work[Any]
    left: float
    came: float
    future: "asyncio.Future[Any]"
    timer: asyncio.TimerHandle | None = None

    def __lt__(self, other: "_Waiting") -> bool:
        # all grow older alike, so that two change places only when one has had a turn
        return self.left + AGEING * 1000 * self.came < other.left + AGEING * 1000 * other.came


class Scheduler:
    """One a process. `limit` is how many seconds of waiting `admit` allows."""

    def __init__(self, *, limit: float = math.inf) -> None:
        self.limit = limit
        self._heap: list[_Waiting] = []
        self._left = 0.0  # milliseconds, of all in the heap
        self._share = 1.0  # of the time, for turns, lately
        self._turned = 0.0  # when the last turn ended
        self._next_comes = False  # a call of `_next` is on its way

    @property
    def waiting(self) -> int:
        """Pieces of work that wait for another turn."""
        return len(self._heap)

    @property
    def backlog(self) -> float:
        """Seconds in which what waits should be done, at the share of time that turns have got lately."""
        return self._left / 1000 / self._share

    def admit(self, waited: float, *, behind: bool) -> None:
        """Raise Overloaded where a request that has `waited` seconds should be refused. `behind`: it is so long that
        what waits now is done before it."""
        wait = waited + (self.backlog if behind else 0.0)
        if wait > self.limit:
            raise Overloaded(wait, max(1, min(60, math.ceil(wait))))

    def submit(self, work: "Work[Result]", timeout: float) -> "asyncio.Future[Result]":
        """Begin `work`; the future has its result, at once if one turn was enough, or DeadlineExceeded after `timeout`
        seconds. Cancel it to leave."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(work, 0.0, loop.time(), loop.create_future())
        if timeout <= 0:
            _expire(waiting.future)
        elif self._turn(waiting):
            heapq.heappush(self._heap, waiting)
            self._left += waiting.left
            waiting.timer = loop.call_later(timeout, _expire, waiting.future)
            waiting.future.add_done_callback(lambda _: self._leave(waiting))
            if not self._next_comes:
                self._next_comes, self._turned = True, time.perf_counter()
                loop.call_soon(self._next)
        return waiting.future

    def close(self) -> None:
        """Whoever still waits is refused."""
        for waiting in self._heap:
            if not waiting.future.done():
                waiting.future.set_exception(Draining())

    def _turn(self, waiting: _Waiting) -> bool:
        """Steps until the work is done or TURN is over; whether some of it is left."""
        end = time.perf_counter() + TURN
        try:
            left = next(waiting.work)
            while time.perf_counter() < end:
                left = next(waiting.work)
        except StopIteration as stop:
            waiting.future.set_result(stop.value)
        except Exception as error:
            waiting.future.set_exception(error)
        else:
            waiting.left = left
            return True
        return False

    def _next(self) -> None:
        """A turn for the first in the heap; the next turn comes after whatever else the loop has to do."""
        if self._heap:
            waiting, start, turned = self._heap[0], time.perf_counter(), self._turned
            self._left -= waiting.left
            if not waiting.future.done() and self._turn(waiting):
                heapq.heapreplace(self._heap, waiting)
                self._left += waiting.left
            else:
                heapq.heappop(self._heap)
            self._turned = time.perf_counter()
            self._share += RECENT * ((self._turned - start) / (self._turned - turned) - self._share)
        self._next_comes = bool(self._heap)
        if self._heap:
            asyncio.get_running_loop().call_soon(self._next)
        else:
            self._left = 0.0  # without what rounding has left of it

    def _leave(self, waiting: _Waiting) -> None:
        """The future has its result, or nobody waits for it any more."""
        if waiting.timer:
            waiting.timer.cancel()
        if waiting in self._heap:
            self._heap.remove(waiting)
            heapq.heapify(self._heap)
            self._left -= waiting.left
        waiting.work.close()


def _expire(future: "asyncio.Future[Any]") -> None:
    if not future.done():
        future.set_exception(DeadlineExceeded())
