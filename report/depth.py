"""
What depth costs and what it buys: FLOPs (the paper's Table 3), exits (Figures 4 to 6), calibration. Sections of the
report, with their pictures.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from beexformer.model import flops
from beexformer.report import figures
from beexformer.report.markdown import points, table
from beexformer.report.results import DELTA, PAPER, Curve, Net, Task, policies, rescaled, rule
from beexformer.training import calibrate
from beexformer.training.evaluate import NO_DELTA
from beexformer.training.progress import RunProgress

FLOPS = """\
A row of the median length of development rows, counted part by part in `model/flops.py`, in millions; "at its exits" is
the mean over where the development rows leave. Full precision is counted like its binary counterpart, with two real
operations for a multiply-accumulate. The paper's mean reduction against WEE is 54.85 %; here it is {reduction:.1%}.
"""
LEAVING = """\
FLOPs saved are against the same row through all blocks and all heads, each row by its own length.
{mean}"""
SURE = """\
The same networks with `entropy_threshold` and delta {alone:g}, which leave once they are sure: of the thresholds
that were tried, the smallest that saves as many FLOPs of development rows as delta {delta:g} does.
"""
POLICIES = """\
The paper's rule beside others on the same logits, each along its own setting: absolute entropy (DeeBERT), patience
(PABEE), maximum probability; the paper's rule answered from the exit that had the lowest entropy so far; and the
paper's rule beside absolute entropy, whichever lets go first.
"""
CALIBRATION = """\
A temperature divides the logits of an exit: it changes no exit's label, but the entropies that the rule compares.
Expected calibration error (ECE) in {bins} bins, at the exit that answers. Each half of the development rows is measured
with the temperatures of the other half, and so are score and FLOPs; test rows with those of all development rows. Where
nothing ships, "none" is the first recorded run as it was recorded.
"""


def costs(tasks: Sequence[Task]) -> list[str]:
    """Table 3, with real and binary operations apart."""
    rows, reductions = [], []
    for task in tasks:
        if (net := task.lead) is None:
            continue
        config, tokens = net.config, int(np.median(net.tokens))
        wee = flops.forward(replace(config, early_exit=False), tokens, config.n_block)
        full = flops.forward(config, tokens, config.n_block)
        lines = {
            "WEE, full depth": (wee.real, 2 * wee.binary_macs),
            "proposed, full depth": (full.real, 2 * full.binary_macs),
            "proposed, at its exits": _at_exits(net, tokens),
            "WEE-FP, full depth": (wee.real + 2 * wee.binary_macs, 0),
        }
        means = {"proposed, at its exits": _mean_exit(net)}
        if counterparts := task.runs.get("fp"):
            lines["FP, at its exits"] = (sum(_at_exits(counterparts[0], tokens)), 0)
            means["FP, at its exits"] = _mean_exit(counterparts[0])
        for name, (real, binary) in lines.items():
            less = 1 - (real + binary / 64) / wee.flops
            counted = [f"{count / 1e6:.2f}" for count in (real, binary, real + binary / 64)]
            exit = f"{means[name]:.2f}" if name in means else ""
            rows.append([task.title, name, str(tokens), exit, *counted, f"{less:.1%}" if less >= 0 else ""])
            reductions += [less] if name == "proposed, at its exits" else []
    if not rows:
        return []
    columns = ["task", "network", "tokens", "mean exit", "real", "binary", "real + binary / 64", "less than WEE"]
    text = ["## FLOPs of a row (the paper's Table 3)", "", FLOPS.format(reduction=np.mean(reductions))]
    return [*text, *table(columns, rows, 2)]


def _mean_exit(net: Net) -> float:
    return float(np.average(np.arange(1, net.config.n_block + 1), weights=net.leaving()))


def _at_exits(net: Net, tokens: int) -> tuple[float, float]:
    """Mean (real, binary) operations of a row of so many tokens that leaves where the development rows do."""
    passes = [flops.forward(net.config, tokens, c) for c in range(1, net.config.n_block + 1)]
    weights = net.leaving()
    real = np.average([done.real for done in passes], weights=weights)
    return float(real), float(np.average([2 * done.binary_macs for done in passes], weights=weights))


# ---------------------------------------------------------------- Figures 4 to 6


def leaving(tasks: Sequence[Task], out: Path, progress: RunProgress) -> list[str]:
    """Where rows leave, score and FLOPs along delta, and the rule beside its rivals."""
    title = "## Exits (the paper's Figures 4 to 6)"
    leads = [(task, net) for task in tasks if (net := task.lead)]
    if not leads:
        return [title, "", "There is no checkpoint and no record of a proposed network.", ""]
    rows, curves = [], []
    report = progress.stage("exit policies")
    for i, (task, net) in enumerate(leads):
        early, full = (points(task.scores(predicted).value) for predicted in (net.predicted, net.full_depth))
        leaving = " ".join(map(str, net.leaving()))
        rows.append([task.title, early, full, f"{net.saved:.1%}", f"{_mean_exit(net):.2f}", leaving])
        curves.append((task, policies(task, net)))
        report(i + 1, len(leads), task.name)
    along = [(task, rule(task, net)) for task, net in leads]
    figures.exits(leads, out / "exits.png")
    figures.along_delta(along, out / "delta-score.png", "score")
    figures.along_delta(along, out / "delta-flops.png", "saved")
    figures.curves(curves, out / "policies.png")
    saved = [net.saved for task, net in leads if task.name in PAPER]
    mean = f"Over the paper's tasks ({len(saved)} of {len(PAPER)}): {np.mean(saved):.1%} on average.\n" if saved else ""
    columns = [
        "task",
        f"score at delta {DELTA:g}",
        "at full depth",
        "FLOPs saved",
        "mean exit",
        "rows leaving by block",
    ]
    text = [title, "", LEAVING.format(mean=mean), *table(columns, rows), *_when_sure(leads)]
    for words, file in (("where rows leave", "exits"), ("score along delta", "delta-score")):
        text += [f"![{words}]({file}.png)", ""]
    text += ["![FLOPs saved along delta](delta-flops.png)", "", POLICIES, "![policies](policies.png)", ""]
    return [
        *text,
        "The score where half of the FLOPs are saved, between the settings on either side:",
        "",
        *_at_half(curves),
    ]


def _when_sure(leads: Sequence[tuple[Task, Net]]) -> list[str]:
    """Score and FLOPs by an entropy threshold, development rows and test rows; the paper's rule on the latter."""
    rows = []
    for task, net in leads:
        if (threshold := net.threshold) is None:
            rows.append([task.title, *(6 * ["-"])])
            continue
        predicted, saved = net.when_sure(threshold)
        row = [task.title, f"{threshold:g}", points(task.scores(predicted).value), f"{saved:.1%}"]
        if tested := task.tested:
            predicted, saved = tested.when_sure(threshold)
            row += [points(task.test_scores(predicted).value), f"{saved:.1%}"]
            row += [f"{points(task.test_scores(tested.predicted).value)}, {tested.saved:.1%}"]
        else:
            row += 3 * ["-"]
        rows.append(row)
    columns = ["task", "entropy_threshold", "score", "FLOPs saved", "score, test rows", "FLOPs saved there"]
    columns += [f"delta {DELTA:g} on test rows"]
    return [SURE.format(alone=NO_DELTA, delta=DELTA), *table(columns, rows)]


def _at_half(curves: Sequence[tuple[Task, dict[str, Curve]]]) -> list[str]:
    names = list(curves[0][1])

    def cell(curve: Curve) -> str:
        saved, score = np.array(sorted(curve)).T
        return points(float(np.interp(0.5, saved, score))) if saved[0] <= 0.5 <= saved[-1] else "-"

    return table(["task", *names], [[task.title, *(cell(found[name]) for name in names)] for task, found in curves])


# ---------------------------------------------------------------- calibration

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
            found = calibrate.measure(net.raw, its.logits, task.dev.labels, DELTA)
            temperatures = calibrate.temperatures(net.raw, task.dev.labels, kind)
            ships = " (ships)" if task.shipped and kind == task.calibration else ""
            row = [task.title, name + ships, " ".join(f"{t:.2f}" for t in temperatures)]
            row += [points(task.scores(its.predicted).value), f"{its.saved:.1%}", f"{found['ece_after']:.3f}"]
            rows.append([*row, _ece_on_test(task, net, temperatures)])
            if kind == (task.calibration if task.calibration != "none" else "per_exit"):
                plots.append((task, found))
        curves.append((task, {f"temperature: {KINDS[kind]}": rule(task, its) for kind, its in scaled.items()}))
        report(i + 1, len(leads), task.name)
    figures.curves(curves, out / "temperatures.png")
    figures.reliability(plots, out / "reliability.png")
    columns = ["task", "temperature", "fitted", f"score at delta {DELTA:g}", "FLOPs saved", "ECE, dev", "ECE, test"]
    text = ["## Calibration", "", CALIBRATION.format(bins=calibrate.BINS), *table(columns, rows, 3)]
    return [*text, "![score against FLOPs](temperatures.png)", "", "![reliability](reliability.png)", ""]


def _ece_on_test(task: Task, net: Net, temperatures: np.ndarray) -> str:
    if task.test is None or task.tested is None:
        return "-"
    served = calibrate.served(task.tested.logits * (net.temperatures / temperatures)[:, None], DELTA)
    return f"{calibrate.expected_calibration_error(served, task.test.labels):.3f}"
