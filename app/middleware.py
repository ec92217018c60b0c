"""
What every request meets before it is routed and after it is answered: an id, a key, a body limit, a log line, a 500.

Plain ASGI: it adds headers on the way out and reads no body. Knows nothing of models or queues.
"""

import logging
from collections.abc import Callable, Mapping
from random import getrandbits
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from beexformer.app.admission import OPEN_UNDER, Admission
from beexformer.app.context import RequestContext
from beexformer.app.errors import BUG, kind, respond
from beexformer.app.logs import access
from beexformer.app.prefix import route_path

QUIET = (
    "/livez",
    "/readyz",
    "/metrics",
    "/v2/health/live",
    "/v2/health/ready",
)  # logged at debug only, as are those files
errors = logging.getLogger("bee.error")


def has_texts(path: str) -> bool:
    """Requests to this path have texts to classify: one that is refused as a whole counts as one text."""
    return path in ("/classify", "/classify/batch") or (path.startswith("/v2/") and path.endswith("/infer"))


class RequestMiddleware:
    """`refused(path, status, seconds)` is told of each answer whose endpoint has not counted its items."""

    def __init__(self, app: ASGIApp, *, admission: Admission, refused: Callable[[str, int, float], None]) -> None:
        self.app, self.admission, self.refused = app, admission, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, path = dict(scope["headers"]), route_path(scope)
        context = RequestContext.begin(scope, request_id_of(headers))
        status, received = 0, 0
        unfinished = b"content-length" in headers or b"transfer-encoding" in headers  # more of the body is to come

        async def receive_bounded() -> Message:
            nonlocal received, unfinished
            message = await receive()
            if unfinished and "bee.refused" in scope:
                raise scope["bee.refused"]
            if unfinished and message["type"] == "http.disconnect":
                raise HTTPException(499, "the client left before it had sent the whole body")
            unfinished = message.get("more_body", False)
            received += len(message.get("body", b""))
            # a body without a length: refused as soon as it has grown too long
            if received > self.admission.max_body_bytes:
                raise self.admission.too_large()
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = message["headers"]
                added.append((b"x-request-id", context.request_id.encode()))
                if context.phases:
                    added.append((b"server-timing", context.server_timing))
            await send(message)

        key = None
        try:
            try:
                key = self.admission.check(path, headers)
                # HEAD is answered as GET; the server leaves the body out
                routed = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
                await self.app(routed, receive_bounded, send_with_headers)
            except Exception as error:
                if status:
                    raise  # too late for a problem: the server closes the connection
                response = _problem(error, scope, context.request_id)
                await response(scope, receive, send_with_headers)
        finally:
            self._settle(scope["method"], path, key, context, status)

    def _settle(self, method: str, path: str, key: int | None, context: RequestContext, status: int) -> None:
        """Once a request is over: its key's quota pays for its items, it is counted and has its line in the log."""
        if context.begun:
            context.begun.future.cancel()  # where it was refused after all
        self.admission.pay(key, context.items or 0)
        if not context.counted:
            self.refused(path, status or 500, context.seconds)
        quiet = path in QUIET or path.startswith(OPEN_UNDER)
        access.add(
            logging.DEBUG if quiet else logging.INFO,
            context.request_id,
            method,
            quote(path),
            status,
            context.seconds,
            context.model,
            context.exit_index,
            context.items,
        )


def log_refused(path: str, status: int, seconds: float, request_id: str) -> None:
    """The line of a request that was refused before it came here."""
    access.add(logging.INFO, request_id, None, quote(path), status, seconds)


def _problem(error: Exception, scope: Scope, request_id: str) -> Response:
    """What a request that failed is answered with; a fault of ours is logged with its traceback."""
    if kind(error) is BUG:
        errors.error("request failed", exc_info=error, extra={"fields": {"request_id": request_id}})
    return respond(error, scope)


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The caller's id where it is short and plain, else one of ours."""
    given = headers.get(b"x-request-id", b"")
    if 0 < len(given) <= 128 and given.isascii() and given.translate(None, b"-_.").isalnum():
        return given.decode()
    return f"{getrandbits(128):032x}"
