"""The Python client against a real server, and how it tries again."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from running import GOLDEN, Server

from beexformer.classifier import load
from beexformer.client import AsyncClient, Client, Item, ServiceError
from beexformer.model.answer import Answer
from beexformer.model.options import ExitOptions


@pytest.mark.slow
def test_answers_are_those_of_the_model(server: Server) -> None:
    golden = load(GOLDEN)
    with Client(server.url) as client:
        assert client.classify("a warm film", delta=0.5) == golden.classify("a warm film", delta=0.5)
        assert client.classify("a film", "a movie", min_blocks=6).exit_index == 6
        priced = client.classify("a film", cost=True)
        assert priced.cost
        assert priced.cost.predicted_ms <= priced.cost.predicted_ms_full
        assert [model["name"] for model in client.models()] == ["golden"]


def test_a_batch_has_answers_and_errors_in_order(server: Server) -> None:
    items: list[str | Item] = ["a film", Item(text=" "), Item(text="a film", options=ExitOptions(max_blocks=1))]
    with Client(server.url) as client:
        first, second, third = client.classify_batch(items)
    assert isinstance(first, Answer)
    assert isinstance(second, ServiceError)
    assert isinstance(third, Answer)
    assert (second.status, third.exit_index) == (422, 1)
    assert "blank" in str(second)


def test_on_an_event_loop_all_is_the_same(server: Server) -> None:
    async def ask() -> tuple[Answer, list[Any], list[Any]]:
        async with AsyncClient(server.url) as client:
            one, batch = await asyncio.gather(client.classify("a film"), client.classify_batch(["a film", "dull"]))
            return one, batch, await client.models()

    one, batch, models = asyncio.run(ask())
    with Client(server.url) as client:
        assert [one, *batch] == [client.classify(text) for text in ("a film", "a film", "dull")]
        assert models == client.models()


def test_what_is_refused_for_good_is_not_tried_again(server: Server) -> None:
    with Client(server.url) as client, pytest.raises(ServiceError, match="no model is named 'x'") as caught:
        client.classify("a film", model="x")
    assert (caught.value.status, caught.value.problem["type"]) == (404, "urn:problem-type:beexformer:unknown-model")
    with Client(server.url) as client, pytest.raises(TypeError, match="deltas"):
        client.classify("a film", deltas=1)  # type: ignore[call-arg]


class Flaky(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """Answers what it was given, one after another, then as a service would; notes the times."""

    def __init__(self, *before: httpx2.Response | Exception) -> None:
        self.before, self.times = list(before), []  # type: ignore[var-annotated]

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.times.append(time.monotonic())
        if self.before:
            if isinstance(result := self.before.pop(0), Exception):
                raise result
            return result
        return httpx2.Response(200, json={"models": []})

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return self.handle_request(request)


def busy(seconds: str) -> httpx2.Response:
    problem = {"title": "Too much waits", "detail": "come back", "status": 503}
    return httpx2.Response(
        503, headers={"Retry-After": seconds, "Content-Type": "application/problem+json"}, json=problem
    )


def test_retry_after_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("beexformer.client.time", SimpleNamespace(sleep=slept.append))  # not everybody's clock
    flaky = Flaky(busy("3"), httpx2.ConnectError("refused"), httpx2.Response(429, headers={"Retry-After": "2"}))
    assert Client(transport=flaky).models() == []
    assert len(flaky.times) == 4
    assert slept[0] == 3
    assert slept[1] < 1
    assert slept[2] == 2


def test_it_gives_up_in_the_end_with_the_services_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beexformer.client.time", SimpleNamespace(sleep=lambda seconds: None))
    flaky = Flaky(*(busy("1") for _ in range(3)))
    with pytest.raises(ServiceError, match="Too much waits: come back") as caught:
        Client(transport=flaky, retries=2).models()
    assert (caught.value.status, len(flaky.times)) == (503, 3)
    with pytest.raises(ServiceError, match="Too much waits"):
        Client(transport=Flaky(busy("3600"))).models()  # longer than anybody waits
    with pytest.raises(ServiceError, match="can't be reached"):
        Client(transport=Flaky(*[httpx2.ConnectError("refused")] * 3), retries=2).models()


def test_the_asynchronous_form_waits_without_holding_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    # the client's alone: loops of other tests' apps may still run, and would sleep by it
    monkeypatch.setattr("beexformer.client.asyncio", SimpleNamespace(sleep=sleep))

    async def ask() -> list[Any]:
        async with AsyncClient(transport=Flaky(busy("4"))) as client:
            return await client.models()

    assert asyncio.run(ask()) == []
    assert slept == [4]
