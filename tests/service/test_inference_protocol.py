"""The Open Inference Protocol as tritonclient speaks it, against a real server; and its own error shape."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import GOLDEN, Server, client_of, samples
from starlette.testclient import TestClient

from beexformer.app.tensors import pack_texts, unpack_texts
from beexformer.classifier import load

triton = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
TEXTS = ["a warm film", "the worst movie ever", "dull 😀"]
INFER = "/v2/models/golden/infer"


@pytest.fixture
def triton_client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client


def tensor(name: str, texts: list[str], binary: bool) -> Any:
    made = triton.InferInput(name, [len(texts)], "BYTES")
    made.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=object), binary_data=binary)
    return made


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_tritonclient_gets_the_answers_of_the_model(triton_client: Any, binary_in: bool, binary_out: bool) -> None:
    outputs = [
        triton.InferRequestedOutput(name, binary_data=binary_out)
        for name in ("label", "scores", "exit_index", "flops", "truncated")
    ]
    result = triton_client.infer(
        "golden", [tensor("text", TEXTS, binary_in)], outputs=outputs, request_id="7", parameters={"delta": 0.5}
    )
    expected = load(GOLDEN).classify(TEXTS, delta=0.5)
    labels = [label.decode() if isinstance(label, bytes) else label for label in result.as_numpy("label")]
    assert labels == [answer.label for answer in expected]
    assert result.as_numpy("scores").tolist() == [list(answer.scores.values()) for answer in expected]
    assert result.as_numpy("exit_index").tolist() == [answer.exit_index for answer in expected]
    assert result.as_numpy("flops").tolist() == [answer.flops for answer in expected]
    assert result.as_numpy("truncated").tolist() == [False] * 3
    response = result.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == ("golden", "1", "7")


def test_without_outputs_all_come_and_pairs_are_two_inputs(triton_client: Any) -> None:
    pair = [tensor("text", ["a film"], True), tensor("text_pair", ["a movie"], True)]
    result = triton_client.infer("golden", pair, model_version="1", parameters={"min_blocks": 6})
    assert result.as_numpy("exit_index").tolist() == [6]
    assert result.as_numpy("tokens").tolist() == [load(GOLDEN).classify("a film", "a movie").tokens]
    assert result.as_numpy("unknown_ratio").shape == (1,)


def test_health_and_metadata(triton_client: Any) -> None:
    assert triton_client.is_server_live()
    assert triton_client.is_server_ready()
    assert triton_client.is_model_ready("golden")
    assert triton_client.is_model_ready("golden", "1")
    assert not triton_client.is_model_ready("golden", "2")
    assert not triton_client.is_model_ready("other")
    assert triton_client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    about = triton_client.get_model_metadata("golden", "1")
    assert [given["name"] for given in about["inputs"]] == ["text", "text_pair"]
    assert about["parameters"]["labels"] == ["negative", "positive"]
    assert {"name": "scores", "datatype": "FP64", "shape": [-1, 2]} in about["outputs"]
    with pytest.raises(triton.InferenceServerException if hasattr(triton, "InferenceServerException") else Exception):
        triton_client.get_model_metadata("other")


def body(**changed: Any) -> dict[str, Any]:
    text = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a film"]}
    return {"inputs": [{**text, **changed.pop("text", {})}], **changed}


BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "no inputs": ({}, 400, "inputs: Field required"),
    "another input": (body(text={"name": "image"}), 400, "one tensor named text"),
    "another datatype": (body(text={"datatype": "FP32"}), 400, "with datatype BYTES"),
    "no data": ({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES"}]}, 400, "neither data nor"),
    "wrong shape": (body(text={"shape": [2]}), 400, "has 1 texts and shape [2]"),
    "numbers": (body(text={"data": [1]}), 400, "data must be texts"),
    "blank": (body(text={"data": [" "]}), 400, "text 0: text is empty or blank"),
    "unknown parameter": (body(parameters={"dleta": 1}), 400, "there is no parameter 'dleta'"),
    "odd delta": (body(parameters={"delta": 2}), 400, "parameters.delta"),
    "text for a number": (body(parameters={"delta": "1"}), 400, "parameters.delta"),
    "blocks": (body(parameters={"max_blocks": 7}), 400, "must lie in 1..6"),
    "unknown output": (body(outputs=[{"name": "logits"}]), 400, "there is no output 'logits'"),
    "too many": (body(text={"data": ["a"] * 300, "shape": [300]}), 413, "may have 256"),
}


@pytest.mark.parametrize(("sent", "status", "words"), BAD.values(), ids=BAD)
def test_errors_have_the_protocols_own_shape(client: TestClient, sent: dict[str, Any], status: int, words: str) -> None:
    response = client.post(INFER, json=sent)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v2/models/other/infer", 404), ("/v2/models/golden/versions/2/infer", 404), ("/v2/nothing", 404)],
)
def test_what_is_not_there_is_said_in_the_same_shape(client: TestClient, path: str, status: int) -> None:
    response = client.post(path, json=body())
    assert (response.status_code, set(response.json())) == (status, {"error"})


@pytest.mark.parametrize("header", ["9999", "-1", "x", "5"])
def test_a_wrong_length_of_the_json_is_refused(client: TestClient, header: str) -> None:
    response = client.post(INFER, content=json.dumps(body()), headers={"Inference-Header-Content-Length": header})
    assert response.status_code == 400
    assert response.json()["error"]


def test_bytes_behind_the_json_are_checked(client: TestClient) -> None:
    for size, behind, words in (
        (7, pack_texts(["abc"]), ""),
        (3, b"abc", "end within a text"),
        (8, b"\xff\xff\xff\xffabcd", "end within a text"),
        (6, b"\x02\0\0\0\xff\xff", "not UTF-8 at byte 0"),
        (90, b"abc", "as many bytes"),
        (7, pack_texts(["abc"]) + b"x", "left over"),
    ):
        text = {"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": size}}
        head = json.dumps({"inputs": [text]}).encode()
        sent = client.post(INFER, content=head + behind, headers={"Inference-Header-Content-Length": str(len(head))})
        assert sent.status_code == (400 if words else 200)
        assert words in sent.json().get("error", "")


@given(st.lists(st.text(st.characters(codec="utf-8"))))
def test_texts_survive_the_binary_form(texts: list[str]) -> None:
    assert unpack_texts(pack_texts(texts)) == texts


def test_it_needs_a_key_is_counted_and_refused_like_the_rest() -> None:
    with client_of(api_keys=("secret-key",), max_body_bytes=1024) as client:
        refused = client.post(INFER, json=body())
        assert (refused.status_code, set(refused.json())) == (401, {"error"})
        assert client.get("/v2/health/ready").status_code == 200
        key = {"X-API-Key": "secret-key"}
        assert client.post(INFER, json=body(), headers=key).status_code == 200
        large = client.post(INFER, json=body(text={"data": ["a" * 2000]}), headers=key)
        assert (large.status_code, set(large.json())) == (413, {"error"})
        counted = samples(client.get("/metrics").text)
        assert counted["bee_requests_total", "code=200", "model=golden"] == 1
        assert counted["bee_requests_total", "code=413", "model="] == 1
        assert counted["bee_requests_total", "code=401", "model="] == 1
