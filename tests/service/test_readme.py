"""The README's request, sent as it stands there; its paths and metrics are those of the running service."""

import json
import re
from pathlib import Path

from starlette.testclient import TestClient

README = (Path(__file__).parent.parent.parent / "README.md").read_text()


def test_the_request_gets_an_answer_of_the_shape_shown(client: TestClient) -> None:
    curl = re.search(
        r"^curl localhost:8000(\S+) -H '(\S+): (\S+)' -d '(.+)'\n```\n```json\n(.+?)```", README, re.M | re.S
    )
    assert curl
    path, header, value, body, shown = curl.groups()
    response = client.post(path, content=body, headers={header: value})
    assert response.status_code == 200
    answer, example = response.json(), json.loads(shown)
    assert list(answer) == list(example)
    assert list(answer["scores"]) == list(example["scores"])


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
