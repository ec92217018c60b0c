"""Clients that count what happens to each request, over fresh or kept connections, until they are told to stop."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Thread
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

BODY = json.dumps({"text": "a warm, funny film"}).encode()
HEAD = b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


def request(body: bytes = BODY, head: bytes = HEAD, extra: bytes = b"") -> bytes:
    return head + b"Content-Length: %d\r\n" % len(body) + extra + b"\r\n" + body


class Lost(Exception):
    """The connection was there, and the answer did not come."""


async def response(reader: asyncio.StreamReader) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of the next answer."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            first, *lines = head[:-4].split(b"\r\n")
            status = int(first.split()[1])
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
            if status >= 200:
                break
        return status, headers, await reader.readexactly(int(headers.get(b"content-length", b"0")))
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Lost(repr(error)) from None


@dataclass
class Traffic:
    """`clients` that ask one after another in a thread of their own, while the block lasts. `seen` counts statuses,
    "refused" (no connection) and "lost" (a connection, but no answer)."""

    url: str
    clients: int = 8
    fresh: bool = False
    check: Callable[[dict[str, Any]], object] = lambda answer: None
    seen: Counter[str | int] = field(default_factory=Counter)
    losses: list[str] = field(default_factory=list)

    def __enter__(self) -> "Traffic":
        self._stop = Event()
        self._thread = Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "a client hangs"

    async def _run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self.clients)))

    async def _client(self) -> None:
        parts = urlsplit(self.url)
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._stop.is_set():
            if streams is None:
                try:
                    streams = await asyncio.open_connection(parts.hostname, parts.port)
                except OSError:
                    self.seen["refused"] += 1
                    await asyncio.sleep(0.02)
                    continue
            reader, writer = streams
            try:
                writer.write(request())
                status, headers, body = await response(reader)
                self.seen[status] += 1
                if status == 200:
                    self.check(json.loads(body))
                closing = self.fresh or headers.get(b"connection") == b"close"
            except (Lost, ConnectionError) as error:
                self.seen["lost"] += 1
                self.losses.append(repr(error))
                closing = True
            if closing:
                writer.close()
                streams = None
        if streams:
            streams[1].close()
