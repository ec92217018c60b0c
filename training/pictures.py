"""
An evaluation as a picture.
"""

from pathlib import Path
from typing import Any

from beexformer.training.evaluate import NO_DELTA

SUFFIXES = (".png", ".svg", ".pdf")


def picture(title: str, found: dict[str, Any], path: Path) -> None:
    """The same as a picture: score per exit, exit histogram, score against FLOPs saved, the default delta marked."""
    from matplotlib.figure import Figure  # a second to load

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
    for delta, style in ((found["delta"], "x:"), (NO_DELTA, ".:")):
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
