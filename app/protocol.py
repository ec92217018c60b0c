"""
HTTP/1.1 on the wire: uvicorn's protocol on httptools, and what it leaves out.

- A head has bounds (431, 414), and so has the time of a head and of a body (408). A connection without a request ends
  without a word.
- An answer that begins before its request has ended is the last one, but the client can read it: what it still sends is
  read and discarded within a bound before the connection is closed.
- `Upgrade` is declined as RFC 9110 lets a server do: the request is answered as if it hadn't asked.
- A client that ends its sending side gets its answer. A client that has left looks the same; so one that waits is sent
  an interim response now and then, which the system of a client that has left answers with a reset.
- A request to one of `Connections.direct` that has come whole is answered there, in the call that read it.
- Times are kept by one look at all connections a second (app/connections.py); a request costs no timer.

The scope of a request has "bee.received", seconds on the clock of the event loop (time.monotonic()) when its first
bytes were there to be read; and "bee.refused", an exception, once its body is late or broken: then the next `receive`
returns.
"""

import fcntl
import logging
import math
import random
import socket
import sys
import termios
import time
from array import array
from typing import Any
from uuid import uuid4

import httptools
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from beexformer.app.connections import Connections, Direct, Reply
from beexformer.app.errors import MEDIA_TYPE, NotHTTP, problem
from beexformer.app.transport import Transport

MAX_HEADERS = 100
MAX_HEAD_BYTES = 32 * 1024
MAX_TARGET_BYTES = 8 * 1024
DISCARD_BYTES, DISCARD_SECONDS = 32 * 1024 * 1024, 10.0  # of a refused request
UNREAD_SECONDS = 30.0  # for a client to take its answer
TCP_INFO_BYTES = 56  # up to and with tcpi_last_data_recv, milliseconds since data came
CLOSE = b"connection: close\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
log = logging.getLogger("bee.error")


class Protocol(HttpToolsProtocol):
    """One connection."""

    server_state: Connections
    receiving = False  # a request has begun and hasn't ended
    in_head = False  # and neither has its head
    head_bytes = 0  # of the head being read, in earlier data
    header_bytes = 0  # of its headers so far
    keep_alive = True  # as the newest request wants it
    asked = False  # a first request has begun
    direct: Direct | None = None  # what may answer the request being read without the app, which hasn't got it yet
    body = b""  # of that request so far
    replied = False  # by it, to a request that came with the one being read
    declining = False  # an upgrade; the parser has stopped
    deaf = False  # what still comes is discarded
    discarded = 0  # bytes
    closing = False  # nothing more is answered
    lost = False  # and the socket is no longer ours

    # called by the transport

    def connection_made(self, transport: Any) -> None:
        self.wire = transport
        self.socket = transport.get_extra_info("socket")
        self.out = Transport(transport, self)
        super().connection_made(self.out)  # type: ignore[arg-type]
        limits = self.server_state.limits
        self.received = now = time.monotonic()
        self.deadline = now + limits.head
        # spread, so that what connected together doesn't come back together
        self.retires = now + limits.connection * random.uniform(0.9, 1.1) if limits.connection else math.inf
        self.server_state.counted(len(self.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = self.lost = True
        self.server_state.half_closed.discard(self)
        super().connection_lost(exc)
        if not self._unanswered():
            self.cycle = None  # type: ignore[assignment]  # which knows this connection: neither would ever go
        self.server_state.counted(len(self.connections))

    def data_received(self, data: bytes) -> None:
        if self.deaf or self.closing:
            self.discarded += len(data)
            if self.discarded > DISCARD_BYTES:
                self.transport.abort()
            return
        self.received = self.server_state.came(self.loop, self._waited())
        if self.in_head and self.head_bytes > MAX_HEAD_BYTES:
            self._refuse(HTTPException(431, f"the head of the request is larger than {MAX_HEAD_BYTES} bytes"))
            return
        self.replied = False
        self._feed(data)
        if self.in_head:
            self.head_bytes += len(data)
        elif self.direct:  # the rest of its body is still to come
            self._start()

    def _waited(self) -> float:
        """Seconds since the system got the data that is handed over now: in its queues, also that of connections which
        nobody has taken yet, or because the event loop is late."""
        try:
            info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
        except (AttributeError, OSError):  # another system, or no TCP
            return 0.0
        return int.from_bytes(info[TCP_INFO_BYTES - 4 :], sys.byteorder) / 1000

    def eof_received(self) -> bool:  # type: ignore[override]
        """True keeps the connection: the client sends nothing more but may still read."""
        if self.closing or self.receiving or not self._unanswered():
            return False
        self.cycle.keep_alive = False
        self.server_state.half_closed.add(self)
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self.deadline = time.monotonic() + UNREAD_SECONDS

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.closing:
            idle = time.monotonic() + self.server_state.limits.keep_alive
            self.deadline = math.inf if self._unanswered() else idle

    # called by the parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["bee.received"] = self.received  # type: ignore[typeddict-unknown-key]
        self.receiving = self.in_head = self.asked = True
        self.head_bytes = self.header_bytes = 0
        self.deadline = self.received + self.server_state.limits.head

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_TARGET_BYTES:
            raise HTTPException(414, f"path and query are longer than {MAX_TARGET_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.header_bytes += len(name) + len(value)
        if len(self.headers) >= MAX_HEADERS or self.header_bytes > MAX_HEAD_BYTES:
            raise HTTPException(431, f"send at most {MAX_HEADERS} headers, of {MAX_HEAD_BYTES} bytes together")
        if self.in_head:  # a trailer behind the body is nothing that a key or a type may come from
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            self.declining = True
            return
        self.in_head = False
        if self.closing:  # with the answer to the request before it
            return
        self.deadline = self.received + self.server_state.limits.body
        if self.url in self.server_state.direct and self._ordinary():
            self.direct, self.body = self.server_state.direct[self.url], b""
        else:
            self._start()

    def _ordinary(self) -> bool:
        """Nothing of the request, but perhaps its body, keeps it from being answered at once. One at a time: others
        that came with it have their turns as tasks."""
        waits = self.replied or self.flow.write_paused or self.expect_100_continue or self._unanswered()
        return not waits and self.parser.get_method() == b"POST" and self.parser.get_http_version() == "1.1"

    def _start(self) -> None:
        """Give the request to the app, with what has come of its body."""
        direct, self.direct = self.direct, None
        super().on_headers_complete()
        self.keep_alive = self.cycle.keep_alive
        self.cycle.keep_alive = False  # should it be answered before it has ended
        if direct and self.body:
            super().on_body(self.body)

    def on_body(self, body: bytes) -> None:
        if self.direct:
            self.body += body
        elif not self.closing:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.declining:
            return
        self.receiving = False
        if self.closing:
            return
        self.deadline = math.inf
        if self.direct:
            result = self._ask(self.direct)
            if isinstance(result, Reply):
                self._reply(result)
                return
            self.scope.update(result)  # type: ignore[typeddict-item]
            self._start()
        if not self.cycle.response_started:
            self.cycle.keep_alive = self.keep_alive and not self._last()
        super().on_message_complete()

    def _ask(self, direct: Direct) -> Reply | dict[str, Any]:
        try:
            return direct(self.headers, self.body, self.received)
        except Exception:  # a bug, that the parser would take for nonsense in the request
            log.exception("a request could not be answered at once")
            return {}

    def _last(self) -> bool:
        """The answer to the request that was received is the last of its connection, whatever its client wishes."""
        return self.server_state.draining or self.received > self.retires

    def _reply(self, reply: Reply) -> None:
        """Send a whole answer in place of the app's."""
        self.direct, self.replied = None, True
        self.server_state.total_requests += 1
        last = self._last() or not self.parser.should_keep_alive()
        self._write(reply, last=last)
        if last:
            self.close()
        else:
            self.deadline = time.monotonic() + self.server_state.limits.keep_alive

    def _write(self, reply: Reply, *, last: bool) -> None:
        first, lines, body = STATUS_LINE[reply.status] + self.server_state.default_lines, reply.headers, reply.body
        end = CLOSE if last else b"\r\n"
        self.transport.write(b"%b%bcontent-length: %d\r\n%b%b" % (first, lines, len(body), end, body))

    # called by the cycle of request and response, and by Connections

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self.out.flush()
        if self.lost:
            self.cycle = None  # type: ignore[assignment]
        if self.closing:
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif not self.receiving:
            idle = UNREAD_SECONDS if self.flow.write_paused else self.server_state.limits.keep_alive
            self.deadline = time.monotonic() + idle

    @property
    def answering(self) -> bool:
        """An answer has begun and hasn't ended."""
        return self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete

    @property
    def idle(self) -> bool:
        """Between two requests. A connection that is still to send its first is not, and neither is one whose next has
        come and waits for the event loop: to close that one would reset it."""
        return self._between and self.asked and not self._unread()

    @property
    def fresh(self) -> bool:
        """Nothing of a first request has come."""
        return self._between and not self.asked and not self._unread()

    @property
    def _between(self) -> bool:
        return not self.closing and not self.receiving and not self._unanswered()

    def _unread(self) -> bool:
        """The system has data that the event loop hasn't handed over yet."""
        waiting = array("i", [0])
        try:
            fcntl.ioctl(self.socket.fileno(), termios.FIONREAD, waiting)
        except OSError:  # it is closed
            return False
        return waiting[0] > 0

    def announce_close(self) -> None:
        """The answer that is being made says that it is the last one."""
        if self._unanswered() and not self.cycle.response_started:
            self.cycle.keep_alive = self.keep_alive = False

    def close(self) -> None:
        """End the connection after what was written."""
        if self.closing:
            return
        self.out.flush()
        self.closing = True
        if not self.receiving and not self.deaf:
            self.deadline = time.monotonic() + UNREAD_SECONDS
            self.wire.close()
            return
        # to close now would reset the connection under a client that is still sending and hasn't read the answer
        self.deadline = time.monotonic() + DISCARD_SECONDS
        self.flow.resume_reading()
        self.wire.write_eof()

    def expire(self, now: float) -> None:
        """The deadline has passed."""
        if self.closing or self.flow.write_paused:
            self.transport.abort()
        elif self.in_head:
            self._refuse(HTTPException(408, f"the head took longer than {self.server_state.limits.head:g} s"))
        elif self.receiving:
            self.deadline = now + DISCARD_SECONDS
            self._refuse(HTTPException(408, f"the body took longer than {self.server_state.limits.body:g} s"))
        elif not self._unread():
            self.close()

    def probe(self) -> None:
        """Send something to a client that has ended its sending side and waits."""
        if self.cycle.response_started or self.cycle.scope["http_version"] != "1.1":
            self.server_state.half_closed.discard(self)
        else:
            self.transport.write(INTERIM)

    def _unanswered(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, HTTPException) else NotHTTP("the path makes no sense"))
        except httptools.HttpParserError as error:
            self._refuse(NotHTTP(f"this is no HTTP/1.1 request: {error}"))

    def _decline_upgrade(self, rest: bytes) -> None:
        """Read the request again without its wish for another protocol, for which the parser stops before a body."""
        self.declining = False
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            self._refuse(HTTPException(405, "this is no proxy"))
            return
        lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                tokens = (token.strip() for token in value.split(b","))
                value = b", ".join(token for token in tokens if token.lower() not in (b"upgrade", b"http2-settings"))
            if name not in (b"upgrade", b"http2-settings"):
                lines.append(b"%s: %s" % (name, value))
        self.received = self.scope["bee.received"]  # type: ignore[typeddict-item]
        self.parser = httptools.HttpRequestParser(self)
        self._feed(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def _refuse(self, error: HTTPException) -> None:
        """Say what is wrong with the request, and end the connection."""
        self.deaf = True
        if not self._unanswered():
            request_id = uuid4().hex
            self._write_problem(error, request_id)
            path = self.url.split(b"?")[0].decode("latin-1") if self.receiving else ""
            self.server_state.refused(path, error.status_code, time.monotonic() - self.received, request_id)
            self.close()
        elif self.in_head or not self.receiving:  # earlier ones are owed their answers; then the connection ends
            self.cycle.keep_alive = self.receiving = self.in_head = False
            self.deadline = math.inf
        elif self.cycle.response_started:
            self.cycle.keep_alive = False
        else:  # its app is waiting for the body
            self.cycle.scope["bee.refused"] = error  # type: ignore[typeddict-unknown-key]
            self.cycle.message_event.set()

    def _write_problem(self, error: HTTPException, request_id: str) -> None:
        body = problem(error, request_id=request_id).model_dump_json(exclude_none=True).encode()
        lines = f"content-type: {MEDIA_TYPE}\r\nx-request-id: {request_id}\r\n"
        self._write(Reply(error.status_code, lines.encode(), body), last=True)
