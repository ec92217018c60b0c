"""
Exit options for what is wanted of them: a share of full depth's FLOPs, milliseconds, agreement with full depth, or a
bound on the risk of leaving early that holds with a stated confidence.

The bound is Learn then Test (Angelopoulos et al. 2021). A loss of 0 or 1 a row; candidates in an order that no row has
a say in, from full depth to the first exit; each is tested against the hypothesis that its risk is above the bound, by
the exact tail of the binomial distribution; the last one before the first that fails is taken (fixed sequence testing).
So the risk is above the bound in at most 1 - confidence of all draws of rows. Pure functions on logits of all exits.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from scipy.stats import binom

from beexformer.model import exits, flops
from beexformer.model.budget import MOST, Rung
from beexformer.model.config import BEEConfig
from beexformer.model.errors import TrainingError
from beexformer.model.options import ExitOptions
from beexformer.training.decisions import decide, same
from beexformer.training.evaluate import DELTAS, METRICS, NO_DELTA, answering, flops_saved, lengths

STEPS = 50  # of the entropy threshold, from 0 to 1
Want = Literal["flops", "ms", "agree", "risk"]
LOSSES = {
    True: "1 where full depth is right and the exit taken is wrong, else 0: bounds the error above full depth's",
    False: "1 where the exit taken gives another label than full depth, else 0",
}
"""What a row costs, with labels and without."""
OF_LABEL_SETS = {
    True: "1 where full depth has all labels of a text right and none too many, and the exit taken has not, else 0",
    False: "1 where the exit taken gives another set of labels than full depth, else 0",
}
"""The same of several labels a text."""


@dataclasses.dataclass(frozen=True)
class Observed:
    """What a network said of some rows: logits of all exits [N, E, m], tokens [N], labels [N] where they are known; of
    several labels a text labels [N, m] and thresholds, see `decisions.decide`."""

    config: BEEConfig
    logits: np.ndarray
    tokens: np.ndarray
    labels: np.ndarray | None = None
    thresholds: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.logits)

    def some(self, rows: int) -> "Observed":
        """As many of the rows at most, evenly spread."""
        if len(self) <= rows:
            return self
        at = np.arange(rows) * len(self) // rows
        labels = None if self.labels is None else self.labels[at]
        each = self.thresholds is not None and self.thresholds.ndim == 2  # a row's own
        thresholds = self.thresholds[at] if each else self.thresholds  # type: ignore[index]
        return Observed(self.config, self.logits[at], self.tokens[at], labels, thresholds)

    @property
    def full_depth(self) -> np.ndarray:
        """Classes at full depth [N], or labels [N, m]."""
        return decide(self.logits[:, -1], self.thresholds)

    @cached_property
    def entropies(self) -> np.ndarray:
        """Of what each exit says, [N, E] nats."""
        return exits.entropy_of_label_sets(self.logits) if self.config.multi_label else exits.entropy(self.logits)

    def taken(self, options: ExitOptions) -> np.ndarray:
        """Exits that rows take under these options, 1-based positions [N]; what they leave out is in effect nowhere."""
        may = answering(self.config, options)
        leaving = exits.leaving(
            self.entropies[:, : may.stop],
            self.config.max_entropy,
            NO_DELTA if options.delta is None else options.delta,
            options.entropy_threshold or 0.0,
        )
        leaving[:, -1] = True
        return np.asarray(may.start + 1 + leaving[:, may.start :].argmax(1))

    def answering(self, options: ExitOptions) -> np.ndarray:
        """Logits of the exits that rows take under these options, [N, m]."""
        return np.asarray(self.logits[np.arange(len(self)), self.taken(options) - 1])

    def answers(self, options: ExitOptions) -> np.ndarray:
        """Classes under these options [N], or labels [N, m]."""
        return decide(self.answering(options), self.thresholds)

    def losses(self, options: ExitOptions) -> np.ndarray:
        """Of LOSSES or OF_LABEL_SETS, [N] bool."""
        answered = self.answers(options)
        if self.labels is None:
            return ~same(answered, self.full_depth)
        return ~same(answered, self.labels) & same(self.full_depth, self.labels)

    def measure(self, options: ExitOptions) -> dict[str, Any]:
        """FLOPs as a share of full depth's, agreement with it, rows by block, and with labels the accuracy of both."""
        answered, left = self.answers(options), np.array(self.config.exits)[self.taken(options) - 1]
        result = {
            "flops_ratio": 1 - flops_saved(self.config, self.tokens, left),
            "agreement": float(same(answered, self.full_depth).mean()),
            "exits": [int((left == c).sum()) for c in range(1, self.config.n_block + 1)],
        }
        if self.labels is not None:
            result["accuracy"] = float(same(answered, self.labels).mean())
            result["full_depth_accuracy"] = float(same(self.full_depth, self.labels).mean())
            if self.config.multi_label:
                result["micro_f1"] = float(METRICS["micro_f1"](self.labels, answered))
        return result

    def milliseconds(self, options: ExitOptions, cost: Callable[[int, int], float]) -> float:
        """Mean time of a row, by a cost model's `milliseconds(tokens, blocks)`."""
        left = np.array(self.config.exits)[self.taken(options) - 1]
        tokens = (sum(flops.each_of(n)) for n in lengths(self.tokens))
        return float(np.mean([cost(n, c) for n, c in zip(tokens, left.tolist(), strict=True)]))


def path(config: BEEConfig) -> list[ExitOptions]:
    """Candidates from full depth to the first exit: entropy thresholds that rise, with as good as no delta. Like all
    candidates they state every option: what a profile left out would be the checkpoint's default, and not what was
    measured."""
    return [_within(config, config.n_block), *(_within(config, threshold=i / STEPS) for i in range(1, STEPS + 1))]


def candidates(config: BEEConfig) -> list[ExitOptions]:
    """All that is tried where nothing is guaranteed: `path`, every delta, and every exit for all rows."""
    fixed = [_within(config, c, c) for c in config.exits]
    return [*path(config), *(_within(config, delta=d) for d in DELTAS), *fixed]


def _within(
    config: BEEConfig, first: int = 1, last: int | None = None, *, delta: float = NO_DELTA, threshold: float = 0.0
) -> ExitOptions:
    """All options, those that aren't given without effect."""
    last = last or config.n_block
    return ExitOptions(delta=delta, entropy_threshold=round(threshold, 4), min_blocks=first, max_blocks=last)


def rows_needed(risk: float, confidence: float) -> int:
    """The fewest rows with which anything can be said: as many without a single loss are just unlikely enough."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - risk))


def p_value(losses: np.ndarray, risk: float) -> float:
    """How probable so few losses are at most where the risk is above the bound: P(Bin(N, risk) <= losses)."""
    return float(binom.cdf(int(losses.sum()), len(losses), risk))


def learn_then_test(losses: Sequence[np.ndarray], risk: float, confidence: float) -> int:
    """The last of the candidates, whose losses [N] come in their order, before the first that isn't shown to have at
    most this risk; -1 where the first one isn't."""
    for i, each in enumerate(losses):
        if p_value(each, risk) > 1 - confidence:
            return i - 1
    return len(losses) - 1


def tune(
    observed: Observed,
    want: Want,
    value: float,
    confidence: float = 0.95,
    cost: Callable[[int, int], float] | None = None,
) -> tuple[ExitOptions, dict[str, Any]]:
    """Options for what is wanted and their evidence, JSON-ready.

    Of FLOPs or milliseconds `value` is the most, and the best score is taken (agreement, without labels); of agreement
    it is the least, and the fewest FLOPs are taken; of risk it is the bound. Raises TrainingError where rows are too
    few, or nothing does it.
    """
    if want == "risk":
        options, evidence = _bounded(observed, value, confidence)
        return options, {**evidence, **observed.measure(options)}
    if want == "ms" and cost is None:
        raise ValueError("milliseconds need a cost model")
    result = [(options, observed.measure(options)) for options in candidates(observed.config)]
    if want == "agree":
        fit = [(options, seen) for options, seen in result if seen["agreement"] >= value]
        best = min(fit, key=lambda each: each[1]["flops_ratio"])  # full depth agrees with itself
        return best[0], {"want": {want: value}, **best[1]}

    def spent(options: ExitOptions, seen: dict[str, Any]) -> float:
        if want == "flops":
            return float(seen["flops_ratio"])
        assert cost is not None
        return observed.milliseconds(options, cost)

    costs = [spent(*each) for each in result]
    fit = [each for each, c in zip(result, costs, strict=True) if c <= value]
    if not fit:
        unit = "of full depth's FLOPs" if want == "flops" else "ms"
        raise TrainingError(f"no exit options come down to {value:g} {unit}; the first exit takes {min(costs):.3g}")
    score = _score_of(observed)
    options, seen = max(fit, key=lambda each: (each[1][score], -each[1]["flops_ratio"]))
    evidence = {"want": {want: value}, **seen}
    if cost is not None:
        evidence["predicted_ms"] = observed.milliseconds(options, cost)
    return options, evidence


def ladder(observed: Observed) -> tuple[Rung, ...]:
    """The candidates that are worth their FLOPs: these rise, and so does the score (agreement, without labels). For
    machines that convert FLOPs to milliseconds themselves."""
    config = observed.config
    full = np.mean([flops.forward(config, n, config.n_block).flops for n in lengths(observed.tokens)])
    score = _score_of(observed)
    result = [(options, observed.measure(options)) for options in candidates(observed.config)]
    rungs, best = [], -1.0
    for options, seen in sorted(result, key=lambda each: (each[1]["flops_ratio"], -each[1][score])):
        if seen[score] > best:
            best = seen[score]
            shares = tuple(n / len(observed) for n in seen["exits"])
            rungs.append(Rung(options, round(float(full * seen["flops_ratio"])), shares))
    return tuple(rungs[-MOST:])


def _score_of(observed: Observed) -> str:
    """What of `Observed.measure` is to be high: agreement with full depth where there are no labels."""
    if observed.labels is None:
        return "agreement"
    return "micro_f1" if observed.config.multi_label else "accuracy"


def _bounded(observed: Observed, risk: float, confidence: float) -> tuple[ExitOptions, dict[str, Any]]:
    if not (0 < risk < 1 and 0 < confidence < 1):
        raise TrainingError(f"risk is {risk:g} and confidence {confidence:g}; both lie between 0 and 1")
    needed = rows_needed(risk, confidence)
    if len(observed) < needed:
        raise TrainingError(
            f"{len(observed)} rows show no risk of at most {risk:g} with confidence {confidence:g}; give {needed} or "
            "more, or ask for less"
        )
    tried = path(observed.config)
    losses = [observed.losses(options) for options in tried]
    taken = learn_then_test(losses, risk, confidence)  # full depth loses nothing against itself: at least 0
    return tried[taken], {
        "want": {"risk": risk, "confidence": confidence},
        "guarantee": (
            f"with confidence {confidence:g} the mean loss on rows like these is at most {risk:g} (Learn then Test, "
            "fixed sequence, binomial tail)"
        ),
        "loss": (OF_LABEL_SETS if observed.config.multi_label else LOSSES)[observed.labels is not None],
        "loss_seen": float(losses[taken].mean()),
        "p_value": p_value(losses[taken], risk),
    }
