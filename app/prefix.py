"""
A path prefix in front of the service: where a proxy strips it, links in /docs and in the OpenAPI document need it back.

It is the setting `root_path`, or what the proxy says itself in X-Forwarded-Prefix. Plain ASGI, outside all
that looks at paths.
"""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

HEADER = b"x-forwarded-prefix"
PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+){1,16}")
LONGEST = 256  # characters of one that a request may state


class Prefix:
    """ASGI middleware. `root_path` is "" or begins with a slash and ends without one."""

    def __init__(self, app: ASGIApp, *, root_path: str) -> None:
        self.app, self.root_path = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (prefix := self.root_path or _stated(scope)):
            path = scope["path"]
            # as ASGI has it: the path is the whole one, of which root_path is the beginning
            whole = path if path == prefix or path.startswith(f"{prefix}/") else prefix + path
            scope = {**scope, "root_path": prefix, "path": whole, "raw_path": whole.encode()}
        await self.app(scope, receive, send)


def route_path(scope: Scope) -> str:
    """The path as the service knows it, without a prefix."""
    path: str = scope["path"]
    prefix = scope.get("root_path")
    return path.removeprefix(prefix) or "/" if prefix else path


def _stated(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == HEADER:
            prefix = value.decode("latin-1").rstrip("/")
            return prefix if len(prefix) <= LONGEST and PREFIX.fullmatch(prefix) else ""
    return ""
