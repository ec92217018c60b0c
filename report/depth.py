"""
What depth costs and what it buys: FLOPs (the paper's Table 3) and exits (Figures 4 to 6). Sections of the report, with
their pictures.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from beexformer.model import flops
from beexformer.report import figures
from beexformer.report.cited import PAPER
from beexformer.report.markdown import points, table
from beexformer.report.results import Curve, Net, Task, policies, rule
from beexformer.training.progress import RunProgress

FLOPS = """\
A row of the median length of development rows, counted part by part in `model/flops.py`, in millions; "at its exits" is
the mean over where the development rows leave, as it ships or by the paper's rule. Full precision is counted like its
binary counterpart, with two real operations for a multiply-accumulate. The paper's mean reduction against WEE is
54.85 %; here it is {shipped:.1%} as it ships and {rule:.1%} by the paper's rule.
"""
LEAVING = """\
FLOPs saved are against the same row through all blocks and all heads, each row by its own length.
{mean}"""
POLICIES = """\
The paper's rule beside others on the same logits, each along its own setting: absolute entropy (DeeBERT), patience
(PABEE), maximum probability; the paper's rule answered from the exit that had the lowest entropy so far; the paper's
rule beside absolute entropy, whichever lets go first; and this from the block on from which the model may answer.
"""


COLUMNS = (
    "task",
    "exits",
    "score",
    "FLOPs saved",
    "mean exit",
    "score, test rows",
    "FLOPs saved there",
    "rows leaving by block",
)
SHIPPED, RULE = "proposed, at its exits", "proposed, by the paper's rule"


def costs(tasks: Sequence[Task]) -> list[str]:
    """Table 3, with real and binary operations apart."""
    rows: list[list[str]] = []
    reductions: dict[str, list[float]] = {SHIPPED: [], RULE: []}
    for task in tasks:
        if (net := task.lead) is None:
            continue
        config, tokens = net.config, int(np.median(net.tokens))
        wee = flops.forward(replace(config, early_exit=False), tokens, config.n_block)
        full = flops.forward(config, tokens, config.n_block)
        lines = {
            "WEE, full depth": (wee.real, 2 * wee.binary_macs),
            "proposed, full depth": (full.real, 2 * full.binary_macs),
            SHIPPED: _at_exits(net, tokens),
            RULE: _at_exits(net.by_rule, tokens),
            "WEE-FP, full depth": (wee.real + 2 * wee.binary_macs, 0),
        }
        means = {SHIPPED: net.mean_exit, RULE: net.by_rule.mean_exit}
        if counterparts := task.runs.get("fp"):
            lines["FP, at its exits"] = (sum(_at_exits(counterparts[0], tokens)), 0)
            means["FP, at its exits"] = counterparts[0].mean_exit
        for name, (real, binary) in lines.items():
            less = 1 - (real + binary / 64) / wee.flops
            counted = [f"{count / 1e6:.2f}" for count in (real, binary, real + binary / 64)]
            exit = f"{means[name]:.2f}" if name in means else ""
            rows.append([task.title, name, str(tokens), exit, *counted, f"{less:.1%}" if less >= 0 else ""])
            if name in reductions:
                reductions[name].append(less)
    if not rows:
        return []
    columns = ["task", "network", "tokens", "mean exit", "real", "binary", "real + binary / 64", "less than WEE"]
    text = [
        "## FLOPs of a row (the paper's Table 3)",
        "",
        FLOPS.format(shipped=np.mean(reductions[SHIPPED]), rule=np.mean(reductions[RULE])),
    ]
    return [*text, *table(columns, rows, 2)]


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
        rows += _left(task, net)
        curves.append((task, policies(task, net)))
        report(i + 1, len(leads), task.name)
    along = [(task, net, rule(task, net)) for task, net in leads]
    figures.exits(leads, out / "exits.png")
    figures.along_delta(along, out / "delta-score.png", "score")
    figures.along_delta(along, out / "delta-flops.png", "saved")
    figures.curves(curves, out / "policies.png", [(net.saved, task.scores(net.predicted).value) for task, net in leads])
    saved = [[each.saved for each in (net, net.by_rule)] for task, net in leads if task.name in PAPER]
    mean = ""
    if saved:
        shipped, paper = np.mean(saved, 0)
        mean = f"Over the paper's tasks ({len(saved)} of {len(PAPER)}): {shipped:.1%} on average as they ship, "
        mean += f"{paper:.1%} by the paper's rule.\n"
    text = [title, "", LEAVING.format(mean=mean), *table(COLUMNS, rows, 2)]
    for words, file in (("where rows leave", "exits"), ("score along delta", "delta-score")):
        text += [f"![{words}]({file}.png)", ""]
    text += ["![FLOPs saved along delta](delta-flops.png)", "", POLICIES, "![policies](policies.png)", ""]
    return [
        *text,
        "The score where half of the FLOPs are saved, between the settings on either side:",
        "",
        *_at_half(curves),
    ]


def _left(task: Task, net: Net) -> list[list[str]]:
    """Rows of the table: the exit options that ship, the paper's rule, full depth."""
    rows = []
    ways: dict[str, Callable[[Net], Net]] = {
        f"as it ships{_options(net)}": lambda each: each,
        "the paper's rule": lambda each: each.by_rule,
        "full depth": lambda each: each.at_full_depth,
    }
    for name, way in ways.items():
        its = way(net)
        row = [task.title, name, points(task.scores(its.predicted).value), f"{its.saved:.1%}", f"{its.mean_exit:.2f}"]
        if task.tested:
            tested = way(task.tested)
            row += [points(task.test_scores(tested.predicted).value), f"{tested.saved:.1%}"]
        else:
            row += ["-", "-"]
        rows.append([*row, " ".join(map(str, its.leaving()))])
    return rows


def _options(net: Net) -> str:
    """In words, where they are others than the paper's rule."""
    settings, plain = net.settings, net.by_rule.settings
    said = [f"delta {settings.delta:g}"]
    said += [f"entropy {settings.entropy_threshold:g}"] if settings.entropy_threshold else []
    said += [f"blocks {settings.min_blocks} to {settings.max_blocks}"] if settings.min_blocks > 1 else []
    return f" ({', '.join(said)})" if settings != plain else ""


def _at_half(curves: Sequence[tuple[Task, dict[str, Curve]]]) -> list[str]:
    names = list(curves[0][1])

    def cell(curve: Curve) -> str:
        saved, score = np.array(sorted(curve)).T
        return points(float(np.interp(0.5, saved, score))) if saved[0] <= 0.5 <= saved[-1] else "-"

    return table(["task", *names], [[task.title, *(cell(result[name]) for name in names)] for task, result in curves])
