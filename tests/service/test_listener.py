"""Connections are taken a few at a time by a loop that is on time, and as fast as they come by one that is not."""

import asyncio
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from beexformer.app import listener
from beexformer.app.connections import Connections, Limits
from beexformer.app.listener import BURST, Acceptor
from beexformer.app.shared_state import SERVING, SharedState

COMING = 4 * BURST


@pytest.fixture
def waiting() -> Iterator[tuple[socket.socket, list[socket.socket]]]:
    """A listening socket with connections in its queue."""
    with listener.listen("127.0.0.1", 0) as server:
        clients = [socket.create_connection(server.getsockname()) for _ in range(COMING)]
        yield server, clients
        for client in clients:
            client.close()


@pytest.mark.parametrize("late", [0.0, 0.5])
def test_a_late_loop_takes_more(
    waiting: tuple[socket.socket, list[socket.socket]], late: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = waiting
    clock = [100.0]
    monkeypatch.setattr(listener, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    class Taken(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            taken.append(transport)

    async def turns() -> list[int]:
        shared = SharedState(1)
        shared.state[0] = SERVING
        acceptor, each = Acceptor(server, Taken, Connections(Limits(1, 1, 1, 0)), shared, 0), []
        for _ in range(2):
            acceptor._readable()
            await asyncio.gather(*acceptor._attaching)
            each.append(len(taken))
            clock[0] += late
        for transport in taken:
            transport.abort()
        return each

    taken: list[Any] = []
    assert asyncio.run(turns()) == [BURST, COMING if late else 2 * BURST]
