"""
What a trained network is worth: score per exit, score and FLOPs along delta, where rows leave.

Works on the logits of all exits, from the engine or from a torch network, so one pass over the rows tells every delta.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from beexformer.model import exits, flops
from beexformer.model.config import BEEConfig
from beexformer.model.engine import Engine
from beexformer.model.errors import TrainingError
from beexformer.training.data import Rows, find_split, read_rows, split_rows
from beexformer.training.recipe import Data

METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy_score,
    "f1": f1_score,
    "macro_f1": lambda y, predicted: f1_score(y, predicted, average="macro"),
    "matthews": matthews_corrcoef,
}

PICTURES = (".png", ".svg", ".pdf")
ALONE = -1.0  # the delta that leaves it to an entropy threshold: hardly any block doubles the entropy
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
DELTAS = (-0.1, -0.01, -0.001, 0.0, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)


Progress = Callable[[Sequence[int]], Iterable[int]]
"""Wraps the batches of a long pass, to progress how far it is."""


@cache
def _flops(config: BEEConfig, tokens: int, blocks: int) -> float:
    return flops.forward(config, tokens, blocks).flops


def flops_saved(config: BEEConfig, tokens: np.ndarray, left: np.ndarray) -> float:
    """Mean share of FLOPs that rows of so many tokens [N] save by leaving after the blocks `left` [N], each against
    itself at full depth."""
    pairs = zip(tokens.tolist(), left.tolist(), strict=True)
    return float(np.mean([1 - _flops(config, n, c) / _flops(config, n, config.n_block) for n, c in pairs]))


def evaluate_policy(
    config: BEEConfig,
    logits: np.ndarray,
    tokens: np.ndarray,
    labels: np.ndarray,
    metric: str,
    policy: exits.Policy,
    answering: Callable[[np.ndarray, int], int] = lambda logits, taken: taken,
) -> dict[str, Any]:
    """Score, mean share of FLOPs saved and rows by exit under a policy; logits [N, exits, m], tokens and labels [N].

    `answering` chooses, from a row's logits and the exit that it takes, the exit that answers: by default the same.
    """
    taken = exits.exit_layers(logits, policy)
    predicted = answers(logits, taken, answering)
    left = np.array(config.exits)[taken - 1]
    return {
        "score": float(METRICS[metric](labels, predicted)),
        "flops_saved_ratio": flops_saved(config, tokens, left),
        "exits": [int((left == c).sum()) for c in range(1, config.n_block + 1)],
    }


def answers(
    logits: np.ndarray, taken: np.ndarray, answering: Callable[[np.ndarray, int], int] = lambda logits, taken: taken
) -> np.ndarray:
    """The class each row is given [N], where `taken` [N] are the exits that rows leave at; see `evaluate_policy`."""
    return np.array([z[answering(z, t) - 1].argmax() for z, t in zip(logits, taken, strict=True)])


def at_delta(
    config: BEEConfig, logits: np.ndarray, tokens: np.ndarray, labels: np.ndarray, metric: str, delta: float
) -> dict[str, Any]:
    """What `evaluate_policy` says of the paper's rule at one delta."""
    return {"delta": delta, **evaluate_policy(config, logits, tokens, labels, metric, exits.entropy_gain(delta))}


def entropy_curve(
    config: BEEConfig, logits: np.ndarray, tokens: np.ndarray, labels: np.ndarray, metric: str, delta: float
) -> list[dict[str, Any]]:
    """What `evaluate_policy` says along `entropy_threshold`: beside `delta`, and with as good as no delta."""
    return [
        {
            "delta": d,
            "entropy_threshold": threshold,
            **evaluate_policy(config, logits, tokens, labels, metric, exits.entropy_gain(d, threshold)),
        }
        for d in (delta, ALONE)
        for threshold in THRESHOLDS
    ]


def evaluate_logits(
    config: BEEConfig, logits: np.ndarray, tokens: np.ndarray, labels: np.ndarray, metric: str, delta: float
) -> dict[str, Any]:
    """The evaluation of one labelled set, JSON-ready; see `evaluate`."""
    return {
        "rows": len(labels),
        "metric": metric,
        **at_delta(config, logits, tokens, labels, metric, delta),
        "full_depth_score": float(METRICS[metric](labels, logits[:, -1].argmax(-1))),
        "per_exit": [
            {"exit": c, "score": float(METRICS[metric](labels, logits[:, i].argmax(-1)))}
            for i, c in enumerate(config.exits)
        ],
        "delta_curve": [at_delta(config, logits, tokens, labels, metric, d) for d in DELTAS],
        "entropy_curve": entropy_curve(config, logits, tokens, labels, metric, delta),
    }


def logits_of(engine: Engine, rows: Rows, progress: Progress = iter) -> tuple[np.ndarray, np.ndarray]:
    """Rows through every exit of an engine: logits [N, exits, m] float32 and tokens [N] int64."""
    encoded = [engine.encode(text, rows.pairs[i] if rows.pairs else None) for i, text in enumerate(rows.texts)]
    logits = [engine.logits(encoded[start : start + 64]) for start in progress(range(0, len(encoded), 64))]
    return np.concatenate(logits), np.array([len(row.ids) for row in encoded], dtype=np.int64)


def evaluate(engine: Engine, rows: Rows, metric: str = "accuracy", *, progress: Progress = iter) -> dict[str, Any]:
    """Run labelled rows through every exit of an engine.

    Answers {rows, metric, delta, score, flops_saved_ratio, exits, full_depth_score, per_exit, delta_curve,
    entropy_curve}: score and exits at the checkpoint's default delta are the service's, `exits[c-1]` counts the rows
    leaving after block c.
    """
    logits, tokens = logits_of(engine, rows, progress)
    return evaluate_logits(engine.config, logits, tokens, rows.labels, metric, engine.default_delta)


SPLIT_SEED = 1  # of the tenth that is held out: the runs of all seeds are scored on the same rows


class Splits(NamedTuple):
    """The rows of a task and the names of its classes, as its training reads them."""

    train: Rows
    dev: Rows
    test: Rows | None
    labels: list[str]


def splits(data: Data, root: Path, labels: Sequence[str] | None = None) -> Splits:
    """The rows that a recipe's section [data] names, from the data folder `root`. `labels` are the names of the classes
    where they are known; otherwise the section's, or those found in the training rows.

    Raises TrainingError where rows are missing or broken.
    """
    path = root / data.train
    if not path.exists():
        raise TrainingError(f"{path}: no such file or folder; is {root} the data folder (--data, or BEE_DATA)?")
    folder = path if path.is_dir() else None
    train_file = find_split(path, "train") if folder else path
    if train_file is None:
        raise TrainingError(f"{path} has no train file (train.csv, .tsv, .jsonl or .parquet)")
    train, names = read_rows(train_file, data.columns, list(labels) if labels else data.labels)

    def other(name: str | None, split: str) -> Rows | None:
        file = root / name if name else folder and find_split(folder, split)
        return read_rows(file, data.columns, names)[0] if file else None

    dev, test = other(data.dev, "dev"), other(data.test, "test")
    if dev is None:
        train, dev = split_rows(train, 0.1, SPLIT_SEED)
    return Splits(train, dev, test, names)


def shipped(engine: Engine, root: Path, progress: Progress = iter) -> dict[str, Any]:
    """A checkpoint on the development rows that its own evaluation.json names, measured anew at the paper's delta.

    Answers {task, metric, rows, delta, score, full_depth_score, flops_saved_ratio, exits, size_bytes}.
    """
    data = recorded(engine)
    dev = splits(data, root, engine.labels).dev
    logits, tokens = logits_of(engine, dev, progress)
    found = evaluate_logits(engine.config, logits, tokens, dev.labels, data.metric, exits.DEFAULT_DELTA)
    kept = ("metric", "rows", "delta", "score", "full_depth_score", "flops_saved_ratio", "exits")
    return {"task": engine.name, **{key: found[key] for key in kept}, "size_bytes": engine.description["size_bytes"]}


def recorded(engine: Engine) -> Data:
    """What a checkpoint was trained on, from its evaluation.json. Raises TrainingError where that doesn't say."""
    try:
        return Data.model_validate(engine.description["evaluation"]["provenance"]["recipe"]["data"])
    except (KeyError, TypeError, ValueError):
        raise TrainingError(
            f"checkpoint {engine.name!r} doesn't say in evaluation.json which rows it was trained on; "
            "name a file of rows to evaluate it"
        ) from None


def shipped_table(found: Sequence[dict[str, Any]]) -> Table:
    """Several answers of `shipped` for a terminal."""
    table = Table(title="checkpoints on their development rows, measured now")
    for column in ("task", "metric", "rows", "score", "full depth", "FLOPs saved", "rows leaving by block", "size"):
        table.add_column(column, justify="left" if column in ("task", "metric") else "right")
    for line in found:
        table.add_row(
            line["task"],
            line["metric"],
            str(line["rows"]),
            f"{line['score']:.4f}",
            f"{line['full_depth_score']:.4f}",
            f"{line['flops_saved_ratio']:.1%}",
            " ".join(map(str, line["exits"])),
            f"{line['size_bytes'] / 1e6:.2f} MB",
        )
    return table


def tables(title: str, found: dict[str, Any]) -> RenderableType:
    """An evaluation for a terminal: score per exit with the rows that leave there, then the curves."""
    by_exit = Table(title=f"{title}: {found['metric']} of {found['rows']} rows by exit")
    for column in ("exit", "score", f"rows leaving at delta {found['delta']:g}", ""):
        by_exit.add_column(column, justify="left" if not column else "right")
    scores = {line["exit"]: f"{line['score']:.4f}" for line in found["per_exit"]}
    for c, count in enumerate(found["exits"], start=1):
        by_exit.add_row(str(c), scores.get(c, "-"), str(count), "█" * round(40 * count / found["rows"]))
    curve = Table(title="along delta")
    for column in ("delta", "score", "FLOPs saved", "mean exit"):
        curve.add_column(column, justify="right")
    for point in found["delta_curve"]:
        mean = np.average(np.arange(1, len(point["exits"]) + 1), weights=point["exits"])
        style = "bold" if point["delta"] == found["delta"] else None
        saved = f"{point['flops_saved_ratio']:.1%}"
        curve.add_row(f"{point['delta']:g}", f"{point['score']:.4f}", saved, f"{mean:.2f}", style=style)
    sure = Table(title="along entropy_threshold")
    sure.add_column("entropy_threshold", justify="right")
    for delta in (found["delta"], ALONE):
        sure.add_column(f"score at delta {delta:g}", justify="right")
        sure.add_column("FLOPs saved", justify="right")
    for threshold in THRESHOLDS:
        points = [point for point in found["entropy_curve"] if point["entropy_threshold"] == threshold]
        cells = [(f"{point['score']:.4f}", f"{point['flops_saved_ratio']:.1%}") for point in points]
        sure.add_row(f"{threshold:g}", *chain.from_iterable(cells))
    summary = (
        f"at delta {found['delta']:g}: {found['metric']} {found['score']:.4f} "
        f"(full depth {found['full_depth_score']:.4f}), FLOPs saved {found['flops_saved_ratio']:.1%}"
    )
    return Group(by_exit, curve, sure, summary)


def picture(title: str, found: dict[str, Any], path: Path) -> None:
    """The same as a picture: score per exit, exit histogram, score against FLOPs saved, the default delta marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    figure.suptitle(f"{title}: {found['rows']} rows, delta {found['delta']:g}")
    score, leaving, curve = figure.subplots(1, 3)
    score.plot([line["exit"] for line in found["per_exit"]], [line["score"] for line in found["per_exit"]], "o-")
    score.set(xlabel="exit", ylabel=found["metric"], title="score if all rows left here")
    bars = leaving.bar(range(1, len(found["exits"]) + 1), found["exits"])
    leaving.bar_label(bars)
    leaving.set(xlabel="exit", ylabel="rows", title="where rows leave")
    points = found["delta_curve"]
    curve.plot([100 * p["flops_saved_ratio"] for p in points], [p["score"] for p in points], ".-", color="tab:gray")
    for delta, style in ((found["delta"], "x:"), (ALONE, ".:")):
        along = [point for point in found["entropy_curve"] if point["delta"] == delta]
        saved = [100 * point["flops_saved_ratio"] for point in along]
        label = f"entropy_threshold, delta {delta:g}"
        curve.plot(saved, [point["score"] for point in along], style, color="tab:blue", label=label)
        for point, x in list(zip(along, saved, strict=True))[::2]:
            curve.annotate(f"{point['entropy_threshold']:g}", (x, point["score"]), fontsize=7, color="tab:blue")
    curve.plot(
        100 * found["flops_saved_ratio"], found["score"], "o", color="tab:red", label=f"delta {found['delta']:g}"
    )
    for point in points[::2]:
        curve.annotate(f"{point['delta']:g}", (100 * point["flops_saved_ratio"], point["score"]), fontsize=7)
    curve.set(
        xlabel="FLOPs saved, %", ylabel=found["metric"], title="score against FLOPs, along delta and entropy_threshold"
    )
    curve.legend()
    for axis in (score, curve, leaving):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
