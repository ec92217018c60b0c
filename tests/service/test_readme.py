"""The README's request, sent as it stands there; its paths and metrics are those of the running service."""

import json
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import beexformer

README = (Path(__file__).parent.parent.parent / "README.md").read_text()


CURL = re.search(r"^curl localhost:8000(\S+) -H '(\S+): (\S+)' -d '(.+)'\n```\n```json\n(.+?)```", README, re.M | re.S)


def test_the_request_gets_an_answer_of_the_shape_shown(client: TestClient) -> None:
    assert CURL
    path, header, value, body, shown = CURL.groups()
    response = client.post(path, content=body, headers={header: value})
    assert response.status_code == 200
    answer, example = response.json(), json.loads(shown)
    # the tiny model of tests has no default exit options
    assert list(answer) == [name for name in example if name not in ("entropy_threshold", "min_blocks")]
    assert list(answer["scores"]) == list(example["scores"])


def test_what_ships_gives_the_answer_shown() -> None:
    assert CURL
    answer, example = beexformer.load("sst2").classify(**json.loads(CURL[4])), json.loads(CURL[5])
    for name, value in example.items():
        result = getattr(answer, name)
        result = list(result) if isinstance(result, tuple) else result
        assert result == (pytest.approx(value, abs=1e-4) if not isinstance(value, str) else value), name


def test_every_path_is_named(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert [
        path
        for path in (*paths, "/docs", "/openapi.json")
        if not path.startswith("/v2/")  # the Open Inference Protocol has its own document
        and not re.search(rf"[`0]{re.escape(path)}[`\s]", README)
    ] == []


def test_the_metrics_are_those_exported(client: TestClient) -> None:
    exported = re.findall(r"^# TYPE (bee_\w+)", client.get("/metrics").text, re.MULTILINE)
    assert set(re.findall(r"^\| `(bee_\w+)` \|", README, re.MULTILINE)) == set(exported)
