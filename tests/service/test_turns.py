"""Texts in turns, with the real engine: any order of arrivals, lengths, options and departures."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import GOLDEN, samples, scrape

from beexformer.app import classify, scheduler
from beexformer.app.classify import Classifier
from beexformer.app.errors import ClientGone
from beexformer.app.metrics import Metrics
from beexformer.app.middleware import RequestContext
from beexformer.app.scheduler import Scheduler
from beexformer.app.schemas import ClassifyRequest
from beexformer.model.answer import Answer
from beexformer.model.errors import InputError
from beexformer.model.registry import Registry

REGISTRY = Registry((GOLDEN,), None)
WORDS = ["a", "warm", "film", "worst", "moving", "journey", "the", "dull"]
ITEMS = st.builds(
    ClassifyRequest,
    text=st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join),  # none: blank, which is an outcome too
    delta=st.none() | st.floats(-1, 1),
    min_blocks=st.none() | st.integers(1, 6),
)


@dataclass(frozen=True)
class Request:
    """What comes: after how many turns of the loop, with what, and after how many its client leaves."""

    after: int
    items: list[ClassifyRequest]
    leaves: int | None


REQUESTS = st.lists(
    st.builds(Request, st.integers(0, 4), st.lists(ITEMS, min_size=1, max_size=5), st.none() | st.integers(0, 6)),
    min_size=1,
    max_size=6,
)


def alone(item: ClassifyRequest) -> Answer | None:
    """The answer to an item when nothing else is on its way; None where it has none."""
    engine = REGISTRY.get()
    try:
        row = engine.encode(item.text, None, item)
    except InputError:
        return None
    return engine.predict([row])[0]


async def answered(requests: list[Request], metrics: Metrics) -> list[list[Answer | Exception]]:
    turns = Scheduler()
    classifier = Classifier(REGISTRY, turns, metrics)

    async def client(request: Request) -> list[Answer | Exception]:
        for _ in range(request.after):
            await asyncio.sleep(0)
        looks = 0

        async def gone() -> bool:
            nonlocal looks
            looks += 1
            return request.leaves is not None and looks > request.leaves

        now = time.monotonic()
        return await classifier.outcomes(request.items, RequestContext("id", now, now), 60, gone)

    outcomes = await asyncio.gather(*map(client, requests))
    while turns.waiting:
        await asyncio.sleep(0.001)
    assert turns.backlog == 0
    turns.close()
    return outcomes


@pytest.mark.slow
@settings(max_examples=60)
@given(REQUESTS)
def test_every_item_is_answered_once_as_if_it_were_alone_or_its_client_had_left(requests: list[Request]) -> None:
    metrics = Metrics(list(REGISTRY), wait_limit=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler, "AT_ONCE", 0.0)  # nothing is short,
        patch.setattr(scheduler, "TURN", 0.0)  # a step a turn,
        patch.setattr(classify, "STEP", 0.0)  # a block a step,
        patch.setattr(classify, "GONE", 0.0)  # and a look for the client at each turn
        outcomes = asyncio.run(answered(requests, metrics))
    answers = failures = left = 0
    for request, result in zip(requests, outcomes, strict=True):
        assert len(result) == len(request.items)
        for item, outcome in zip(request.items, result, strict=True):
            if isinstance(outcome, ClientGone):
                assert request.leaves is not None
                left += 1
            elif isinstance(outcome, Exception):
                assert isinstance(outcome, InputError)
                assert alone(item) is None
                failures += 1
            else:
                assert outcome == alone(item)
                answers += 1
    counted: dict[Any, float] = samples(scrape(metrics))
    assert counted["bee_requests_total", "code=200", "model=golden"] == answers
    assert counted.get(("bee_requests_total", "code=422", "model=golden"), 0) == failures
    assert sum(value for key, value in counted.items() if key[:2] == ("bee_requests_total", "code=499")) == left
    assert counted["bee_exit_index_count", "model=golden"] == answers
