"""Too much, too late, gone, broken: what happens around the engine, with the real engine held or failing on purpose."""

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from running import GOLDEN, Held, client_of, problem, samples, scrape, wait_until
from starlette.testclient import TestClient

from beexformer.app.main import create_app
from beexformer.app.settings import Settings
from beexformer.model.engine import Engine
from beexformer.model.errors import CheckpointError

ONE = {"text": "a warm film"}
PATIENT = {"X-Request-Timeout-Ms": "60000"}
SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/classify",
    "query_string": b"",
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"23")],
}


LONG = {"text": "a warm and moving film " * 500}


@contextmanager
def held(**settings: Any) -> Iterator[tuple[TestClient, Held, ThreadPoolExecutor]]:
    """A ready app whose engine holds a first, long text and others like it, and threads to ask it from."""
    with (
        client_of(Held.load, **{"request_timeout_ms": 60_000, **settings}) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        engine = client.app.state.service.registry.get()  # type: ignore[attr-defined]
        engine.holds = 20
        engine.gate.clear()
        engine.begun.clear()
        first = pool.submit(client.post, "/classify", json=LONG, headers=PATIENT)
        wait_until(lambda: waiting(client) == 1)
        try:
            yield client, engine, pool
        finally:
            engine.gate.set()
            assert first.result().status_code == 200


def waiting(client: TestClient) -> int:
    return int(client.app.state.service.scheduler.waiting)  # type: ignore[attr-defined]


def test_a_short_text_is_answered_while_long_ones_and_batches_wait() -> None:
    with held() as (client, _, pool):
        batch = pool.submit(client.post, "/classify/batch", json={"items": [ONE, LONG]})
        wait_until(lambda: waiting(client) == 2)
        answer = client.post("/classify", json=ONE).json()
        wait_until(lambda: waiting(client) == 2)
    assert batch.result().json()["results"][0] == answer


def test_what_waits_too_long_is_refused_with_a_time_to_come_back() -> None:
    with held(max_wait_ms=1) as (client, engine, _):
        engine.cost.ratio = 100.0  # what is held is longer than that, however fast the machine
        for path, body in (("/classify", LONG), ("/classify/batch", {"items": [LONG, ONE]})):
            wait_until(lambda: client.app.state.service.scheduler.backlog > 0.001)  # type: ignore[attr-defined]
            refused = client.post(path, json=body)
            problem(refused, 503, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
        counted = samples(client.get("/metrics").text)
        assert counted["bee_wait_limit_seconds",] == 0.001
        assert counted["bee_requests_total", "code=503", "model="] == 2
    assert len(engine.begun) == 1


def test_a_request_that_waited_too_long_to_be_read_is_refused_unread() -> None:
    async def ask() -> list[Any]:
        app = create_app(Settings(checkpoints=(GOLDEN,), max_wait_ms=500))
        sent: list[Any] = []
        async with app.router.lifespan_context(app):
            while app.state.service.registry.state != "ready":
                await asyncio.sleep(0.01)

            async def receive() -> Any:
                raise AssertionError("nobody reads the body")

            async def send(message: Any) -> None:
                sent.append(message)

            await app({**SCOPE, "bee.received": time.monotonic() - 3}, receive, send)
        return sent

    start, body = asyncio.run(ask())
    assert start["status"] == 503
    assert (b"retry-after", b"4") in start["headers"]
    assert json.loads(body["body"])["detail"] == "requests wait 3.0 s for their turn; try again in 4 s"


def test_past_its_deadline_a_text_gets_504_and_those_before_it_in_the_batch_their_answers() -> None:
    with held() as (client, engine, _):
        late = client.post("/classify", json=LONG, headers={"X-Request-Timeout-Ms": "20"})
        problem(late, 504, "deadline-exceeded")
        items = [ONE, {"text": " "}, LONG, {"text": "film"}]
        # long enough for a machine that stands still for a while before the first text has its turn
        batch = client.post("/classify/batch", json={"items": items}, headers={"X-Request-Timeout-Ms": "3000"})
        assert [result.get("status") for result in batch.json()["results"]] == [None, 422, 504, 504]
        assert 3 not in engine.begun, "the last one never reached the engine"


def test_the_default_deadline_is_a_setting_and_the_header_overrides_it() -> None:
    with held(request_timeout_ms=20) as (client, engine, pool):
        problem(client.post("/classify", json=LONG), 504, "deadline-exceeded")
        patient = pool.submit(client.post, "/classify", json=LONG, headers=PATIENT)
        wait_until(lambda: waiting(client) == 2)
        engine.gate.set()
        assert patient.result().status_code == 200


def test_the_deadline_counts_from_when_the_request_was_there() -> None:
    async def ask() -> list[Any]:
        app = create_app(Settings(checkpoints=(GOLDEN,), max_wait_ms=600_000))
        sent: list[Any] = []
        async with app.router.lifespan_context(app):
            while app.state.service.registry.state != "ready":
                await asyncio.sleep(0.01)

            async def receive() -> Any:
                return {"type": "http.request", "body": json.dumps(ONE).encode()}

            async def send(message: Any) -> None:
                sent.append(message)

            await app({**SCOPE, "bee.received": time.monotonic() - 6}, receive, send)
        return sent

    start, _ = asyncio.run(ask())
    assert start["status"] == 504


class SlowToTokenize(Engine):
    def encode(self, text: str, *args: Any, **options: Any) -> Any:
        time.sleep(0.2 * (len(text) > 1000))
        return super().encode(text, *args, **options)


def test_a_long_text_that_is_late_for_tokenizing_is_504() -> None:
    with client_of(SlowToTokenize.load) as client:
        late = client.post("/classify", json={"text": "film " * 2000}, headers={"X-Request-Timeout-Ms": "20"})
        problem(late, 504, "deadline-exceeded")


def test_a_client_who_leaves_takes_the_text_back() -> None:
    async def leave() -> tuple[list[Any], list[int], dict[Any, float]]:
        app = create_app(Settings(checkpoints=(GOLDEN,)), Held.load)
        service = app.state.service
        async with app.router.lifespan_context(app):
            while service.registry.state != "ready":
                await asyncio.sleep(0.01)
            engine = service.registry.get()
            engine.gate.clear()
            sent: list[Any] = []
            messages = [{"type": "http.request", "body": json.dumps(ONE).encode()}, {"type": "http.disconnect"}]

            async def receive() -> Any:
                return messages.pop(0) if len(messages) > 1 else messages[0]

            async def send(message: Any) -> None:
                sent.append(message)

            await app(SCOPE, receive, send)
            while service.scheduler.waiting:  # until its turn is over
                await asyncio.sleep(0.001)
            engine.gate.set()
        return sent, engine.begun, samples(scrape(service.metrics))

    sent, begun, counted = asyncio.run(leave())
    assert sent[0]["status"] == 499  # nobody reads it, but the log and the metrics say what happened
    assert len(begun) == 1
    assert counted["bee_requests_total", "code=499", "model=golden"] == 1


class Broken(Engine):
    """Is ready, and then answers nothing."""

    def begin(self, row: Any) -> Any:
        raise RuntimeError("secret of the house")


def test_a_bug_is_a_500_without_internals_and_a_log_line_with_them(caplog: pytest.LogCaptureFixture) -> None:
    with client_of(Broken.load) as client, caplog.at_level(logging.ERROR):
        single = client.post("/classify", json=ONE, headers={"X-Request-ID": "find-me"})
        problem(single, 500, "internal")
        batch = client.post("/classify/batch", json={"items": [ONE, {"text": ""}]})
        assert [result["status"] for result in batch.json()["results"]] == [500, 422]
        assert "secret" not in single.text + batch.text
        assert "Traceback" not in single.text + batch.text
        counted = samples(client.get("/metrics").text)
    failed = [record for record in caplog.records if record.name == "bee.error"]
    assert len(failed) == 2
    assert failed[0].fields["request_id"] == "find-me"  # type: ignore[attr-defined]
    assert all(record.exc_info and "secret of the house" in str(record.exc_info[1]) for record in failed)
    assert counted["bee_requests_total", "code=500", "model=golden"] == 2


def test_it_lives_but_is_not_ready_while_it_starts() -> None:
    class Starting(Held):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.gate.clear()

    app = create_app(Settings(checkpoints=(GOLDEN,)), Starting.load)
    with TestClient(app) as client:
        try:
            assert client.get("/livez").json() == {"status": "alive"}
            for response in (client.get("/readyz"), client.post("/classify", json=ONE)):
                problem(response, 503, "starting")
                assert response.headers["retry-after"] == "1"
        finally:
            app.state.service.registry.get().gate.set()
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert client.get("/readyz").json() == {"status": "ready"}
        assert client.post("/classify", json=ONE).status_code == 200


def test_a_warm_app_is_ready_before_anything_is_asked() -> None:
    app = create_app(Settings(checkpoints=(GOLDEN,)), warm=True)
    client = TestClient(app)  # without its lifespan, as servers that send requests at once may have it
    assert client.get("/readyz").status_code == 200
    assert client.post("/classify", json=ONE).status_code == 200
    assert "bee_ready 0.0" in client.get("/metrics").text, "no event loop of it is watched yet"
    with client:
        wait_until(lambda: "bee_ready 1.0" in client.get("/metrics").text)


def test_an_engine_that_fails_its_first_forward_is_never_ready_nor_alive() -> None:
    class Dead(Engine):
        def predict(self, *args: Any) -> Any:
            raise RuntimeError("no such instruction")

    with TestClient(create_app(Settings(checkpoints=(GOLDEN,)), Dead.load)) as client:
        wait_until(lambda: client.get("/livez").status_code == 503)
        assert "failed its first forward" in problem(client.get("/readyz"), 503, "starting")["detail"]
        assert "no such instruction" not in client.get("/readyz").text


def test_draining_is_not_ready_but_answers() -> None:
    with client_of() as client:
        client.app.state.service.draining = True  # type: ignore[attr-defined]
        refused = client.get("/readyz")
        problem(refused, 503, "draining")
        assert refused.headers["retry-after"] == "1"
        assert client.post("/classify", json=ONE).status_code == 200
        assert client.get("/livez").status_code == 200


def test_two_models_answer_by_name(tmp_path: Any) -> None:
    def load(folder: Any) -> Engine:
        engine = Engine.load(GOLDEN)
        engine.name = engine.description["name"] = folder.name
        return engine

    for name in ("one", "two", ".three"):
        (tmp_path / name).mkdir()
    app = create_app(Settings(checkpoints=(tmp_path,), default_model="two"), load)
    with TestClient(app) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert [(m["name"], m["default"]) for m in client.get("/models").json()["models"]] == [
            ("one", False),
            ("two", True),
        ]
        assert client.post("/classify", json=ONE).json()["model"] == "two"
        mixed = client.post("/classify/batch", json={"items": [{**ONE, "model": name} for name in ("one", "two", "x")]})
        assert [result.get("model", result.get("status")) for result in mixed.json()["results"]] == ["one", "two", 404]
        assert client.get("/models/one").json()["name"] == "one"
        problem(client.get("/models/three"), 404, "unknown-model")
    with pytest.raises(CheckpointError, match="second checkpoint named 'golden'"):
        create_app(Settings(checkpoints=(GOLDEN, GOLDEN)))


def asked_late(seconds: float, **service: Any) -> list[dict[str, Any]]:
    """Answers to a text, a text with a delta and one with a threshold whose requests waited so long."""

    async def ask() -> list[dict[str, Any]]:
        app = create_app(Settings(checkpoints=(GOLDEN,), **service))
        answers = []
        async with app.router.lifespan_context(app):
            while app.state.service.registry.state != "ready":
                await asyncio.sleep(0.01)
            for more in ({}, {"delta": -1}, {"entropy_threshold": 0.01}, {"max_blocks": 5}):
                sent: list[Any] = []

                async def receive(more: Any = more) -> Any:
                    return {"type": "http.request", "body": json.dumps({**ONE, **more}).encode()}

                async def send(message: Any, sent: list[Any] = sent) -> None:
                    sent.append(message)

                await app({**SCOPE, "bee.received": time.monotonic() - seconds}, receive, send)
                answers.append(json.loads(sent[1]["body"]))
            counted = samples(scrape(app.state.service.metrics))
            answers.append({"shifted": counted["bee_brownout_total", "model=golden"]})
        return answers

    return asyncio.run(ask())


def test_brown_out_lets_texts_leave_earlier_before_any_is_refused_and_says_so() -> None:
    bounds = {"brownout_wait_ms": 10_000, "max_wait_ms": 30_000, "request_timeout_ms": 60_000}
    usual = asked_late(0, **bounds)
    assert usual == asked_late(9, **bounds)
    assert usual[-1]["shifted"] == 0
    plain, delta, threshold, bounded, counted = asked_late(20, **bounds, brownout_entropy_threshold=0.9)
    assert (delta, threshold) == (usual[1], usual[2]), "what is stated holds"
    for answer in (plain, bounded):
        assert answer["entropy_threshold"] == pytest.approx(0.45, abs=0.01)
    assert bounded["max_blocks"] == 5
    assert counted["shifted"] == 2
    assert asked_late(29.9, **bounds, brownout_entropy_threshold=1)[0]["exit_index"] == 1
    assert asked_late(31, **bounds)[0]["status"] == 503


def test_a_key_has_its_quota() -> None:
    keys = [{"X-API-Key": "first-secret"}, {"X-API-Key": "second-secret"}]
    with client_of(api_keys=("first-secret", "second-secret"), quota_per_minute=5) as client:
        batch = {"items": [ONE] * 4}
        assert client.post("/classify", json={"text": 1}, headers=keys[0]).status_code == 422, "costs nothing"
        for path, body in (("/classify", ONE), ("/classify/batch", batch)):
            assert client.post(path, json=body, headers=keys[0]).status_code == 200
        refused = client.post("/classify", json=ONE, headers=keys[0])
        problem(refused, 429, "quota")
        assert 1 <= int(refused.headers["retry-after"]) <= 12
        assert client.post("/classify/batch", json=batch, headers=keys[1]).status_code == 200
        assert client.get("/readyz").status_code == 200
        counted = samples(client.get("/metrics").text)
        assert counted["bee_requests_total", "code=429", "model="] == 1


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_shadow_depth_compares_answers_with_those_at_full_depth(ratio: float) -> None:
    texts = [{"text": f"{word} film", "delta": 1} for word in ("warm", "dull", "worst", "moving", "a", "the")]
    with client_of(shadow_ratio=ratio) as client:

        def compared() -> dict[tuple[str, ...], float]:
            counted = samples(client.get("/metrics").text)
            return {key[1:]: n for key, n in counted.items() if key[0] == "bee_shadow_total" and n}

        early = [client.post("/classify", json=text).json() for text in texts]
        if ratio:
            wait_until(lambda: sum(compared().values()) == len(texts))
        result = compared()
        full = [client.post("/classify", json={**text, "min_blocks": 6}).json() for text in texts]
    expected: dict[tuple[str, ...], int] = {}
    for one, other in zip(early, full, strict=True):
        agreed = "yes" if one["label"] == other["label"] else "no"
        key = (f"agreed={agreed}", f"exit={one['exit_index']}", "model=golden")
        expected[key] = expected.get(key, 0) + 1
    assert result == (expected if ratio else {})
