"""
From a trained network to a checkpoint folder and back, and the proof that both say the same.

Only signs, scales and embedding rows of few bits cross. `network_of` rebuilds the torch network from the exported file,
so that torch and engine are compared on what ships, not on what was trained.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from beexformer.model import bits, exits, probes
from beexformer.model.checkpoint import Checkpoint, save
from beexformer.model.embedding import SCALES, real
from beexformer.model.engine import Engine, Row
from beexformer.model.errors import TrainingError
from beexformer.model.options import NOTHING_ASKED, ExitOptions
from beexformer.model.tensors import stack, unstack
from beexformer.training import calibrate, card
from beexformer.training.batches import pad, sorted_batches
from beexformer.training.data import Rows
from beexformer.training.decisions import decide, same
from beexformer.training.evaluate import answering, encode_rows, evaluate_logits, logits_of
from beexformer.training.network import BEExformer, LinearHead

ROUNDING = 1e-4
"""Largest difference of a logit between torch and the engine where no bit flips; calibrated ones are compared as they
were before calibration divided them."""

FLIPPED, FLIPPED_SIGNS = 0.004, 6 * 384
"""Largest probability that a token's signs flip a bit of its row, so a row of L tokens flips with 1 - (1 - FLIPPED)^L;
of six blocks of width 384. A network with more of them has that many more signs.

Real numbers agree to about 1e-6. Where such a number is the argument of a sign and lies that close to its threshold,
one bit differs, one dot product moves by 2 alpha, and the next blocks carry it on, chaotically: how far is no measure
of anything. How often is: 0.001 to 0.002 a token, in 1 % of rows of 10 tokens and 23 % of rows of 128 (docs/log.md),
and in all rows where a kernel is wrong.
"""

DIFFER = 0.03
"""Largest share of rows with another label or exit; networks so far had about 1 % at most."""


def tensors_of(network: BEExformer) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint (see `model.tensors.spec`) from a binary network."""
    if not network.config.binary:
        raise TrainingError("a full-precision network has no signs to export; it is there to be compared with")
    rows, scale = network.stored_embedding()
    tensors = {"embedding.rows": rows, SCALES[network.config.embedding]: scale}
    if network.config.exact_match:
        tensors["exact_match"] = network.exact_match.detach().numpy()[1:].copy()
    for name, layer in network.binary_layers():
        name = _file_name(name)
        tensors[f"{name}.words"] = bits.pack_weights(layer.weight.detach().numpy())
        for part in ("alpha", "beta", "bias"):
            tensors[f"{name}.{part}"] = getattr(layer, part).detach().numpy().copy()
    for name, norm in network.named_modules():
        if isinstance(norm, torch.nn.LayerNorm):
            tensors[f"{_file_name(name)}.weight"] = norm.weight.detach().numpy().copy()
            tensors[f"{_file_name(name)}.bias"] = norm.bias.detach().numpy().copy()
    for name, head in network.named_modules():
        if isinstance(head, LinearHead):
            tensors[f"{name}.weight"], tensors[f"{name}.scale"] = head.stored_weight()
            tensors[f"{name}.bias"] = head.out.bias.detach().numpy().copy()
    return stack(tensors, network.config)


def network_of(checkpoint: Checkpoint) -> BEExformer:
    """The torch network of an exported file, in evaluation mode; its latent weights are the signs themselves."""
    network = BEExformer(checkpoint.config).eval()
    tensors = unstack(checkpoint.tensors, checkpoint.config)
    with torch.no_grad():
        scale = tensors[SCALES[checkpoint.config.embedding]]
        network.embedding.weight.copy_(torch.from_numpy(real(tensors["embedding.rows"], scale)))
        if checkpoint.config.embedding == "int4+2":
            network.embedding_step.copy_(torch.from_numpy(scale))
        if checkpoint.config.exact_match:
            network.exact_match[1:] = torch.from_numpy(tensors["exact_match"])
        for name, layer in network.binary_layers():
            name = _file_name(name)
            signs = bits.unpack_weights(tensors[f"{name}.words"]).astype(np.float32)
            layer.weight.copy_(torch.from_numpy(signs))
            for part in ("alpha", "beta", "bias"):
                getattr(layer, part).copy_(torch.from_numpy(tensors[f"{name}.{part}"]))
        for name, norm in network.named_modules():
            if isinstance(norm, torch.nn.LayerNorm):
                norm.weight.copy_(torch.from_numpy(tensors[f"{_file_name(name)}.weight"]))
                norm.bias.copy_(torch.from_numpy(tensors[f"{_file_name(name)}.bias"]))
        for name, head in network.named_modules():
            if isinstance(head, LinearHead):
                weight = real(tensors[f"{name}.weight"], tensors[f"{name}.scale"])
                head.out.weight.copy_(torch.from_numpy(weight))
                head.out.bias.copy_(torch.from_numpy(tensors[f"{name}.bias"]))
    return network


def _file_name(module: str) -> str:
    """Name of a module in the network -> in the file, where blocks count from 1 and have no inner modules."""
    parts = module.split(".")
    if parts[0] == "blocks":
        return f"blocks.{int(parts[1]) + 1}.{parts[-1]}"
    return module


@contextmanager
def as_exported(network: BEExformer) -> Iterator[None]:
    """While it lasts the network is on the CPU, in evaluation, with the embedding rows and float32 products of the
    exported file."""
    weight, training = network.embedding.weight, network.training
    device, trained = weight.device, weight.detach().clone()
    precision: dict[Any, Any] = {m: m.precision for m in network.modules() if hasattr(m, "precision")}
    network.cpu().eval()
    with torch.no_grad():
        network.embedding.weight.copy_(network.exported_embedding())
    for module in precision:
        module.precision = torch.float32
    try:
        yield
    finally:
        network.to(device).train(training)
        with torch.no_grad():
            network.embedding.weight.copy_(trained)
        for module, dtype in precision.items():
            module.precision = dtype


@torch.inference_mode()
def network_logits(
    network: BEExformer, ids: list[np.ndarray], batch_size: int = 64, pair_ids: list[np.ndarray] | None = None
) -> np.ndarray:
    """Logits of every exit for ragged rows of token ids, of pairs that are read apart with those of the second texts:
    [rows, exits, m] float32."""
    out = np.empty((len(ids), len(network.config.exits), network.config.n_class), np.float32)
    training = network.training
    network.eval()
    for batch in sorted_batches(np.array([len(row) for row in ids]), batch_size):
        second = pad([pair_ids[i] for i in batch]) if pair_ids else ()
        out[batch] = network(*pad([ids[i] for i in batch]), *second).numpy()
    network.train(training)
    return out


@dataclass(frozen=True)
class Parity:
    """How torch and engine compare on one exported file, row by row."""

    rows: int
    tokens: int  # of all rows
    flipped: int  # rows with a logit, at any exit, that differs by more than ROUNDING
    differ: int  # rows with another label, or other ones, or exit
    logits_max: float  # largest difference of a logit before calibration, as a share of the largest if that is above 1
    signs: int = FLIPPED_SIGNS  # blocks times width

    @property
    def holds(self) -> bool:
        flip = min(1.0, FLIPPED * max(1.0, self.signs / FLIPPED_SIGNS))
        likely = 1 - (1 - flip) ** (self.tokens / self.rows)
        return self._within(self.flipped, likely) and self._within(self.differ, DIFFER)

    def _within(self, count: int, share: float) -> bool:
        expected = share * self.rows
        return count <= expected + 3 * expected**0.5  # three standard deviations, for the few rows of small sets

    def __str__(self) -> str:
        return (
            f"of {self.rows} rows {self.flipped} with a flipped bit, {self.differ} with another label or exit; "
            f"logits at most {self.logits_max:.2f} apart"
        )


def verify(checkpoint: Checkpoint, engine: Engine, rows: list[Row]) -> Parity:
    """Run the exported file's network and the engine on the same rows and compare every exit of every row."""
    ours = engine.logits(rows)
    second = [row.pair_ids for row in rows if row.pair_ids is not None]
    theirs = network_logits(network_of(checkpoint), [row.ids for row in rows], pair_ids=second)
    calibration = calibrate.recorded(checkpoint.evaluation, checkpoint.config)
    apart = np.abs(ours - theirs) * calibration.divisors  # a bias is no part of a difference
    # rounding grows with what is rounded: heads that tell classes apart without a doubt have logits of hundreds
    largest = np.abs(calibration.undo(ours)).max(2, keepdims=True)
    apart = (apart / np.maximum(1, largest)).max((1, 2))
    differ, thresholds = 0, None if engine.thresholds is None else np.array(engine.thresholds)
    for row, a, b in zip(rows, ours, theirs, strict=True):
        settings, several = row.exit, checkpoint.config.multi_label
        policy = exits.entropy_gain(settings.delta, settings.entropy_threshold, multi_label=several)
        leave_a, leave_b = (exits.exit_layer(z, policy, row.exit.min_blocks, row.exit.max_blocks) for z in (a, b))
        said_a, said_b = (decide(z[c - 1][None], thresholds) for z, c in ((a, leave_a), (b, leave_b)))
        differ += leave_a != leave_b or not same(said_a, said_b)[0]
    tokens = sum(row.tokens for row in rows)
    signs = checkpoint.config.n_block * checkpoint.config.d_model
    return Parity(len(rows), tokens, int((apart > ROUNDING).sum()), int(differ), float(apart.max()), signs)


def packed(
    network: BEExformer, name: str, labels: list[str], tokenizer: str, pairs: bool, evaluation: dict[str, Any]
) -> Checkpoint:
    """A trained 1-bit network as a checkpoint, without card and probes; of several labels a text with thresholds of one
    half."""
    return Checkpoint(
        name=name,
        config=network.config,
        labels=tuple(labels),
        input="pair" if pairs else "text",
        thresholds=(0.5,) * len(labels) if network.config.multi_label else None,
        tensors=tensors_of(network),
        tokenizer=tokenizer,
        evaluation=evaluation,
        card="",
    )


def verified(checkpoint: Checkpoint, engine: Engine, rows: list[Row]) -> Parity:
    """`verify`, but TrainingError where it doesn't hold."""
    parity = verify(checkpoint, engine, rows)
    if not parity.holds:
        raise TrainingError(f"torch and engine disagree on the exported network, nothing was written: {parity}")
    return parity


def write(checkpoint: Checkpoint, engine: Engine, evaluation: dict[str, Any], licence: str, out: Path) -> None:
    """Write a verified checkpoint with what is known of it, its probes and its card."""
    checkpoint = replace(checkpoint, evaluation=evaluation, probes=probes.make(engine))
    save(replace(checkpoint, card=card.write(checkpoint, licence)), out)


def calibrate_and_export(
    network: BEExformer,
    *,
    name: str,
    labels: list[str],
    tokenizer: str,
    metric: str,
    dev: Rows,
    test: Rows | None,
    provenance: dict[str, Any],
    licence: str,
    out: Path,
    options: ExitOptions = NOTHING_ASKED,
    calibration: calibrate.Kind = "per_exit",
    on_dev: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> tuple[dict[str, Any], Parity]:
    """Calibrate a trained network on dev, pack it, verify it against the engine, evaluate it, write `out`.

    What is fitted is folded into `network` itself; `options` are the checkpoint's defaults. `on_dev` is given the
    dev rows through the exported network, logits [N, exits, m] float32 and tokens [N], before anything is written.
    Raises TrainingError, and leaves what stood in `out` alone, if torch and engine disagree.
    """
    pairs = bool(dev.pairs)
    raw, tokens = logits_of(Engine(packed(network, name, labels, tokenizer, pairs, {})), dev)
    may_answer = answering(network.config, options)
    fitted = calibrate.fit_what_pays(raw, dev.labels, calibration, may_answer)
    fitted.fold(network)
    said = {"calibration": {"kind": calibration, **fitted.to_dict()}}
    checkpoint = replace(packed(network, name, labels, tokenizer, pairs, said), exit=options)
    engine = Engine(checkpoint)
    encoded = encode_rows(engine, dev)
    parity = verified(checkpoint, engine, encoded)
    logits = engine.logits(encoded)
    crossed = calibrate.cross_fitted(raw, dev.labels, calibration, may_answer if fitted.biased else None)
    evaluation = evaluated(engine, metric, (dev, raw, crossed, logits, tokens), test)
    evaluation["provenance"] = {**provenance, "parity": asdict(parity)}
    if on_dev:
        on_dev(logits, tokens)
    write(checkpoint, engine, evaluation, licence, out)
    return evaluation, parity


def evaluated(
    engine: Engine,
    metric: str,
    on_dev: tuple[Rows, np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    test: Rows | None,
    thresholds: np.ndarray | None = None,
) -> dict[str, Any]:
    """{dev, test, calibration} of a calibrated network. `on_dev`: the rows, their logits before calibration, calibrated
    by what the other half fits, and as they are served, each [N, exits, m], and their tokens [N]. `thresholds` of
    several labels a text are the engine's, or on dev rows [N, m] such as other rows chose."""
    dev, raw, crossed, logits, tokens = on_dev
    calibration = dict(engine.description["evaluation"]["calibration"])
    settings = engine.resolve(ExitOptions())
    own = None if engine.thresholds is None else np.array(engine.thresholds)
    thresholds = own if thresholds is None else thresholds
    result = {"dev": evaluate_logits(engine.config, logits, tokens, dev.labels, metric, settings, thresholds)}
    calibration["dev"] = calibrate.measure(raw, crossed, dev.labels, settings.delta)
    if test:
        seen, lengths = logits_of(engine, test)
        result["test"] = evaluate_logits(engine.config, seen, lengths, test.labels, metric, settings, own)
        raw_test = calibrate.recorded(engine.description["evaluation"], engine.config).undo(seen)
        calibration["test"] = calibrate.measure(raw_test, seen, test.labels, settings.delta)
    return {**result, "calibration": calibration}
