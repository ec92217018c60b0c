"""
How far scores are from the truth, without a temperature, with one, with one for each exit, and with a class bias where
one ships. A section of the report, with its pictures.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from beexformer.report import figures
from beexformer.report.markdown import points, table
from beexformer.report.results import Net, Task, recalibrated, rule
from beexformer.training import calibrate
from beexformer.training.progress import RunProgress

CALIBRATION = """\
A temperature divides the logits of an exit: it changes no exit's label, but the entropies that exits are chosen by.
Expected calibration error (ECE) in {bins} bins, at the exit that answers as it ships. Each half of the development rows
is measured with the temperatures of the other half, and so are score and FLOPs; test rows with those of all development
rows. Where nothing ships, "none" is the first recorded run as it was recorded.
"""
BIAS = """\
A class bias is added to the divided logits of all exits, and fitted on the same rows as their temperatures: it may
change labels. It ships where it lowers the cross-entropy of rows that it wasn't fitted on.
"""
KINDS: dict[calibrate.Kind, str] = {"none": "none", "common": "one for all exits", "per_exit": "one for each exit"}


def calibration(tasks: Sequence[Task], out: Path, progress: RunProgress) -> list[str]:
    """Expected calibration error without a temperature, with one, with one an exit, and with a class bias where it
    ships; and what each does to exits."""
    leads = [(task, net) for task in tasks if (net := task.lead)]
    if not leads:
        return []
    rows, curves, plots = [], [], []
    report = progress.stage("calibration")
    for i, (task, net) in enumerate(leads):
        ways, lead = _ways(task, net)
        anew = {name: recalibrated(task, net, *way) for name, way in ways.items()}
        for name, its in anew.items():
            result = _measured(task, net, its)
            fitted = calibrate.fit(net.raw, task.dev.labels, *ways[name])
            ships = " (ships)" if task.shipped and name == lead else ""
            row = [task.title, name + ships, _in_words(fitted)]
            row += [points(task.scores(its.predicted).value), f"{its.saved:.1%}", f"{result['ece_after']:.3f}"]
            rows.append([*row, _ece_on_test(task, fitted)])
            if name == (lead if lead != KINDS["none"] else KINDS["per_exit"]):
                plots.append((task, result))
        curves.append((task, {f"temperature: {name}": rule(task, its) for name, its in anew.items()}))
        report(i + 1, len(leads), task.name)
    figures.curves(curves, out / "temperatures.png")
    figures.reliability(plots, out / "reliability.png")
    columns = ["task", "temperature", "fitted", "score", "FLOPs saved", "ECE, dev", "ECE, test"]
    text = ["## Calibration", "", CALIBRATION.format(bins=calibrate.BINS)]
    text += [BIAS] if any(net.calibration.biased for _, net in leads) else []
    text += table(columns, rows, 3)
    return [*text, "![score against FLOPs](temperatures.png)", "", "![reliability](reliability.png)", ""]


def _ways(task: Task, net: Net) -> tuple[dict[str, tuple[calibrate.Kind, slice | None]], str]:
    """By name, how a network is calibrated to be compared: kind, and the exits over which a class bias is fitted; and
    the name of what ships."""
    ways: dict[str, tuple[calibrate.Kind, slice | None]] = {name: (kind, None) for kind, name in KINDS.items()}
    lead = KINDS[task.kind]
    if net.calibration.biased:
        lead += ", and a class bias"
        ways[lead] = task.kind, net.answering
    return ways, lead


def _in_words(fitted: calibrate.Calibration) -> str:
    """Temperatures, and the bias where there is one: "1.20 1.31; bias +0.10 -0.10"."""
    said = " ".join(f"{t:.2f}" for t in fitted.temperatures)
    return f"{said}; bias {' '.join(f'{b:+.2f}' for b in fitted.bias)}" if fitted.biased else said


def _measured(task: Task, net: Net, anew: Net) -> dict[str, Any]:
    """Before and after, at the exit that answers each row: what `figures.reliability` draws."""
    result: dict[str, Any] = {"rows": len(task.dev)}
    for when, its in (("before", replace(net, logits=net.raw)), ("after", anew)):
        result[f"ece_{when}"] = calibrate.expected_calibration_error(its.served, task.dev.labels)
        result[f"reliability_{when}"] = calibrate.reliability(its.served, task.dev.labels)
    return result


def _ece_on_test(task: Task, fitted: calibrate.Calibration) -> str:
    if task.test is None or task.tested is None:
        return "-"
    anew = replace(task.tested, logits=fitted.of(task.tested.raw))
    return f"{calibrate.expected_calibration_error(anew.served, task.test.labels):.3f}"
