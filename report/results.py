"""
Who meets whom on which rows: shipped checkpoints, recorded runs of every variant, and baselines, task by task.

Everything is measured on a task's development rows and compared row by row. What is missing stays missing and is said
to be, with a reason.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from beexformer.model import exits
from beexformer.model.config import DEFAULT_DELTA, BEEConfig
from beexformer.model.engine import Engine
from beexformer.model.errors import BEEError, TrainingError
from beexformer.model.folders import replacing
from beexformer.model.tensors import named_spec
from beexformer.report import baselines, bootstrap
from beexformer.training import calibrate
from beexformer.training.data import Rows, key
from beexformer.training.encoders import locate
from beexformer.training.evaluate import (
    DELTAS,
    NO_DELTA,
    THRESHOLDS,
    answers,
    evaluate_policy,
    flops_saved,
    logits_of,
    recorded,
)
from beexformer.training.progress import RunProgress
from beexformer.training.recipe import Data
from beexformer.training.record import Record, find
from beexformer.training.splits import splits

PAPER = {"sst2": "SST-2", "cola": "CoLA", "mrpc": "MRPC", "rte": "RTE"}
"""Tasks of the paper's Table 2 and how it writes them."""
DELTA = DEFAULT_DELTA


class Cited(NamedTuple):
    """A row of the paper's Table 2 (arXiv 2412.05225v1): scores in points, None where it has none."""

    name: str
    bits: str
    megabytes: float
    scores: tuple[float | None, ...]  # SST-2, CoLA, MRPC, RTE
    kind: str  # "quantized" or "early exit", the halves of the table


CITED = (
    Cited("Q-BERT", "8-8", 43, (84.6, None, 68.3, 52.7), "quantized"),
    Cited("TernaryBERT", "2-8", 28, (None, 50.7, 87.5, 68.2), "quantized"),
    Cited("BinaryBERT", "1-8", 16.5, (92.6, 53.4, 85.5, 72.2), "quantized"),
    Cited("BinaryBERT", "1-4", 16.5, (92.3, 44.4, 83.3, 65.3), "quantized"),
    Cited("BinaryBERT", "1-2", 16.5, (82.5, 14.6, 68.3, 52.7), "quantized"),
    Cited("BinaryBERT", "1-1", 16.5, (53.2, 0, 68.3, 52.7), "quantized"),
    Cited("BiBERT", "1-1", 13.4, (88.7, 25.4, 72.5, 57.4), "quantized"),
    Cited("BiT (WMS)", "1-4", 13.4, (91.5, 42.0, 86.8, 66.4), "quantized"),
    Cited("BiT (WMS)", "1-2", 13.4, (90.8, 32.1, 78.4, 58.1), "quantized"),
    Cited("BiT (WMS)", "1-1", 13.4, (87.7, 25.1, 79.7, 58.8), "quantized"),
    Cited("BiT", "1-1", 13.4, (89.9, 32.9, 79.9, 62.1), "quantized"),
    Cited("ElasticBERT-base", "32-32", 416, (None, None, 87.9, None), "early exit"),
    Cited("ElasticBERT-base-6L", "32-32", 256, (None, None, 87.3, None), "early exit"),
    Cited("BE3R-BERT", "32-32", 1297, (93.23, 59.81, 90.27, 71.48), "early exit"),
    Cited("BE3R-Electra", "32-32", 1278, (96.79, 68.26, 91.47, 86.28), "early exit"),
    Cited("PABEE", "32-32", 46, (93.0, 61.2, 90.0, 80.1), "early exit"),
    Cited("BEEformer WEE, paper", "1-1", 11.05, (85.77, 53.21, 82.30, 64.98), "quantized"),
    Cited("BEEformer WEE-FP, paper", "32-32", 102.41, (90.71, 57.43, 84.27, 67.15), "early exit"),
    Cited("BEEformer FP, paper", "32-32", 263, (95.10, 62.70, 90.92, 75.81), "early exit"),
    Cited("BEEformer, paper", "1-1", 14.26, (92.32, 60.30, 86.47, 71.11), "quantized"),
)


@dataclass(frozen=True, eq=False)
class Net:
    """One network on some rows, development rows where nothing else is said: logits [N, exits, m], tokens [N], and how
    large it is."""

    variant: str
    seed: int
    config: BEEConfig
    logits: np.ndarray
    tokens: np.ndarray
    size_bytes: int
    temperatures: np.ndarray  # [exits], what the logits were divided by; ones where it isn't calibrated

    @cached_property
    def taken(self) -> np.ndarray:
        """The exit (counted from 1 among its exits) that each row leaves at under the paper's rule [N]."""
        return exits.exit_layers(self.logits, exits.entropy_gain(DELTA))

    @property
    def predicted(self) -> np.ndarray:
        return answers(self.logits, self.taken)

    @property
    def full_depth(self) -> np.ndarray:
        return np.asarray(self.logits[:, -1].argmax(-1))

    @property
    def raw(self) -> np.ndarray:
        """The logits before calibration divided them."""
        undivided: np.ndarray = self.logits * self.temperatures[:, None]
        return undivided

    @cached_property
    def saved(self) -> float:
        """Mean share of FLOPs saved under the paper's rule."""
        return self._saved(self.taken)

    @cached_property
    def threshold(self) -> float | None:
        """The smallest entropy threshold that, alone, saves as many FLOPs as the paper's rule; None if none does."""
        return next((share for share in THRESHOLDS if self._saved(self._sure(share)) >= self.saved), None)

    def when_sure(self, threshold: float) -> tuple[np.ndarray, float]:
        """Answers [N] that leave by an entropy threshold alone, and the mean share of FLOPs saved."""
        taken = self._sure(threshold)
        return answers(self.logits, taken), self._saved(taken)

    def leaving(self) -> np.ndarray:
        """Rows by the block they leave after [n_block]."""
        return np.bincount(self._left(self.taken) - 1, minlength=self.config.n_block)

    def _sure(self, threshold: float) -> np.ndarray:
        return exits.exit_layers(self.logits, exits.entropy_gain(NO_DELTA, threshold))

    def _left(self, taken: np.ndarray) -> np.ndarray:
        return np.asarray(np.array(self.config.exits)[taken - 1])

    def _saved(self, taken: np.ndarray) -> float:
        return flops_saved(self.config, self.tokens, self._left(taken))


@dataclass(frozen=True, eq=False)
class Baseline:
    """Predictions [N], on test rows too where they are labelled, or why there are none."""

    predicted: np.ndarray | None
    on_test: np.ndarray | None = None
    note: str = ""
    size_bytes: int | None = None

    @classmethod
    def of(cls, answers: Sequence[np.ndarray], size_bytes: int | None = None) -> "Baseline":
        """From answers to development rows and, if there are any, to test rows."""
        return cls(answers[0], answers[1] if len(answers) > 1 else None, size_bytes=size_bytes)


@dataclass(eq=False)
class Task:
    """One set of rows and everyone who answered them."""

    name: str
    metric: str
    labels: list[str]
    train: Rows
    dev: Rows
    test: Rows | None
    shipped: Net | None = None
    calibration: calibrate.Kind = "per_exit"  # of what ships
    tested: Net | None = None  # the shipped network on test rows
    made: dict[str, Any] = field(default_factory=dict)  # the shipped network's provenance
    runs: dict[str, list[Net]] = field(default_factory=dict)  # by variant
    baselines: dict[str, Baseline] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return PAPER.get(self.name, self.name)

    @property
    def lead(self) -> Net | None:
        """The proposed network that curves are drawn for: the shipped one, or the first recorded one."""
        return self.shipped or next(iter(self.runs.get("proposed", [])), None)

    @cached_property
    def draws(self) -> np.ndarray:
        # a seed of its own: equal ones would tie the tasks' resamples together
        return bootstrap.draws(len(self.dev), seed=crc32(self.name.encode()))

    @cached_property
    def test_draws(self) -> np.ndarray:
        return bootstrap.draws(len(self.test or ()), seed=crc32(f"{self.name} test".encode()))

    def scores(self, predicted: np.ndarray) -> bootstrap.Scores:
        return bootstrap.resample(self.dev.labels, predicted, len(self.labels), self.metric, self.draws)

    def test_scores(self, predicted: np.ndarray) -> bootstrap.Scores:
        assert self.test is not None
        return bootstrap.resample(self.test.labels, predicted, len(self.labels), self.metric, self.test_draws)

    def of(self, variant: str, seeds: Iterable[int] | None = None) -> bootstrap.Scores | None:
        """Mean over the recorded runs of a variant."""
        chosen = [n for n in self.runs.get(variant, []) if seeds is None or n.seed in seeds]
        return bootstrap.mean([self.scores(net.predicted) for net in chosen]) if chosen else None


Curve = list[tuple[float, float]]
"""(share of FLOPs saved, score)."""


def curve(
    task: Task, net: Net, policy: Callable[[float], exits.Policy], settings: Sequence[float], **options: Any
) -> Curve:
    """What `evaluate_policy` finds along the settings of a policy."""
    found = [
        evaluate_policy(net.config, net.logits, net.tokens, task.dev.labels, task.metric, policy(x), **options)
        for x in settings
    ]
    return [(point["flops_saved_ratio"], point["score"]) for point in found]


def rule(task: Task, net: Net) -> Curve:
    """Along `evaluate.DELTAS` under the paper's rule."""
    return curve(task, net, exits.entropy_gain, DELTAS)


def policies(task: Task, net: Net) -> dict[str, Curve]:
    """The paper's rule and its rivals on the same logits, each along settings from the deepest to the shallowest."""
    between = net.logits[:, :-1]  # where a policy has a say
    shares = np.linspace(0, 1, 15)
    nats = np.quantile(exits.entropy(between), shares)
    sure = np.quantile(exits.softmax(between).max(-1), shares)
    return {
        "entropy gain (the paper's)": rule(task, net),
        "the same, lowest entropy answers": curve(task, net, exits.entropy_gain, DELTAS, answering=exits.surest),
        f"the paper's at delta {DELTA:g}, and by absolute entropy": curve(
            task, net, lambda share: exits.entropy_gain(DELTA, share), [0, *THRESHOLDS, 1]
        ),
        "absolute entropy": curve(task, net, exits.absolute_entropy, [*nats, np.inf]),
        "maximum probability": curve(task, net, exits.max_probability, [*sure, np.inf]),
        "patience": curve(task, net, lambda steps: exits.patience(int(steps)), range(net.config.n_block)),
    }


def rescaled(task: Task, net: Net, kind: calibrate.Kind) -> Net:
    """The network with temperatures of this kind, each half of the rows with those of the other half."""
    return replace(net, logits=calibrate.cross_fitted(net.raw, task.dev.labels, kind))


def packed_bytes(config: BEEConfig) -> int:
    """Of a binary network's tensors without what fills up rows in its file; vocabulary and texts apart."""
    return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for dtype, shape in named_spec(config).values())


def real_bytes(config: BEEConfig) -> int:
    """Of the same network in full precision: every weight a float32, no scales or thresholds."""
    count = config.vocab_size * config.d_model // 2
    for name, (dtype, shape) in named_spec(config).items():
        if not name.endswith((".alpha", ".beta", ".scale")) and not name.startswith("embedding."):
            count += int(np.prod(shape)) * (64 if dtype == "uint64" else 1)
    return 4 * count


# ---------------------------------------------------------------- gathering


def gather(
    engines: Iterable[Engine], runs: Path, root: Path, work: Path, progress: RunProgress, encoder: bool
) -> tuple[list[Task], dict[str, str]]:
    """Every task that a checkpoint or a record names, measured; and what was left out, with the reason.

    The paper's tasks come first. `runs` holds records and may be missing; what baselines answered is kept in its
    folder `baselines`, and not computed again for the same rows.
    """
    tasks: dict[str, Task] = {}
    left_out: dict[str, str] = {}
    for engine in engines:
        try:
            task = _task(engine.name, recorded(engine), root, list(engine.labels))
        except BEEError as error:
            left_out[f"checkpoint {engine.name}"] = str(error)
            continue
        tasks[engine.name] = task
        _measure(task, engine, progress)
    for record in find(runs):
        name = record.meta["task"]
        title = f"record {name}, {record.meta['variant']}, seed {record.meta['seed']}"
        try:
            if name not in tasks:
                data = Data.model_validate(record.meta["recipe"]["data"])
                tasks[name] = _task(name, data, root, record.meta["class_names"])
            _add(tasks[name], record)
        except BEEError as error:
            left_out[title] = str(error)
        except (KeyError, TypeError, ValueError) as error:
            left_out[title] = f"it can't be read ({error}); train it again"
    order = [*PAPER, *sorted(tasks.keys() - PAPER.keys())]
    found = [tasks[name] for name in order if name in tasks]
    for task in found:
        _answer(task, runs / "baselines", work, progress, encoder)
    return found, left_out


def _task(name: str, data: Data, root: Path, labels: list[str]) -> Task:
    """The rows; training rows that are also scored on are dropped, as training drops them."""
    train, dev, test, _ = splits(data, root, labels)
    scored = {key(row) for rows in (dev, test) if rows for row in rows.inputs()}
    kept = np.flatnonzero([key(row) not in scored for row in train.inputs()])
    if not len(kept):
        raise TrainingError(f"{root / data.train}: every training row is also a development or test row")
    return Task(name, data.metric, labels, train.take(kept), dev, test)


def _measure(task: Task, engine: Engine, progress: RunProgress) -> None:
    """The shipped network anew, by the engine."""

    def run(rows: Rows, split: str) -> tuple[np.ndarray, np.ndarray]:
        report = progress.stage(f"{task.name} on {split}")

        def watched(starts: Sequence[int]) -> Iterable[int]:
            for i, start in enumerate(starts):
                yield start
                report(i + 1, len(starts), "")

        return logits_of(engine, rows, watched)

    logits, tokens = run(task.dev, "dev")
    evaluation = engine.description["evaluation"]
    task.made = evaluation["provenance"]
    temperatures = calibrate.recorded(evaluation, logits.shape[1])
    task.calibration = evaluation.get("calibration", {}).get("kind", "none")
    size = engine.description["size_bytes"]
    task.shipped = Net("proposed", task.made.get("seed", 0), engine.config, logits, tokens, size, temperatures)
    if task.test:
        logits, tokens = run(task.test, "test")
        task.tested = replace(task.shipped, logits=logits, tokens=tokens)


def _add(task: Task, record: Record) -> None:
    if record.meta["dev_sha256"] != task.dev.sha256():
        raise TrainingError("its development rows are others than those in the data folder")
    ships = task.made.get("recipe")
    for part in ("network", "start", "teacher"):
        if ships and record.meta["recipe"].get(part) != ships.get(part):
            raise TrainingError(f"its recipe has another [{part}] than what ships; train it again")
    config = BEEConfig(**record.meta["config"])
    size = packed_bytes(config) if config.binary else real_bytes(config)
    variant, logits = record.meta["variant"], record.logits
    found = calibrate.recorded(record.meta, logits.shape[1])
    if variant != "proposed":  # which was calibrated when it was exported; what it is compared with is treated alike
        found = calibrate.temperatures(logits, record.labels, task.calibration)
        logits = logits / found[:, None]
    net = Net(variant, record.meta["seed"], config, logits, record.tokens, size, found)
    task.runs.setdefault(variant, []).append(net)


def _answer(task: Task, kept: Path, work: Path, progress: RunProgress, encoder: bool) -> None:
    """The baselines; the encoder for the paper's tasks only."""
    others = [task.dev, *([task.test] if task.test else [])]
    rows = baselines.digest(task.train, *others)[:12]

    def lexical() -> Baseline:
        predicted, _ = baselines.lexical(task.train, others, task.metric, progress.stage(f"TF-IDF on {task.name}"))
        return Baseline.of(predicted)

    def tuned() -> Baseline:
        if not encoder:
            raise TrainingError("left out")
        report = progress.stage(f"MiniLM on {task.name}")
        predicted = baselines.encoder(task.train, others, len(task.labels), work, report)
        return Baseline.of(predicted, (locate("minilm", work / "encoders") / "model.safetensors").stat().st_size)

    task.baselines["majority"] = Baseline.of([baselines.majority(task.train, other) for other in others])
    task.baselines["lexical"] = _once(kept / f"{task.name}-lexical-{rows}.npz", lexical)
    task.baselines["encoder"] = Baseline(None, note="left out")
    if task.name in PAPER:
        try:
            task.baselines["encoder"] = _once(kept / f"{task.name}-encoder-{rows}.npz", tuned)
        except TrainingError as error:
            task.baselines["encoder"] = Baseline(None, note=str(error))


def _once(path: Path, measure: Callable[[], Baseline]) -> Baseline:
    """What was measured and is kept in `path`; if nothing is, it is measured and kept."""
    if not path.exists():
        found = {name: value for name, value in vars(measure()).items() if name != "note" and value is not None}
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as out:
            np.savez_compressed(out, **found)
    with np.load(path) as file:
        size = int(file["size_bytes"]) if "size_bytes" in file else None
        return Baseline(file["predicted"], file.get("on_test"), size_bytes=size)
