"""
A classifier of a 1-bit backbone that stands still: linear heads on its mean states, and nothing else is trained.

An engine whose heads are the identity answers with the mean states themselves, so heads are fitted on the very numbers
that they will be served with, at the engine's speed.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from beexformer.model.checkpoint import Checkpoint
from beexformer.model.config import BEEConfig
from beexformer.model.engine import Engine
from beexformer.model.errors import TrainingError
from beexformer.model.exits import DEFAULT_DELTA
from beexformer.model.options import ExitOptions
from beexformer.training import calibrate, export, heads, provenance
from beexformer.training.backbone import Backbone
from beexformer.training.data import Input
from beexformer.training.evaluate import METRICS, encode_rows, logits_of
from beexformer.training.export import tensors_of
from beexformer.training.network import BEExformer
from beexformer.training.prepare import Prepared
from beexformer.training.progress import RunProgress
from beexformer.training.recipe import Recipe
from beexformer.training.tuning import Observed

BATCH = 16  # rows that a thread takes at a time
VERIFIED = 64  # rows on which torch, which takes most of a run for it, and engine are compared
LOST = 0.0025  # of the score that may be given for leaving early


def network_of(backbone: Backbone, config: BEEConfig) -> BEExformer:
    """The backbone as a network of this config, whose heads are still random."""
    network = BEExformer(config).eval()
    backbone.start(network)
    return network


def mean_states_engine(network: BEExformer, tokenizer: str) -> Engine:
    """An engine whose logits [N, exits, D] are the mean states of a 1-bit network."""
    D = network.config.d_model
    probe = BEExformer(replace(network.config, head="linear", n_class=D))
    found = network.state_dict()
    with torch.no_grad():
        for name, tensor in probe.state_dict().items():
            if not name.startswith("heads."):
                tensor.copy_(found[name])
        head: Any
        for head in probe.heads.values():
            head.out.weight.copy_(torch.eye(D))
            head.out.bias.zero_()
    labels = tuple(map(str, range(D)))
    return Engine(
        Checkpoint(
            name="states",
            config=probe.config,
            labels=labels,
            tensors=tensors_of(probe),
            tokenizer=tokenizer,
            evaluation={},
            card="",
        )
    )


def mean_states(
    engine: Engine, inputs: list[Input], threads: int, report: Callable[[int, int, str], None] = lambda *_: None
) -> np.ndarray:
    """What `mean_states_engine` says of rows: [N, exits, D] float32."""
    rows = [engine.encode(row) if isinstance(row, str) else engine.encode(*row) for row in inputs]
    order = np.argsort([len(row.ids) for row in rows], kind="stable")
    batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    found = np.empty((len(rows), len(engine.config.exits), engine.config.d_model), np.float32)
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        for batch, logits in zip(
            batches, pool.map(lambda b: engine.logits([rows[i] for i in b]), batches), strict=True
        ):
            found[batch] = logits
            done += len(batch)
            report(done, len(rows), "")
    return found


def export_heads(recipe: Recipe, data: Prepared, out: Path, progress: RunProgress) -> dict[str, Any]:
    """Fit heads to a recipe's rows and write the checkpoint; answers the content of evaluation.json.

    Without a development file it is judged by what heads that were fitted without a row say of it. Raises TrainingError
    for a backbone that has no bits.
    """
    start, began = data.start, time.monotonic()
    if not isinstance(start, Backbone) or not start.binary:
        raise TrainingError(f"[heads] needs a 1-bit backbone, and {recipe.start.backbone!r} is a full-precision one")
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    network = network_of(start, data.config)
    states = mean_states(
        mean_states_engine(network, data.tokenizer), data.train.inputs(), threads, progress.stage("states")
    )
    found = heads.fit(states, data.targets, threads, progress.stage("heads"))
    if recipe.data.balance:
        found = heads.balanced(found, data.targets)
    put(found.heads, network)
    pairs, fitted = bool(data.train.pairs), {"kind": "per_exit", "temperatures": found.temperatures.tolist()}
    checkpoint = export.packed(network, recipe.name, data.labels, data.tokenizer, pairs, {"calibration": fitted})
    tokens = np.array([len(row) for row in data.ids], dtype=np.int64)
    seen = Observed(data.config, found.cross_validated, tokens, data.train.labels)
    options = exit_options(seen, recipe.data.metric)
    checkpoint = replace(checkpoint, exit=options)
    engine = Engine(checkpoint)
    parity = export.verified(checkpoint, engine, encode_rows(engine, data.dev)[:: max(1, len(data.dev) // VERIFIED)])
    if data.dev is data.train:
        logits, labels = found.cross_validated, data.train.labels
    else:
        (logits, tokens), labels = logits_of(engine, data.dev), data.dev.labels
    raw = logits * found.temperatures[:, None]
    evaluation = export.evaluated(engine, recipe.data.metric, (data.dev, raw, logits, logits, tokens), data.test)
    evaluation["calibration"]["per_exit"] = [
        calibrate.expected_calibration_error(logits[:, c], labels) for c in range(logits.shape[1])
    ]
    facts = provenance.of(recipe, data, int(tokens.sum()), time.monotonic() - began, "heads on frozen states")
    facts["heads"] = [asdict(choice) for choice in found.choices]
    evaluation["provenance"] = {**facts, "parity": asdict(parity)}
    export.finish(checkpoint, engine, evaluation, recipe.data.licence, out)
    return evaluation


def put(found: list[heads.Linear], network: BEExformer) -> None:
    """Heads into a network whose heads are linear."""
    head: Any
    with torch.no_grad():
        for head, linear in zip(network.heads.values(), found, strict=True):
            head.out.weight.copy_(torch.from_numpy(linear.weight))
            head.out.bias.copy_(torch.from_numpy(linear.bias))


def exit_options(seen: Observed, metric: str) -> ExitOptions:
    """What is in effect where nothing is asked: the paper's delta between two blocks. The last one is where the
    cross-entropy of cross-validated predictions is least, the first one as early as possible without its score falling
    by more than `LOST`."""
    assert seen.labels is not None
    targets = np.eye(seen.logits.shape[2])[seen.labels]
    nats = [heads.cross_entropy(seen.logits[:, c], targets) for c in range(seen.logits.shape[1])]
    blocks = seen.config.exits
    last = blocks[int(np.argmin(nats))]
    goal = METRICS[metric](seen.labels, seen.logits[:, blocks.index(last)].argmax(-1)) - LOST
    for first in blocks:
        options = ExitOptions(delta=DEFAULT_DELTA, min_blocks=first, max_blocks=last)
        if first >= last or METRICS[metric](seen.labels, seen.answers(options)) >= goal:
            break
    return options
