"""
What is counted, named once. Knows engines and their answers, and the event loop; nothing of HTTP.

- only names and sums are here: classify.py measures phases (queue includes `context.unread`, what the request waited
  before it was read); `watch` samples the event loop's lag, and the backlog, which is `Scheduler.backlog`
- label values come from configuration only: a model name that isn't loaded is counted under model=""
- a "request" is a text to classify: each item of a batch counts, and a body refused as a whole counts once
- with several server processes a scrape of any of them sums over all; only process_* stand one by one there, told apart
  by pid, because a sum of CPU seconds would fall when a process dies
"""

import asyncio
import math
import time
from bisect import bisect_left
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Any

from prometheus_client import Metric

from beexformer.app import exposition
from beexformer.app.counters import PID, Counters, Processes
from beexformer.app.exposition import Layout, Writing, gauge
from beexformer.app.shared_state import ENDED, HUNG, REFUSED
from beexformer.model.answer import Answer
from beexformer.model.engine import Engine, Row
from beexformer.model.options import NOTHING_ASKED

SECONDS = (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2.5, 5, 10)
ENTROPIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
UNKNOWN = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 0.99)
TOKENS = (4, 8, 16, 32, 64, 128, 256, 512)
PHASES = ("tokenize", "queue", "compute")
FAILURES = (500, 503, 504)  # at 0 from the start: a rate never sees the first of what wasn't there before it
CLIENT_GONE = 499  # no status of HTTP; nobody sees it but log and metrics
BEAT = 0.05  # seconds between two samples of the event loop


class Metrics:
    """All that /metrics shows of `engines` and of the event loop before them; `wait_limit` is in seconds."""

    def __init__(self, engines: Collection[Engine], *, wait_limit: float, processes: Processes | None = None) -> None:
        layout = Layout(first=PID + 1)
        self._declare_texts(layout.add, engines)
        self._declare_loop(layout.add)
        self._families = layout.families
        limit = gauge(
            "bee_wait_limit_seconds", "How long requests may wait before new ones are refused", [({}, wait_limit)]
        )
        self._constant = [*_descriptions(engines), limit]
        self._of_model = {engine.name: _OfModel(self, engine) for engine in engines}
        self._shared = processes.shared if processes else None
        self._counters = Counters(layout.size, layout.digest(), processes)
        for index in (self._workers, self._ready, self._backlog):  # not as a predecessor left them
            self._counters.values[index] = 0

    def _declare_texts(self, add: Callable[..., exposition.Family], engines: Collection[Engine]) -> None:
        names = [engine.name for engine in engines]
        models = [(name,) for name in names]
        exits = [(engine.name, str(i)) for engine in engines for i in range(1, engine.config.n_block + 1)]
        blocks = range(1, max(engine.config.n_block for engine in engines) + 1)
        codes = [(name, str(int(status))) for name in ("", *names) for status in (*HTTPStatus, CLIENT_GONE)]
        phases = [(name, phase) for name in names for phase in PHASES]
        of, by_exit = ("model",), ("model", "exit")
        self._requests = add(
            "bee_requests", "counter", "Texts to classify, by status code of the outcome", ("model", "code"), codes
        )
        shown = {*((name, str(code)) for name in ("", *names) for code in FAILURES), *((name, "200") for name in names)}
        self._hidden = {index for labels, index in self._requests.series.items() if labels not in shown}
        text = "From when the request of a text could be read to the text's outcome"
        self._duration = add("bee_request_duration_seconds", "histogram", text, of, models, SECONDS)
        text = "Parts of the duration: tokenize, compute, and queue, the time in which other texts had their turn"
        self._phase = add("bee_phase_duration_seconds", "histogram", text, ("model", "phase"), phases, SECONDS)
        self._exits = add("bee_exit", "counter", "Answers by the block they left after", by_exit, exits)
        text = "The same, only at the model's own delta and without other options"
        self._exits_at_default = add("bee_exit_at_default", "counter", text, by_exit, exits)
        text = "Block that answers left after"
        self._exit_index = add("bee_exit_index", "histogram", text, of, models, blocks)
        text = "Entropy of answers as a share of the largest, by exit"
        self._entropy = add("bee_exit_entropy_ratio", "histogram", text, by_exit, exits, ENTROPIES)
        text = "CPU time in which answered texts were tokenized and computed, to work energy out from"
        self._cpu = add("bee_cpu_seconds", "counter", text, of, models)
        text = "Operations executed: real ones plus binary ones / 64"
        self._flops = add("bee_flops_executed", "counter", text, of, models)
        text = "Operations of the same texts through all blocks"
        self._flops_full = add("bee_flops_full", "counter", text, of, models)
        text = "Answers whose texts left earlier than they would have, because requests waited"
        self._brownout = add("bee_brownout", "counter", text, of, models)
        text = (
            "Answers compared with those at full depth, by the block they left after and whether the label was the same"
        )
        compared = [(*labels, agreed) for labels in exits for agreed in ("yes", "no")]
        self._shadow = add("bee_shadow", "counter", text, ("model", "exit", "agreed"), compared)
        tokens = add("bee_request_tokens", "histogram", "Tokens of answered texts", buckets=TOKENS)
        self._tokens = tokens.series[()]
        text = "Share of an answered text's own tokens that the model's vocabulary doesn't know"
        self._unknown = add("bee_request_unknown_ratio", "histogram", text, of, models, UNKNOWN)

    def _declare_loop(self, add: Callable[..., exposition.Family]) -> None:
        text = "How late the event loop is for a timer: what a request waits before anything is done for it"
        self._lag = add("bee_event_loop_lag_seconds", "histogram", text, buckets=SECONDS).series[()]
        text = "CPU time of the threads that run event loops"
        self._busy = add("bee_event_loop_busy_seconds", "counter", text).series[()]
        text = "Time in which all texts that wait for another turn should be answered"
        self._backlog = add("bee_backlog_seconds", "gauge", text).series[()]
        self._workers = add("bee_workers", "gauge", "Server processes, one event loop each").series[()]
        text = "Server processes that ended unasked, or hung and were killed, and have successors"
        self._replaced = add("bee_workers_replaced", "counter", text, ("reason",), [("ended",), ("hung",)]).series
        text = "1 once every engine of every server process has answered a test inference"
        self._ready = add("bee_ready", "gauge", text).series[()]

    def answered(
        self,
        model: str,
        row: Row,
        answer: Answer,
        phases: tuple[float, float, float],
        seconds: float,
        *,
        cpu: float,
        own_labels: bool = False,
    ) -> None:
        """One text was answered, `seconds` after it came; `phases` has the seconds of PHASES, `cpu` those of a CPU.
        With `own_labels` the request had named them: the model's exits say nothing of it."""
        values, of, exit_index = self._counters.values, self._of_model[model], answer.exit_index
        for first, value in zip(of.phases, phases, strict=True):
            _observe(values, first, SECONDS, value)
        values[of.exits[exit_index]] += 1
        if (row.exit is of.default or row.exit == of.default) and not own_labels:
            values[of.exits_at_default[exit_index]] += 1
        _observe(values, of.exit_index, of.blocks, exit_index)
        most = math.log(len(answer.scores)) if own_labels else of.entropy_max
        _observe(values, of.entropy[exit_index], ENTROPIES, answer.entropies[-1] / most)
        values[of.cpu] += cpu
        values[of.flops] += answer.flops
        values[of.flops_full] += answer.flops_full
        _observe(values, self._tokens, TOKENS, answer.tokens)
        _observe(values, of.unknown, UNKNOWN, row.unknown_ratio)
        values[of.ok] += 1
        _observe(values, of.duration, SECONDS, seconds)

    def ended(self, model: str | None, code: int, seconds: float) -> None:
        """One text, or a body refused as a whole, came to an end; `model` is one that is loaded, or None."""
        values = self._counters.values
        values[self._requests.series[model or "", str(code)]] += 1
        if model:
            _observe(values, self._of_model[model].duration, SECONDS, seconds)

    def shifted(self, model: str) -> None:
        """Brown-out changed the exit options of an answer."""
        self._counters.values[self._brownout.series[(model,)]] += 1

    def shadowed(self, answer: Answer, *, agreed: bool) -> None:
        """An answer was compared with that at full depth."""
        labels = answer.model, str(answer.exit_index), "yes" if agreed else "no"
        self._counters.values[self._shadow.series[labels]] += 1

    def ready(self) -> None:
        """Every engine of this process has answered a forward."""
        self._counters.values[self._ready] = 1

    async def watch(self, backlog: Callable[[], float]) -> None:
        """Count what becomes of the running event loop, until cancelled: from here on this process serves."""
        values, cpu = self._counters.values, time.thread_time()
        values[self._workers] = 1
        try:
            while True:
                due = time.monotonic() + BEAT
                await asyncio.sleep(BEAT)
                _observe(values, self._lag, SECONDS, max(0.0, time.monotonic() - due))
                values[self._backlog] = backlog()
                before, cpu = cpu, time.thread_time()
                values[self._busy] += cpu - before
        finally:
            values[self._workers] = values[self._ready] = values[self._backlog] = 0

    def exposition(self, accept: str) -> tuple[Writing, str]:
        """(the work of writing a scrape, its content type), of all processes together where there are several."""
        arrays, living = self._counters.read()
        values = [sum(column) for column in zip(*arrays, strict=True)]
        if self._shared:  # what no worker can count
            values[self._requests.series["", "503"]] += self._shared.counts[REFUSED]
            values[self._replaced["ended",]] = self._shared.counts[ENDED]
            values[self._replaced["hung",]] = self._shared.counts[HUNG]
        serving = [array for array in living if array[self._workers]]
        for index in (self._workers, self._backlog):
            values[index] = sum(array[index] for array in serving)
        values[self._ready] = min((array[self._ready] for array in serving), default=0.0)
        of_processes = exposition.processes([int(array[PID]) for array in serving], named=bool(self._shared))
        others = [*self._constant, *of_processes]
        return exposition.write(accept, self._families, values, self._hidden.__contains__, others)


class _OfModel:
    """Where the series of one model stand."""

    def __init__(self, metrics: Metrics, engine: Engine) -> None:
        model, exits = engine.name, range(1, engine.config.n_block + 1)
        self.ok = metrics._requests.series[model, "200"]
        self.duration = metrics._duration.series[(model,)]
        self.phases = [metrics._phase.series[model, phase] for phase in PHASES]
        self.exits = {i: metrics._exits.series[model, str(i)] for i in exits}
        self.exits_at_default = {i: metrics._exits_at_default.series[model, str(i)] for i in exits}
        self.exit_index, self.blocks = metrics._exit_index.series[(model,)], metrics._exit_index.buckets
        self.entropy = {i: metrics._entropy.series[model, str(i)] for i in exits}
        self.unknown = metrics._unknown.series[(model,)]
        self.cpu = metrics._cpu.series[(model,)]
        self.flops = metrics._flops.series[(model,)]
        self.flops_full = metrics._flops_full.series[(model,)]
        self.default = engine.resolve(NOTHING_ASKED)
        self.entropy_max = engine.config.max_entropy


def _observe(values: Any, first: int, buckets: tuple[float, ...], value: float) -> None:
    """One more in the histogram that begins at `first`."""
    values[first + bisect_left(buckets, value)] += 1
    values[first + len(buckets) + 1] += value


def _descriptions(engines: Collection[Engine]) -> list[Metric]:
    """What is known of the models before they are asked anything."""
    infos, rows = [], []
    for engine in engines:
        infos.append(
            {
                "model": engine.name,
                "blocks": str(engine.config.n_block),
                "classes": str(len(engine.labels)),
                "format_version": str(engine.description["format_version"]),
            }
        )
        rows += [
            ({"model": engine.name, "exit": str(i)}, float(n)) for i, n in enumerate(training_exits(engine), start=1)
        ]
    text = "Dev rows of training by the block they left after at the model's own delta"
    return [
        gauge("bee_model_info", "1 for each loaded model", [(info, 1.0) for info in infos]),
        gauge("bee_exit_training_rows", text, rows),
    ]


def training_exits(engine: Engine) -> list[int]:
    """Rows of the dev set by exit with the options in effect; [] where the checkpoint doesn't say that.

    A checkpoint's evaluation is free text to everything else, so nothing is taken for granted here."""
    dev = engine.description["evaluation"].get("dev")
    if engine.resolve(NOTHING_ASKED) != engine.exported:  # BEE_MODEL_DEFAULTS: texts leave elsewhere, as was wished
        return []
    if not isinstance(dev, dict) or dev.get("delta") != engine.default_delta:
        return []
    counts = dev.get("exits")
    if not isinstance(counts, list) or len(counts) != engine.config.n_block:
        return []
    return counts if all(type(count) is int and count >= 0 for count in counts) and any(counts) else []
