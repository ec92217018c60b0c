"""
The way of ordinary requests around the framework: what FastAPI does for an endpoint costs as much as half a sentence.

A request to one of `endpoints` is refused before its body is read where it must be; else its body goes through
pydantic-core, once, and the endpoint is called. Whatever is not perfectly in order (a body that is no JSON, a field
that is wrong, an odd header) goes to the framework, body and all, which says what is wrong with it: no rule stands here
twice.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from beexformer.app.context import RequestContext
from beexformer.app.prefix import route_path

Endpoint = Callable[[Any, Request, int | None], Awaitable[Response]]  # body, request, timeout in milliseconds
Refuse = Callable[[Scope, Mapping[bytes, bytes]], None]
JSON = (b"application/json", b"application/json; charset=utf-8")
TIMEOUT = b"x-request-timeout-ms"


class FastPath:
    """ASGI middleware, next to the router. `endpoints` has the path of each, what its body is, and the endpoint;
    `refuse(scope, headers)` raises where a request shall not even be read."""

    def __init__(
        self, app: ASGIApp, *, endpoints: Mapping[str, tuple[TypeAdapter[Any], Endpoint]], refuse: Refuse
    ) -> None:
        self.app, self.endpoints, self.refuse = app, endpoints, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        result = self._find(scope) if scope["type"] == "http" and scope["method"] == "POST" else None
        if not result:
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        self._check_type(headers)
        if not RequestContext.of(scope).begun:
            self.refuse(scope, headers)
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":  # the client has left
                await self.app(scope, _again([message], receive), send)
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        adapter, endpoint = result
        try:
            asked, timeout_ms = adapter.validate_json(body), timeout_of(headers.get(TIMEOUT))
        except (ValidationError, ValueError):
            whole = {"type": "http.request", "body": body, "more_body": False}
            await self.app(scope, _again([whole], receive), send)
            return
        response = await endpoint(asked, Request(scope, receive), timeout_ms)
        await response(scope, receive, send)

    def _find(self, scope: Scope) -> tuple[TypeAdapter[Any], Endpoint] | None:
        return self.endpoints.get(route_path(scope))

    @staticmethod
    def _check_type(headers: Mapping[bytes, bytes]) -> None:
        given = headers.get(b"content-type", b"")
        if given not in JSON and given.partition(b";")[0].strip().lower() != JSON[0]:
            raise HTTPException(415, "send the body as application/json", {"Accept-Post": "application/json"})


def _again(messages: list[Message], receive: Receive) -> Receive:
    """`messages`, and then what `receive` has."""

    async def first_those() -> Message:
        return messages.pop() if messages else await receive()

    return first_those


def timeout_of(header: bytes | None) -> int | None:
    """Milliseconds. Raises ValueError for what is none; the framework says what is wrong with it."""
    if header is None:
        return None
    if not (header.isdigit() and len(header) <= 6 and 1 <= int(header) <= 600_000):
        raise ValueError
    return int(header)
