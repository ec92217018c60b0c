"""
The transport of a connection as uvicorn's classes see it: only the protocol closes, and an answer is sent when it is
written.

uvloop sends at the end of a turn of the event loop, in which a busy one answers hundreds of requests: the first of them
would wait for the last. A head waits for what comes behind it, so that both are one packet.
"""

import contextlib
import os
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beexformer.app.protocol import Protocol

STATUS = b"HTTP/1.1 "


class Transport:
    """What `protocol` writes to."""

    def __init__(self, transport: Any, protocol: "Protocol") -> None:
        # weak: a connection that ended is gone at once, not when garbage is collected
        self.real, self.protocol = transport, weakref.proxy(protocol)
        self.descriptor = protocol.socket.fileno()
        self.head = b""

    def write(self, data: bytes) -> None:
        if self.protocol.answering and data.startswith(STATUS) and not self.head:
            self.head = data
        else:
            data, self.head = self.head + data, b""
            self._send(data)

    def flush(self) -> None:
        """Send a head that nothing came behind."""
        if self.head:
            data, self.head = self.head, b""
            self._send(data)

    def _send(self, data: bytes) -> None:
        sent = 0
        if not self.protocol.lost and not self.real.get_write_buffer_size():
            with contextlib.suppress(OSError):  # full, or gone: the transport will see to it
                sent = os.write(self.descriptor, data)
        if sent < len(data):
            self.real.write(data[sent:])

    def close(self) -> None:
        self.protocol.close()

    def is_closing(self) -> bool:
        closing: bool = self.protocol.closing
        return closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)
