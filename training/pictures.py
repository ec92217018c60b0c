"""
An evaluation as a picture.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beexformer.training.evaluate import NO_DELTA
from beexformer.training.overview import shortened

SUFFIXES = (".png", ".svg", ".pdf")


def picture(title: str, result: dict[str, Any], path: Path) -> None:
    """The same as a picture: score per exit, exit histogram, score against FLOPs saved, the default delta marked."""
    from matplotlib.figure import Figure  # a second to load

    figure = Figure(figsize=(14, 4.5), layout="constrained")
    figure.suptitle(f"{title}: {result['rows']} rows, delta {result['delta']:g}")
    score, leaving, curve = figure.subplots(1, 3)
    score.plot([line["exit"] for line in result["per_exit"]], [line["score"] for line in result["per_exit"]], "o-")
    score.set(xlabel="exit", ylabel=result["metric"], title="score if all rows left here")
    bars = leaving.bar(range(1, len(result["exits"]) + 1), result["exits"])
    leaving.bar_label(bars)
    leaving.set(xlabel="exit", ylabel="rows", title="where rows leave")
    points = result["delta_curve"]
    curve.plot([100 * p["flops_saved_ratio"] for p in points], [p["score"] for p in points], ".-", color="tab:gray")
    for delta, style in ((result["delta"], "x:"), (NO_DELTA, ".:")):
        along = [point for point in result["entropy_curve"] if point["delta"] == delta]
        saved = [100 * point["flops_saved_ratio"] for point in along]
        label = f"entropy_threshold, delta {delta:g}"
        curve.plot(saved, [point["score"] for point in along], style, color="tab:blue", label=label)
        for point, x in list(zip(along, saved, strict=True))[::2]:
            curve.annotate(f"{point['entropy_threshold']:g}", (x, point["score"]), fontsize=7, color="tab:blue")
    curve.plot(
        100 * result["flops_saved_ratio"], result["score"], "o", color="tab:red", label=f"delta {result['delta']:g}"
    )
    for point in points[::2]:
        curve.annotate(f"{point['delta']:g}", (100 * point["flops_saved_ratio"], point["score"]), fontsize=7)
    curve.set(xlabel="FLOPs saved, %", ylabel=result["metric"], title="score against FLOPs")
    curve.legend()
    for axis in (score, curve, leaving):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def confusion(title: str, names: Sequence[str], result: dict[str, Any], path: Path) -> None:
    """Which class is taken for which, as a square that grows with the classes; beside it recall and precision."""
    from matplotlib.figure import Figure

    matrix, m = np.array(result["confusion"]), len(names)
    side = max(4.0, 0.22 * m)
    figure = Figure(figsize=(side + 4, side + 2), layout="constrained")
    axis = figure.subplots()
    share = matrix / matrix.sum(1, keepdims=True).clip(1)
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axis, shrink=0.5, label="share of the class's rows")
    labels = [f"{shortened(name, 28)} ({n})" for name, n in zip(names, matrix.sum(1), strict=True)]
    size = 9 if m <= 20 else 7
    axis.set_yticks(range(m), labels, fontsize=size)
    axis.set_xticks(range(m), [shortened(name, 28) for name in names], fontsize=size, rotation=90)
    axis.set(xlabel="answered", ylabel="label (rows)")
    axis.set_title(f"{title}: {result['metric']} {result['score']:.3f}, {result['rows']} rows", wrap=True)
    if m <= 20:
        for i, j in zip(*np.nonzero(matrix), strict=True):
            color = "white" if share[i, j] > 0.5 else "black"
            axis.text(j, i, str(matrix[i, j]), ha="center", va="center", fontsize=8, color=color)
    figure.savefig(path, dpi=120)
