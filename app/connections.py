"""
The open connections of a process: the bounds they share, and what happens to all of them at once.

Knows when a connection's time is up; what is said on it is app/protocol.py's.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from uvicorn.server import ServerState

from beexformer.app.memory import give_back_heap
from beexformer.app.settings import Settings

if TYPE_CHECKING:
    from beexformer.app.protocol import Protocol


TICK = 0.01  # seconds in which the system may count, at most
MANY = 500  # connections whose memory is worth giving back
REST = 0.0001  # seconds between two turns, from which on the loop has slept
Headers = list[tuple[bytes, bytes]]


class Reply(NamedTuple):
    """A whole answer; `headers` are lines, but those that the server adds to every answer."""

    status: int
    headers: bytes
    body: bytes


Direct = Callable[[Headers, bytes, float], Reply | dict[str, Any]]
"""(headers, body, when it was received) of a POST that is all there -> the answer to it; or what its scope is to hold
besides, where it goes to the app."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: that a client may take for a head and for a body, that a connection may idle, and that it may last (0
    for ever). `most` connections are held at once."""

    head: float
    body: float
    keep_alive: float
    connection: float
    most: int = 1_000_000

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """Those that the settings state."""
        return cls(
            settings.head_seconds,
            settings.body_seconds,
            settings.keep_alive_seconds,
            settings.connection_seconds,
            settings.max_connections,
        )


class Connections(ServerState):
    """uvicorn's state of a server, with our limits.

    `refused(path, status, seconds, request_id)` is told of each answer that a protocol gives before any app is asked,
    `counted(n)` of how many connections are open; `direct` has what answers requests to a target without the app."""

    def __init__(
        self,
        limits: Limits,
        refused: Callable[[str, int, float, str], None] = lambda *_: None,
        counted: Callable[[int], None] = lambda _: None,
        direct: Mapping[bytes, Direct] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.limits, self.refused, self.counted, self.direct = limits, refused, counted, direct
        self.default_lines = b""
        self._turn: float | None = None  # when this turn of the event loop began, once it has handed something over
        # the turn before; since when what is handed over may have come
        self._began = self._ended = self._earliest = 0.0
        self._most = 0  # open since memory was given back, by what `sweep` saw
        self.draining = False  # each answer from now on is the last of its connection
        self.half_closed: set[Protocol] = set()

    def came(self, loop: asyncio.AbstractEventLoop, waited: float) -> float:
        """When data was there that `loop` hands over now, on the clock of time.monotonic(). `waited` is what the system
        says, within TICK.

        All that the loop hands over in one turn was there when the turn began. Where the loop has not rested since the
        turn before, data may have come ever since that one began, and the system knows about when; where it has, it
        was woken at once."""
        now = time.monotonic()
        if self._turn is None:
            self._turn = now
            self._earliest = self._began if now - self._ended < REST else now
            loop.call_soon(self._turned)
        if waited > TICK:
            return min(self._turn, now - waited)
        return min(self._turn, max(self._earliest, now - waited))

    def _turned(self) -> None:
        assert self._turn
        self._began, self._ended, self._turn = self._turn, time.monotonic(), None

    def head_all(self, headers: Headers) -> None:
        """Every answer has these headers from now on."""
        self.default_headers = headers
        self.default_lines = b"".join(b"%s: %s\r\n" % header for header in headers)

    def drain(self) -> None:
        """Every answer that hasn't begun yet says `Connection: close`."""
        self.draining = True
        for connection in self._all():
            connection.announce_close()

    def sweep(self) -> None:
        """End what has taken too long; after a rush, give its memory back. To be called about once a second."""
        now = time.monotonic()
        for connection in self._all():
            if connection.deadline < now:
                connection.expire(now)
        self._most = max(self._most, len(self.connections))
        if self._most >= MANY and len(self.connections) < self._most / 4:
            self._most = len(self.connections)
            give_back_heap()

    def probe(self) -> None:
        """Find out which of the half-closed ones have left. To be called a few times a second."""
        for connection in list(self.half_closed):
            connection.probe()

    def close_idle(self, share: float = 1.0, *, fresh: bool = False, seconds: float = 0.0) -> int:
        """Close that share of those between two requests, for at least so many seconds, the longest idle first; the
        number closed.

        `fresh`: and of those that have not sent anything yet."""
        last = time.monotonic() + self.limits.keep_alive - seconds
        idle = sorted(
            (one for one in self._all() if (one.deadline <= last and one.idle) or (fresh and one.fresh)),
            key=lambda one: one.deadline,
        )
        closed = idle[: int(len(idle) * share + 0.5)]
        for connection in closed:
            connection.close()
        return len(closed)

    def abort(self) -> int:
        """Cut all of them; the number cut."""
        cut = self._all()
        for connection in cut:
            connection.transport.abort()
        return len(cut)

    def _all(self) -> "list[Protocol]":
        return cast("list[Protocol]", list(self.connections))
