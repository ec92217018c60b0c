"""
Evaluations as tables for a terminal.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from beexformer.training.diagnosis import confused_pairs
from beexformer.training.evaluate import NO_DELTA, THRESHOLDS
from beexformer.training.overview import shortened

MOST = 20  # classes that a terminal lists
SQUARE = 10  # classes whose confusion fits into a terminal as a square


def shipped_table(result: Sequence[dict[str, Any]]) -> Table:
    """Several answers of `shipped` for a terminal."""
    table = Table(title="checkpoints on their development rows, measured now")
    for column in ("task", "metric", "rows", "score", "full depth", "FLOPs saved", "rows leaving by block", "size"):
        table.add_column(column, justify="left" if column in ("task", "metric") else "right")
    for line in result:
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


def tables(title: str, result: dict[str, Any]) -> RenderableType:
    """An evaluation for a terminal: score per exit with the rows that leave there, then the curves."""
    by_exit = Table(title=f"{title}: {result['metric']} of {result['rows']} rows by exit")
    for column in ("exit", "score", f"rows leaving at delta {result['delta']:g}", ""):
        by_exit.add_column(column, justify="left" if not column else "right")
    scores = {line["exit"]: f"{line['score']:.4f}" for line in result["per_exit"]}
    for c, count in enumerate(result["exits"], start=1):
        by_exit.add_row(str(c), scores.get(c, "-"), str(count), "█" * round(40 * count / result["rows"]))
    curve = Table(title="along delta")
    for column in ("delta", "score", "FLOPs saved", "mean exit"):
        curve.add_column(column, justify="right")
    for point in result["delta_curve"]:
        mean = np.average(np.arange(1, len(point["exits"]) + 1), weights=point["exits"])
        style = "bold" if point["delta"] == result["delta"] else None
        saved = f"{point['flops_saved_ratio']:.1%}"
        curve.add_row(f"{point['delta']:g}", f"{point['score']:.4f}", saved, f"{mean:.2f}", style=style)
    sure = Table(title="along entropy_threshold")
    sure.add_column("entropy_threshold", justify="right")
    for delta in (result["delta"], NO_DELTA):
        sure.add_column(f"score at delta {delta:g}", justify="right")
        sure.add_column("FLOPs saved", justify="right")
    for threshold in THRESHOLDS:
        points = [point for point in result["entropy_curve"] if point["entropy_threshold"] == threshold]
        cells = [(f"{point['score']:.4f}", f"{point['flops_saved_ratio']:.1%}") for point in points]
        sure.add_row(f"{threshold:g}", *chain.from_iterable(cells))
    summary = (
        f"at delta {result['delta']:g}: {result['metric']} {result['score']:.4f} "
        f"(full depth {result['full_depth_score']:.4f}), FLOPs saved {result['flops_saved_ratio']:.1%}"
    )
    return Group(by_exit, curve, sure, summary)


def class_tables(names: Sequence[str], result: dict[str, Any]) -> RenderableType:
    """What an evaluation says of classes: their scores, the worst first; which is taken for which; texts that were
    answered wrong most surely; advice."""
    kind, several = ("label", "labels") if "confusion" not in result else ("class", "classes")
    classes = Table(title=f"{several}, those with the lowest F1 first")
    for column in (kind, "rows", "precision", "recall", "F1"):
        classes.add_column(column, justify="left" if column == kind else "right")
    lines = sorted(zip(names, result["by_class"], strict=True), key=lambda line: line[1]["f1"])
    for name, line in lines[:MOST]:
        scores = (f"{line[key]:.3f}" for key in ("precision", "recall", "f1"))
        classes.add_row(Text(shortened(name)), str(line["rows"]), *scores)
    shown: list[RenderableType] = [classes]
    if len(lines) > MOST:
        shown.append(
            f"and {len(lines) - MOST} {several} with an F1 of {lines[MOST][1]['f1']:.3f} or more; --json has all"
        )
    if "confusion" not in result:
        shown.append(_label_set_table(result))
    elif len(names) <= SQUARE:
        square = Table(title="rows of a class (line) taken for another (column)")
        square.add_column("")
        for name in names:
            square.add_column(Text(shortened(name, 12)), justify="right")
        for i, (name, row) in enumerate(zip(names, result["confusion"], strict=True)):
            cells = (Text(str(n), style="bold" if i == j else "red" if n else "dim") for j, n in enumerate(row))
            square.add_row(Text(shortened(name, 24)), *cells)
        shown.append(square)
    else:
        pairs = Table("class", "taken for", "rows", title="taken for another most often")
        for name, other, rows in confused_pairs(result["confusion"], names):
            pairs.add_row(Text(shortened(name)), Text(shortened(other)), str(rows))
        shown.append(pairs)
    if wrong := result.get("surely_wrong"):
        texts = Table("label", "answered", "score", "text", title="answered wrong most surely")
        for line in wrong:
            text = " ".join(line["text"].split())
            texts.add_row(
                Text(shortened(line["label"], 20)),
                Text(shortened(line["predicted"], 20)),
                f"{line['score']:.3f}",
                Text(shortened(text, 200)),
            )
        shown.append(texts)
    return Group(*shown, *(f"- {sentence}" for sentence in result.get("advice", [])))


def _label_set_table(result: dict[str, Any]) -> Table:
    """Of several labels a text: the scores of all labels together."""
    table = Table(title=f"all labels together, {result['rows']} rows")
    table.add_column("")
    table.add_column("score", justify="right")
    words = {"micro_f1": "micro F1", "macro_f1": "macro F1", "accuracy": "rows with exactly their labels"}
    for name, score in result["metrics"].items():
        table.add_row(words[name], f"{score:.4f}")
    return table
