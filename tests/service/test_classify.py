"""Classifying over HTTP with the golden checkpoint: right answers, and each bad input with its own problem."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running import ANSWERS, client_of, problem
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from beexformer.app.admission import Admission
from beexformer.app.middleware import RequestMiddleware
from beexformer.app.schemas import ANSWER

GOOD = "a warm , funny and moving film"
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("expected", ANSWERS, ids=lambda expected: f"{expected['text'][:20]}-{expected['delta']}")
def test_golden_answers(client: TestClient, expected: dict[str, Any]) -> None:
    asked = {name: expected[name] for name in ("text", "text_pair", "delta") if name in expected}
    response = client.post("/classify", json=asked)
    assert response.status_code == 200
    answer = response.json()
    assert list(answer) == list(ANSWER)
    for name in ("label", "exit_index", "flops", "tokens"):
        assert answer[name] == expected[name]
    assert answer["scores"] == pytest.approx(expected["scores"], abs=1e-5)  # exp differs in its last bits among CPUs
    assert answer["entropies"] == pytest.approx(expected["entropies"], abs=1e-5)
    assert answer["score"] == max(answer["scores"].values())
    assert answer["flops_saved"] == answer["flops_full"] - answer["flops"]
    assert answer["flops_saved_ratio"] == answer["flops_saved"] / answer["flops_full"]
    assert answer["model"] == "golden"
    assert answer["delta"] == expected["delta"]
    assert answer["truncated"] is False


def test_options_bound_the_depth(client: TestClient) -> None:
    def ask(**options: Any) -> dict[str, Any]:
        answer: dict[str, Any] = client.post("/classify", json={"text": GOOD, **options}).json()
        return answer

    assert ask(delta=1)["exit_index"] == 1
    assert ask(max_blocks=1)["exit_index"] == 1
    full = ask(min_blocks=6)
    assert (full["exit_index"], full["flops_saved"], len(full["entropies"])) == (6, 0, 6)
    assert ask(min_blocks=3, max_blocks=3)["exit_index"] == 3
    sure = ask(delta=-1, entropy_threshold=1)
    assert (sure["exit_index"], sure["entropy_threshold"]) == (1, 1)
    assert ask(delta=-1, entropy_threshold=1, min_blocks=3)["exit_index"] == 3
    assert "entropy_threshold" not in ask()
    assert ask(model="golden", delta=None, entropy_threshold=None, text_pair=None) == ask(entropy_threshold=0) == ask()


def test_the_cost_is_predicted_where_it_is_asked_for(client: TestClient) -> None:
    short = client.post("/classify", json={"text": "film", "max_blocks": 1, "cost": True}).json()["cost"]
    assert 0 < short["predicted_ms"] < short["predicted_ms_full"]
    full = client.post("/classify", json={"text": "film", "min_blocks": 6, "cost": True}).json()["cost"]
    assert full["predicted_ms"] == full["predicted_ms_full"] == pytest.approx(short["predicted_ms_full"], rel=0.1)
    items = [{"text": "film", "max_blocks": 1, "cost": True}, {"text": "film"}]
    asked, other = client.post("/classify/batch", json={"items": items}).json()["results"]
    assert asked["cost"] == pytest.approx(short, rel=0.1)
    assert "cost" not in other
    model = client.get("/models/golden").json()["cost_model"]
    assert len(model["coefficients"]) == 4
    assert model["calibrated_at"] is None, "nothing is timed before readiness"


def test_times_and_ids_are_in_the_headers(client: TestClient) -> None:
    response = client.post("/classify", json={"text": GOOD}, headers={"X-Request-ID": "from-me_1.2"})
    assert response.headers["x-request-id"] == "from-me_1.2"
    phases = dict(part.split(";dur=") for part in response.headers["server-timing"].split(", "))
    assert list(phases) == ["tokenize", "queue", "compute"]
    assert all("." in phase and float(phase) > 0 for phase in phases.values())


def test_server_timing_is_in_milliseconds() -> None:
    """Server-Timing's unit, whatever a machine's speed: the middleware is told the seconds of its phases."""

    async def answers(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["context"].phases = (0.0015, 0.0, 2.25)
        await PlainTextResponse("ok")(scope, receive, send)

    guarded = RequestMiddleware(
        answers, admission=Admission(max_body_bytes=1024), refused=lambda path, status, seconds: None
    )
    response = TestClient(guarded).get("/")
    assert response.headers["server-timing"] == "tokenize;dur=1.500, queue;dur=0.000, compute;dur=2250.000"


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", 'quote"', "é"])
def test_an_odd_request_id_is_replaced(client: TestClient, given: str) -> None:
    response = client.get("/livez", headers={"X-Request-ID": given.encode()})
    assert len(response.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    "text",
    [
        "\x00\x01\x07 control \x1b[31m characters",
        "\x07.",
        "😀🎬👩‍👩‍👧‍👦",
        "فيلم رائع ومؤثر",
        "סרט נהדר \u202e reversed",
        "一部温暖的电影",
        "\u200bzero width",
        "e\u0301" * 40,
        "\u2028line\u2029separators\u0085",
        "\U0010ffff a",
    ],
    ids=ascii,
)
def test_odd_text_is_text(client: TestClient, text: str) -> None:
    answer = client.post("/classify", json={"text": text})
    assert answer.status_code == 200
    assert 2 <= answer.json()["tokens"] <= 32


def test_long_text_is_cut_or_refused_as_asked(client: TestClient) -> None:
    long = "a warm film " * 1000  # long enough to be tokenized on the thread
    answer = client.post("/classify", json={"text": long}).json()
    assert (answer["truncated"], answer["tokens"]) == (True, 32)
    refused = problem(client.post("/classify", json={"text": long, "truncate": False}), 422, "invalid-input")
    assert "32 tokens" in refused["detail"]


BAD_BODIES = {
    "cut off": (b'{"text": "a', 400, "not-json"),
    "empty": (b"", 400, "not-json"),
    "words": (b"text=good", 400, "not-json"),
    "not utf-8": (b'{"text": "\xff"}', 400, "not-json"),
    "nested too deep": (b"[" * 100_000, 400, "not-json"),
    "number too long": (b'{"text": "a", "delta": ' + b"1" * 5000 + b"}", 400, "not-json"),
    "null": (b"null", 422, "invalid-field"),
    "array": (b"[]", 422, "invalid-field"),
    "no text": (b"{}", 422, "invalid-field"),
    "text null": (b'{"text": null}', 422, "invalid-field"),
    "text number": (b'{"text": 5}', 422, "invalid-field"),
    "text array": (b'{"text": ["a"]}', 422, "invalid-field"),
    "unknown field": (b'{"text": "a", "txt": "b"}', 422, "invalid-field"),
    "unknown field, lone surrogate": (b'{"text": "a", "\\ud800": "b"}', 422, "invalid-field"),
    "delta text": (b'{"text": "a", "delta": "0.1"}', 422, "invalid-field"),
    "delta bool": (b'{"text": "a", "delta": true}', 422, "invalid-field"),
    "delta NaN": (b'{"text": "a", "delta": NaN}', 422, "invalid-field"),
    "delta Infinity": (b'{"text": "a", "delta": -Infinity}', 422, "invalid-field"),
    "delta 1e400": (b'{"text": "a", "delta": 1e400}', 422, "invalid-field"),
    "delta above": (b'{"text": "a", "delta": 1.01}', 422, "invalid-field"),
    "delta below": (b'{"text": "a", "delta": -1.01}', 422, "invalid-field"),
    "threshold text": (b'{"text": "a", "entropy_threshold": "0.5"}', 422, "invalid-field"),
    "threshold above": (b'{"text": "a", "entropy_threshold": 1.01}', 422, "invalid-field"),
    "threshold below": (b'{"text": "a", "entropy_threshold": -0.01}', 422, "invalid-field"),
    "blocks real": (b'{"text": "a", "min_blocks": 1.5}', 422, "invalid-field"),
    "blocks bool": (b'{"text": "a", "max_blocks": true}', 422, "invalid-field"),
    "blocks 0": (b'{"text": "a", "min_blocks": 0}', 422, "invalid-field"),
    "truncate text": (b'{"text": "a", "truncate": "no"}', 422, "invalid-field"),
    "model number": (b'{"text": "a", "model": 1}', 422, "invalid-field"),
    "blocks 7 of 6": (b'{"text": "a", "max_blocks": 7}', 422, "invalid-input"),
    "min above max": (b'{"text": "a", "min_blocks": 3, "max_blocks": 2}', 422, "invalid-input"),
    "empty text": (b'{"text": ""}', 422, "invalid-input"),
    "blank text": (b'{"text": " \\t\\n\\u3000"}', 422, "invalid-input"),
    "blank pair": (b'{"text": "a", "text_pair": " "}', 422, "invalid-input"),
    "invisible text": (b'{"text": "\\u200b\\ufe0f"}', 422, "invalid-input"),
    "lone surrogate": (b'{"text": "a\\ud800b"}', 422, "invalid-input"),
    "surrogates swapped": (b'{"text": "\\udc00\\ud800"}', 422, "invalid-input"),
    "lone surrogate in pair": (b'{"text": "a", "text_pair": "\\udfff"}', 422, "invalid-input"),
    "unknown model": (b'{"text": "a", "model": "no"}', 404, "unknown-model"),
    "empty model": (b'{"text": "a", "model": ""}', 404, "unknown-model"),
    "1 MB of text": (b'{"text": "' + b"a" * 1_000_000 + b'"}', 413, "too-large"),
}


@pytest.mark.parametrize(("body", "status", "slug"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_bad_input_gets_its_own_problem(client: TestClient, body: bytes, status: int, slug: str) -> None:
    problem(client.post("/classify", content=body, headers=JSON), status, slug)
    assert client.post("/classify", json={"text": GOOD}).status_code == 200


def test_a_pair_of_escapes_is_no_lone_surrogate(client: TestClient) -> None:
    assert client.post("/classify", content=b'{"text": "\\ud83d\\ude00"}', headers=JSON).status_code == 200


def test_every_invalid_field_is_named_but_not_repeated(client: TestClient) -> None:
    body = {"text": 5, "delta": 2, "a/b~c d": "secret"}
    errors = problem(client.post("/classify", json=body), 422, "invalid-field")["errors"]
    assert {error["pointer"] for error in errors} == {"#/text", "#/delta", "#/a~1b~0c%20d"}
    assert "secret" not in json.dumps(errors)
    many = {"text": "a", **{str(i): 1 for i in range(1000)}}
    assert len(problem(client.post("/classify", json=many), 422, "invalid-field")["errors"]) == 20


@pytest.mark.parametrize("value", ["0", "-5", "soon", "1.5", "", "600001"])
def test_a_bad_timeout_is_refused(client: TestClient, value: str) -> None:
    response = client.post("/classify", json={"text": GOOD}, headers={"X-Request-Timeout-Ms": value})
    assert problem(response, 422, "invalid-field")["errors"][0]["header"] == "X-Request-Timeout-Ms"


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonl"])
@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
def test_a_wrong_content_type_is_refused(client: TestClient, path: str, content_type: str) -> None:
    response = client.post(path, content=b'{"text": "a"}', headers={"content-type": content_type})
    problem(response, 415, "not-json-type")
    assert response.headers["accept-post"] == "application/json"


def test_json_with_a_charset_is_json(client: TestClient) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert client.post("/classify", content=b'{"text": "a"}', headers=headers).status_code == 200


def test_a_wrong_method_is_refused(client: TestClient) -> None:
    for path, method, allowed in (
        ("/classify", "GET", "POST"),
        ("/classify", "DELETE", "POST"),
        ("/models", "POST", "GET"),
    ):
        response = client.request(method, path)
        problem(response, 405, "method-not-allowed")
        assert response.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/nothing", "/classify/", "/models/a/b", "/docs/static/nothing", "/%F0%9F%98%80"])
def test_an_unknown_path_is_refused(client: TestClient, path: str) -> None:
    problem(client.get(path, follow_redirects=False), 404, "not-found")


def test_a_batch_answers_each_item_in_order(client: TestClient) -> None:
    items: list[Any] = [
        {"text": GOOD},
        {"text": 5},
        {"text": "the worst movie ever made", "delta": -1},
        {"text": " "},
        7,
        {"text": GOOD, "modle": "golden"},
        {"text": GOOD, "model": "no"},
        {"text": GOOD, "delta": 1},
    ]
    response = client.post("/classify/batch", json={"items": items})
    assert response.status_code == 200
    assert "server-timing" in response.headers
    results = response.json()["results"]
    assert [result.get("status", 200) for result in results] == [200, 422, 200, 422, 422, 422, 404, 200]
    for i, (item, result) in enumerate(zip(items, results, strict=True)):
        if "status" in result:
            assert result["instance"] == f"/classify/batch#/items/{i}"
        else:
            assert result == client.post("/classify", json=item).json()
    assert results[1]["errors"][0]["pointer"] == "#/items/1/text"
    assert results[5]["errors"][0]["pointer"] == "#/items/5/modle"


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        ({"items": []}, 422, "invalid-field"),
        ({"items": {"text": "a"}}, 422, "invalid-field"),
        ({}, 422, "invalid-field"),
        ({"items": [{"text": "a"}], "delta": 0.1}, 422, "invalid-field"),
        ({"items": [{"text": "a"}] * 257}, 413, "too-large"),
    ],
)
def test_a_bad_batch_is_refused_as_a_whole(client: TestClient, body: Any, status: int, slug: str) -> None:
    problem(client.post("/classify/batch", json=body), status, slug)


def test_a_large_batch_does_not_change_an_answer(client: TestClient) -> None:
    texts = [" ".join(["the worst film is a warm and moving journey"] * (1 + i % 5)) for i in range(256)]
    items = [{"text": text, "delta": (i % 7 - 3) / 10} for i, text in enumerate(texts)]
    results = client.post("/classify/batch", json={"items": items}).json()["results"]
    assert results[::32] == [client.post("/classify", json=item).json() for item in items[::32]]


def test_limits_are_settings() -> None:
    with client_of(max_items=2, max_body_bytes=1024) as client:
        assert client.post("/classify/batch", json={"items": [{"text": "a"}] * 2}).status_code == 200
        problem(client.post("/classify/batch", json={"items": [{"text": "a"}] * 3}), 413, "too-large")
        head, tail = b'{"text": "', b'"}'
        for size, status in ((1024, 200), (1025, 413)):
            body = head + b"a" * (size - len(head) - len(tail)) + tail
            assert client.post("/classify", content=body, headers=JSON).status_code == status


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("text", "text_pair", "model", "delta", "entropy_threshold", "min_blocks", "max_blocks", "truncate")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), VALUES, max_size=5) | VALUES)
def test_any_json_gets_an_answer_or_a_documented_problem(client: TestClient, body: Any) -> None:
    response = client.post("/classify", content=json.dumps(body), headers=JSON)
    assert response.status_code in (200, 404, 422)
    if response.status_code != 200:
        assert response.headers["content-type"] == "application/problem+json"
