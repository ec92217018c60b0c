"""
What was measured of a task: networks on its development and test rows, baselines on the same rows, and what follows
from their answers. `report.gather` finds and measures them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from zlib import crc32

import numpy as np

from beexformer.model import exits
from beexformer.model.config import DEFAULT_DELTA, BEEConfig
from beexformer.model.options import ExitSettings
from beexformer.report import bootstrap
from beexformer.report.cited import PAPER
from beexformer.training import calibrate
from beexformer.training.data import Rows
from beexformer.training.evaluate import (
    DELTAS,
    THRESHOLDS,
    answering,
    answers,
    evaluate_policy,
    exits_taken,
    flops_saved,
)

DELTA = DEFAULT_DELTA


@dataclass(frozen=True, eq=False)
class Net:
    """One network on some rows, development rows where nothing else is said: logits [N, exits, m], tokens [N], and how
    large it is."""

    variant: str
    seed: int
    config: BEEConfig
    logits: np.ndarray
    tokens: np.ndarray
    size_bytes: int
    calibration: calibrate.Calibration  # of the logits
    settings: ExitSettings  # in effect where nothing is asked
    date: str = ""

    @cached_property
    def taken(self) -> np.ndarray:
        """The exit (counted from 1 among its exits) that each row leaves at where nothing is asked [N]."""
        return exits_taken(self.config, self.logits, self.settings)

    @property
    def predicted(self) -> np.ndarray:
        """Classes [N] where nothing is asked."""
        return answers(self.logits, self.taken)

    @property
    def served(self) -> np.ndarray:
        """The logits that answer [N, m] where nothing is asked."""
        result: np.ndarray = self.logits[np.arange(len(self.logits)), self.taken - 1]
        return result

    @cached_property
    def by_rule(self) -> "Net":
        """The same network under the paper's rule, over all blocks."""
        return replace(self, settings=ExitSettings(DELTA, 0.0, 1, self.config.n_block))

    @cached_property
    def at_full_depth(self) -> "Net":
        """The same network where no row leaves early."""
        return replace(self, settings=ExitSettings(DELTA, 0.0, self.config.n_block, self.config.n_block))

    @property
    def raw(self) -> np.ndarray:
        """The logits before calibration."""
        return self.calibration.undo(self.logits)

    @property
    def answering(self) -> slice:
        """Where among its exits those are that may answer where nothing is asked."""
        return answering(self.config, self.settings)

    @cached_property
    def saved(self) -> float:
        """Mean share of FLOPs saved where nothing is asked."""
        return flops_saved(self.config, self.tokens, self._left)

    def leaving(self) -> np.ndarray:
        """Rows by the block they leave after [n_block]."""
        return np.bincount(self._left - 1, minlength=self.config.n_block)

    @property
    def mean_exit(self) -> float:
        """The block that rows leave after, on average."""
        return float(self._left.mean())

    @property
    def _left(self) -> np.ndarray:
        return np.asarray(np.array(self.config.exits)[self.taken - 1])


@dataclass(frozen=True, eq=False)
class Baseline:
    """Predictions [N], on test rows too where they are labelled, or why there are none."""

    predicted: np.ndarray | None
    on_test: np.ndarray | None = None
    note: str = ""
    size_bytes: int | None = None
    date: str = ""  # when it was measured


Runs = dict[str, list[Net]]
"""Recorded runs by variant, whose networks have the same shape, start and teacher."""


@dataclass(eq=False)
class Task:
    """One set of rows and everyone who answered them."""

    name: str
    metric: str
    labels: list[str]
    train: Rows
    dev: Rows
    test: Rows | None
    shipped: Net | None = None
    kind: calibrate.Kind = "per_exit"  # of the calibration of what ships
    tested: Net | None = None  # the shipped network on test rows
    made: dict[str, Any] = field(default_factory=dict)  # the shipped network's provenance
    runs: Runs = field(default_factory=dict)  # made like what ships
    earlier: list[Runs] = field(default_factory=list)  # made otherwise, each set of them alike
    baselines: dict[str, Baseline] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return PAPER.get(self.name, self.name)

    @property
    def lead(self) -> Net | None:
        """The proposed network that curves are drawn for: the shipped one, or the first recorded one."""
        return self.shipped or next(iter(self.runs.get("proposed", [])), None)

    @cached_property
    def draws(self) -> np.ndarray:
        # a seed of its own: equal ones would tie the tasks' resamples together
        return bootstrap.draws(len(self.dev), seed=crc32(self.name.encode()))

    @cached_property
    def test_draws(self) -> np.ndarray:
        return bootstrap.draws(len(self.test or ()), seed=crc32(f"{self.name} test".encode()))

    def scores(self, predicted: np.ndarray, metric: str | None = None) -> bootstrap.Scores:
        """Of answers to the development rows, by the task's metric or another."""
        return bootstrap.resample(self.dev.labels, predicted, len(self.labels), metric or self.metric, self.draws)

    def test_scores(self, predicted: np.ndarray, metric: str | None = None) -> bootstrap.Scores:
        assert self.test is not None
        return bootstrap.resample(self.test.labels, predicted, len(self.labels), metric or self.metric, self.test_draws)

    def of(self, nets: Iterable[Net]) -> bootstrap.Scores | None:
        """Mean over networks; None where there are none."""
        result = [self.scores(net.predicted) for net in nets]
        return bootstrap.mean(result) if result else None


Curve = list[tuple[float, float]]
"""(share of FLOPs saved, score)."""


def curve(
    task: Task, net: Net, policy: Callable[[float], exits.Policy], settings: Sequence[float], **options: Any
) -> Curve:
    """What `evaluate_policy` finds along the settings of a policy."""
    result = [
        evaluate_policy(net.config, net.logits, net.tokens, task.dev.labels, task.metric, policy(x), **options)
        for x in settings
    ]
    return [(point["flops_saved_ratio"], point["score"]) for point in result]


def rule(task: Task, net: Net) -> Curve:
    """Along `evaluate.DELTAS` under the paper's rule."""
    return curve(task, net, exits.entropy_gain, DELTAS)


def policies(task: Task, net: Net) -> dict[str, Curve]:
    """The paper's rule and its rivals on the same logits, each along settings from the deepest to the shallowest."""
    between = net.logits[:, :-1]  # where a policy has a say
    shares = np.linspace(0, 1, 15)
    nats = np.quantile(exits.entropy(between), shares)
    sure = np.quantile(exits.softmax(between).max(-1), shares)
    return {
        "entropy gain (the paper's)": rule(task, net),
        "the same, lowest entropy answers": curve(task, net, exits.entropy_gain, DELTAS, answering=exits.surest),
        f"the paper's at delta {DELTA:g}, and by absolute entropy": curve(
            task, net, lambda share: exits.entropy_gain(DELTA, share), [0, *THRESHOLDS, 1]
        ),
        "the last, from the model's min_blocks on": [
            _with_threshold(task, net, share) for share in (0.0, *THRESHOLDS, 1.0)
        ],
        "absolute entropy": curve(task, net, exits.absolute_entropy, [*nats, np.inf]),
        "maximum probability": curve(task, net, exits.max_probability, [*sure, np.inf]),
        "patience": curve(task, net, lambda steps: exits.patience(int(steps)), range(net.config.n_block)),
    }


def _with_threshold(task: Task, net: Net, share: float) -> tuple[float, float]:
    """The model's own options with another entropy threshold."""
    result = replace(net, settings=replace(net.settings, entropy_threshold=share))
    return result.saved, task.scores(result.predicted).value


def recalibrated(task: Task, net: Net, kind: calibrate.Kind, biased: slice | None = None) -> Net:
    """The network calibrated anew, see `calibrate.fit`, each half of the rows by what the other half fits."""
    return replace(net, logits=calibrate.cross_fitted(net.raw, task.dev.labels, kind, biased))
