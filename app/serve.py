"""
The service from its start to its end, supervised.

Start: the socket is opened and a first process forked, the stand-in, which answers health checks (and 503 to the rest).
Only then is imported what takes a second (FastAPI, numba), are checkpoints read and verified, kernels compiled or
loaded from the cache, and test inferences run. Workers are forked from the process that has done all that and serve at
once. A damaged checkpoint ends the process with one sentence.

End: app/supervisor.py and app/worker.py.
"""

import contextlib
import functools
import gc
import logging
import logging.config
import resource
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from beexformer.app import logs, tracing
from beexformer.app.counters import counting
from beexformer.app.listener import address, listen
from beexformer.app.memory import give_back_code, give_back_heap
from beexformer.app.settings import Settings
from beexformer.app.stand_in import stand_in
from beexformer.app.supervisor import Supervisor
from beexformer.model.errors import BEEError

if TYPE_CHECKING:
    from beexformer.model.engine import Engine

COMPILER = "libllvmlite.so"  # 70 MB that loading kernels has touched, and nothing needs any more
END_SECONDS = 10  # beyond the deadline of requests, after the last one was taken, until workers are killed
log = logging.getLogger("bee.main")


def serve(settings: Settings, load: "Callable[..., Engine] | None" = None) -> None:
    """Run the service until it is told to stop. Ends the process where something is wrong. `load` reads a checkpoint
    folder, `Engine.load` unless stated."""
    _prepare_process(settings)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(settings.host, settings.port))
        supervisor = Supervisor(
            listener,
            settings.worker_processes,
            health_seconds=settings.health_seconds,
            drain_seconds=settings.drain_seconds,
            end_seconds=settings.request_timeout_ms / 1000 + END_SECONDS,
            reload=lambda asked: work_of(deployment.renew(asked), settings, processes),
            put_back=lambda: deployment.put_back(),
        )
        processes = stack.enter_context(counting(supervisor.shared))
        stack.callback(supervisor.kill)
        supervisor.work = functools.partial(stand_in, settings)
        supervisor.start_stand_in()
        gc.disable()  # nothing is thrown away meanwhile, and looking for it takes a fifteenth of the time
        stack.callback(gc.enable)
        # only now that somebody answers: it takes a second
        from beexformer.app.deployment import Deployment
        from beexformer.app.main import work_of
        from beexformer.model.engine import Engine

        deployment = Deployment(settings, load or Engine.load)
        log.info("listening on %s", address(listener))  # a bad checkpoint is one sentence and nothing before it
        try:
            deployment.registry.warm()
        except BEEError:  # a checkpoint that answers otherwise than when it was exported
            raise
        except Exception:  # whatever it is, no worker may be forked from it; the log has it
            log.exception("an engine failed its first forward")
            sys.exit(1)
        supervisor.work = work_of(deployment.registry, settings, processes)
        gc.enable()
        give_back_heap()
        give_back_code(COMPILER)
        sys.exit(supervisor.run())


def _prepare_process(settings: Settings) -> None:
    logging.config.dictConfig(logs.config(settings.log_level))
    for number in (signal.SIGTERM, signal.SIGINT):  # until signals are the supervisor's
        signal.signal(number, lambda number, frame: sys.exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection is a file; the usual soft limit is 1024
    if settings.tracing:
        tracing.require()
