"""
What every request meets before it is routed and after it is answered: an id, a key, a body limit, a log line, a 500.

Plain ASGI: it adds headers on the way out and reads no body. Knows nothing of models or queues.
"""

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from random import getrandbits
from urllib.parse import quote

from pydantic import SecretStr
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from beexformer.app.context import RequestContext
from beexformer.app.errors import BUG, kind, respond
from beexformer.app.logs import access
from beexformer.app.prefix import route_path
from beexformer.app.quotas import Quotas

OPEN = ("/", "/livez", "/readyz", "/metrics", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready")  # no key
ADMIN = "/admin/"  # below it only keys of its own count
OPEN_UNDER = ("/assets/", "/docs/")  # nor for the files under these
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

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Sequence[SecretStr],
        admin_keys: Sequence[SecretStr] = (),
        max_body_bytes: int,
        refused: Callable[[str, int, float], None],
        quota_per_minute: int = 0,
    ) -> None:
        self.app = app
        self.keys = [key.get_secret_value().encode() for key in keys]
        self.admin_keys = [key.get_secret_value().encode() for key in admin_keys]
        self.max_body_bytes = max_body_bytes
        self.refused = refused
        self.quotas = Quotas(len(keys), quota_per_minute) if quota_per_minute else None

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
            if received > self.max_body_bytes:  # a body without a length: refused as soon as it has grown too long
                raise self._too_large()
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = message["headers"]
                added.append((b"x-request-id", context.request_id.encode()))
                if context.phases:
                    tokenize, queue, compute = context.phases
                    timing = "tokenize;dur=%.3f, queue;dur=%.3f, compute;dur=%.3f"
                    added.append((b"server-timing", (timing % (1e3 * tokenize, 1e3 * queue, 1e3 * compute)).encode()))
            await send(message)

        key = None
        try:
            try:
                key = self._admit(path, headers)
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

    def _admit(self, path: str, headers: Mapping[bytes, bytes]) -> int | None:
        """The index of the request's key, where it needs one."""
        key, admin = None, path.startswith(ADMIN)
        keys = self.admin_keys if admin else self.keys
        if admin or (keys and path not in OPEN and not path.startswith(OPEN_UNDER)):
            scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
            given = headers.get(b"x-api-key") or (token.strip() if scheme.lower() == b"bearer" else b"")
            # every key is compared, each in constant time, so that the time taken tells nothing
            matches = [secrets.compare_digest(given, key) for key in keys]
            if not any(matches):
                detail = "send a valid key as X-API-Key or as Authorization: Bearer"
                raise HTTPException(401, detail, {"WWW-Authenticate": "Bearer"})
            key = None if admin else matches.index(True)
            if self.quotas and key is not None:
                self.quotas.admit(key)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            raise HTTPException(400, "Content-Length is no number")
        length = length.lstrip(b"0")  # thousands of digits are more than int() takes
        if len(length) > len(str(self.max_body_bytes)) or int(length or 0) > self.max_body_bytes:
            raise self._too_large()
        return key

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the body is larger than {self.max_body_bytes} bytes; send less text at once")

    def _settle(self, method: str, path: str, key: int | None, context: RequestContext, status: int) -> None:
        """Once a request is over: its key's quota pays for its items, it is counted and has its line in the log."""
        if self.quotas and key is not None:
            self.quotas.pay(key, context.items or 0)
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
