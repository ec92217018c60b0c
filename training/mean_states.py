"""
Mean states (means of the hidden states of a text's tokens) of a frozen 1-bit backbone, alone or with start-weighted
ones: what heads are fitted to.

An engine whose heads are the identity answers with what heads read, so heads are fitted on the very numbers that they
will be served with, at the engine's speed.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from beexformer.model.checkpoint import Checkpoint
from beexformer.model.config import BEEConfig, Pooling
from beexformer.model.engine import Engine
from beexformer.training.backbone import Backbone
from beexformer.training.data import Input, sides
from beexformer.training.export import tensors_of
from beexformer.training.network import BEExformer

BATCH = 16  # rows that a thread takes at a time


def config_of(backbone: Backbone, classes: int, vocab_size: int, max_tokens: int) -> BEEConfig:
    """The shape of a classifier with linear heads on a backbone, which reads so many tokens."""
    shape = {**backbone.shape, "max_tokens": max_tokens}
    return BEEConfig(vocab_size=vocab_size, n_class=classes, head="linear", **shape)


def network_of(backbone: Backbone, config: BEEConfig) -> BEExformer:
    """The backbone as a network of this config, whose heads are still random."""
    network = BEExformer(config).eval()
    backbone.start(network)
    return network


def engine_of(network: BEExformer, tokenizer: str, pooling: Pooling = "mean") -> Engine:
    """An engine whose logits are what heads of this pooling read of a text by a 1-bit network: mean states [N, exits,
    D], or start-weighted ones beside them [N, exits, 2 D]."""
    asked = replace(network.config, head="linear", multi_label=False, pairs="together", pooling=pooling)
    k = asked.head_inputs
    probe = BEExformer(replace(asked, n_class=k))
    result = network.state_dict()
    with torch.no_grad():
        for name, tensor in probe.state_dict().items():
            if not name.startswith("heads."):
                tensor.copy_(result[name])
        head: Any
        for head in probe.heads.values():
            head.out.weight.copy_(torch.eye(k))
            head.out.bias.zero_()
    labels = tuple(map(str, range(k)))
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


def of(
    engine: Engine, inputs: list[Input], threads: int, report: Callable[[int, int, str], None] = lambda *_: None
) -> np.ndarray:
    """What `engine_of` says of rows: [N, exits, D or 2 D] float32."""
    rows = [engine.encode(row) if isinstance(row, str) else engine.encode(*row) for row in inputs]
    order = np.argsort([len(row.ids) for row in rows], kind="stable")
    batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    result = np.empty((len(rows), len(engine.config.exits), engine.config.n_class), np.float32)
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        for batch, logits in zip(
            batches, pool.map(lambda b: engine.logits([rows[i] for i in b]), batches), strict=True
        ):
            result[batch] = logits
            done += len(batch)
            report(done, len(rows), "")
    return result


def features(
    engine: Engine,
    inputs: list[Input],
    apart: bool,
    threads: int,
    report: Callable[[int, int, str], None] = lambda *_: None,
) -> np.ndarray:
    """What linear heads read of rows [N, exits, head_inputs] float32: what `engine_of` says, of pairs `apart` |a - b|
    and a * b of their texts' mean states."""
    if not apart:
        return of(engine, inputs, threads, report)
    states = of(engine, [side for row in inputs for side in sides(row)], threads, report)
    a, b = states[::2], states[1::2]
    return np.concatenate([np.abs(a - b), a * b], 2)
