"""
What is claimed of the proposed network, each with the interval of a paired bootstrap.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from beexformer.report import bootstrap
from beexformer.report.asked import NAMES
from beexformer.report.bootstrap import Difference, Scores
from beexformer.report.cited import COLUMNS, ONE_BIT, PAPER, Cited
from beexformer.report.markdown import table, verdict
from beexformer.report.results import DELTA, Net, Task
from beexformer.report.sizes import real_bytes

POINTS_LOST = 0.04  # to the full-precision counterpart, at most
CLAIMS = """\
The proposed network less what it is compared with, in points, with the 95 % interval of a paired bootstrap over
development rows ({resamples:,} resamples); confirmed or refuted only where the whole interval says so. The interval is
over rows: other seeds move a score too. GLUE scores MRPC by accuracy beside F1. That exits do no worse than full depth
is what the paper calls the cure of "overthinking". Default exit options were chosen after a look at development rows,
and weights of some too; test rows, where there are labelled ones, chose nothing. Published scores are taken as they
are, without an interval of their own, MRPC by accuracy, which they state.
"""

Pair = tuple[Scores, Scores] | None
Say = Callable[[Difference], str]
Way = Callable[[Net], Net]
"""A network, by other exit options."""
Claim = tuple[str, Callable[[Task], Pair], Say]


def claims(tasks: Sequence[Task]) -> list[str]:
    """Paired bootstrap of every claim that some task has both sides of, a task a column and their mean last."""
    measured = [(name, [of(task) for task in tasks], say) for name, of, say in _all()]
    rows = [_row(name, pairs, say) for name, pairs, say in measured if any(pairs)]
    text = ["## Claims, with intervals", "", CLAIMS.format(resamples=bootstrap.RESAMPLES)]
    text += table(["claim", *(task.title for task in tasks), "mean"], rows)
    ratios = [f"{t.title} {real_bytes(t.shipped.config) / t.shipped.size_bytes:.1f}" for t in tasks if t.shipped]
    if ratios:
        of = ", ".join(ratios)
        text += [f"The same network in float32 is larger than the shipped folder by a factor of: {of}.", ""]
    return text


def _all() -> list[Claim]:
    result: list[Claim] = []
    for key, name in {**NAMES, "majority": "the majority class"}.items():
        result += [
            (f"above {name}", partial(_against, baseline=key), above),
            (f"above {name}, by accuracy", partial(_against, baseline=key, by_accuracy=True), above),
            (f"above {name}, on test rows", partial(_against_on_test, baseline=key), above),
            (
                f"above {name}, on test rows, by accuracy",
                partial(_against_on_test, baseline=key, by_accuracy=True),
                above,
            ),
        ]
    result += [(f"above {c.name} {c.bits}, as published", partial(_against_cited, cited=c), above) for c in ONE_BIT]
    paper = f"by the paper's rule at delta {DELTA:g}"
    exits: tuple[tuple[str, Way, Way, Say], ...] = (
        ("as it ships not below full depth", lambda net: net, lambda net: net.at_full_depth, not_below),
        (f"{paper} not below full depth", lambda net: net.by_rule, lambda net: net.at_full_depth, not_below),
        (f"as it ships above itself {paper}", lambda net: net, lambda net: net.by_rule, above),
    )
    for name, ours, other, say in exits:
        result += [
            (name, partial(_exits, ours=ours, other=other), say),
            (f"{name}, on test rows", partial(_exits_on_test, ours=ours, other=other), say),
        ]
    result += [(f"at most {100 * POINTS_LOST:g} points below FP", _full_precision, close)]
    return result


def above(result: Difference) -> str:
    return verdict(result, result.above())


def not_below(result: Difference) -> str:
    return verdict(result, result.at_least())


def close(result: Difference) -> str:
    return verdict(result, result.at_least(-POINTS_LOST))


# ---------------------------------------------------------------- both sides of a claim


def proposed(task: Task) -> Scores | None:
    """The shipped network; without one, the mean of the recorded runs."""
    return task.scores(task.shipped.predicted) if task.shipped else task.of(task.runs.get("proposed", []))


def against(task: Task, baseline: str, metric: str | None = None) -> Pair:
    """On development rows."""
    nets = [task.shipped] if task.shipped else task.runs.get("proposed", [])
    base = task.baselines[baseline].predicted
    if not nets or base is None:
        return None
    return bootstrap.mean([task.scores(net.predicted, metric) for net in nets]), task.scores(base, metric)


def _against(task: Task, baseline: str, by_accuracy: bool = False) -> Pair:
    if by_accuracy and task.metric != "f1":  # GLUE's second metric for such tasks
        return None
    return against(task, baseline, "accuracy" if by_accuracy else None)


def _against_on_test(task: Task, baseline: str, by_accuracy: bool = False) -> Pair:
    ours, base = task.tested, task.baselines[baseline].on_test
    if ours is None or base is None or (by_accuracy and task.metric != "f1"):
        return None
    metric = "accuracy" if by_accuracy else None
    return task.test_scores(ours.predicted, metric), task.test_scores(base, metric)


def _against_cited(task: Task, cited: Cited) -> Pair:
    """By the metric that the other states."""
    for column in COLUMNS:
        score = cited.score(column) if column.task == task.name else None
        if score is not None and task.shipped:
            ours = task.scores(task.shipped.predicted, column.metric)
            return ours, Scores(score / 100, np.full(bootstrap.RESAMPLES, score / 100))
    return None


def _exits(task: Task, ours: Way, other: Way) -> Pair:
    net = task.lead
    return (task.scores(ours(net).predicted), task.scores(other(net).predicted)) if net else None


def _exits_on_test(task: Task, ours: Way, other: Way) -> Pair:
    net = task.tested
    return (task.test_scores(ours(net).predicted), task.test_scores(other(net).predicted)) if net else None


def _full_precision(task: Task) -> Pair:
    """Runs of both over the seeds they have in common; without any, what is proposed against all of the other's."""
    counterparts = task.runs.get("fp", [])
    shared = {net.seed for net in task.runs.get("proposed", [])} & {net.seed for net in counterparts}
    ours = task.of(n for n in task.runs["proposed"] if n.seed in shared) if shared else proposed(task)
    other = task.of(n for n in counterparts if not shared or n.seed in shared)
    return (ours, other) if ours and other else None


def _row(name: str, pairs: Sequence[Pair], say: Say) -> list[str]:
    """Task by task, and the mean over the tasks that have both sides."""
    known = [pair for pair in pairs if pair]
    overall = "-"
    if known:
        ours, other = (bootstrap.mean([pair[side] for pair in known]) for side in (0, 1))
        overall = say(bootstrap.difference(ours, other))
        overall += f" ({len(known)} of {len(PAPER)} tasks)" if len(known) < len(PAPER) else ""
    return [name, *("-" if pair is None else say(bootstrap.difference(*pair)) for pair in pairs), overall]
