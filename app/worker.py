"""
One serving process, from its fork to its end: event loop, connections, signs of life, drain.

SIGTERM  drain: not ready any more, each answer the last of its connection; new connections are still taken
SIGUSR1  retire: others take the new connections; ends when its own have had their last answer
SIGQUIT  finish: take what waits in the queue of the socket, answer it, end
"""

import asyncio
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import uvicorn
import uvloop
from starlette.types import ASGIApp

from beexformer.app.connections import Connections
from beexformer.app.listener import Acceptor
from beexformer.app.protocol import Protocol
from beexformer.app.shared_state import LEAVING, SERVING, SharedState

TICK_SECONDS = 0.25  # signs of life
MESSAGE_BYTES = 65536  # between worker and parent
FIRST_REQUEST_SECONDS = 1.0  # at the end, for a connection that has sent nothing yet
log = logging.getLogger("bee.worker")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker stands: its slot of the shared state, the socket it takes from, and its channel to its parent."""

    shared: SharedState
    slot: int
    listener: socket.socket
    parent: socket.socket


class Worker:
    """Serves `app` while the context of `lifespan` lasts; `drained` is called once the end has begun.

    `state` is what the shared state says of it once it takes connections. `drain_seconds` after SIGTERM, or
    `answer_seconds` after it stopped listening, its time is up."""

    def __init__(
        self,
        app: ASGIApp,
        place: Place,
        connections: Connections,
        *,
        drain_seconds: float,
        answer_seconds: float,
        state: int = SERVING,
        lifespan: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext,
        drained: Callable[[], None] = lambda: None,
    ) -> None:
        self.app, self.place, self.connections, self.state = app, place, connections, state
        self.drain_seconds, self.answer_seconds = drain_seconds, answer_seconds
        self.lifespan, self.drained = lifespan, drained
        self._ticks = 0
        self._patience = 0.0  # for idle connections to ask once more
        self._takes_last = True
        self._asking = asyncio.Lock()
        self._answer: asyncio.Future[str | None] | None = None
        connections.counted = self._count

    def run(self) -> None:
        """Until the end."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent decides
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        for number, act in (
            (signal.SIGTERM, self._drain),
            (signal.SIGUSR1, self._retire),
            (signal.SIGQUIT, self._ending.set),
        ):
            loop.add_signal_handler(number, act)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())  # what came before the handlers comes now
        self.place.parent.setblocking(False)
        loop.add_reader(self.place.parent, self._told)
        config = uvicorn.Config(
            self.app, http=Protocol, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
            proxy_headers=False,
        )  # fmt: skip
        config.load()
        self._acceptor = Acceptor(
            self.place.listener,
            lambda: Protocol(config, self.connections, {}, loop),
            self.connections,
            self.place.shared,
            self.place.slot,
        )
        self._tick()
        async with self.lifespan():
            self.place.shared.state[self.place.slot] = self.state
            self._acceptor.start()
            await self._ending.wait()
            await self._end()

    def _drain(self) -> None:
        self.drained()
        self.connections.drain()
        self._loop.call_later(self.drain_seconds + 2, self._ending.set)  # where no parent says when

    def _retire(self) -> None:
        self._takes_last, self._patience = False, self.drain_seconds
        self._ending.set()

    async def _end(self) -> None:
        if self._takes_last:
            await self._acceptor.take_last()
        else:
            self._acceptor.stop()
        self.place.shared.state[self.place.slot] = LEAVING
        self.connections.drain()
        await self._all_gone(self._patience)
        self.connections.close_idle()
        await self._all_gone(FIRST_REQUEST_SECONDS)
        self.connections.close_idle(fresh=True)
        await self._all_gone(self.answer_seconds)
        cut = self.connections.abort()
        if cut:
            log.warning("%d connections were still open %g s after the last was taken", cut, self.answer_seconds)

    async def _all_gone(self, seconds: float) -> None:
        """Until no connection is left, or the time is up."""
        end = time.monotonic() + seconds
        while self.connections.connections and time.monotonic() < end:
            await asyncio.sleep(0.01)

    def _tick(self) -> None:
        shared, slot = self.place.shared, self.place.slot
        shared.beats[slot] += 1
        self.connections.probe()
        if self._ticks % round(1 / TICK_SECONDS) == 0:
            self.connections.sweep()
            self.connections.head_all([(b"date", formatdate(usegmt=True).encode())])
        self._ticks += 1
        self._loop.call_later(TICK_SECONDS, self._tick)

    def _count(self, connections: int) -> None:
        self.place.shared.connections[self.place.slot] = connections

    async def ask(self, wanted: dict[str, Any]) -> str | None:
        """Have the parent load what is `wanted` (app/deployment.py:Change has the words) and all workers serve it. What
        kept it from doing so, in one sentence, or None once they do."""
        async with self._asking:
            self._answer = self._loop.create_future()
            self.place.parent.send(json.dumps(wanted).encode())
            os.kill(os.getppid(), signal.SIGUSR2)
            return await self._answer

    def _told(self) -> None:
        """The parent answers, or is no more."""
        message = self.place.parent.recv(MESSAGE_BYTES)
        if not message:
            log.error("the parent process is gone; so ends this one")
            os._exit(1)
        if self._answer and not self._answer.done():
            self._answer.set_result(json.loads(message)["problem"])
