"""
The shortest way to an answer: a request whose text is all there is answered where it was read, and a request that has
waited longer than it may is refused there. No task, no scope, no layer of the framework: together they cost more than
a sentence's way through the network.

What is said here is what was right and had its answer at once. All else goes the way of other requests (app/main.py
has its layers), which says what is wrong with it or waits for it, so no rule stands twice; what was begun here goes on
there. A test compares both ways.
"""

import logging
import time
from typing import Any

from pydantic import TypeAdapter
from starlette.exceptions import HTTPException

from beexformer.app.admission import Admission
from beexformer.app.connections import Direct, Headers, Reply
from beexformer.app.context import RequestContext
from beexformer.app.errors import MEDIA_TYPE, TABLE, TYPES
from beexformer.app.fast_path import JSON, TIMEOUT, timeout_of
from beexformer.app.logs import access
from beexformer.app.middleware import request_id_of
from beexformer.app.quotas import QuotaExceeded
from beexformer.app.scheduler import Overloaded, overloaded
from beexformer.app.schemas import ClassifyRequest, to_json
from beexformer.app.service import SHORT, Service
from beexformer.model.answer import Answer

CLASSIFY, BATCH = "/classify", "/classify/batch"
STATUS, SLUG, TITLE = TABLE[Overloaded]
PROBLEM = (
    f'{{"type":"{TYPES}{SLUG}","title":"{TITLE}","status":{STATUS},"detail":"%s","instance":"%s","request_id":"%s"}}'
)
REFUSED = b"content-type: %s\r\nretry-after: %%d\r\nx-request-id: %%s\r\n" % MEDIA_TYPE.encode()
ANSWERED = b"content-type: application/json\r\nx-request-id: %s\r\nserver-timing: %s\r\n"
PREFIX = b"x-forwarded-prefix"  # paths in refusals begin with it


class DirectWay:
    """Answers for the endpoints of texts of a service."""

    def __init__(self, service: Service, admission: Admission) -> None:
        self._service, self._admission = service, admission
        self._limit, self._root_path = service.scheduler.limit, service.settings.root_path
        self._timeout_ms = service.settings.request_timeout_ms
        self._request = TypeAdapter(ClassifyRequest)

    def targets(self) -> dict[bytes, Direct]:
        """What answers requests to these targets."""
        return {CLASSIFY.encode(): self.classify, BATCH.encode(): self.batch}

    def classify(self, headers: Headers, body: bytes, received: float) -> Reply | dict[str, Any]:
        """For POST /classify."""
        result, started = dict(headers), time.monotonic()
        if started - received > self._limit:
            return self._refuse(CLASSIFY, result, started - received)
        if len(body) > SHORT or result.get(b"content-type") not in JSON or self._service.registry.state != "ready":
            return {}
        try:
            key = self._admission.check(CLASSIFY, result)
            asked = self._request.validate_json(body)
            timeout_ms = timeout_of(result.get(TIMEOUT)) or self._timeout_ms
        except (HTTPException, QuotaExceeded, ValueError):
            return {}
        context = RequestContext(request_id_of(result), received, started)
        context.begun = begun = self._service.classifier.begin([asked], context, timeout_ms / 1000)
        if not begun.future.done():
            return {"bee.context": context}
        if begun.future.exception() or not begun.answered:
            return {}
        [answer] = self._service.classifier.settle(begun, context)
        assert isinstance(answer, Answer)
        self._admission.pay(key, 1)
        access.add(
            logging.INFO,
            context.request_id,
            "POST",
            CLASSIFY,
            200,
            context.seconds,
            context.model,
            context.exit_index,
            context.items,
        )
        return Reply(200, ANSWERED % (context.request_id.encode(), context.server_timing), to_json(answer))

    def batch(self, headers: Headers, body: bytes, received: float) -> Reply | dict[str, Any]:
        """For POST /classify/batch, of which only what is overdue is answered here."""
        wait = time.monotonic() - received
        return self._refuse(BATCH, dict(headers), wait) if wait > self._limit else {}

    def _refuse(self, path: str, headers: dict[bytes, bytes], wait: float) -> Reply | dict[str, Any]:
        """A request that has waited too long. Says what app/errors.py says of it."""
        if PREFIX in headers:
            return {}
        error, request_id = overloaded(wait), request_id_of(headers)
        body = PROBLEM % (error, self._root_path + path, request_id)
        self._service.metrics.ended(None, STATUS, wait)
        access.add(logging.INFO, request_id, "POST", path, STATUS, wait)
        return Reply(STATUS, REFUSED % (error.retry_after, request_id.encode()), body.encode())
