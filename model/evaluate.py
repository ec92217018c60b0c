"""
What a trained network is worth: score per exit, score and FLOPs along delta, where rows leave.

Works on the logits of all exits, from the engine or from a torch network, so one pass over the rows tells every delta.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from model import exits, flops
from model.config import BEEConfig
from model.data import Rows
from model.engine import Engine

METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy_score,
    "f1": f1_score,
    "macro_f1": lambda y, predicted: f1_score(y, predicted, average="macro"),
    "matthews": matthews_corrcoef,
}

DELTAS = (-0.1, -0.01, -0.001, 0.0, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)


def at_delta(
    config: BEEConfig, logits: np.ndarray, tokens: np.ndarray, labels: np.ndarray, metric: str, delta: float
) -> dict[str, Any]:
    """Score, mean share of FLOPs saved and rows by exit at one delta; logits [N, exits, m], tokens and labels [N]."""
    policy = exits.entropy_gain(delta)
    taken = np.array([exits.walk(z, policy) for z in logits])
    predicted = logits[np.arange(len(logits)), taken - 1].argmax(-1)
    left = np.array([config.exits[t - 1] for t in taken])
    full = {int(n): flops.walk(config, int(n), config.n_block).flops for n in np.unique(tokens)}
    saved = [1 - flops.walk(config, int(n), int(c)).flops / full[int(n)] for n, c in zip(tokens, left, strict=True)]
    return {
        "delta": delta,
        "score": float(METRICS[metric](labels, predicted)),
        "flops_saved_ratio": float(np.mean(saved)),
        "exits": [int((left == c).sum()) for c in range(1, config.n_block + 1)],
    }


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
    }


def evaluate(
    engine: Engine,
    rows: Rows,
    metric: str = "accuracy",
    *,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> dict[str, Any]:
    """Run labelled rows through every exit of an engine.

    Answers {rows, metric, delta, score, flops_saved_ratio, exits, full_depth_score, per_exit, delta_curve}: score and
    exits at the checkpoint's default delta are the service's, `exits[c-1]` counts the rows leaving after block c.
    """
    encoded = [engine.encode(text, rows.pairs[i] if rows.pairs else None) for i, text in enumerate(rows.texts)]
    logits = []
    for start in progress(range(0, len(encoded), 64)):
        logits.append(engine.logits(encoded[start : start + 64]))
    tokens = np.array([len(row.ids) for row in encoded])
    return evaluate_logits(engine.config, np.concatenate(logits), tokens, rows.labels, metric, engine.default_delta)


def tables(title: str, found: dict[str, Any]) -> RenderableType:
    """An evaluation for a terminal: score per exit with the rows that leave there, then the curve along delta."""
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
    summary = (
        f"at delta {found['delta']:g}: {found['metric']} {found['score']:.4f} "
        f"(full depth {found['full_depth_score']:.4f}), FLOPs saved {found['flops_saved_ratio']:.1%}"
    )
    return Group(by_exit, curve, summary)


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
    curve.plot(
        100 * found["flops_saved_ratio"], found["score"], "o", color="tab:red", label=f"delta {found['delta']:g}"
    )
    for point in points[::2]:
        curve.annotate(f"{point['delta']:g}", (100 * point["flops_saved_ratio"], point["score"]), fontsize=7)
    curve.set(xlabel="FLOPs saved, %", ylabel=found["metric"], title="score against FLOPs, along delta")
    curve.legend()
    for axis in (score, curve, leaving):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
