"""
What every request meets before it is routed and after it is answered: an id, a key, a body limit, a log line, a 500.

Plain ASGI: it adds headers on the way out and reads no body. Knows nothing of models or queues.
"""

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote
from uuid import uuid4

from pydantic import SecretStr
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from beexformer.app.errors import respond

OPEN = ("/", "/livez", "/readyz", "/metrics", "/docs", "/openapi.json")  # no key needed
OPEN_UNDER = ("/assets/", "/docs/")  # nor for the files under these
QUIET = ("/livez", "/readyz", "/metrics")  # logged at debug only, as are those files
log = logging.getLogger("bee.access")
errors = logging.getLogger("bee.error")


@dataclass(slots=True)
class RequestContext:
    """One request and its answer, as the endpoints and the log share it (request.state.exchange)."""

    request_id: str
    started: float
    counted: bool = False  # the endpoint has counted its items itself
    phases: tuple[float, float, float] | None = None  # seconds of tokenize, queue, compute
    model: str | None = None
    exit_index: int | None = None
    items: int | None = None

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def note(self, model: str, exit_index: int, phases: tuple[float, float, float]) -> None:
        """One item was answered. Tokenizing adds up over items; they wait and run side by side."""
        tokenize, queue, compute = self.phases or (0.0, 0.0, 0.0)
        self.phases = (tokenize + phases[0], max(queue, phases[1]), max(compute, phases[2]))
        self.model, self.exit_index = model, exit_index


class RequestMiddleware:
    """`refused(path, status, seconds)` is told of each answer whose endpoint has not counted its items."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Sequence[SecretStr],
        max_body_bytes: int,
        refused: Callable[[str, int, float], None],
    ) -> None:
        self.app = app
        self.keys = [key.get_secret_value().encode() for key in keys]
        self.max_body_bytes = max_body_bytes
        self.refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        exchange = RequestContext(_request_id(headers), time.perf_counter())
        scope.setdefault("state", {})["exchange"] = exchange
        status, received = 0, 0
        unfinished = "content-length" in headers or "transfer-encoding" in headers  # more of the body is to come

        async def receive_bounded() -> Message:
            nonlocal received, unfinished
            message = await receive()
            if unfinished and "bee.refused" in scope:
                raise scope["bee.refused"]
            if unfinished and message["type"] == "http.disconnect":
                raise HTTPException(499, "the client left before it had sent the whole body")
            unfinished = message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > self.max_body_bytes:  # a body without a length: refused as soon as it has grown too long
                raise self._too_large()
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = MutableHeaders(raw=message["headers"])
                added["X-Request-ID"] = exchange.request_id
                if exchange.phases:
                    tokenize, queue, compute = (f"{seconds * 1000:.3f}" for seconds in exchange.phases)
                    added["Server-Timing"] = f"tokenize;dur={tokenize}, queue;dur={queue}, compute;dur={compute}"
            await send(message)

        try:
            try:
                self._admit(scope["path"], headers)
                # HEAD is answered as GET; the server leaves the body out
                routed = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
                await self.app(routed, receive_bounded, send_with_headers)
            except Exception as error:
                if status:
                    raise  # too late for a problem: the server closes the connection
                if not isinstance(error, HTTPException):
                    fields = {"request_id": exchange.request_id}
                    errors.error("request failed", exc_info=error, extra={"fields": fields})
                response = respond(error, instance=quote(scope["path"]), request_id=exchange.request_id)
                await response(scope, receive, send_with_headers)
        finally:
            if not exchange.counted:
                self.refused(scope["path"], status or 500, exchange.seconds)
            self._log(scope, exchange, status)

    def _admit(self, path: str, headers: Headers) -> None:
        if self.keys and path not in OPEN and not path.startswith(OPEN_UNDER):
            scheme, _, token = headers.get("authorization", "").partition(" ")
            given = headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
            # every key is compared, each in constant time, so that the time taken tells nothing
            matches = [secrets.compare_digest(given.encode(), key) for key in self.keys]
            if not any(matches):
                detail = "send a valid key as X-API-Key or as Authorization: Bearer"
                raise HTTPException(401, detail, {"WWW-Authenticate": "Bearer"})
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise HTTPException(400, "Content-Length is no number")
        length = length.lstrip("0")  # thousands of digits are more than int() takes
        if len(length) > len(str(self.max_body_bytes)) or int(length or 0) > self.max_body_bytes:
            raise self._too_large()

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the body is larger than {self.max_body_bytes} bytes; send less text at once")

    def _log(self, scope: Scope, exchange: RequestContext, status: int) -> None:
        quiet = scope["path"] in QUIET or scope["path"].startswith(OPEN_UNDER)
        level = logging.DEBUG if quiet else logging.INFO
        if not log.isEnabledFor(level):
            return
        fields = {
            "request_id": exchange.request_id,
            "method": scope["method"],
            "path": quote(scope["path"]),
            "status": status,
            "ms": round(exchange.seconds * 1000, 3),
            "model": exchange.model,
            "exit_index": exchange.exit_index,
            "items": exchange.items,
        }
        log.log(
            level, "request", extra={"fields": {name: value for name, value in fields.items() if value is not None}}
        )


def log_refused(path: str, status: int, seconds: float, request_id: str) -> None:
    """The line of a request that was refused before it came here."""
    fields = {"request_id": request_id, "path": quote(path), "status": status, "ms": round(seconds * 1000, 3)}
    log.info("request", extra={"fields": fields})


def _request_id(headers: Headers) -> str:
    """The caller's id where it is short and plain, else one of ours."""
    given = headers.get("x-request-id", "")
    sane = (
        0 < len(given) <= 128 and given.isascii() and given.replace("-", "").replace("_", "").replace(".", "").isalnum()
    )
    return given if sane else uuid4().hex
