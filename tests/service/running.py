"""
The service in two forms: in this process behind a test client, and for real as `beexformer serve` in another one.

Both serve the golden checkpoint with the real engine; `Held`, where a test must stop the engine, has a gate before
`predict`.
"""

import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from starlette.testclient import TestClient

from beexformer.app.errors import MEDIA_TYPE
from beexformer.app.main import create_app
from beexformer.app.metrics import Metrics
from beexformer.app.settings import Settings
from beexformer.model.engine import Engine
from beexformer.model.forward import Forward

GOLDEN = Path(__file__).parent.parent / "golden" / "v1" / "checkpoint"
ANSWERS = json.loads((GOLDEN.parent / "answers.json").read_text())
BEEXFORMER = Path(sys.executable).parent / "beexformer"
# of a server that a test starts: a busy machine is no reason to refuse
SERVER = {"BEE_DRAIN_SECONDS": "0", "BEE_MAX_WAIT_MS": "60000", "BEE_REQUEST_TIMEOUT_MS": "60000"}
PATIENCE = 240  # seconds until a fixture gives up; kernels may have to be compiled first, on a busy machine


class Held(Engine):
    """The real engine, but until `gate` is set, rows of `holds` tokens or more don't get on, turn after turn; and it
    notes the tokens of the rows that it was given."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.gate = threading.Event()
        self.gate.set()
        self.holds = 0
        self.begun: list[int] = []

    def predict(self, rows: Any, on_exit: Any = None) -> Any:
        assert self.gate.wait(PATIENCE)
        return super().predict(rows, on_exit)

    def begin(self, row: Any) -> Forward:
        self.begun.append(len(row.ids))
        return HeldForward(self, row)


class HeldForward(Forward):
    def __init__(self, engine: Held, row: Any) -> None:
        super().__init__(engine, row)
        self.held = len(row.ids) >= engine.holds
        self.gate = engine.gate

    def advance(self, milliseconds: float = math.inf) -> bool:
        if self.held and not self.gate.is_set():
            time.sleep(0.001)
            return False
        return super().advance(milliseconds)


def wait_until(true: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@contextmanager
def client_of(load: Callable[[Path], Engine] = Engine.load, **settings: Any) -> Iterator[TestClient]:
    """A ready app with these settings, in this process."""
    app = create_app(Settings(checkpoints=(GOLDEN,), **settings), load)
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        yield client


@dataclass
class Server:
    """A running server process."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def http(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=PATIENCE)

    def ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/readyz", timeout=PATIENCE).status_code == 200
        except httpx2.HTTPError:  # a connection that the stand-in closes while it leaves
            return False

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def server_of(folder: Path, *command: str | Path, **env: str) -> Iterator[Server]:
    """A ready server on a free port, logging into `folder`; ended with the block."""
    log = folder / "server.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([str(part) for part in command], stderr=stderr, env={**SERVER, **os.environ, **env})
        try:
            server = Server(process, "", log)
            wait_until(lambda: process.poll() is not None or "listening on" in log.read_text())
            assert process.poll() is None, log.read_text()
            running = next(line for line in server.lines() if line["message"].startswith("listening on"))
            server.url = running["message"].split()[2]
            wait_until(server.ready)
            yield server
        finally:
            process.terminate()
            process.wait(PATIENCE)


def scrape(metrics: Metrics) -> str:
    """What a scrape of them gets."""
    writing, _ = metrics.exposition("")
    while True:
        try:
            next(writing)
        except StopIteration as written:
            return str(written.value, "utf-8")


def samples(text: str) -> dict[tuple[str, ...], float]:
    """An exposition as {(name, label=value, ...): value}."""
    from prometheus_client.parser import text_string_to_metric_families

    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def problem(response: Any, status: int, slug: str) -> dict[str, Any]:
    """The problem in a response, after checking what all problems have in common."""
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["status"], response.headers["content-type"]) == (status, status, MEDIA_TYPE)
    assert body["type"] == f"urn:problem-type:beexformer:{slug}"
    assert body["title"]
    assert body["detail"]
    assert body["instance"] == response.url.raw_path.decode()
    assert body["request_id"] == response.headers["x-request-id"]
    return body
