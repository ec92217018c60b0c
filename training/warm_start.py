"""
Going on from a checkpoint, for rows that its own run did not have: signs become latent weights again.

A checkpoint keeps no latent weights. Each begins at a distance of `full_precision.LATENT` from zero, on the side of its
sign, so the first step sees the very network that was exported, and a sign changes once gradients have agreed for long
enough.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from beexformer.model import checkpoint
from beexformer.model.checkpoint import SHIPPED, Checkpoint
from beexformer.model.errors import TrainingError
from beexformer.training import calibrate
from beexformer.training.export import network_of
from beexformer.training.full_precision import LATENT
from beexformer.training.network import BEExformer
from beexformer.training.recipe import Network


@dataclass(frozen=True)
class WarmStart:
    """A checkpoint to go on from; `provenance` is JSON-ready: its name, the SHA-256 of its weights, and what its own
    training wrote down."""

    checkpoint: Checkpoint
    provenance: dict[str, Any]

    @property
    def shape(self) -> dict[str, Any]:
        """Every field of a recipe's [network]."""
        return {name: getattr(self.checkpoint.config, name) for name in Network.model_fields}

    @property
    def tokenizer(self) -> str:
        return self.checkpoint.tokenizer

    def start(self, network: BEExformer) -> None:
        """Put every parameter into a binary network of the same shape and as many classes: latent weights [n, k] are
        -LATENT or +LATENT, the others as in the file, without the calibration that is folded into the heads: it is
        fitted anew."""
        exported = network_of(self.checkpoint)
        calibrate.recorded(self.checkpoint.evaluation, self.checkpoint.config).take_back(exported)
        with torch.no_grad():
            for _, layer in exported.binary_layers():
                layer.weight.mul_(LATENT)
        network.load_state_dict(exported.state_dict())


def read(name: str, root: Path) -> WarmStart:
    """The shipped checkpoint `name`, or the folder `name` relative to `root`. Raises TrainingError where there is none
    or where it has no provenance, and CheckpointError as `checkpoint.read`."""
    folder = SHIPPED / name if (SHIPPED / name).is_dir() else root / name
    if not folder.is_dir():
        shipped = ", ".join(sorted(path.name for path in SHIPPED.iterdir()))
        raise TrainingError(f"{name} is neither a folder nor a checkpoint that ships ({shipped})")
    result = checkpoint.read(folder)
    if "provenance" not in result.evaluation:  # its card has to name data and licence
        raise TrainingError(f"{folder} doesn't say what it was trained on; export it anew with `beexformer train`")
    if result.learned_from == "labels":
        raise TrainingError(f"{folder} has learned nothing yet: give its --labels beside --train, without --start")
    digest = hashlib.sha256((folder / checkpoint.WEIGHTS).read_bytes()).hexdigest()
    return WarmStart(result, {"name": result.name, "sha256": digest, "provenance": result.evaluation["provenance"]})
