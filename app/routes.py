"""
The endpoints. A text goes: schema -> classify (a bad one fails there, alone) -> answer.

A single text and a batch go the same way; a batch answers each item with a result or with its own problem.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path
from pydantic import TypeAdapter, WithJsonSchema
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from beexformer.app.classify import Item, Outcome
from beexformer.app.context import RequestContext
from beexformer.app.errors import BUG, NotReady, problem, responses
from beexformer.app.fast_path import Endpoint
from beexformer.app.scheduler import Draining, Overloaded
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
    to_json,
)
from beexformer.app.service import Service, Serving
from beexformer.model.answer import Answer
from beexformer.model.options import NOTHING_ASKED

WRITTEN = 32  # results of a batch written in one step
SCRAPE_SECONDS = 5.0
log = logging.getLogger("bee.error")

TimeoutMs = Annotated[
    int | None,
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 600_000}),  # a header is there or not, but never null
    Header(alias="X-Request-Timeout-Ms", ge=1, le=600_000, description="deadline in milliseconds; past it: 504"),
]


ModelName = Annotated[str, Path(description="name of a loaded model")]
router = APIRouter()
REFUSALS = (400, 401, 404, 413, 415, 422, 429, 500, 503, 504)
TIMED = {
    "headers": {
        "Server-Timing": {"description": "milliseconds of tokenize, queue and compute", "schema": {"type": "string"}},
        "X-Request-ID": {"description": "the caller's id, or one made here", "schema": {"type": "string"}},
    }
}


@router.post(
    "/classify",
    responses={200: {**TIMED, "content": {"application/json": {"example": ANSWER}}}, **responses(*REFUSALS)},
    response_model=Answer,
    tags=["classify"],
)
async def classify(body: ClassifyRequest, request: Request, timeout_ms: TimeoutMs = None) -> Response:
    """Classify one text."""
    [outcome] = await _outcomes(request, [body], timeout_ms)
    if isinstance(outcome, Exception):
        raise outcome
    return Response(to_json(outcome), media_type="application/json")


@router.post(
    "/classify/batch",
    response_model=BatchAnswer,
    responses={200: TIMED, **responses(*REFUSALS)},
    tags=["classify"],
)
async def classify_batch(body: BatchRequest, request: Request, timeout_ms: TimeoutMs = None) -> Response:
    """Classify several texts. Each gets an answer or its own problem, in order; none fails its neighbours. Computing
    takes as long as for as many single texts: a batch saves requests, no more."""
    limit = request.app.state.service.settings.max_items
    if len(body.items) > limit:
        raise HTTPException(413, f"the batch has {len(body.items)} items and may have {limit}; send several batches")
    results, outcomes = [], await _outcomes(request, body.items, timeout_ms)
    for overloaded in (outcome for outcome in outcomes if isinstance(outcome, Overloaded)):
        raise overloaded  # the batch as a whole would have waited too long
    for i, outcome in enumerate(outcomes):
        if isinstance(outcome, Answer):
            results.append(to_json(outcome))
        else:
            result = _problem_of_item(i, outcome, RequestContext.of(request).request_id)
            results.append(result.model_dump_json(exclude_none=True).encode())
        if i % WRITTEN == WRITTEN - 1:
            await asyncio.sleep(0)
    return Response(b'{"results":[' + b",".join(results) + b"]}", media_type="application/json")


@router.get("/models", responses=responses(401), tags=["models"])
async def models(service: Serving) -> Models:
    """The loaded models."""
    return Models(
        models=[
            ModelSummary(
                name=engine.name,
                labels=list(engine.labels),
                thresholds=None if engine.thresholds is None else list(engine.thresholds),
                default=engine.name == service.registry.default,
                default_delta=engine.resolve(NOTHING_ASKED).delta,
                num_blocks=engine.config.n_block,
                input=engine.input,
                learned_from=engine.description["learned_from"],
                candidate_labels=engine.description["candidate_labels"],
                size_bytes=engine.description["size_bytes"],
            )
            for engine in service.registry
        ]
    )


@router.get("/models/{name}", responses=responses(401, 404), tags=["models"])
async def model(name: ModelName, service: Serving) -> ModelDescription:
    """All that a checkpoint says about itself: labels, network, scores per exit and along delta."""
    engine = service.registry.get(name)
    return ModelDescription(**engine.description, cost_model=engine.cost.to_dict())


@router.get("/livez", responses=responses(503), tags=["operation"])
async def livez(service: Serving) -> Health:
    """The process lives. 503 where an engine failed its first inference; `beexformer serve` ends instead."""
    state = service.registry.state
    if state == "failed":
        raise NotReady(state)
    return Health(status="alive")


@router.get("/readyz", responses=responses(503), tags=["operation"])
async def readyz(service: Serving) -> Health:
    """Every engine has answered a test inference. 503 while starting and from the moment of SIGTERM."""
    if service.draining:
        raise Draining
    service.refuse_unless_ready()
    return Health(status="ready")


@router.get("/metrics", response_class=Response, tags=["operation"])
async def metrics(request: Request, service: Serving) -> Response:
    """Counters and histograms for Prometheus."""
    writing, content_type = service.metrics.exposition(request.headers.get("accept", ""))
    body = await service.scheduler.submit(writing, SCRAPE_SECONDS)
    return Response(body, headers={"content-type": content_type})


async def _outcomes(request: Request, items: Sequence[Item], timeout_ms: int | None) -> list[Outcome]:
    service: Service = request.app.state.service  # no Depends: the fast path calls without the framework
    timeout = (timeout_ms or service.settings.request_timeout_ms) / 1000
    return await service.classifier.outcomes(items, RequestContext.of(request), timeout, request.is_disconnected)


def endpoints() -> dict[str, tuple[TypeAdapter[Any], Endpoint]]:
    """Those that the fast path serves, what their bodies are and where."""
    return {
        "/classify": (TypeAdapter(ClassifyRequest), classify),
        "/classify/batch": (TypeAdapter(BatchRequest), classify_batch),
    }


def _problem_of_item(i: int, error: Exception, request_id: str) -> Problem:
    result = problem(error, instance=f"/classify/batch#/items/{i}", request_id=request_id)
    if result.status == BUG[0]:
        log.error("item %d failed", i, exc_info=error, extra={"fields": {"request_id": request_id}})
    return result
