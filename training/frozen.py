"""
A classifier on a frozen 1-bit backbone: reads its mean states (`training.mean_states`), has linear heads fitted to them
(`training.heads.fit`), and exports the checkpoint.
"""

import math
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from beexformer.model import candidates
from beexformer.model.checkpoint import Checkpoint
from beexformer.model.config import DEFAULT_DELTA, Pooling
from beexformer.model.engine import Engine, Row
from beexformer.model.errors import TrainingError
from beexformer.model.options import ExitOptions
from beexformer.training import (
    calibrate,
    export,
    heads,
    label_names,
    mean_states,
    multi_label_heads,
    pooling,
    provenance,
)
from beexformer.training.backbone import Backbone
from beexformer.training.decisions import decide
from beexformer.training.evaluate import METRICS, NO_DELTA, encode_rows, logits_of
from beexformer.training.network import BEExformer
from beexformer.training.prepare import Prepared
from beexformer.training.progress import RunProgress
from beexformer.training.recipe import Recipe
from beexformer.training.tuning import Observed

READING, LEARNING, CHECKING = "running the texts", "learning the classes", "checking the model"
"""What a run is at, for its bar."""
VERIFIED = 64  # rows on which torch, which takes most of a run for it, and engine are compared
TOKENS = 4000  # of theirs at most
FEW = 50  # rows a class, up to which it is tried whether what classes are called helps
SHARES = tuple(i / 20 for i in range(20))  # of the greatest entropy, tried as the threshold below which a row leaves
JUDGED = 4000  # rows at most that choose exit options: hundreds are tried on all of them


@dataclass(frozen=True)
class Fitted:
    """Heads of a run's rows, the checkpoint that has them, without card and evaluation, the rows' tokens [N], and the
    cross-entropy of each pooling that was tried."""

    heads: heads.Heads
    checkpoint: Checkpoint
    tokens: np.ndarray
    pooling: dict[Pooling, float]


def export_heads(recipe: Recipe, data: Prepared, out: Path, progress: RunProgress) -> dict[str, Any]:
    """Fit heads to a recipe's rows and write the checkpoint; answers the content of evaluation.json.

    Without a development file it is judged by what heads that were fitted without a row say of it. Raises TrainingError
    for a backbone that has no bits.
    """
    began = time.monotonic()
    fitted = _fitted(recipe, data, progress)
    progress.stage(CHECKING)
    engine = Engine(fitted.checkpoint)
    parity = export.verified(fitted.checkpoint, engine, _some(encode_rows(engine, data.dev)))
    if data.dev is data.train:
        logits, tokens, labels = fitted.heads.cross_validated, fitted.tokens, data.train.labels
        unseen = fitted.heads.unseen
    else:
        (logits, tokens), labels, unseen = logits_of(engine, data.dev), data.dev.labels, None
    raw = calibrate.recorded(fitted.checkpoint.evaluation, engine.config).undo(logits)
    metric = recipe.data.metric_of(data.config.multi_label)
    evaluation = export.evaluated(engine, metric, (data.dev, raw, logits, logits, tokens), data.test, unseen)
    evaluation["calibration"]["per_exit"] = [
        calibrate.expected_calibration_error(logits[:, c], labels) for c in range(logits.shape[1])
    ]
    facts = provenance.of(recipe, data, int(tokens.sum()), time.monotonic() - began, "heads on frozen states")
    facts["heads"] = [asdict(choice) for choice in fitted.heads.choices]
    if fitted.pooling:
        facts["pooling"] = {"chosen": engine.config.pooling, "cross_entropy": fitted.pooling}
    evaluation["provenance"] = {**facts, "parity": asdict(parity)}
    export.write(fitted.checkpoint, engine, evaluation, recipe.data.licence, out)
    return evaluation


def _some(rows: list[Row]) -> list[Row]:
    """VERIFIED of them, fewer where they are long."""
    some = rows[:: max(1, len(rows) // VERIFIED)]
    share = TOKENS / sum(row.tokens for row in some)
    return some if share >= 1 else some[:: math.ceil(1 / share)]


def _fitted(recipe: Recipe, data: Prepared, progress: RunProgress) -> Fitted:
    start = data.start
    assert recipe.heads
    if not isinstance(start, Backbone) or not start.binary:
        raise TrainingError(f"[heads] needs a 1-bit backbone, and {recipe.start.backbone!r} is a full-precision one")
    network = mean_states.network_of(start, data.config)
    readers, names = _names(recipe, data, start, network)
    result, chosen, nats = _heads(recipe, data, network, names, progress)
    if recipe.data.balance:
        result = heads.balanced(result, data.targets)
    if chosen != data.config.pooling:
        network = mean_states.network_of(start, replace(data.config, pooling=chosen))
    put(result.heads, network)
    kind = "per_label" if data.config.multi_label else "per_exit"
    pairs, temperatures = bool(data.train.pairs), {"kind": kind, "temperatures": result.temperatures.tolist()}
    checkpoint = export.packed(network, recipe.name, data.labels, data.tokenizer, pairs, {"calibration": temperatures})
    tokens = np.array([row.lengths for row in encode_rows(Engine(checkpoint), data.train)], dtype=np.int64)
    seen = Observed(network.config, result.cross_validated, tokens, data.train.labels, result.unseen)
    checkpoint = replace(
        checkpoint,
        exit=exit_options(seen, recipe.data.metric_of(data.config.multi_label)),
        thresholds=result.thresholds,
    )
    by_name = any(choice.names for choice in result.choices)
    checkpoint = replace(checkpoint, learned_from="labels and rows" if by_name else "rows")
    if readers is not None:
        checkpoint = label_names.with_readers(checkpoint, readers)
    return Fitted(result, checkpoint, tokens, nats)


def _heads(
    recipe: Recipe, data: Prepared, network: BEExformer, names: np.ndarray | None, progress: RunProgress
) -> tuple[heads.Heads, Pooling, dict[Pooling, float]]:
    """The heads of a run's rows, what they read, and the cross-entropy of each pooling where both were tried."""
    assert recipe.heads
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    config, apart = data.config, data.config.pairs == "apart"
    alone = names is not None or config.multi_label
    given = "mean" if alone else pooling.worth_trying(len(data.train), apart=apart)
    engine = mean_states.engine_of(network, data.tokenizer, given)
    states = mean_states.features(engine, data.train.inputs(), apart, threads, progress.stage(READING))
    report, chosen = progress.stage(LEARNING), {"folds": recipe.heads.folds, "seed": recipe.optim.seed}
    if config.multi_label:
        return multi_label_heads.fit(states, data.targets, threads, report, **chosen), given, {}
    result = pooling.fit(states, data.targets, given, threads, report, **chosen, names=names)
    return result.heads, result.pooling, result.nats


def _names(
    recipe: Recipe, data: Prepared, start: Backbone, network: BEExformer
) -> tuple[tuple[np.ndarray, np.ndarray] | None, np.ndarray | None]:
    """(readers that the checkpoint is to have, heads of what its classes are called): both where the owner described
    them; the heads alone where rows are few and labels are words; else neither."""
    described = recipe.data.described
    if described and data.config.multi_label:
        raise TrainingError(
            "--labels describes classes of which a text has one, and these texts have several; leave it out"
        )
    few = len(data.train) <= FEW * len(data.labels)
    if (
        data.train.pairs
        or data.config.multi_label
        or not (described or (few and start.readers is not None and label_names.telling(data.labels)))
    ):
        return None, None
    readers = label_names.scaled_readers(start, network)
    words = [(described or {}).get(label, candidates.words(label)) for label in data.labels]
    return readers if described else None, label_names.heads_of(words, readers, network, data.tokenizer)


def entropy_against(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy of logits [N, m] against labels [N], or the sum over several [N, m]."""
    if labels.ndim == 2:
        return multi_label_heads.cross_entropy(logits, labels)
    return heads.cross_entropy(logits, np.eye(logits.shape[1])[labels])


def put(result: list[heads.Linear], network: BEExformer) -> None:
    """Heads into a network whose heads are linear."""
    head: Any
    with torch.no_grad():
        for head, linear in zip(network.heads.values(), result, strict=True):
            head.out.weight.copy_(torch.from_numpy(linear.weight))
            head.out.bias.copy_(torch.from_numpy(linear.bias))


def exit_options(seen: Observed, metric: str) -> ExitOptions:
    """What is in effect where nothing is asked: of the paper's delta, entropy thresholds beside it and in its place,
    and first blocks, what takes the fewest blocks while neither score nor cross-entropy of cross-validated predictions
    are worse than if all rows were answered by the one block whose cross-entropy is least. No row goes further."""
    seen = seen.some(JUDGED)
    labels = seen.labels
    assert labels is not None
    blocks = seen.config.exits
    last = blocks[int(np.argmin([entropy_against(seen.logits[:, c], labels) for c in range(len(blocks))]))]

    def judged(options: ExitOptions) -> tuple[float, float]:
        """(score, cross-entropy) under these options."""
        logits = seen.answering(options)
        return METRICS[metric](labels, decide(logits, seen.thresholds)), entropy_against(logits, labels)

    alone = ExitOptions(delta=DEFAULT_DELTA, min_blocks=last, max_blocks=last)
    score, nats = judged(alone)
    tried = [
        alone,
        *(
            ExitOptions(delta=delta, entropy_threshold=share, min_blocks=first, max_blocks=last)
            for delta in (DEFAULT_DELTA, NO_DELTA)
            for share in SHARES
            for first in blocks[: blocks.index(last)]
        ),
    ]
    for options in sorted(tried, key=lambda options: float(seen.taken(options).mean())):
        reached = judged(options)
        if reached[0] >= score and reached[1] <= nats:
            break  # at the latest for `alone`
    return options
