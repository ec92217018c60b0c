"""
Counters and histograms, named once. Knows prometheus-client, engines and their answers; nothing of HTTP or queues.

- label values come from configuration only: a model name that isn't loaded is counted under model=""
- a "request" is a text to classify: each item of a batch counts, and a body refused as a whole counts once
- a scrape of one server process sums over all of them (app/processes.py)
"""

import math
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from beexformer.app.processes import Processes
from beexformer.model.answer import Answer
from beexformer.model.engine import Engine, Row
from beexformer.model.options import NOTHING_ASKED

SECONDS = (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2.5, 5, 10)
ENTROPIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
PHASES = ("tokenize", "queue", "compute")
FAILURES = (500, 503, 504)  # at 0 from the start: a rate never sees the first of what wasn't there before it
OPEN_METRICS = "application/openmetrics-text"


class Metrics:
    """All that /metrics shows of `engines`, and of the queue and threads before them."""

    def __init__(
        self,
        engines: Collection[Engine],
        *,
        threads: int,
        max_batch_rows: int,
        max_queue: int,
        processes: Processes | None = None,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        self._processes = processes
        if not processes:
            ProcessCollector(registry=registry)
        blocks = max(engine.config.n_block for engine in engines)
        rows = [1 << i for i in range(max_batch_rows.bit_length())]

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, text, labels, registry=registry, buckets=buckets)

        def gauge(name: str, text: str, *labels: str, over_processes: str = "livesum") -> Gauge:
            return Gauge(name, text, labels, registry=registry, multiprocess_mode=over_processes)  # type: ignore[arg-type]

        self._requests = counter("bee_requests", "Texts to classify, by status code of the outcome", "model", "code")
        self._duration = histogram("bee_request_duration_seconds", "Arrival to outcome of a text", SECONDS, "model")
        self._phase = histogram(
            "bee_phase_duration_seconds", "Parts of the duration: tokenize, queue, compute", SECONDS, "model", "phase"
        )
        self._exits = counter("bee_exit", "Answers by the block they left after", "model", "exit")
        self._exits_at_default = counter(
            "bee_exit_at_default", "The same, only at the model's own delta and without other options", "model", "exit"
        )
        self._exit_index = histogram(
            "bee_exit_index", "Block that answers left after", tuple(range(1, blocks + 1)), "model"
        )
        self._entropy = histogram(
            "bee_exit_entropy_ratio",
            "Entropy of answers as a share of ln(classes), by exit",
            ENTROPIES,
            "model",
            "exit",
        )
        self._flops = counter("bee_flops_executed", "Operations executed: real ones plus binary ones / 64", "model")
        self._flops_full = counter("bee_flops_full", "Operations of the same texts through all blocks", "model")
        self._tokens = histogram("bee_request_tokens", "Tokens of answered texts", (4, 8, 16, 32, 64, 128, 256, 512))
        self._batch_rows = histogram("bee_batch_rows", "Rows run together on one engine thread", tuple(rows))
        self._busy = counter("bee_engine_busy_seconds", "Time that engine threads spent on batches")
        gauge("bee_engine_threads", "Engine threads of all processes").set(threads)
        self.queue_depth = gauge("bee_queue_depth", "Rows waiting")
        gauge("bee_queue_limit", "Rows that may wait before new ones are refused").set(max_queue)
        self.ready = gauge("bee_ready", "1 once every engine has answered a real forward", over_processes="livemin")
        labels = ("model", "blocks", "classes", "format_version")
        info = gauge("bee_model_info", "1 for each loaded model", *labels, over_processes="livemax")
        training = gauge(
            "bee_exit_training_rows",
            "Dev rows of training by the block they left after at the model's own delta",
            "model",
            "exit",
            over_processes="livemax",
        )
        for engine in engines:
            shape = (engine.config.n_block, len(engine.labels), engine.description["format_version"])
            info.labels(engine.name, *map(str, shape)).set(1)
            for exit_index, count in enumerate(training_exits(engine), start=1):
                training.labels(engine.name, str(exit_index)).set(count)
        self._of_model = {engine.name: _OfModel(self, engine) for engine in engines}
        for code in FAILURES:
            for model in ("", *self._of_model):
                self._requests.labels(model, str(code))

    def answered(self, model: str, row: Row, found: Answer, phases: tuple[float, float, float], seconds: float) -> None:
        """One text was answered, `seconds` after it came; `phases` has the seconds of PHASES."""
        children = self._of_model[model]
        for histogram, value in zip(children.phases, phases, strict=True):
            histogram.observe(value)
        children.exits[found.exit_index].inc()
        if row.exit == children.default:
            children.exits_at_default[found.exit_index].inc()
        children.exit_index.observe(found.exit_index)
        children.entropy[found.exit_index].observe(found.entropies[-1] / children.entropy_max)
        children.flops.inc(found.flops)
        children.flops_full.inc(found.flops_full)
        self._tokens.observe(found.tokens)
        self.ended(model, 200, seconds)

    def ended(self, model: str | None, code: int, seconds: float) -> None:
        """One text, or a body refused as a whole, came to an end; `model` is one that is loaded, or None."""
        self._requests.labels(model or "", str(code)).inc()
        if model:
            self._of_model[model].duration.observe(seconds)

    @contextmanager
    def batch(self, rows: int) -> Iterator[None]:
        """An engine thread runs these rows together."""
        self._batch_rows.observe(rows)
        start = time.perf_counter()
        try:
            yield
        finally:
            self._busy.inc(time.perf_counter() - start)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """(body, content type) of a scrape, of all processes together where there are several."""
        # only what matters of the header: prometheus-client fails on versions that are none
        encode, content_type = choose_encoder(OPEN_METRICS if OPEN_METRICS in accept else "")
        return encode(self._processes.registry() if self._processes else self._registry), content_type


class _OfModel:
    """The series of one model, looked up once, as labels() costs more than the counting; so all are there from 0 on."""

    def __init__(self, metrics: Metrics, engine: Engine) -> None:
        model, exits = engine.name, range(1, engine.config.n_block + 1)
        metrics._requests.labels(model, "200")
        self.duration = metrics._duration.labels(model)
        self.phases = [metrics._phase.labels(model, phase) for phase in PHASES]
        self.exits = {i: metrics._exits.labels(model, str(i)) for i in exits}
        self.exits_at_default = {i: metrics._exits_at_default.labels(model, str(i)) for i in exits}
        self.exit_index = metrics._exit_index.labels(model)
        self.entropy = {i: metrics._entropy.labels(model, str(i)) for i in exits}
        self.flops = metrics._flops.labels(model)
        self.flops_full = metrics._flops_full.labels(model)
        self.default = engine.resolve(NOTHING_ASKED)
        self.entropy_max = math.log(len(engine.labels))


def training_exits(engine: Engine) -> list[int]:
    """Rows of the dev set by exit at the model's own delta; [] where the checkpoint doesn't say that.

    A checkpoint's evaluation is free text to everything else, so nothing is taken for granted here."""
    dev = engine.description["evaluation"].get("dev")
    if not isinstance(dev, dict) or dev.get("delta") != engine.default_delta:
        return []
    counts = dev.get("exits")
    if not isinstance(counts, list) or len(counts) != engine.config.n_block:
        return []
    return counts if all(type(count) is int and count >= 0 for count in counts) and any(counts) else []
