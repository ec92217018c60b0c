"""
What a trained network is worth: score per exit, score and FLOPs along delta, where rows leave.

Works on the logits of all exits, from the engine or from a torch network, so one pass over the rows tells every delta.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from beexformer.model import exits, flops
from beexformer.model.config import DEFAULT_DELTA, BEEConfig
from beexformer.model.engine import Engine, Row
from beexformer.model.errors import TrainingError
from beexformer.model.options import ExitOptions, ExitSettings
from beexformer.training import diagnosis
from beexformer.training.data import Columns, Rows, read_rows
from beexformer.training.decisions import decide
from beexformer.training.recipe import Data
from beexformer.training.splits import splits

METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy_score,
    "f1": f1_score,
    "macro_f1": partial(f1_score, average="macro", zero_division=0.0),
    "micro_f1": partial(f1_score, average="micro", zero_division=0.0),
    "matthews": matthews_corrcoef,
}
OF_LABEL_SETS = ("micro_f1", "macro_f1", "accuracy")
"""Those of several labels a text; accuracy is the share of rows whose labels are all right and none too many."""

NO_DELTA = -1.0  # the delta that leaves it to an entropy threshold: hardly any block doubles the entropy
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
DELTAS = (-0.1, -0.01, -0.001, 0.0, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)


Progress = Callable[[Sequence[int]], Iterable[int]]
"""Wraps the batches of a long pass, to show how far it is."""


@cache
def _flops(config: BEEConfig, tokens: flops.Tokens, blocks: int) -> float:
    return flops.forward(config, tokens, blocks).flops


def lengths(tokens: np.ndarray) -> list[flops.Tokens]:
    """Tokens of rows [N], or of both texts where they are read apart [N, 2], row by row."""
    return [tuple(n) if isinstance(n, list) else n for n in tokens.tolist()]


def flops_saved(config: BEEConfig, tokens: np.ndarray, left: np.ndarray) -> float:
    """Mean share of FLOPs that rows of so many tokens (see `lengths`) save by leaving after the blocks `left` [N], each
    against itself at full depth."""
    pairs = zip(lengths(tokens), left.tolist(), strict=True)
    return float(np.mean([1 - _flops(config, n, c) / _flops(config, n, config.n_block) for n, c in pairs]))


def evaluate_policy(
    config: BEEConfig,
    logits: np.ndarray,
    tokens: np.ndarray,
    labels: np.ndarray,
    metric: str,
    policy: exits.Policy,
    answering: Callable[[np.ndarray, int], int] = lambda logits, taken: taken,
    thresholds: np.ndarray | None = None,
) -> dict[str, Any]:
    """Score, mean share of FLOPs saved and rows by exit under a policy; logits [N, exits, m], tokens and labels [N].

    `answering` chooses, from a row's logits and the exit that it takes, the exit that answers: by default the same.
    `thresholds` are those of several labels a text, see `decisions.decide`.
    """
    taken = exits.exit_layers(logits, policy)
    predicted = answers(logits, taken, answering, thresholds)
    left = np.array(config.exits)[taken - 1]
    return {
        "score": float(METRICS[metric](labels, predicted)),
        "flops_saved_ratio": flops_saved(config, tokens, left),
        "exits": [int((left == c).sum()) for c in range(1, config.n_block + 1)],
    }


def answering(config: BEEConfig, options: ExitOptions | ExitSettings) -> slice:
    """Where among its exits those are that may answer a row under these options, counted from 0: all where these bound
    nothing."""
    first = int(np.searchsorted(config.exits, options.min_blocks or 1))
    last = int(np.searchsorted(config.exits, options.max_blocks or config.n_block, "right"))
    return slice(first, max(first + 1, last))  # a network with one exit takes it, whatever is asked


def exits_taken(config: BEEConfig, logits: np.ndarray, settings: ExitSettings) -> np.ndarray:
    """Which of its exits each row takes [N], counted from 1; logits [N, exits, m]."""
    policy = exits.entropy_gain(settings.delta, settings.entropy_threshold, multi_label=config.multi_label)
    may = answering(config, settings)
    return exits.exit_layers(logits, policy, may.start + 1, may.stop)


def answers(
    logits: np.ndarray,
    taken: np.ndarray,
    answering: Callable[[np.ndarray, int], int] = lambda logits, taken: taken,
    thresholds: np.ndarray | None = None,
) -> np.ndarray:
    """The class each row is given [N], or its labels [N, m], where `taken` [N] are the exits that rows leave at; see
    `evaluate_policy`."""
    return decide(np.array([z[answering(z, t) - 1] for z, t in zip(logits, taken, strict=True)]), thresholds)


def at_delta(
    config: BEEConfig,
    logits: np.ndarray,
    tokens: np.ndarray,
    labels: np.ndarray,
    metric: str,
    delta: float,
    thresholds: np.ndarray | None = None,
) -> dict[str, Any]:
    """What `evaluate_policy` says of the paper's rule at one delta."""
    policy = exits.entropy_gain(delta, multi_label=config.multi_label)
    return {
        "delta": delta,
        **evaluate_policy(config, logits, tokens, labels, metric, policy, thresholds=thresholds),
    }


def entropy_curve(
    config: BEEConfig,
    logits: np.ndarray,
    tokens: np.ndarray,
    labels: np.ndarray,
    metric: str,
    delta: float,
    thresholds: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """What `evaluate_policy` says along `entropy_threshold`: beside `delta`, and with as good as no delta."""

    def at(d: float, threshold: float) -> dict[str, Any]:
        policy = exits.entropy_gain(d, threshold, multi_label=config.multi_label)
        return evaluate_policy(config, logits, tokens, labels, metric, policy, thresholds=thresholds)

    points = ((d, threshold) for d in (delta, NO_DELTA) for threshold in THRESHOLDS)
    return [{"delta": d, "entropy_threshold": threshold, **at(d, threshold)} for d, threshold in points]


def evaluate_logits(
    config: BEEConfig,
    logits: np.ndarray,
    tokens: np.ndarray,
    labels: np.ndarray,
    metric: str,
    settings: ExitSettings,
    thresholds: np.ndarray | None = None,
) -> dict[str, Any]:
    """The evaluation of one labelled set, JSON-ready; see `evaluate`. `settings` are what is in effect where nothing is
    asked; the curves are drawn over all blocks. `thresholds` are those of several labels a text."""
    taken = exits_taken(config, logits, settings)
    predicted = answers(logits, taken, thresholds=thresholds)
    left = np.array(config.exits)[taken - 1]
    if thresholds is None:
        classes: dict[str, Any] = {"confusion": diagnosis.confusion(labels, predicted, config.n_class)}
    else:
        classes = {"metrics": {name: float(METRICS[name](labels, predicted)) for name in OF_LABEL_SETS}}
    return {
        "rows": len(labels),
        "metric": metric,
        "delta": settings.delta,
        "score": float(METRICS[metric](labels, predicted)),
        "flops_saved_ratio": flops_saved(config, tokens, left),
        "exits": [int((left == c).sum()) for c in range(1, config.n_block + 1)],
        "interval": diagnosis.interval(labels, predicted, METRICS[metric], metric == "accuracy"),
        "full_depth_score": float(METRICS[metric](labels, decide(logits[:, -1], thresholds))),
        "per_exit": [
            {
                "exit": c,
                "score": float(METRICS[metric](labels, decide(logits[:, i], thresholds))),
                "flops_saved_ratio": flops_saved(config, tokens, np.full(len(labels), c)),
            }
            for i, c in enumerate(config.exits)
        ],
        "by_class": diagnosis.by_class(labels, predicted, config.n_class),
        **classes,
        "delta_curve": [at_delta(config, logits, tokens, labels, metric, d, thresholds) for d in DELTAS],
        "entropy_curve": entropy_curve(config, logits, tokens, labels, metric, settings.delta, thresholds),
    }


def read_labelled(engine: Engine, path: Path, columns: Columns) -> Rows:
    """The labelled rows of a file, their classes those of a checkpoint. Raises TrainingError for rows that can't be."""
    several = engine.config.multi_label
    if several and columns.label_separator is None:
        columns = replace(columns, label_separator=_separator(engine))
    names = list(engine.labels)
    return read_rows(path, columns, names, positions=labels_are_positions(engine), multi_label=several)[0]


def _separator(engine: Engine) -> str | None:
    """What stood between the labels that a checkpoint was trained on."""
    try:
        return recorded(engine).label_separator
    except TrainingError:
        return None


def encode_rows(engine: Engine, rows: Rows) -> list[Row]:
    """Rows as the engine reads them."""
    return [engine.encode(text, rows.pairs[i] if rows.pairs else None) for i, text in enumerate(rows.texts)]


def logits_of(engine: Engine, rows: Rows, progress: Progress = iter) -> tuple[np.ndarray, np.ndarray]:
    """Rows through every exit of an engine: logits [N, exits, m] float32 and tokens int64, see `lengths`."""
    encoded = encode_rows(engine, rows)
    logits = [engine.logits(encoded[start : start + 64]) for start in progress(range(0, len(encoded), 64))]
    return np.concatenate(logits), np.array([row.lengths for row in encoded], dtype=np.int64)


def evaluate(engine: Engine, rows: Rows, metric: str | None = None, *, progress: Progress = iter) -> dict[str, Any]:
    """Run labelled rows through every exit of an engine.

    Without a metric it is accuracy, of several labels a text micro F1. Answers {rows, metric, delta, score, interval,
    flops_saved_ratio, exits, full_depth_score, per_exit, by_class, confusion, delta_curve, entropy_curve, surely_wrong,
    advice}: score and exits are the service's, where a request asks for nothing, `exits[c-1]` counts the rows leaving
    after block c. See `diagnosis` for what is said of classes. Of several labels a text there is no confusion, but
    `metrics`, which has OF_LABEL_SETS.
    """
    metric = metric or ("micro_f1" if rows.multi_label else "accuracy")
    thresholds = None if engine.thresholds is None else np.array(engine.thresholds)
    logits, tokens = logits_of(engine, rows, progress)
    settings = engine.resolve(ExitOptions())
    result = evaluate_logits(engine.config, logits, tokens, rows.labels, metric, settings, thresholds)
    answered = logits[np.arange(len(rows)), exits_taken(engine.config, logits, settings) - 1]
    result["surely_wrong"] = diagnosis.surely_wrong(
        rows.inputs(), answered, rows.labels, engine.labels, thresholds=thresholds
    )
    result["advice"] = diagnosis.advice(result)
    return result


def shipped(engine: Engine, root: Path, progress: Progress = iter) -> dict[str, Any]:
    """A checkpoint on the development rows that its own evaluation.json names, measured anew at the paper's delta.

    Answers {task, metric, rows, delta, score, full_depth_score, flops_saved_ratio, exits, size_bytes}.
    """
    data = recorded(engine)
    if engine.description["evaluation"]["provenance"].get("cross_validated"):
        raise TrainingError(
            f"checkpoint {engine.name!r} was trained on all of its rows and cross-validated; name a file of other rows "
            "to evaluate it"
        )
    dev = splits(data, root, engine.labels).dev
    logits, tokens = logits_of(engine, dev, progress)
    settings = replace(engine.resolve(ExitOptions()), delta=DEFAULT_DELTA)
    metric = data.metric_of(dev.multi_label)
    thresholds = None if engine.thresholds is None else np.array(engine.thresholds)
    result = evaluate_logits(engine.config, logits, tokens, dev.labels, metric, settings, thresholds)
    kept = ("metric", "rows", "delta", "score", "full_depth_score", "flops_saved_ratio", "exits")
    return {"task": engine.name, **{key: result[key] for key in kept}, "size_bytes": engine.description["size_bytes"]}


def labels_are_positions(engine: Engine) -> bool:
    """Whether integers in a file of rows are positions of this checkpoint's labels: its own rows had integers, which
    its recipe named; or it doesn't say."""
    try:
        return recorded(engine).labels is not None
    except TrainingError:
        return True


def recorded(engine: Engine) -> Data:
    """What a checkpoint was trained on, from its evaluation.json. Raises TrainingError where that doesn't say."""
    try:
        return Data.model_validate(engine.description["evaluation"]["provenance"]["recipe"]["data"])
    except (KeyError, TypeError, ValueError):
        raise TrainingError(
            f"checkpoint {engine.name!r} doesn't say in evaluation.json which rows it was trained on; "
            "name a file of rows to evaluate it"
        ) from None
