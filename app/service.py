"""What the endpoints work with: settings, engines and what runs texts on them, put together here."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.types import Scope

from beexformer.app.brownout import Brownout
from beexformer.app.classify import Classifier
from beexformer.app.context import RequestContext
from beexformer.app.counters import Processes
from beexformer.app.errors import NotReady
from beexformer.app.metrics import Metrics
from beexformer.app.scheduler import Scheduler
from beexformer.app.settings import Settings
from beexformer.app.shadow import Shadow
from beexformer.model.registry import Registry

Ask = Callable[[dict[str, Any]], Awaitable[str | None]]
SHORT = 2048  # bytes of a body that is answered before what waits already


@dataclass
class Service:
    """One of a process."""

    settings: Settings
    registry: Registry
    scheduler: Scheduler
    metrics: Metrics
    classifier: Classifier
    ask_parent: Ask | None = None  # for other checkpoints; what kept it from that, or None. Where there is a parent
    draining: bool = False  # SIGTERM has come: no longer ready, but what comes is still answered

    @classmethod
    def assemble(cls, settings: Settings, registry: Registry, processes: Processes | None = None) -> "Service":
        """`processes`: where counters are shared with other processes."""
        wait_limit = settings.max_wait_ms / 1000
        metrics = Metrics(list(registry), wait_limit=wait_limit, processes=processes)
        scheduler = Scheduler(limit=wait_limit)
        brownout = Brownout(settings.brownout_wait_ms / 1000, wait_limit, settings.brownout_entropy_threshold)
        classifier = Classifier(
            registry,
            scheduler,
            metrics,
            brownout=brownout if settings.brownout_wait_ms else None,
            shadow=Shadow(settings.shadow_ratio, scheduler, metrics),
        )
        return cls(settings, registry, scheduler, metrics, classifier)

    def drain(self) -> None:
        """The end has begun."""
        self.draining = True

    def admit(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        """Raise where a request with texts shall not be read: not ready, or too much waits already."""
        self.refuse_unless_ready()
        length = headers.get(b"content-length", b"")
        short = length.isdigit() and len(length) < 6 and int(length) <= SHORT
        self.scheduler.admit(RequestContext.of(scope).seconds, behind=not short)

    def refuse_unless_ready(self) -> None:
        if self.registry.state != "ready":
            raise NotReady(self.registry.state)


async def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Serving = Annotated[Service, Depends(service_of)]
"""A parameter of an endpoint: the service of its app."""
