"""
What answers before anything can be served: /livez with 200, /metrics with `bee_ready 0`, all else with 503 "starting".

It is there at once because it knows neither FastAPI nor numba, which take a second to import, nor a checkpoint. Its
requests have ids and lines in the log like all others; texts that it refuses are counted in the shared state.
"""

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from beexformer.app.admission import Admission
from beexformer.app.connections import Connections, Limits
from beexformer.app.errors import NotReady
from beexformer.app.middleware import RequestMiddleware, has_texts, log_refused
from beexformer.app.prefix import Prefix, route_path
from beexformer.app.settings import Settings
from beexformer.app.shared_state import OPENING, REFUSED
from beexformer.app.worker import Place, Worker


def stand_in(settings: Settings, place: Place) -> None:
    """What the stand-in does from its fork on."""

    def count(path: str, status: int, seconds: float) -> None:
        if has_texts(path):
            place.shared.counts[REFUSED] += 1

    def refused(path: str, status: int, seconds: float, request_id: str) -> None:
        count(path, status, seconds)
        log_refused(path, status, seconds, request_id)

    app: ASGIApp = RequestMiddleware(
        _answer, admission=Admission(max_body_bytes=settings.max_body_bytes), refused=count
    )
    connections = Connections(Limits.of(settings), refused)
    connections.drain()  # who comes back meets a worker
    app = Prefix(app, root_path=settings.root_path)
    Worker(app, place, connections, state=OPENING, drain_seconds=settings.drain_seconds, answer_seconds=1).run()


METRICS = """\
# HELP bee_ready 1 once every engine of every server process has answered a test inference
# TYPE bee_ready gauge
bee_ready 0
"""


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    path = route_path(scope)
    if path == "/livez":
        response: Response = JSONResponse({"status": "alive"})
    elif path == "/v2/health/live":
        response = Response()
    elif path == "/metrics":
        response = Response(METRICS, media_type="text/plain; version=0.0.4; charset=utf-8")
    else:
        raise NotReady("starting")
    await response(scope, receive, send)
