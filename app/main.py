"""
Puts the service together: settings -> registry of engines -> scheduler -> routes. As one process alone (`create_app`),
or as a worker of those that app/serve.py runs.
"""

import asyncio
import contextlib
import functools
import logging
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from beexformer.app import admin, errors, inference_protocol, logs, tracing
from beexformer.app.admission import Admission
from beexformer.app.connections import Connections, Limits
from beexformer.app.counters import Processes
from beexformer.app.deployment import load_registry
from beexformer.app.direct import DirectWay
from beexformer.app.fast_path import FastPath
from beexformer.app.metrics import Metrics
from beexformer.app.middleware import RequestMiddleware, has_texts, log_refused
from beexformer.app.openapi import describe, operation_id
from beexformer.app.page import add_page
from beexformer.app.prefix import Prefix
from beexformer.app.routes import endpoints, router
from beexformer.app.service import Service
from beexformer.app.settings import Settings
from beexformer.app.tracing import Tracing
from beexformer.app.worker import Place, Worker
from beexformer.model.engine import Engine
from beexformer.model.registry import Registry

CORS: dict[str, Any] = {
    "allow_methods": ("GET", "POST"),
    "allow_headers": ("Authorization", "Content-Type", "X-API-Key", "X-Request-ID", "X-Request-Timeout-Ms"),
    "expose_headers": ("Retry-After", "Server-Timing", "X-Request-ID"),
}
SWITCH_SECONDS = 0.001  # that the thread of turns may keep the interpreter from the loop; kernels don't
log = logging.getLogger("bee.main")


def create_app(
    settings: Settings | None = None, load: Callable[[Path], Engine] = Engine.load, *, warm: bool = False
) -> FastAPI:
    """The app as one process alone serves it. It gets ready by itself once its lifespan has begun; with `warm`, it is
    ready when this returns, for servers that send requests to whatever has started. Raises BEEError."""
    settings = settings or Settings()
    if settings.tracing:
        tracing.require()
    service = Service.assemble(settings, load_registry(settings, load))
    if warm:
        service.registry.warm()
        _tell_ready(service)
        return _app(service, _admission(settings))
    return _app(service, _admission(settings), functools.partial(_warm, service))


def _app(
    service: Service, admission: Admission, warm: Callable[[FastAPI], Coroutine[None, None, None]] | None = None
) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.create_task(warm(app)) if warm else None
        sys.setswitchinterval(SWITCH_SECONDS)
        await anyio.sleep(0)  # it loads its backend when it is first used, which no request should wait for
        watching = asyncio.create_task(service.metrics.watch(lambda: service.scheduler.backlog))
        yield
        service.scheduler.close()
        logs.access.write()
        watching.cancel()
        if warming:
            await warming

    app = _routed(service.settings, lifespan)
    app.state.service = service
    app.add_middleware(FastPath, endpoints=endpoints(), refuse=service.admit)
    app.add_middleware(
        RequestMiddleware, admission=admission, refused=functools.partial(_count_refused, service.metrics)
    )
    app.add_middleware(Prefix, root_path=service.settings.root_path)
    if service.settings.tracing:
        app.add_middleware(Tracing, provider=tracing.provider())
    if origins := service.settings.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=origins, **CORS)  # outermost: a preflight has no key
    app.add_exception_handler(RequestValidationError, _handle_invalid)
    for kind in (HTTPException, *errors.TABLE):
        if isinstance(kind, type):
            app.add_exception_handler(kind, errors.handle)
    return app


def _admission(settings: Settings) -> Admission:
    return Admission(
        max_body_bytes=settings.max_body_bytes,
        keys=settings.api_keys,
        admin_keys=settings.admin_keys,
        quota_per_minute=settings.quota_per_minute,
    )


def _routed(settings: Settings, lifespan: Any = None) -> FastAPI:
    """The endpoints and their description, with nothing behind them yet."""
    app = FastAPIOffline(  # FastAPI with the scripts of /docs from the package instead of from somebody's CDN
        title="BEExformer",
        version="1",
        summary="Text classification with a 1-bit transformer that stops when another block no longer pays",
        redoc_url=None,
        redirect_slashes=False,  # a redirect would answer a POST with something that is no problem+json
        static_url="/docs/static",
        generate_unique_id_function=operation_id,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # what there is of it is our own
        lifespan=lifespan,
    )
    app.include_router(router)
    app.include_router(inference_protocol.router)
    if settings.admin_keys:
        app.include_router(admin.router)
    add_page(app)
    describe(app, keys=bool(settings.api_keys))
    return app


def work_of(registry: Registry, settings: Settings, processes: Processes) -> Callable[[Place], None]:
    """What workers do that serve these engines, which are ready. What takes long and is the same for all is done here,
    before they are forked."""
    return functools.partial(_work, settings, registry, processes, _routed(settings).openapi())


def _work(settings: Settings, registry: Registry, processes: Processes, document: dict[str, Any], place: Place) -> None:
    """What a worker does from its fork on; `document` is what /openapi.json says."""
    processes.enter(place.slot)
    service = Service.assemble(settings, registry, processes)

    def refused(path: str, status: int, seconds: float, request_id: str) -> None:
        _count_refused(service.metrics, path, status, seconds)
        log_refused(path, status, seconds, request_id)

    _tell_ready(service)
    admission = _admission(settings)
    app = _app(service, admission)
    app.openapi_schema = document
    # what a browser or a trace must see of an answer is added by layers of the app
    plain = not (settings.tracing or settings.cors_origins)
    direct = DirectWay(service, admission).targets() if plain else {}
    worker = Worker(
        app,
        place,
        Connections(Limits.of(settings), refused, direct=direct),
        lifespan=lambda: app.router.lifespan_context(app),
        drained=service.drain,
        drain_seconds=settings.drain_seconds,
        answer_seconds=settings.request_timeout_ms / 1000 + 1,
    )
    service.ask_parent = worker.ask
    worker.run()


async def _handle_invalid(request: Request, error: Exception) -> Response:
    """What the framework finds wrong with a body or a header."""
    assert isinstance(error, RequestValidationError)
    return errors.respond(errors.InvalidFields(error.errors()), request.scope)


async def _warm(service: Service, app: FastAPI) -> None:
    await asyncio.to_thread(app.openapi)  # a request for it would hold the loop for too long
    try:
        await asyncio.to_thread(service.registry.warm)
        _tell_ready(service)
    except Exception:  # whatever it is, the process must stay up to answer 503, and the log has it
        log.exception("an engine failed its first forward; /livez and /readyz answer 503")


def _tell_ready(service: Service) -> None:
    service.metrics.ready()
    log.info("ready", extra={"fields": {"models": [engine.name for engine in service.registry]}})


def _count_refused(metrics: Metrics, path: str, status: int, seconds: float) -> None:
    """A body refused as a whole counts as one text of no model."""
    if has_texts(path):
        metrics.ended(None, status, seconds)
