"""Too much, too late, gone, broken: what happens around the engine, with the real engine held or failing on purpose."""

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from running import GOLDEN, Held, client_of, problem, samples, wait_until
from starlette.testclient import TestClient

from beexformer.app.main import create_app
from beexformer.app.settings import Settings
from beexformer.model.engine import Engine
from beexformer.model.errors import CheckpointError

ONE = {"text": "a warm film"}
PATIENT = {"X-Request-Timeout-Ms": "60000"}


@contextmanager
def held(**settings: Any) -> Iterator[tuple[TestClient, Held, ThreadPoolExecutor]]:
    """A ready app whose one engine thread is held by a first text, and threads to ask it from."""
    with (
        client_of(Held.load, threads=1, **{"request_timeout_ms": 60_000, **settings}) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        engine = client.app.state.service.registry.get()  # type: ignore[attr-defined]
        engine.gate.clear()
        engine.batches.clear()
        first = pool.submit(client.post, "/classify", json=ONE, headers=PATIENT)
        wait_until(lambda: engine.batches)
        try:
            yield client, engine, pool
        finally:
            engine.gate.set()
            assert first.result().status_code == 200


def waiting(client: TestClient) -> int:
    return int(client.app.state.service.scheduler.waiting)  # type: ignore[attr-defined]


def test_a_full_queue_refuses_at_once_with_a_time_to_come_back() -> None:
    with held(max_queue=3) as (client, engine, pool):
        queued = pool.submit(client.post, "/classify/batch", json={"items": [ONE] * 2})
        wait_until(lambda: waiting(client) == 2)
        partly = pool.submit(client.post, "/classify/batch", json={"items": [ONE] * 3})
        wait_until(lambda: waiting(client) == 3)
        for path, body in (("/classify", ONE), ("/classify/batch", {"items": [ONE, ONE]})):
            refused = client.post(path, json=body)
            problem(refused, 503, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
        assert samples(client.get("/metrics").text)[("bee_queue_depth",)] == 3
        engine.gate.set()
        assert [result.get("status") for result in queued.result().json()["results"]] == [None, None]
        assert [result.get("status") for result in partly.result().json()["results"]] == [None, 503, 503]
        assert samples(client.get("/metrics").text)[("bee_queue_depth",)] == 0


def test_waiting_texts_of_several_callers_share_a_batch() -> None:
    with held() as (client, engine, pool):
        asked: list[Future[Any]] = []
        for i in range(3):
            asked.append(pool.submit(client.post, "/classify", json={"text": "a warm film " * (i + 1)}))
            wait_until(lambda: waiting(client) == len(asked))
        engine.gate.set()
        assert [one.result().status_code for one in asked] == [200] * 3
        assert [len(batch) for batch in engine.batches] == [1, 3]


def test_a_deadline_in_the_queue_is_504_and_the_engine_never_sees_the_text() -> None:
    with held() as (client, engine, _):
        late = client.post("/classify", json=ONE, headers={"X-Request-Timeout-Ms": "20"})
        problem(late, 504, "deadline-exceeded")
        items = [ONE, {"text": " "}]
        batch = client.post("/classify/batch", json={"items": items}, headers={"X-Request-Timeout-Ms": "20"})
        assert [result["status"] for result in batch.json()["results"]] == [504, 422]
    assert [len(batch) for batch in engine.batches] == [1]


def test_the_default_deadline_is_a_setting_and_the_header_overrides_it() -> None:
    with held(request_timeout_ms=20) as (client, engine, pool):
        problem(client.post("/classify", json=ONE), 504, "deadline-exceeded")
        patient = pool.submit(client.post, "/classify", json=ONE, headers=PATIENT)
        wait_until(lambda: waiting(client) == 1)
        engine.gate.set()
        assert patient.result().status_code == 200


class SlowToTokenize(Engine):
    def encode(self, text: str, *args: Any, **options: Any) -> Any:
        time.sleep(0.2 * (len(text) > 1000))
        return super().encode(text, *args, **options)


def test_a_long_text_that_is_late_for_tokenizing_is_504() -> None:
    with client_of(SlowToTokenize.load) as client:
        late = client.post("/classify", json={"text": "film " * 2000}, headers={"X-Request-Timeout-Ms": "20"})
        problem(late, 504, "deadline-exceeded")


def test_a_client_who_leaves_takes_the_text_out_of_the_queue() -> None:
    async def leave() -> tuple[list[Any], list[list[int]], dict[Any, float]]:
        app = create_app(Settings(checkpoints=(GOLDEN,), threads=1), Held.load)
        service = app.state.service
        async with app.router.lifespan_context(app):
            while service.registry.state != "ready":
                await asyncio.sleep(0.01)
            engine = service.registry.get()
            engine.gate.clear()
            engine.batches.clear()
            first = service.scheduler.submit(engine, engine.encode("a"), 60)
            while not engine.batches:
                await asyncio.sleep(0.01)
            sent: list[Any] = []
            messages = [{"type": "http.request", "body": json.dumps(ONE).encode()}, {"type": "http.disconnect"}]

            async def receive() -> Any:
                return messages.pop(0) if len(messages) > 1 else messages[0]

            async def send(message: Any) -> None:
                sent.append(message)

            headers = [(b"content-type", b"application/json")]
            scope = {"type": "http", "method": "POST", "path": "/classify", "headers": headers, "query_string": b""}
            await app(scope, receive, send)
            engine.gate.set()
            await first
            await service.scheduler.drain()
        return sent, engine.batches, samples(service.metrics.exposition("")[0].decode())

    sent, batches, counted = asyncio.run(leave())
    assert sent[0]["status"] == 499  # nobody reads it, but the log and the metrics say what happened
    assert batches == [[3]]
    assert counted["bee_requests_total", "code=499", "model=golden"] == 1
    assert counted["bee_queue_depth",] == 0


class Broken(Engine):
    """Answers its first forward, then fails."""

    forwards = 0

    def predict(self, *args: Any) -> Any:
        self.forwards += 1
        if self.forwards > 1:
            raise RuntimeError("secret of the house")
        return super().predict(*args)

    def calibrate(self) -> None:
        """That would be the second."""


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
