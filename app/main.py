"""
Puts the service together: settings -> registry of engines -> scheduler -> routes; and runs it, supervised.

Start: checkpoints are read and verified before anything listens, so a damaged one ends the process with one sentence.
Then a first process, the doorkeeper, answers probes (and 503 to the rest), while its parent compiles the kernels or
loads them from the cache and runs real forwards. Workers are forked from that parent and serve at once.

End: app/supervisor.py and app/worker.py.
"""

import asyncio
import contextlib
import functools
import logging
import logging.config
import resource
import signal
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

from beexformer.app import admin, errors, inference_protocol, logs, tracing
from beexformer.app.connections import Connections, Limits
from beexformer.app.counters import Processes, counting
from beexformer.app.deployment import Deployment, load_registry
from beexformer.app.fast_path import FastPath
from beexformer.app.listener import address, listen
from beexformer.app.metrics import Metrics
from beexformer.app.middleware import RequestMiddleware, log_refused
from beexformer.app.openapi import describe, operation_id
from beexformer.app.page import add_page
from beexformer.app.prefix import Prefix
from beexformer.app.routes import endpoints, router
from beexformer.app.service import Service
from beexformer.app.settings import Settings
from beexformer.app.supervisor import Supervisor, Work
from beexformer.app.tracing import Tracing
from beexformer.app.worker import Place, Worker
from beexformer.model.engine import Engine
from beexformer.model.errors import BEEError
from beexformer.model.registry import Registry

CORS: dict[str, Any] = {
    "allow_methods": ("GET", "POST"),
    "allow_headers": ("Authorization", "Content-Type", "X-API-Key", "X-Request-ID", "X-Request-Timeout-Ms"),
    "expose_headers": ("Retry-After", "Server-Timing", "X-Request-ID"),
}
SWITCH_SECONDS = 0.001  # that the thread of turns may keep the interpreter from the loop; kernels don't
END_SECONDS = 10  # beyond the deadline of requests, after the last one was taken, until workers are killed
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
        return _app(service)
    return _app(service, functools.partial(_warm, service))


def _app(service: Service, warm: Callable[[], Coroutine[None, None, None]] | None = None) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.create_task(warm()) if warm else None
        sys.setswitchinterval(SWITCH_SECONDS)
        await anyio.sleep(0)  # it loads its backend when it is first used, which no request should wait for
        watching = asyncio.create_task(service.metrics.watch(lambda: service.scheduler.backlog))
        yield
        service.scheduler.close()
        logs.access.write()
        watching.cancel()
        if warming:
            await warming

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
    app.state.service = service
    app.include_router(router)
    app.include_router(inference_protocol.router)
    if service.settings.admin_keys:
        app.include_router(admin.router)
    add_page(app)
    describe(app, keys=bool(service.settings.api_keys))
    app.add_middleware(FastPath, endpoints=endpoints(), refuse=service.admit)
    app.add_middleware(
        RequestMiddleware,
        keys=service.settings.api_keys,
        admin_keys=service.settings.admin_keys,
        max_body_bytes=service.settings.max_body_bytes,
        quota_per_minute=service.settings.quota_per_minute,
        refused=functools.partial(_count_refused, service.metrics),
    )
    app.add_middleware(Prefix, root_path=service.settings.root_path)
    if service.settings.tracing:
        app.add_middleware(Tracing, provider=tracing.provider())
    if origins := service.settings.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=origins, **CORS)  # outermost: a preflight has no key
    for kind in (HTTPException, RequestValidationError, *errors.TABLE):
        if isinstance(kind, type):
            app.add_exception_handler(kind, errors.handle)
    return app


def serve(settings: Settings, load: Callable[[Path], Engine] = Engine.load) -> None:
    """Run the service until it is told to stop. Ends the process where something is wrong."""
    logging.config.dictConfig(logs.config(settings.log_level))
    for number in (signal.SIGTERM, signal.SIGINT):  # until signals are the supervisor's
        signal.signal(number, lambda number, frame: sys.exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection is a file; the usual soft limit is 1024
    if settings.tracing:
        tracing.require()
    with contextlib.ExitStack() as stack:
        deployment = Deployment(settings, load)
        listener = stack.enter_context(listen(settings.host, settings.port))
        supervisor = Supervisor(
            listener,
            settings.worker_processes,
            health_seconds=settings.health_seconds,
            drain_seconds=settings.drain_seconds,
            end_seconds=settings.request_timeout_ms / 1000 + END_SECONDS,
            reload=lambda asked: work_of(deployment.renew(asked)),
        )
        processes = stack.enter_context(counting(supervisor.board.pids))
        stack.callback(supervisor.kill)

        def work_of(registry: Registry) -> Work:
            return functools.partial(_work, settings, registry, processes)

        supervisor.work = work_of(deployment.registry)
        supervisor.open_door()
        log.info("listening on %s", address(listener))
        try:
            deployment.registry.warm()
            supervisor.work = work_of(deployment.registry)
        except BEEError:  # a checkpoint that answers otherwise than when it was exported
            raise
        except Exception:  # whatever it is, no worker may be forked from it; the log has it
            log.exception("an engine failed its first forward")
            sys.exit(1)
        sys.exit(supervisor.run())


def _work(settings: Settings, registry: Registry, processes: Processes, place: Place) -> None:
    """What a worker does from its fork on. With a registry that isn't ready yet, it is the doorkeeper."""
    processes.enter(place.slot)
    service = Service.assemble(settings, registry, processes)
    limits = Limits(
        settings.head_seconds, settings.body_seconds, settings.keep_alive_seconds, settings.connection_seconds
    )

    def refused(path: str, status: int, seconds: float, request_id: str) -> None:
        _count_refused(service.metrics, path, status, seconds)
        log_refused(path, status, seconds, request_id)

    connections = Connections(limits, refused)
    if registry.state == "ready":
        _tell_ready(service)
    else:
        connections.drain()  # who comes back meets a worker
    worker = Worker(_app(service), place, connections, settings.drain_seconds, settings.request_timeout_ms / 1000 + 1)
    service.ask_parent = worker.ask
    worker.run()


async def _warm(service: Service) -> None:
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
    if path in ("/classify", "/classify/batch") or (path.startswith("/v2/") and path.endswith("/infer")):
        metrics.ended(None, status, seconds)
