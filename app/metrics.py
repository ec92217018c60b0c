"""
Counters and histograms, named once. Knows prometheus-client and what an answer is; nothing of HTTP or queues.

- label values come from configuration only: a model name that isn't loaded is counted under model=""
- a "request" is a text to classify: each item of a batch counts, and a body refused as a whole counts once
- with several server processes (PROMETHEUS_MULTIPROC_DIR is set) a scrape of any of them sums over all
"""

import os
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from model.engine import Prediction

SECONDS = (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2.5, 5, 10)
PHASES = ("tokenize", "queue", "compute")
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """All that /metrics shows. `models` has the labels of bee_model_info by model name, `blocks` among them."""

    def __init__(self, models: Mapping[str, Mapping[str, str]], max_batch_rows: int) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        self._folder = os.environ.get(MULTIPROCESS)
        if self._folder:
            _bury_the_dead(Path(self._folder))
        blocks = max(int(described["blocks"]) for described in models.values())
        rows = [1 << i for i in range(max_batch_rows.bit_length())]

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, text, labels, registry=registry, buckets=buckets)

        self._requests = counter("bee_requests", "Texts to classify, by status code of the outcome", "model", "code")
        self._duration = histogram("bee_request_duration_seconds", "Arrival to outcome of a text", SECONDS, "model")
        self._phase = histogram(
            "bee_phase_duration_seconds", "Parts of the duration: tokenize, queue, compute", SECONDS, "model", "phase"
        )
        self._exits = counter("bee_exit", "Answers by the block they left after", "model", "exit")
        self._exit_index = histogram(
            "bee_exit_index", "Block that answers left after", tuple(range(1, blocks + 1)), "model"
        )
        self._flops = counter("bee_flops_executed", "Operations executed: real ones plus binary ones / 64", "model")
        self._flops_full = counter("bee_flops_full", "Operations of the same texts through all blocks", "model")
        self._tokens = histogram("bee_request_tokens", "Tokens of answered texts", (4, 8, 16, 32, 64, 128, 256, 512))
        self.batch_rows = histogram("bee_batch_rows", "Rows run together on one engine thread", tuple(rows))
        self.queue_depth = Gauge("bee_queue_depth", "Rows waiting", registry=registry, multiprocess_mode="livesum")
        info = Gauge(
            "bee_model_info",
            "1 for each loaded model",
            ("model", *sorted(next(iter(models.values())))),
            registry=registry,
            multiprocess_mode="livemax",
        )
        for model, described in models.items():
            info.labels(model=model, **described).set(1)
        self._of_model = {model: self._children(model, int(described["blocks"])) for model, described in models.items()}

    def answered(self, model: str, found: Prediction, phases: tuple[float, float, float], seconds: float) -> None:
        """One text was answered, `seconds` after it came; `phases` has the seconds of PHASES."""
        children = self._of_model[model]
        for histogram, value in zip(children.phases, phases, strict=True):
            histogram.observe(value)
        children.exits[found.exit_index].inc()
        children.exit_index.observe(found.exit_index)
        children.flops.inc(found.flops)
        children.flops_full.inc(found.flops_full)
        self._tokens.observe(found.tokens)
        self.ended(model, 200, seconds)

    def ended(self, model: str | None, code: int, seconds: float) -> None:
        """One text, or a body refused as a whole, came to an end; `model` is one that is loaded, or None."""
        self._requests.labels(model or "", str(code)).inc()
        if model:
            self._of_model[model].duration.observe(seconds)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """(body, content type) of a scrape, of all processes together where there are several."""
        encode, content_type = choose_encoder(accept)
        registry = self._registry
        if self._folder:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, self._folder)  # type: ignore[no-untyped-call]
        return encode(registry), content_type

    def _children(self, model: str, blocks: int) -> "_OfModel":
        # looked up once: labels() costs more than the counting, and every series is there from the start, at 0
        self._requests.labels(model, "200")
        return _OfModel(self, model, blocks)


class _OfModel:
    def __init__(self, metrics: Metrics, model: str, blocks: int) -> None:
        self.duration = metrics._duration.labels(model)
        self.phases = [metrics._phase.labels(model, phase) for phase in PHASES]
        self.exits = {i: metrics._exits.labels(model, str(i)) for i in range(1, blocks + 1)}
        self.exit_index = metrics._exit_index.labels(model)
        self.flops = metrics._flops.labels(model)
        self.flops_full = metrics._flops_full.labels(model)


def _bury_the_dead(folder: Path) -> None:
    """A worker that was killed must not be summed as if it lived: its gauges go when its successor starts."""
    for file in folder.glob("gauge_live*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not Path(f"/proc/{pid}").exists():
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
