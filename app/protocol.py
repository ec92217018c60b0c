"""
HTTP/1.1 on the wire: uvicorn's protocol on httptools, and what it leaves out.

Each request's scope has "bee.received": seconds on the clock of the event loop (time.monotonic()) when the first bytes
of the request came in. Deadlines and durations count from there.
"""

import time

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Protocol(HttpToolsProtocol):
    """One connection."""

    def data_received(self, data: bytes) -> None:
        self.received = time.monotonic()
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["bee.received"] = self.received  # type: ignore[typeddict-unknown-key]
