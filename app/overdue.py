"""
The quick way of refusing: what has waited longer than it may is answered before any of the layers that would answer it.

Under three times the load that a process can do, two of three requests are refused, and whatever that costs is taken
from the third. Outermost, plain ASGI. Says what app/errors.py says of the same refusal; a test compares them. What
waits for turns on the thread is looked at further on (app/service.py:Service.admit).
"""

import logging
import math
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from beexformer.app.errors import MEDIA_TYPE, TABLE, TYPES
from beexformer.app.logs import access
from beexformer.app.middleware import request_id_of
from beexformer.app.scheduler import Overloaded
from beexformer.app.service import Service

PATHS = ("/classify", "/classify/batch")
STATUS, SLUG, TITLE = TABLE[Overloaded]
HEAD = [(b"content-type", MEDIA_TYPE.encode())]
BODY = f'{{"type":"{TYPES}{SLUG}","title":"{TITLE}","status":{STATUS},"detail":"%s","instance":"%s","request_id":"%s"}}'


class Overdue:
    """ASGI middleware around all others, for the endpoints in PATHS."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service
        self.limit = service.scheduler.limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wait = time.monotonic() - scope["bee.received"] if scope["type"] == "http" else 0.0
        if wait > self.limit and scope["path"] in PATHS and scope["method"] == "POST":
            await self._refuse(scope, send, wait)
        else:
            await self.app(scope, receive, send)

    async def _refuse(self, scope: Scope, send: Send, wait: float) -> None:
        error = Overloaded(wait, max(1, min(60, math.ceil(wait))))
        path, request_id = scope["path"], request_id_of(dict(scope["headers"]))
        body = (BODY % (error, path, request_id)).encode()
        headers = [
            *HEAD,
            (b"content-length", b"%d" % len(body)),
            (b"retry-after", b"%d" % error.retry_after),
            (b"x-request-id", request_id.encode()),
        ]
        await send({"type": "http.response.start", "status": STATUS, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self.service.metrics.ended(None, STATUS, wait)
        access.add(logging.INFO, request_id, scope["method"], path, STATUS, wait)
