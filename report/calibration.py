"""
How far scores are from the truth, without a temperature, with one, and with one for each exit. A section of the report,
with its pictures.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from beexformer.report import figures
from beexformer.report.markdown import points, table
from beexformer.report.results import Net, Task, rescaled, rule
from beexformer.training import calibrate
from beexformer.training.progress import RunProgress

CALIBRATION = """\
A temperature divides the logits of an exit: it changes no exit's label, but the entropies that exits are chosen by.
Expected calibration error (ECE) in {bins} bins, at the exit that answers as it ships. Each half of the development rows
is measured with the temperatures of the other half, and so are score and FLOPs; test rows with those of all development
rows. Where nothing ships, "none" is the first recorded run as it was recorded.
"""
KINDS: dict[calibrate.Kind, str] = {"none": "none", "common": "one for all exits", "per_exit": "one for each exit"}


def calibration(tasks: Sequence[Task], out: Path, progress: RunProgress) -> list[str]:
    """Expected calibration error without a temperature, with one, with one an exit; and what each does to exits."""
    leads = [(task, net) for task in tasks if (net := task.lead)]
    if not leads:
        return []
    rows, curves, plots = [], [], []
    report = progress.stage("calibration")
    for i, (task, net) in enumerate(leads):
        scaled = {kind: rescaled(task, net, kind) for kind in KINDS}
        for kind, name in KINDS.items():
            its = scaled[kind]
            result = _measured(task, net, its)
            temperatures = calibrate.temperatures(net.raw, task.dev.labels, kind)
            ships = " (ships)" if task.shipped and kind == task.calibration else ""
            row = [task.title, name + ships, " ".join(f"{t:.2f}" for t in temperatures)]
            row += [points(task.scores(its.predicted).value), f"{its.saved:.1%}", f"{result['ece_after']:.3f}"]
            rows.append([*row, _ece_on_test(task, net, temperatures)])
            if kind == (task.calibration if task.calibration != "none" else "per_exit"):
                plots.append((task, result))
        curves.append((task, {f"temperature: {KINDS[kind]}": rule(task, its) for kind, its in scaled.items()}))
        report(i + 1, len(leads), task.name)
    figures.curves(curves, out / "temperatures.png")
    figures.reliability(plots, out / "reliability.png")
    columns = ["task", "temperature", "fitted", "score", "FLOPs saved", "ECE, dev", "ECE, test"]
    text = ["## Calibration", "", CALIBRATION.format(bins=calibrate.BINS), *table(columns, rows, 3)]
    return [*text, "![score against FLOPs](temperatures.png)", "", "![reliability](reliability.png)", ""]


def _measured(task: Task, net: Net, scaled: Net) -> dict[str, Any]:
    """Before and after, at the exit that answers each row: what `figures.reliability` draws."""
    result: dict[str, Any] = {"rows": len(task.dev)}
    for when, its in (("before", replace(net, logits=net.raw)), ("after", scaled)):
        result[f"ece_{when}"] = calibrate.expected_calibration_error(its.served, task.dev.labels)
        result[f"reliability_{when}"] = calibrate.reliability(its.served, task.dev.labels)
    return result


def _ece_on_test(task: Task, net: Net, temperatures: np.ndarray) -> str:
    if task.test is None or task.tested is None:
        return "-"
    scaled = replace(task.tested, logits=task.tested.logits * (net.temperatures / temperatures)[:, None])
    return f"{calibrate.expected_calibration_error(scaled.served, task.test.labels):.3f}"
