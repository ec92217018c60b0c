"""Several labels a text over HTTP, in batches, as tensors, in files and through the client: what applies is said."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import httpx2
import pytest
from rich.console import Console
from running import wait_until
from starlette.testclient import TestClient
from tiny import random_checkpoint, random_texts, with_median_thresholds

from beexformer.app.main import create_app
from beexformer.app.score_files import Scoring, score
from beexformer.app.settings import Settings
from beexformer.classifier import load
from beexformer.client import Client
from beexformer.model import tables
from beexformer.model.checkpoint import save
from beexformer.model.engine import Engine
from beexformer.model.options import ExitOptions

LABELS = ("praise", "price", "delivery")
TEXTS = random_texts(12, seed=5)


@pytest.fixture(scope="module")
def tags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tags"
    made = random_checkpoint(4, LABELS, input="text", head="linear", multi_label=True)
    save(replace(with_median_thresholds(made, TEXTS), name="tags"), folder)
    save(replace(random_checkpoint(5), name="one"), folder.parent / "one")
    return folder


@pytest.fixture(scope="module")
def engine(tags: Path) -> Engine:
    return Engine.load(tags)


@pytest.fixture(scope="module")
def service(tags: Path) -> Iterator[TestClient]:
    app = create_app(Settings(checkpoints=(tags.parent,)), Engine.load)
    with TestClient(app) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        yield client


def test_answers_are_those_of_the_engine(service: TestClient, engine: Engine) -> None:
    expected = [json.loads(json.dumps(asdict(answer))) for answer in engine.predict([*map(engine.encode, TEXTS)])]
    items = [{"text": text, "model": "tags"} for text in TEXTS]
    result = service.post("/classify/batch", json={"items": items}).json()["results"]
    for said, answer, item in zip(result, expected, items, strict=True):
        assert said == {name: value for name, value in answer.items() if value is not None}
        assert said == service.post("/classify", json=item).json()
    assert len({tuple(said["labels"]) for said in result}) > 1
    one = service.post("/classify", json={"text": "a film", "model": "one"}).json()
    assert "labels" not in one


def test_models_say_from_which_score_on_labels_apply(service: TestClient, engine: Engine) -> None:
    assert engine.thresholds is not None
    described = {model["name"]: model for model in service.get("/models").json()["models"]}
    assert described["tags"]["thresholds"] == [*engine.thresholds]
    assert described["one"]["thresholds"] is None
    assert service.get("/models/tags").json()["thresholds"] == [*engine.thresholds]
    schema = service.get("/openapi.json").json()["components"]["schemas"]
    assert "thresholds" in schema["ModelSummary"]["properties"]
    assert "labels" in schema["Answer"]["properties"]
    assert "labels" not in schema["Answer"]["required"]


def test_tensors_say_which_labels_apply(service: TestClient, engine: Engine) -> None:
    names = [output["name"] for output in service.get("/v2/models/tags").json()["outputs"]]
    assert "applies" in names
    assert "applies" not in [output["name"] for output in service.get("/v2/models/one").json()["outputs"]]
    asked = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [len(TEXTS)], "data": TEXTS}]}
    result = service.post("/v2/models/tags/infer", json=asked).json()
    [applies] = [output for output in result["outputs"] if output["name"] == "applies"]
    assert (applies["datatype"], applies["shape"]) == ("BOOL", [len(TEXTS), 3])
    answers = engine.predict([*map(engine.encode, TEXTS)])
    assert applies["data"] == [label in answer.says for answer in answers for label in LABELS]
    wanted = {**asked, "outputs": [{"name": "applies"}]}
    assert service.post("/v2/models/one/infer", json=wanted).status_code == 400


def test_shadow_depth_compares_sets_of_labels(tags: Path, engine: Engine) -> None:
    with TestClient(create_app(Settings(checkpoints=(tags,), shadow_ratio=1.0), Engine.load)) as service:
        wait_until(lambda: service.get("/readyz").status_code == 200)
        _compare_with_shadows(service, engine)


def _compare_with_shadows(service: TestClient, engine: Engine) -> None:
    def compared() -> dict[str, float]:
        lines = [line for line in service.get("/metrics").text.splitlines() if line.startswith("bee_shadow")]
        return {
            agreed: sum(float(line.split()[-1]) for line in lines if f'agreed="{agreed}"' in line and "tags" in line)
            for agreed in ("yes", "no")
        }

    before, texts = compared(), random_texts(25, seed=9)
    for text in texts:
        service.post("/classify", json={"text": text, "model": "tags", "delta": 0.9})
    wait_until(lambda: sum(compared().values()) >= sum(before.values()) + len(texts))
    after = compared()
    early = [engine.predict([engine.encode(text, options=ExitOptions(delta=0.9))])[0] for text in texts]
    full = [engine.predict([engine.encode(text, options=ExitOptions(min_blocks=6))])[0] for text in texts]
    same = sum(a.labels == b.labels for a, b in zip(early, full, strict=True))
    assert (after["yes"] - before["yes"], after["no"] - before["no"]) == (same, len(texts) - same)


def test_the_client_reads_them(service: TestClient, engine: Engine) -> None:
    def through(request: httpx2.Request) -> httpx2.Response:
        answer = service.request(request.method, request.url.path, content=request.content, headers=request.headers)
        return httpx2.Response(answer.status_code, content=answer.content, headers=dict(answer.headers))

    with Client("http://testserver", transport=httpx2.MockTransport(through)) as client:
        assert client.classify(TEXTS[0], model="tags") == engine.predict([engine.encode(TEXTS[0])])[0]
        assert client.classify("a film", model="one").labels is None


def test_from_python(tags: Path, engine: Engine) -> None:
    model = load(tags)
    assert model.thresholds == engine.thresholds
    assert model.classify(TEXTS) == engine.predict([*map(engine.encode, TEXTS)])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_scored_files_have_the_labels_as_a_list(tags: Path, engine: Engine, tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    source, out = tmp_path / "rows.jsonl", tmp_path / f"out{suffix}"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*TEXTS, " "]))
    result = score(Scoring(source, out, paths=(tags,), model="tags"), engine, 1, Console(quiet=True))
    assert (result.rows, result.bad) == (13, 1)
    rows = [*tables.read(out).rows]
    said = [row["predicted_labels"] for row in rows[:12]]
    lists = [json.loads(cell) for cell in said] if suffix == ".csv" else said
    assert lists == [[*answer.says] for answer in engine.predict([*map(engine.encode, TEXTS)])]
    assert rows[0]["predicted_label"] == engine.predict([engine.encode(TEXTS[0])])[0].label
    assert not rows[12].get("predicted_labels")
