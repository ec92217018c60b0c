"""Classes that a request names, over HTTP: answered by a model that takes them, refused by others, counted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import GOLDEN, problem, samples, wait_until
from starlette.testclient import TestClient
from tiny import with_readers

from beexformer.app.main import create_app
from beexformer.app.settings import Settings
from beexformer.model.checkpoint import save

TEXT = {"text": "a warm and funny film", "model": "tiny"}
LABELS = ["warm film", "the worst", "dull"]


@pytest.fixture
def both(tmp_path: Path) -> Iterator[TestClient]:
    """The golden model, and a tiny one that takes labels."""
    save(with_readers(), tmp_path / "tiny")
    with TestClient(create_app(Settings(checkpoints=(GOLDEN, tmp_path / "tiny"))), raise_server_exceptions=False) as it:
        wait_until(lambda: it.get("/readyz").status_code == 200)
        yield it


def ask(client: TestClient, **fields: Any) -> dict[str, Any]:
    response = client.post("/classify", json={**TEXT, **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_a_text_gets_one_of_the_labels(both: TestClient) -> None:
    answer = ask(both, candidate_labels=LABELS)
    assert list(answer["scores"]) == LABELS
    assert answer["label"] == max(answer["scores"], key=answer["scores"].__getitem__)
    assert answer["model"] == "tiny"
    own = ask(both)
    assert list(own["scores"]) == ["negative", "positive"]
    assert "candidate_flops" not in own
    assert ask(both, candidate_labels=None) == own


def test_labels_are_paid_for_once(both: TestClient) -> None:
    first, second = (ask(both, candidate_labels=LABELS) for _ in range(2))
    assert first["candidate_flops"] == first["flops"] - second["flops"] == first["flops_full"] - second["flops_full"]
    assert first["candidate_flops"] > 0
    assert "candidate_flops" not in second
    assert first["scores"] == second["scores"]
    assert second["flops_saved"] == second["flops_full"] - second["flops"]


def test_metrics_count_all_work_and_keep_the_models_exits_apart(both: TestClient) -> None:
    def counted() -> dict[tuple[str, ...], float]:
        return samples(both.get("/metrics").text)

    def sum_of(result: dict[tuple[str, ...], float], name: str) -> float:
        return sum(value for key, value in result.items() if key[0] == name and "tiny" in " ".join(key))

    before = counted()
    answer = ask(both, candidate_labels=LABELS)
    after = counted()
    grown = {
        name: sum_of(after, name) - sum_of(before, name) for name in ("bee_flops_executed_total", "bee_exit_total")
    }
    assert grown["bee_flops_executed_total"] == pytest.approx(answer["flops"])
    assert grown["bee_exit_total"] == 1
    at_default = "bee_exit_at_default_total"
    assert sum_of(after, at_default) == sum_of(before, at_default), "drift compares the model's own classes"
    ask(both)
    assert sum_of(counted(), at_default) == sum_of(before, at_default) + 1


def test_each_item_of_a_batch_has_labels_of_its_own(both: TestClient) -> None:
    items = [{**TEXT, "candidate_labels": LABELS}, TEXT, {**TEXT, "candidate_labels": ["one"]}, {"text": TEXT["text"]}]
    results = both.post("/classify/batch", json={"items": items}).json()["results"]
    assert list(results[0]["scores"]) == LABELS
    assert list(results[1]["scores"]) == ["negative", "positive"]
    assert results[2]["status"] == 422
    assert results[2]["instance"].endswith("2")
    assert results[3]["model"] == "golden"


def test_what_cannot_be_answered_says_why(both: TestClient) -> None:
    refused = problem(both.post("/classify", json={"text": "a film", "candidate_labels": LABELS}), 422, "invalid-input")
    assert "takes no candidate_labels" in refused["detail"]
    for labels, said in (
        (["one"], "may have 2 to 64"),
        (["a"] * 2, "a label twice"),
        (["a", "b" * 201], "201 characters"),
        (["a", " "], "visible"),
    ):
        result = problem(both.post("/classify", json={**TEXT, "candidate_labels": labels}), 422, "invalid-input")
        assert said in result["detail"]
    wrong = problem(both.post("/classify", json={**TEXT, "candidate_labels": ["a", 1]}), 422, "invalid-field")
    assert wrong["errors"][0]["pointer"] == "#/candidate_labels/1"


def test_models_say_whether_they_take_labels(both: TestClient) -> None:
    result = {model["name"]: model for model in both.get("/models").json()["models"]}
    assert [result[name]["candidate_labels"] for name in ("golden", "tiny")] == [False, True]
    assert both.get("/models/tiny").json()["learned_from"] == "labels"
    described = both.get("/openapi.json").json()["components"]["schemas"]["ClassifyRequest"]["properties"]
    assert "2 to 64" in described["candidate_labels"]["description"]
