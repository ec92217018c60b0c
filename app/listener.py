"""
The listening socket: bound once, shared by all processes, closed without a lost request.

A worker takes no connection while another worker has fewer, but leaves it to that one for a moment: with one
queue in the kernel whoever wakes first would take them all (docs/log.md has the numbers, also for SO_REUSEPORT, whose
queues are lost with their worker).
"""

import asyncio
import contextlib
import ctypes
import errno
import logging
import math
import os
import socket
import struct
import time
from collections.abc import Callable

from beexformer.app.connections import Connections
from beexformer.app.shared_state import SharedState
from beexformer.model.errors import BEEError

BACKLOG = 4096  # connections that may wait to be taken; the system has a limit of its own (net.core.somaxconn)
BURST = 64  # connections taken at once, at most,
PER_SECOND = 4000  # or so many for each second since the last time, where some were left then
YIELD_SECONDS = 0.002  # for a worker with fewer connections
PAUSE_SECONDS = 0.5  # where file descriptors have run out
FULL_SECONDS = 0.01  # where as many connections are held as may be
IDLE_SECONDS = 1.0  # of a connection that may make room then: its client is unlikely to send just now
QUIET_SECONDS, LAST_SECONDS = (
    0.1,
    1.0,
)  # the queue is empty, once nothing has come for so long; and after so long at most
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
SO_ATTACH_FILTER = 26
log = logging.getLogger("bee.listener")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; BEEError says why there can't be one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = (
            os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        )  # without Python's words
        raise BEEError(f"can't listen on {host} port {port}: {reason}") from None
    listener.setblocking(False)
    return listener


def address(listener: socket.socket) -> str:
    """As a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def shut_out(listener: socket.socket) -> None:
    """From now on no new connection begins, in none of the processes that share the socket; those begun can be taken.

    Closing the socket resets what waits in its queue. So the kernel is told first to drop each SYN, which the client's
    system sends again a second later, and is refused then. Where a system can't, the rest is as good as it gets."""
    program = [  # classic BPF on a packet from its TCP header on
        (0x30, 0, 0, 13),  # load the byte of flags
        (0x54, 0, 0, 0x02),  # and SYN
        (0x15, 0, 1, 0),  # if it isn't set,
        (0x06, 0, 0, 0xFFFFFFFF),  # let all of it through
        (0x06, 0, 0, 0),  # else nothing
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    with contextlib.suppress(OSError):
        listener.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(code))
        )


class Acceptor:
    """Takes connections for one process; `protocol` makes the protocol of each."""

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        connections: Connections,
        shared: SharedState,
        slot: int,
    ) -> None:
        self._listener, self._protocol, self._connections = listener, protocol, connections
        self._shared, self._slot = shared, slot
        self._loop = asyncio.get_running_loop()
        self._attaching: set[asyncio.Task[object]] = set()
        self._open = False
        self._complained = -1e9
        self._left = math.inf  # when connections were left in the queue, if they were at the last time

    def start(self) -> None:
        self._open = True
        self._loop.add_reader(self._listener, self._readable)

    def stop(self) -> None:
        """Take nothing more."""
        self._open = False
        self._loop.remove_reader(self._listener)

    async def take_last(self) -> None:
        """Take what is in the queue until it is empty, then close the socket."""
        self.stop()
        end = time.monotonic() + LAST_SECONDS
        quiet = time.monotonic() + QUIET_SECONDS
        while time.monotonic() < min(quiet, end):
            while self._take():
                quiet = time.monotonic() + QUIET_SECONDS
            await asyncio.sleep(QUIET_SECONDS / 10)
        self._listener.close()
        if self._attaching:
            await asyncio.wait(self._attaching)

    def _readable(self) -> None:
        if self._shared.superseded(self._slot):
            self.stop()
        elif self._shared.crowded(self._slot):
            self._pause(YIELD_SECONDS, self._take)
        elif (room := self._room()) < 1:
            self._full()
        else:
            # a loop with much to do comes by seldom: it takes more, as long as that makes it no fuller than others
            now, taken = time.monotonic(), 0
            most = min(room, max(BURST, PER_SECOND * (now - self._left)))
            while taken < most and not self._shared.crowded(self._slot, len(self._attaching)) and self._take():
                taken += 1
            self._left = now if taken >= most else math.inf

    def _take(self) -> bool:
        """Take one connection. False if there is none."""
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno in EXHAUSTED:
                self._exhausted(error)
            return error.errno == errno.ECONNABORTED  # it was there and has left
        connection.setblocking(False)
        task = self._loop.create_task(self._attach(connection))
        self._attaching.add(task)
        task.add_done_callback(self._attaching.discard)
        return True

    async def _attach(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it left meanwhile
            await self._loop.connect_accepted_socket(self._protocol, connection)

    def _room(self) -> int:
        """How many more connections may be held."""
        return self._connections.limits.most - len(self._connections.connections) - len(self._attaching)

    def _full(self) -> None:
        """As many connections as may be: what waits goes on waiting, and connections that idle make room."""
        closed = self._connections.close_idle(0.5, seconds=IDLE_SECONDS)
        self._complain(logging.WARNING, "as many connections as BEE_MAX_CONNECTIONS allows; new clients wait", closed)
        self._pause(FULL_SECONDS)

    def _exhausted(self, error: OSError) -> None:
        """No file descriptors: what waits goes on waiting, and half of the idle connections make room."""
        closed = self._connections.close_idle(0.5)
        reason = f"no connection can be taken ({error.strerror}): raise the limit of open files; new clients wait"
        self._complain(logging.ERROR, reason, closed)
        if self._open:
            self._pause(PAUSE_SECONDS)

    def _complain(self, level: int, message: str, closed: int) -> None:
        """At most every ten seconds."""
        if time.monotonic() - self._complained > 10:
            self._complained = time.monotonic()
            fields = {"connections": len(self._connections.connections), "closed": closed}
            log.log(level, message, extra={"fields": fields})

    def _pause(self, seconds: float, then: Callable[[], object] = lambda: None) -> None:
        self._loop.remove_reader(self._listener)

        def go_on() -> None:
            if self._open:
                self._loop.add_reader(self._listener, self._readable)
                then()

        self._loop.call_later(seconds, go_on)
