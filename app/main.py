"""
Puts the service together: settings -> registry of engines -> scheduler -> routes, and runs it under uvicorn.

Start: checkpoints are read and verified when the app is made, before anything listens, so a damaged one ends the
process with one sentence. Then the server listens and /livez answers, while a thread compiles the kernels (or loads
them from the cache) and runs a real forward; only then does /readyz say ready.

End: SIGTERM flips /readyz at once and new texts get 503, while the listening socket stays; queued texts are answered,
at most `shutdown_seconds` long; then the server closes.
"""

import asyncio
import contextlib
import functools
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from uvicorn.supervisors import Multiprocess

from beexformer.app import errors, logs
from beexformer.app.metrics import MULTIPROCESS, Metrics
from beexformer.app.middleware import RequestMiddleware
from beexformer.app.page import add_page
from beexformer.app.protocol import Protocol
from beexformer.app.registry import Registry
from beexformer.app.routes import Service, router
from beexformer.app.scheduler import Scheduler
from beexformer.app.settings import Settings
from beexformer.model.answer import Answer
from beexformer.model.engine import Engine, Row

log = logging.getLogger("bee.main")


def load_registry(settings: Settings, load: Callable[[Path], Engine] = Engine.load) -> Registry:
    """The checkpoints that the settings name, read and verified. BEEError says in one sentence what is wrong."""
    return Registry(settings.checkpoints, settings.default_model, load)


def create_app(settings: Settings | None = None, load: Callable[[Path], Engine] = Engine.load) -> FastAPI:
    """The app of one server process."""
    settings = settings or Settings()
    service = _assemble(settings, load_registry(settings, load))

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.create_task(_warm(service))
        with _draining_on_signals(service.scheduler, settings.shutdown_seconds):
            yield
        service.scheduler.close()
        service.tokenizing.shutdown(cancel_futures=True)
        await warming

    app = FastAPIOffline(  # FastAPI with the scripts of /docs from the package instead of from somebody's CDN
        title="BEExformer",
        version="1",
        summary="Text classification with a 1-bit transformer that stops when another block no longer pays",
        redoc_url=None,
        redirect_slashes=False,  # a redirect would answer a POST with something that is no problem+json
        static_url="/docs/static",
        lifespan=lifespan,
    )
    app.state.service = service
    app.include_router(router)
    add_page(app)
    app.add_middleware(
        RequestMiddleware,
        keys=settings.api_keys,
        max_body_bytes=settings.max_body_bytes,
        refused=functools.partial(_count_refused, service.metrics),
    )
    for kind in (HTTPException, RequestValidationError, *errors.TABLE):
        if isinstance(kind, type):
            app.add_exception_handler(kind, errors.handle)
    return app


def serve(settings: Settings) -> None:
    """Run the service until it is told to stop."""
    config = uvicorn.Config(
        functools.partial(create_app, settings),
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=logs.config(settings.log_level),
        access_log=False,
        server_header=False,
        http=Protocol,
        ws="none",
        timeout_graceful_shutdown=settings.shutdown_seconds,
        timeout_worker_healthcheck=60,  # a worker is silent while it imports and may be while it compiles
    )
    if settings.workers == 1:
        config.load()  # makes the app: whatever is wrong with it is raised here
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))  # uvicorn raises it again once it has closed
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run()
        return
    load_registry(settings)  # the workers load for themselves; here only to refuse before they start
    with tempfile.TemporaryDirectory(prefix="beexformer-metrics-") as folder:
        os.environ[MULTIPROCESS] = folder  # read by prometheus-client when a worker imports it
        Multiprocess(config, sockets=[config.bind_socket()]).run()


def _assemble(settings: Settings, registry: Registry) -> Service:
    metrics = Metrics(
        list(registry),
        threads=settings.engine_threads,
        max_batch_rows=settings.max_batch_rows,
        max_queue=settings.max_queue,
    )

    def run(engine: Engine, rows: list[Row]) -> list[Answer]:
        with metrics.batch(len(rows)):
            return engine.predict(rows)

    scheduler = Scheduler(
        run,
        threads=settings.engine_threads,
        max_batch_rows=settings.max_batch_rows,
        max_queue=settings.max_queue,
        on_depth=metrics.queue_depth.set,
    )
    return Service(settings, registry, scheduler, metrics, ThreadPoolExecutor(1, thread_name_prefix="tokenize"))


async def _warm(service: Service) -> None:
    try:
        await asyncio.to_thread(service.registry.warm)
        service.metrics.ready.set(1)
        log.info("ready", extra={"fields": {"models": [engine.name for engine in service.registry]}})
    except Exception:  # whatever it is, the process must stay up to answer 503, and the log has it
        log.exception("an engine failed its first forward; /livez and /readyz answer 503")


@contextlib.contextmanager
def _draining_on_signals(scheduler: Scheduler[Engine, Row, Answer], seconds: int) -> Iterator[None]:
    """Put ourselves before the server's own handlers of SIGTERM and SIGINT: drain first, then let it close.

    uvicorn would close the listening socket first: a load balancer would see refused connections instead of a 503."""
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's; so in tests
        yield
        return
    loop = asyncio.get_running_loop()
    servers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def close(number: int, frame: FrameType | None = None) -> None:
        handler = servers[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    async def drain_then_close(number: int) -> None:
        log.info("draining", extra={"fields": {"rows": scheduler.waiting}})
        try:
            await asyncio.wait_for(scheduler.drain(), seconds)
        except TimeoutError:
            log.warning("%d rows were still waiting after %d s", scheduler.waiting, seconds)
        close(number)

    def on_signal(number: int, frame: FrameType | None) -> None:
        if scheduler.draining:
            close(number, frame)  # asked twice: at once
        else:
            scheduler.draining = True
            loop.call_soon_threadsafe(lambda: tasks.append(loop.create_task(drain_then_close(number))))

    tasks: list[asyncio.Task[None]] = []  # the loop itself keeps only weak references
    for number in servers:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in servers.items():
            signal.signal(number, handler)


def _count_refused(metrics: Metrics, path: str, status: int, seconds: float) -> None:
    """A body refused as a whole counts as one text of no model."""
    if path in ("/classify", "/classify/batch"):
        metrics.ended(None, status, seconds)
