"""
The pictures of the report, after the paper's Figures 3 to 6. Draws what `report.results` found; measures nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from adjustText import adjust_text
from matplotlib.figure import Figure

from beexformer.report.results import DELTA, Curve, Net, Task
from beexformer.training import calibrate
from beexformer.training.evaluate import DELTAS

DPI = 90
PANEL = (3.4, 3.0)  # inches


class Point(NamedTuple):
    """One model on one task's Pareto chart."""

    name: str
    megabytes: float
    score: float  # in points
    kind: str  # "measured", "quantized" or "early exit"; the last two are cited


NAMED = ("BiT 1-1", "BiBERT 1-1")  # also off the front: the field to beat
STYLES: dict[str, dict[str, Any]] = {
    "measured": {"color": "tab:red", "marker": "o"},
    "quantized": {"edgecolors": "tab:blue", "facecolors": "none", "marker": "s"},
    "early exit": {"edgecolors": "tab:green", "facecolors": "none", "marker": "^"},
}

LEGEND = {"measured": "measured", "quantized": "cited: quantized", "early exit": "cited: early exit"}


def _panels(count: int, columns: int = 4, panel: tuple[float, float] = PANEL) -> tuple[Figure, list[Any]]:
    """A figure of so many axes, left to right and row by row."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(panel[0] * columns, panel[1] * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


def pareto(points: dict[str, list[Point]], path: Path) -> None:
    """Figure 3: score against size, a panel a task; hollow marks are cited, the line is the front of all of them."""
    figure, axes = _panels(len(points), 2, (6.0, 4.5))
    named: list[tuple[list[Point], list[Point]]] = []
    for axis, (title, result) in zip(axes, points.items(), strict=True):
        for kind, style in STYLES.items():
            its = [p for p in result if p.kind == kind]
            axis.scatter(
                [p.megabytes for p in its], [p.score for p in its], s=28, label=LEGEND[kind], zorder=2, **style
            )
        front: list[Point] = []
        for point in sorted(result, key=lambda p: (p.megabytes, -p.score)):
            if not front or point.score > front[-1].score:
                front.append(point)
        axis.step([p.megabytes for p in front], [p.score for p in front], where="post", color="0.7", lw=1, zorder=1)
        axis.set_xscale("log")
        axis.set_xlim(0.4, 9000)
        axis.set(title=title, xlabel="MB", ylabel="score")
        axis.grid(alpha=0.25)
        named.append(([p for p in result if p in front or p.kind == "measured" or p.name in NAMED], result))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    figure.draw_without_rendering()  # lays the panels out: only now a point has its place on paper
    for axis, (its, every) in zip(axes, named, strict=True):
        _name(axis, its, every)
    figure.savefig(path, dpi=DPI)


def _name(axis: Any, points: list[Point], every: list[Point]) -> None:
    """Names beside their points, pushed apart where they would cover each other or any of `every` point."""
    texts = [
        axis.text(p.megabytes, p.score, p.name, fontsize=6.5, color=STYLES[p.kind].get("color", "0.2")) for p in points
    ]
    adjust_text(
        texts,
        [p.megabytes for p in every],
        [p.score for p in every],
        ax=axis,
        expand=(1.15, 1.5),
        arrowprops={"arrowstyle": "-", "color": "0.7", "lw": 0.5},
        iter_lim=500,
    )


def exits(tasks: Sequence[tuple[Task, Net]], path: Path) -> None:
    """Figure 4: share of rows leaving after each block, as it ships and by the paper's rule, and the weights that the
    former didn't need."""
    figure, axes = _panels(len(tasks))
    handles: dict[str, Any] = {}
    for axis, (task, net) in zip(axes, tasks, strict=True):
        blocks = np.arange(1, net.config.n_block + 1)
        for name, its, color, side in (
            ("as it ships", net, "tab:blue", -0.2),
            ("the paper's rule", net.by_rule, "0.6", 0.2),
        ):
            rows = its.leaving()
            handles[name] = axis.bar(blocks + side, 100 * rows / rows.sum(), 0.4, color=color, alpha=0.7, label=name)
        axis.set(title=task.title, xlabel="block", ylabel="rows leaving, %", xticks=blocks)
        # the saved weights are those of the blocks not run: all blocks are alike
        rows = net.leaving()
        spared = rows * (net.config.n_block - blocks) / net.config.n_block / rows.sum()
        other = axis.twinx()
        [handles["block weights spared, % of all"]] = other.plot(blocks, 100 * spared, ".-", color="tab:orange")
        other.set_ylabel("weights spared, %", color="tab:orange", fontsize=8)
        other.set_ylim(bottom=0)
    columns = min(len(axes), len(handles))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, fontsize=7)
    figure.savefig(path, dpi=DPI)


def along_delta(tasks: Sequence[tuple[Task, Net, Curve]], path: Path, of: str) -> None:
    """Figures 5 (`of` "score") and 6 (`of` "saved"): the paper's rule along delta, the default marked; dashed, what
    ships."""
    figure, axes = _panels(len(tasks))
    for axis, (task, net, curve) in zip(axes, tasks, strict=True):
        values = [100 * (score if of == "score" else saved) for saved, score in curve]
        axis.plot(DELTAS, values, ".-", color="tab:gray", label="the paper's rule")
        at = DELTAS.index(DELTA)
        axis.plot(DELTA, values[at], "o", color="tab:red", label=f"its delta {DELTA:g}")
        ships = task.scores(net.predicted).value if of == "score" else net.saved
        axis.axhline(100 * ships, color="tab:blue", lw=1, ls="--", label="as it ships")
        axis.set_xscale("symlog", linthresh=1e-4)
        axis.set_xticks([-0.1, -1e-3, 0, 1e-3, 0.1, 1])
        axis.tick_params(axis="x", labelsize=6)
        axis.set(title=task.title, xlabel="delta", ylabel=task.metric if of == "score" else "FLOPs saved, %")
        axis.grid(alpha=0.25)
    _legend_below(figure, axes[0], min(len(axes), 3))
    figure.savefig(path, dpi=DPI)


def curves(
    tasks: Sequence[tuple[Task, dict[str, Curve]]], path: Path, ships: Sequence[tuple[float, float]] | None = None
) -> None:
    """Score against FLOPs saved, one line a policy; a star is what `ships`, task by task."""
    figure, axes = _panels(len(tasks))
    for i, (axis, (task, lines)) in enumerate(zip(axes, tasks, strict=True)):
        for name, curve in lines.items():
            points = sorted(curve)
            axis.plot(
                [100 * saved for saved, _ in points], [100 * score for _, score in points], ".-", lw=1, label=name
            )
        if ships:
            saved, score = ships[i]
            axis.plot(100 * saved, 100 * score, "*", color="black", ms=9, zorder=3, label="as it ships")
        axis.set(title=task.title, xlabel="FLOPs saved, %", ylabel=task.metric)
        axis.grid(alpha=0.25)
    _legend_below(figure, axes[0], min(len(axes), 2))
    figure.savefig(path, dpi=DPI)


def _legend_below(figure: Figure, axis: Any, columns: int) -> None:
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=columns, fontsize=7)


def reliability(tasks: Sequence[tuple[Task, dict[str, Any]]], path: Path) -> None:
    """Accuracy against confidence on dev at the exit that answers, before and after calibration; area: rows."""
    figure, axes = _panels(len(tasks))
    for axis, (task, result) in zip(axes, tasks, strict=True):
        axis.plot([0, 1], [0, 1], color="0.8", lw=1)
        for when, color in (("before", "tab:orange"), ("after", "tab:blue")):
            bins = result[f"reliability_{when}"]
            x, y = ([bin[key] for bin in bins] for key in ("confidence", "accuracy"))
            axis.plot(x, y, "-", color=color, lw=1)
            areas = [300 * bin["rows"] / result["rows"] + 2 for bin in bins]
            axis.scatter(x, y, s=areas, color=color, alpha=0.6, label=f"{when}: ECE {result[f'ece_{when}']:.3f}")
        low = 1 / len(task.labels)
        axis.set(title=task.title, xlabel="confidence", ylabel="accuracy", xlim=(low - 0.03, 1.03), ylim=(-0.03, 1.03))
        axis.legend(fontsize=6, loc="upper left", markerscale=0.6)
        axis.grid(alpha=0.25)
    figure.suptitle(f"{calibrate.BINS} bins", fontsize=8)
    figure.savefig(path, dpi=DPI)
