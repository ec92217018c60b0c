"""Spans: the caller's context in, a span a phase, exit and FLOPs as attributes, never the text; sent over real HTTP."""

import gzip
import http.server
import importlib.util
import sys
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest
from running import BEEXFORMER, GOLDEN, client_of, server_of, wait_until

from beexformer.app import tracing
from beexformer.model.errors import BEEError

sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="the extra [otel] is not installed")
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "unspeakable"


def spans_of(monkeypatch: pytest.MonkeyPatch, *requests: tuple[str, Any, dict[str, str]]) -> list[Any]:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "provider", lambda: provider)
    with client_of(tracing=True) as client:
        exporter.clear()
        for path, body, headers in requests:
            client.post(path, json=body, headers=headers) if body else client.get(path, headers=headers)
    return list(exporter.get_finished_spans())


def test_a_request_is_a_span_of_the_callers_trace_with_a_span_a_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = spans_of(monkeypatch, ("/classify", {"text": f"a {SECRET} film", "max_blocks": 1}, {"traceparent": PARENT}))
    by_name = {span.name: span for span in spans}
    request = by_name["POST /classify"]
    assert f"{request.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{request.parent.span_id:016x}" == PARENT.split("-")[2]
    assert {"tokenize", "compute"} <= set(by_name)
    for phase in ("tokenize", "compute"):
        assert by_name[phase].parent.span_id == request.context.span_id
        assert request.start_time <= by_name[phase].start_time <= by_name[phase].end_time
    said = dict(request.attributes)
    assert (said["beexformer.model"], said["beexformer.exit_index"], said["beexformer.num_blocks"]) == ("golden", 1, 6)
    assert 0 < said["beexformer.flops"] < said["beexformer.flops_full"]
    assert (said["http.response.status_code"], said["http.route"]) == (200, "/classify")
    assert SECRET not in "".join(span.to_json() for span in spans)


def test_without_a_callers_context_a_trace_begins_and_probes_make_none(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [
        ("/classify", {"text": "a film"}, {}),
        ("/readyz", None, {}),
        ("/models/golden", None, {}),
        ("/livez", None, {}),
    ]
    spans = spans_of(monkeypatch, *asked, ("/classify", {"text": " "}, {"traceparent": "nonsense"}))
    requests = [span for span in spans if span.kind.name == "SERVER"]
    assert [span.name for span in requests] == ["POST /classify", "GET /models/{name}", "POST /classify"]
    assert all(span.parent is None for span in requests)
    assert [span.attributes["http.response.status_code"] for span in requests] == [200, 200, 422]


def test_batches_sum_up(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [{"text": "a film", "min_blocks": 6}, {"text": "a film", "max_blocks": 1}]
    [request] = [s for s in spans_of(monkeypatch, ("/classify/batch", {"items": items}, {})) if s.kind.name == "SERVER"]
    assert request.attributes["beexformer.items"] == 2
    assert request.attributes["beexformer.flops"] < request.attributes["beexformer.flops_full"]


@pytest.mark.slow
def test_a_real_server_sends_them(tmp_path: Path) -> None:
    received: list[bytes] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        env = {
            "BEE_CHECKPOINTS": str(GOLDEN),
            "BEE_TRACING": "true",
            "BEE_WORKERS": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }
        with server_of(tmp_path, BEEXFORMER, "serve", "--port", "0", **env) as server:
            sent = httpx2.post(f"{server.url}/classify", json={"text": f"a {SECRET} film"})
            assert sent.status_code == 200
            wait_until(lambda: any(b"beexformer.exit_index" in body for body in received))
        collector.shutdown()
    assert not any(SECRET.encode() in body for body in received)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(BEEError, match=r"BEE_TRACING needs the extra \[otel\]"):
        tracing.require()
    assert importlib.util.find_spec("opentelemetry")
