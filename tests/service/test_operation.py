"""What operators and tools see: metrics, keys, the log, OpenAPI and the pages."""

import json
import logging
import math
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from running import GOLDEN, client_of, problem, samples, wait_until
from starlette.testclient import TestClient

from beexformer.app.errors import MEDIA_TYPE
from beexformer.app.logs import JSONLines
from beexformer.app.metrics import training_exits
from beexformer.app.schemas import ANSWER, PROBLEM, ClassifyRequest, Problem
from beexformer.model.answer import Answer
from beexformer.model.checkpoint import read
from beexformer.model.engine import Engine
from beexformer.model.options import ExitOptions

NAMES = {  # what DESIGN and docs promise, and dashboards use
    "bee_requests": "counter",
    "bee_request_duration_seconds": "histogram",
    "bee_phase_duration_seconds": "histogram",
    "bee_exit": "counter",
    "bee_exit_at_default": "counter",
    "bee_exit_index": "histogram",
    "bee_exit_entropy_ratio": "histogram",
    "bee_cpu_seconds": "counter",
    "bee_flops_executed": "counter",
    "bee_flops_full": "counter",
    "bee_brownout": "counter",
    "bee_shadow": "counter",
    "bee_event_loop_lag_seconds": "histogram",
    "bee_event_loop_busy_seconds": "counter",
    "bee_backlog_seconds": "gauge",
    "bee_wait_limit_seconds": "gauge",
    "bee_workers": "gauge",
    "bee_workers_replaced": "counter",
    "bee_ready": "gauge",
    "bee_request_tokens": "histogram",
    "bee_request_unknown_ratio": "histogram",
    "bee_model_info": "gauge",
    "bee_exit_training_rows": "gauge",  # without series: the golden checkpoint has no evaluation
    **dict.fromkeys(("process_virtual_memory_bytes", "process_resident_memory_bytes"), "gauge"),
    **dict.fromkeys(("process_start_time_seconds", "process_open_fds", "process_max_fds"), "gauge"),
    "process_cpu_seconds": "counter",
}


def test_the_metrics_are_the_documented_ones(client: TestClient) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    client.post("/classify", json={"text": "film"})
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = list(text_string_to_metric_families(response.text))
    assert {family.name: family.type for family in families} == NAMES
    assert all(family.documentation for family in families)
    counters = {family.name for family in families if family.type == "counter"}
    assert {s.name for f in families if f.type == "counter" for s in f.samples} == {
        f"{name}_total" for name in counters
    }


def test_open_metrics_is_served_to_who_asks(client: TestClient) -> None:
    response = client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


def test_buckets_are_fine_and_there_is_one_for_each_block(client: TestClient) -> None:
    counted = samples(client.get("/metrics").text)
    durations = [key for key in counted if key[0] == "bee_request_duration_seconds_bucket"]
    assert min(float(key[1].removeprefix("le=")) for key in durations) == 0.00025
    blocks = [key[1] for key in counted if key[0] == "bee_exit_index_bucket"]
    assert blocks == ["le=1.0", "le=2.0", "le=3.0", "le=4.0", "le=5.0", "le=6.0", "le=+Inf"]
    assert counted["bee_model_info", "blocks=6", "classes=2", "format_version=1", "model=golden"] == 1


def test_what_is_counted_adds_up() -> None:
    texts = [{"text": "a warm film"}, {"text": "the worst movie ever made", "delta": -1}, {"text": "film", "delta": 1}]
    with client_of() as client:
        answers = [client.post("/classify", json=text).json() for text in texts]
        batch = client.post("/classify/batch", json={"items": [*texts, {"text": " "}, {"text": 1}]}).json()["results"]
        answers += batch[:3]
        client.post("/classify", json={"text": "film", "model": "made-up"})
        client.post("/classify", content=b"{")
        client.post("/classify", content=b"{", headers={"content-type": "application/json"})
        client.get("/models/made-up-too")
        counted = samples(client.get("/metrics").text)
        assert "made-up" not in client.get("/metrics").text
    model = "model=golden"
    requests = {key[1:]: value for key, value in counted.items() if key[0] == "bee_requests_total" and value}
    assert requests == {
        ("code=200", model): 6,
        ("code=422", model): 1,  # the blank text: its model was known
        ("code=422", "model="): 1,  # the item that was none
        ("code=404", "model="): 1,
        ("code=415", "model="): 1,
        ("code=400", "model="): 1,
    }
    assert counted["bee_request_duration_seconds_count", model] == 7
    for phase in ("tokenize", "queue", "compute"):
        assert counted["bee_phase_duration_seconds_count", model, f"phase={phase}"] == 6
    for block in range(1, 7):
        left = sum(answer["exit_index"] == block for answer in answers)
        assert counted["bee_exit_total", f"exit={block}", model] == left
        entropies = [answer["entropies"][-1] / math.log(2) for answer in answers if answer["exit_index"] == block]
        ratio = ("bee_exit_entropy_ratio_sum", f"exit={block}", model)
        assert counted[ratio] == pytest.approx(sum(entropies), abs=1e-4)  # answers are rounded
    assert counted["bee_exit_index_sum", model] == sum(answer["exit_index"] for answer in answers)
    computed = counted["bee_phase_duration_seconds_sum", model, "phase=compute"]
    assert (
        0
        < counted["bee_cpu_seconds_total", model]
        < 2 * (computed + counted["bee_phase_duration_seconds_sum", model, "phase=tokenize"])
    ), "a thread gets no more of a CPU than time passes, but for what clocks can tell apart"
    assert counted["bee_flops_executed_total", model] == sum(answer["flops"] for answer in answers)
    assert counted["bee_flops_full_total", model] == sum(answer["flops_full"] for answer in answers)
    assert counted["bee_request_tokens_sum",] == sum(answer["tokens"] for answer in answers)
    assert counted["bee_event_loop_busy_seconds_total",] > 0
    assert counted["bee_event_loop_lag_seconds_count",] > 0
    assert counted["bee_ready",] == 1
    assert counted["bee_workers",] == 1
    assert counted["bee_backlog_seconds",] == 0


def test_failures_are_there_before_they_happen() -> None:
    with client_of(max_wait_ms=700) as client:
        counted = samples(client.get("/metrics").text)
    for model in ("", "golden"):
        assert [counted["bee_requests_total", f"code={code}", f"model={model}"] for code in (500, 503, 504)] == [
            0,
            0,
            0,
        ]
    assert counted["bee_wait_limit_seconds",] == 0.7


def test_only_answers_as_the_model_would_give_them_are_compared_with_training() -> None:
    own = {"text": "a warm film"}
    others = [{"delta": 1}, {"delta": -1}, {"min_blocks": 2}, {"max_blocks": 5}, {"delta": 0.0001, "max_blocks": 1}]
    others.append({"entropy_threshold": 0.5})
    same = [{"delta": 0.0001}, {"delta": None, "entropy_threshold": 0, "min_blocks": 1, "max_blocks": 6}]
    with client_of() as client:
        answers = [client.post("/classify", json=own | more).json() for more in [{}, *same, *others]]
        counted = samples(client.get("/metrics").text)
    assert len({answer["exit_index"] for answer in answers[:3]}) == 1
    compared = {key[1]: value for key, value in counted.items() if key[0] == "bee_exit_at_default_total"}
    assert compared == {f"exit={i}": 3 * (i == answers[0]["exit_index"]) for i in range(1, 7)}
    assert sum(value for key, value in counted.items() if key[0] == "bee_exit_total") == len(answers)


def with_evaluation(evaluation: dict[str, Any]) -> Callable[[Path], Engine]:
    return lambda folder: Engine(replace(read(folder), evaluation=evaluation))


def test_the_exits_of_training_are_exported() -> None:
    dev = {"delta": 0.0001, "exits": [4, 446, 292, 64, 57, 9]}
    with client_of(with_evaluation({"dev": dev})) as client:
        counted = samples(client.get("/metrics").text)
    exported = {key[1]: value for key, value in counted.items() if key[0] == "bee_exit_training_rows"}
    assert exported == {f"exit={i}": rows for i, rows in enumerate(dev["exits"], start=1)}


def test_rows_that_left_with_other_options_are_not_compared_with() -> None:
    engine = with_evaluation({"dev": {"delta": 0.0001, "exits": [4, 446, 292, 64, 57, 9]}})(GOLDEN)
    engine.set_defaults(ExitOptions(delta=0.0001))  # what it has anyway
    assert training_exits(engine)
    engine.set_defaults(ExitOptions(max_blocks=2))  # the delta is the same
    assert training_exits(engine) == []


@pytest.mark.parametrize(
    "evaluation",
    [
        {"dev": None},
        {"dev": {"delta": 0.1, "exits": [1, 2, 3, 4, 5, 6]}},  # of another delta than the model's own
        {"dev": {"delta": 0.0001}},
        {"dev": {"delta": 0.0001, "exits": [1, 2, 3]}},
        {"dev": {"delta": 0.0001, "exits": [0, 0, 0, 0, 0, 0]}},
        {"dev": {"delta": 0.0001, "exits": [1, 2, 3, 4, 5, -6]}},
        {"dev": {"delta": 0.0001, "exits": ["1", 2, 3, 4, 5, 6]}},
        {"dev": {"delta": 0.0001, "exits": "123456"}},
    ],
)
def test_an_evaluation_that_does_not_say_where_rows_left_is_no_obstacle(evaluation: dict[str, Any]) -> None:
    assert training_exits(with_evaluation(evaluation)(GOLDEN)) == []


def test_keys_guard_everything_but_probes_metrics_and_docs() -> None:
    key, other = "first-secret", "second-secret"
    with client_of(api_keys=(key, other)) as client:
        for path in ("/livez", "/readyz", "/metrics", "/docs", "/docs/static/swagger-ui.css", "/openapi.json"):
            assert client.get(path).status_code == 200
        for headers in (
            {},
            {"X-API-Key": ""},
            {"X-API-Key": "wrong"},
            {"X-API-Key": key[:-1]},
            {"X-API-Key": key + "s"},
            {"X-API-Key": key.upper()},
            {"Authorization": f"Bearer {other[:6]}"},
            {"X-API-Key": "é".encode()},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Basic {key}"},
            {"Authorization": key},
        ):
            for response in (
                client.post("/classify", json={"text": "film"}, headers=headers),
                client.post("/classify", content=b"x" * 2_000_000, headers=headers),
                client.get("/models", headers=headers),
                client.get("/nothing", headers=headers),
                client.get("/docsy", headers=headers),
            ):
                problem(response, 401, "unauthorized")
                assert response.headers["www-authenticate"] == "Bearer"
                assert "secret" not in response.text
        for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {other}"}, {"authorization": f"bearer  {key}"}):
            assert client.post("/classify", json={"text": "film"}, headers=headers).status_code == 200


def lines_of(record: logging.LogRecord) -> list[str]:
    return JSONLines().format(record).splitlines() if record.name == "bee.access" else []


def test_a_request_leaves_one_line_without_its_text(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="bee.access"):
        client.get("/readyz")
        assert client.get("/assets/page.js").status_code == 200
        client.post("/classify", json={"text": "unspeakable words"}, headers={"X-Request-ID": "abc"})
        client.post("/classify", json={"text": "unspeakable words", "unspeakable": 1})
        wait_until(lambda: sum(len(lines_of(record)) for record in caplog.records) == 2)
    lines = [json.loads(line) for record in caplog.records for line in lines_of(record)]
    assert [line["status"] for line in lines] == [200, 422]
    assert set(lines[0]) == {
        *("time", "level", "logger", "message", "pid", "request_id", "method", "path"),
        *("status", "ms", "model", "exit_index", "items"),
    }
    assert (lines[0]["request_id"], lines[0]["path"], lines[0]["model"]) == ("abc", "/classify", "golden")
    assert "unspeakable" not in json.dumps(lines)


def test_models_say_what_they_are(client: TestClient) -> None:
    [summary] = client.get("/models").json()["models"]
    described = client.get("/models/golden").json()
    assert summary == {
        "name": "golden",
        "labels": ["negative", "positive"],
        "default": True,
        "default_delta": 0.0001,
        "num_blocks": 6,
        "input": None,
        "learned_from": "rows",
        "candidate_labels": False,
        "thresholds": None,
        "size_bytes": described["size_bytes"],
    }
    assert described["config"]["n_block"] == 6
    assert described["evaluation"] == {}, "an untrained network claims nothing"
    assert described["format_version"] == 1


def test_the_openapi_document_is_there_before_somebody_asks() -> None:
    with client_of() as ready:
        assert ready.app.openapi_schema is not None  # type: ignore[attr-defined]  # 60 ms on the loop otherwise


def test_the_openapi_document_tells_the_truth(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        *("/classify", "/classify/batch", "/models", "/models/{name}", "/livez", "/readyz", "/metrics"),
        *("/v2", "/v2/health/live", "/v2/health/ready"),
        *(
            f"/v2/models/{{name}}{version}{end}"
            for version in ("", "/versions/{version}")
            for end in ("", "/ready", "/infer")
        ),
    }
    for path in ("/classify", "/classify/batch"):
        answers = document["paths"][path]["post"]["responses"]
        assert set(answers) == {"200", "400", "401", "404", "413", "415", "422", "429", "500", "503", "504", "default"}
        for status, answer in answers.items():
            if status != "200":
                assert answer["content"] == {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
                assert answer["description"]
        assert "Retry-After" in answers["503"]["headers"]
        assert "Server-Timing" in answers["200"]["headers"]
        [header] = document["paths"][path]["post"]["parameters"]
        assert (header["name"], header["in"], header["required"]) == ("X-Request-Timeout-Ms", "header", False)
    schemas = document["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    assert schemas["BatchRequest"]["properties"]["items"]["items"] == {"$ref": "#/components/schemas/ClassifyRequest"}
    assert schemas["ClassifyRequest"]["additionalProperties"] is False
    assert schemas["ClassifyRequest"]["required"] == ["text"]
    for reference in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)):
        assert reference in schemas


def test_every_field_and_parameter_of_the_openapi_document_is_described(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    fields = [
        (name, field, about)
        for name, schema in document["components"]["schemas"].items()
        for field, about in schema.get("properties", {}).items()
    ]
    assert len(fields) > 50
    assert [(name, field) for name, field, about in fields if not about.get("description")] == []
    assert [name for name, schema in document["components"]["schemas"].items() if not schema.get("description")] == []
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert all(operation["summary"] and operation["description"] and operation["tags"] for operation in operations)
    assert {tag["name"] for tag in document["tags"]} == {tag for operation in operations for tag in operation["tags"]}
    for operation in operations:
        assert all(parameter.get("description") for parameter in operation.get("parameters", []))


def test_operation_ids_are_the_endpoints_names_and_stay(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    ids = {(path, method): about["operationId"] for path, of in paths.items() for method, about in of.items()}
    assert ids["/classify", "post"] == "classify"
    assert ids["/classify/batch", "post"] == "classify_batch"
    assert ids["/models/{name}", "get"] == "model"
    assert len(set(ids.values())) == len(ids)


def test_security_schemes_stand_in_the_document_where_keys_are_configured(client: TestClient) -> None:
    assert "securitySchemes" not in client.get("/openapi.json").json()["components"]
    with client_of(api_keys=("secret-key",)) as guarded:
        document = guarded.get("/openapi.json").json()
        assert {
            (one["type"], one.get("name", one.get("scheme")))
            for one in document["components"]["securitySchemes"].values()
        } == {
            ("apiKey", "X-API-Key"),
            ("http", "bearer"),
        }
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if "{" not in path and method == "get":  # what the document says is what the service does
                    assert (guarded.get(path).status_code == 401) == ("security" in operation)
        assert document["paths"]["/classify"]["post"]["security"] == [{"key": []}, {"bearer": []}]


def test_unknown_tokens_are_in_a_histogram() -> None:
    with client_of() as client:
        answer = client.post("/classify", json={"text": "a film 😀"}).json()
        client.post("/classify", json={"text": "a film"})
        counted = samples(client.get("/metrics").text)
        assert answer["unknown_ratio"] > 0
        assert counted["bee_request_unknown_ratio_sum", "model=golden"] == pytest.approx(answer["unknown_ratio"])
        assert counted["bee_request_unknown_ratio_bucket", "le=0.0", "model=golden"] == 1
        assert counted["bee_request_unknown_ratio_count", "model=golden"] == 2


def test_the_examples_are_valid(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    kinds: tuple[Any, ...] = (ClassifyRequest, Problem)
    for kind in kinds:
        for example in schemas[kind.__name__]["examples"]:
            assert kind(**example)
    example = document["paths"]["/classify"]["post"]["responses"]["200"]["content"]["application/json"]["example"]
    assert list(example) == schemas["Answer"]["required"] == [name for name in ANSWER]
    assert TypeAdapter(Answer).validate_python(example)
    assert set(schemas["Answer"]["properties"]) == {field.name for field in fields(Answer)}
    assert set(PROBLEM) <= set(Problem.model_fields)
    assert client.post("/classify", json=schemas["ClassifyRequest"]["examples"][0]).status_code == 200


def test_the_docs_page_needs_nobody_else(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert assets
    for asset in assets:
        assert asset.startswith("/docs/static/")
        assert client.get(asset).status_code == 200
