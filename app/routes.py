"""
The endpoints. A text goes: schema -> encode (a bad one fails here, alone) -> queue -> engine thread -> answer.

A single text and a batch go the same way; a batch answers each item with a result or with its own problem.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from beexformer.app.errors import BUG, ClientGone, NotReady, kind, problem, responses
from beexformer.app.metrics import Metrics
from beexformer.app.middleware import RequestContext
from beexformer.app.registry import Registry, UnknownModel
from beexformer.app.scheduler import DeadlineExceeded, Done, Draining, Overloaded, Scheduler
from beexformer.app.schemas import (
    ANSWER,
    BatchAnswer,
    BatchRequest,
    ClassifyRequest,
    Health,
    ModelDescription,
    Models,
    ModelSummary,
    Problem,
)
from beexformer.app.settings import Settings
from beexformer.model.answer import Answer
from beexformer.model.engine import Engine, Row
from beexformer.model.errors import InputError

INLINE_CHARACTERS = 2048  # tokenized on the event loop, in a millisecond or two; longer texts get a thread
Items = Sequence[ClassifyRequest | ValidationError]
Found = Done[Answer]
LEFT_SECONDS = 0.05  # how often a request that still waits looks whether its client has left
log = logging.getLogger("bee.error")

TimeoutMs = Annotated[
    int | None,
    Header(alias="X-Request-Timeout-Ms", ge=1, le=600_000, description="deadline in milliseconds; past it: 504"),
]


@dataclass
class Service:
    """What the endpoints work with (request.app.state.service)."""

    settings: Settings
    registry: Registry
    scheduler: Scheduler[Engine, Row, Answer]
    metrics: Metrics
    tokenizing: ThreadPoolExecutor  # one thread, for long texts
    draining: bool = False  # SIGTERM has come: no longer ready, but what comes is still answered

    def refuse_unless_ready(self) -> None:
        if self.registry.state != "ready":
            raise NotReady(self.registry.state)


class JSONRoute(APIRoute):
    """A route that refuses a body of another content type before reading it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def check_type_first(request: Request) -> Response:
            if request.method == "POST":
                media, _, _ = request.headers.get("content-type", "").partition(";")
                if media.strip().lower() != "application/json":
                    raise HTTPException(415, "send the body as application/json", {"Accept-Post": "application/json"})
            return await handler(request)

        return check_type_first


router = APIRouter(route_class=JSONRoute)
REFUSALS = (400, 401, 404, 413, 415, 422, 500, 503, 504)
TIMED = {
    "headers": {
        "Server-Timing": {"description": "milliseconds of tokenize, queue and compute", "schema": {"type": "string"}},
        "X-Request-ID": {"description": "the caller's id, or one made here", "schema": {"type": "string"}},
    }
}


@router.post(
    "/classify",
    responses={200: {**TIMED, "content": {"application/json": {"example": ANSWER}}}, **responses(*REFUSALS)},
    response_model_exclude_none=True,
    tags=["classify"],
)
async def classify(body: ClassifyRequest, request: Request, timeout_ms: TimeoutMs = None) -> Answer:
    """Classify one text."""
    [outcome] = await _answer(request, [body], timeout_ms)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@router.post(
    "/classify/batch",
    responses={200: TIMED, **responses(*REFUSALS)},
    response_model_exclude_none=True,
    tags=["classify"],
)
async def classify_batch(body: BatchRequest, request: Request, timeout_ms: TimeoutMs = None) -> BatchAnswer:
    """Classify several texts. Each gets an answer or its own problem, in order; none fails its neighbours.

    Only if no item could even be queued is the whole request refused, with 503."""
    limit = _service(request).settings.max_items
    if len(body.items) > limit:
        raise HTTPException(413, f"the batch has {len(body.items)} items and may have {limit}; send several batches")
    outcomes = await _answer(request, body.items, timeout_ms)
    if isinstance(outcomes[0], Overloaded) and all(isinstance(outcome, Overloaded) for outcome in outcomes):
        raise outcomes[0]
    return BatchAnswer(
        results=[
            outcome if isinstance(outcome, Answer) else _problem_of_item(i, outcome, _context(request).request_id)
            for i, outcome in enumerate(outcomes)
        ]
    )


@router.get("/models", responses=responses(401), tags=["models"])
async def models(request: Request) -> Models:
    """The loaded models."""
    registry = _service(request).registry
    return Models(
        models=[
            ModelSummary(
                name=engine.name,
                labels=list(engine.labels),
                default=engine.name == registry.default,
                default_delta=engine.default_delta,
                num_blocks=engine.config.n_block,
                size_bytes=engine.description["size_bytes"],
            )
            for engine in registry
        ]
    )


@router.get("/models/{name}", responses=responses(401, 404), tags=["models"])
async def model(name: str, request: Request) -> ModelDescription:
    """All that a checkpoint says about itself: labels, network, scores per exit and along delta."""
    engine = _service(request).registry.get(name)
    return ModelDescription(**engine.description, cost_model=engine.cost.to_dict() if engine.cost else None)


@router.get("/livez", responses=responses(503), tags=["operation"])
async def livez(request: Request) -> Health:
    """The process lives. 503 only where a restart is the cure: an engine failed its first forward."""
    state = _service(request).registry.state
    if state == "failed":
        raise NotReady(state)
    return Health(status="alive")


@router.get("/readyz", responses=responses(503), tags=["operation"])
async def readyz(request: Request) -> Health:
    """Every engine has answered a real forward. 503 while starting and from the moment of SIGTERM."""
    if _service(request).draining:
        raise Draining
    _service(request).refuse_unless_ready()
    return Health(status="ready")


@router.get("/metrics", response_class=Response, tags=["operation"])
def metrics(request: Request) -> Response:
    """Counters and histograms for Prometheus."""
    body, content_type = _service(request).metrics.exposition(request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type})


def _problem_of_item(i: int, error: Exception, request_id: str) -> Problem:
    found = problem(error, instance=f"/classify/batch#/items/{i}", request_id=request_id)
    if found.status == BUG[0]:
        log.error("item %d failed", i, exc_info=error, extra={"fields": {"request_id": request_id}})
    return found


@dataclass(frozen=True, slots=True)
class _Text:
    """An item after tokenizing: what to run or why not, for which engine (None: no such model), the seconds, and if its
    answer says what the cost model predicts."""

    row: Row | Exception
    engine: Engine | None
    seconds: float
    cost: bool


async def _answer(request: Request, items: Items, timeout_ms: int | None) -> list[Answer | Exception]:
    """One outcome for each item, in order, each counted in the metrics."""
    service, exchange = _service(request), _context(request)
    service.refuse_unless_ready()
    timeout = (timeout_ms or service.settings.request_timeout_ms) / 1000
    texts = await _encode_all(service, items, timeout - exchange.seconds)
    futures = [_submit(service.scheduler, text, timeout - exchange.seconds) for text in texts]
    await _wait(request, futures)
    exchange.counted, exchange.items = True, len(items)
    return [_settle(service.metrics, exchange, text, future) for text, future in zip(texts, futures, strict=True)]


async def _encode_all(service: Service, items: Items, timeout: float) -> list[_Text]:
    characters = sum(len(item.text) + len(item.text_pair or "") for item in items if isinstance(item, ClassifyRequest))
    if characters <= INLINE_CHARACTERS:
        return _encode(service.registry, items)
    work = asyncio.get_running_loop().run_in_executor(service.tokenizing, _encode, service.registry, items)
    try:
        return await asyncio.wait_for(work, timeout)  # the thread has a queue of its own; the late are not even read
    except TimeoutError:
        raise DeadlineExceeded from None


def _encode(registry: Registry, items: Items) -> list[_Text]:
    texts = []
    for i, item in enumerate(items):
        start, engine = time.perf_counter(), None
        row: Row | Exception
        try:
            if isinstance(item, ValidationError):
                place = ("body", "items", i)
                raise RequestValidationError([{**error, "loc": (*place, *error["loc"])} for error in item.errors()])
            engine = registry.get(item.model)
            row = engine.encode(item.text, item.text_pair, item, truncate=item.truncate)
        except (RequestValidationError, UnknownModel, InputError) as error:
            row = error
        asked = isinstance(item, ClassifyRequest) and item.cost
        texts.append(_Text(row, engine, time.perf_counter() - start, asked))
    return texts


def _submit(scheduler: Scheduler[Engine, Row, Answer], text: _Text, timeout: float) -> asyncio.Future[Found]:
    try:
        if isinstance(text.row, Exception):
            raise text.row
        assert text.engine  # a row was made by one
        return scheduler.submit(text.engine, text.row, timeout)
    except Exception as error:
        failed: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        failed.set_exception(error)
        return failed


async def _wait(request: Request, futures: Sequence[asyncio.Future[Found]]) -> None:
    """Until all are done; a client who leaves meanwhile takes its rows out of the queue."""
    pending = set(futures)
    while pending:
        _, pending = await asyncio.wait(pending, timeout=LEFT_SECONDS)
        if pending and await request.is_disconnected():
            for future in pending:
                future.cancel()
            return


def _settle(
    metrics: Metrics, exchange: RequestContext, text: _Text, future: asyncio.Future[Found]
) -> Answer | Exception:
    name = text.engine.name if text.engine else None
    error = ClientGone() if future.cancelled() else future.exception()
    if isinstance(error, Exception):
        metrics.ended(name, kind(error)[0], exchange.seconds)
        return error
    assert name
    assert text.engine
    assert isinstance(text.row, Row)
    found = future.result()
    phases = (text.seconds, found.queued, found.computed)
    metrics.answered(name, text.row, found.result, phases, exchange.seconds)
    exchange.note(name, found.result.exit_index, phases)
    return found.result.priced(text.engine.cost) if text.cost and text.engine.cost else found.result


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _context(request: Request) -> RequestContext:
    exchange: RequestContext = request.state.exchange
    return exchange
