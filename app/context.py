"""
What is known of one request while it is answered: filled by whoever answers it, read by headers, log and traces.
"""

import time
from dataclasses import dataclass
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import Scope

from beexformer.model.answer import Answer


@dataclass(slots=True)
class RequestContext:
    """Stands in the scope's state as "context"."""

    request_id: str
    received: float  # when the first bytes were there, on the clock of time.monotonic()
    started: float  # when they were looked at
    counted: bool = False  # its items have been counted one by one
    phases: tuple[float, float, float] | None = None  # seconds of tokenize, queue, compute
    model: str | None = None  # of the last item that was answered, as the next two
    exit_index: int | None = None
    num_blocks: int | None = None
    flops: float = 0.0  # of all items together, as the next one
    flops_full: float = 0.0
    items: int | None = None
    begun: Any = None  # its texts, where they were begun before they got to an endpoint (app/direct.py)

    @classmethod
    def begin(cls, scope: Scope, request_id: str) -> "RequestContext":
        """A new one, or that of a request which was begun before it got here, put where `of` finds it."""
        started = time.monotonic()
        context = scope.get("bee.context") or cls(request_id, scope.get("bee.received", started), started)
        scope.setdefault("state", {})["context"] = context
        return context

    @staticmethod
    def of(scope: Scope | HTTPConnection) -> "RequestContext":
        context: RequestContext = scope["state"]["context"]
        return context

    @property
    def seconds(self) -> float:
        """Since the request was received."""
        return time.monotonic() - self.received

    @property
    def unread(self) -> float:
        """Seconds between the request's being received and its being looked at."""
        return self.started - self.received

    @property
    def server_timing(self) -> bytes:
        """The phases as the header Server-Timing has them."""
        assert self.phases
        tokenize, queue, compute = self.phases
        return b"tokenize;dur=%.3f, queue;dur=%.3f, compute;dur=%.3f" % (1e3 * tokenize, 1e3 * queue, 1e3 * compute)

    def settled(self, items: int, phases: tuple[float, float, float]) -> None:
        """So many items have their outcomes, and are counted; `phases` adds up over them."""
        self.counted, self.items, self.phases = True, items, phases

    def answered(self, answer: Answer) -> None:
        """One item has this answer."""
        self.model, self.exit_index, self.num_blocks = answer.model, answer.exit_index, answer.num_blocks
        self.flops += answer.flops
        self.flops_full += answer.flops_full
