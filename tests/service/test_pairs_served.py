"""Pairs that are read apart, over HTTP, in batches and in files: answers are those of the engine."""

import csv
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console
from running import wait_until
from starlette.testclient import TestClient
from tiny import random_checkpoint, random_texts

from beexformer.app.main import create_app
from beexformer.app.score_files import Scoring, score
from beexformer.app.settings import Settings
from beexformer.model import tables
from beexformer.model.checkpoint import save
from beexformer.model.engine import Engine
from beexformer.model.options import ExitOptions

PAIRS = [*zip(random_texts(10, seed=1), random_texts(10, seed=2), strict=True)]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "alike"
    made = random_checkpoint(7, ("no", "yes"), input="pair", head="linear", pairs="apart")
    save(replace(made, name="alike"), folder)
    return folder


@pytest.fixture(scope="module")
def engine(pairs: Path) -> Engine:
    return Engine.load(pairs)


@pytest.fixture(scope="module")
def service(pairs: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(checkpoints=(pairs,), shadow_ratio=1.0), Engine.load)) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        yield client


def test_answers_are_those_of_the_engine(service: TestClient, engine: Engine) -> None:
    items = [{"text": a, "text_pair": b, "delta": 0.02} for a, b in PAIRS]
    result = service.post("/classify/batch", json={"items": items}).json()["results"]
    for said, item in zip(result, items, strict=True):
        assert said == service.post("/classify", json=item).json()
        row = engine.encode(str(item["text"]), str(item["text_pair"]), ExitOptions(delta=0.02))
        [answer] = engine.predict([row])
        expected = json.loads(json.dumps(asdict(answer)))
        assert said == {name: value for name, value in expected.items() if value is not None}


def test_a_text_alone_is_refused_and_shadows_compare(service: TestClient) -> None:
    assert service.post("/classify", json={"text": "alone"}).status_code == 422
    early = {"text": PAIRS[0][0], "text_pair": PAIRS[0][1], "max_blocks": 1}
    assert service.post("/classify", json=early).json()["exit_index"] == 1

    def compared() -> bool:
        lines = [line for line in service.get("/metrics").text.splitlines() if line.startswith("bee_shadow_total")]
        return sum(float(line.split()[-1]) for line in lines if 'exit="1"' in line) > 0

    wait_until(compared)


def test_a_file_of_pairs_is_scored(pairs: Path, engine: Engine, tmp_path: Path) -> None:
    with (tmp_path / "rows.csv").open("w", newline="") as out:
        csv.writer(out).writerows([("a", "b"), *PAIRS])
    scoring = Scoring(tmp_path / "rows.csv", tmp_path / "out.csv", "a", "b", paths=(pairs,), model="alike")
    assert score(scoring, engine, 1, Console(quiet=True)).bad == 0
    said = [row["predicted_label"] for row in tables.read(tmp_path / "out.csv").rows]
    assert said == [answer.label for answer in engine.predict([engine.encode(*pair) for pair in PAIRS])]
