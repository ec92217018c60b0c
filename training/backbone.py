"""
A backbone: embedding and blocks without heads, distilled once and task-free, that every task's training starts from.

A folder: config.json (shape, provenance), tokenizer.json, README.md and model.safetensors. Its weights are real
numbers, kept as int8 rows with a scale each: bits begin when a task's full-precision counterpart has learned
(`training.full_precision`).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import Tensor

from beexformer.model import folders
from beexformer.model.embedding import quantize
from beexformer.model.errors import TrainingError
from beexformer.training.network import BEExformer

SHIPPED = Path(__file__).parent / "backbones"
WEIGHTS = "model.safetensors"
SHAPE = ("d_model", "n_block", "n_head", "max_tokens", "carry")
"""Fields of a BEEConfig that a backbone fixes."""


@dataclass(frozen=True)
class Backbone:
    """What a folder says; `shape` has the fields of `SHAPE`, `provenance` is JSON-ready."""

    folder: Path
    shape: dict[str, Any]
    tokenizer: str
    provenance: dict[str, Any]

    def start(self, network: BEExformer) -> None:
        """Put embedding and blocks into a full-precision network of the same shape. Raises TrainingError where it
        doesn't fit."""
        path = self.folder / WEIGHTS
        try:
            found = load_file(path)
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{path} can't be read ({error}); copy it again") from None
        with torch.no_grad():
            for name, parameter in _parts(network):
                array = found.get(name)
                if array is None or array.shape != tuple(parameter.shape):
                    raise TrainingError(f"{path}: tensor {name!r} is missing or of another shape than the network's")
                if array.dtype == np.int8:
                    array = array * found[f"{name}.scale"][:, None]
                parameter.copy_(torch.from_numpy(array))


def read(name: str, root: Path) -> Backbone:
    """The shipped backbone `name`, or the folder `name` relative to `root`. Raises TrainingError where there is
    none."""
    folder = SHIPPED / name if (SHIPPED / name).is_dir() else root / name
    try:
        described = json.loads((folder / "config.json").read_text())
        tokenizer = (folder / "tokenizer.json").read_text()
        return Backbone(
            folder, {key: described[key] for key in SHAPE}, tokenizer, {"name": name, **described["provenance"]}
        )
    except OSError:
        raise TrainingError(f"{folder} is no backbone: it has no config.json or no tokenizer.json") from None
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{folder / 'config.json'} doesn't describe a backbone ({error}); copy the folder again"
        ) from None


def ensure_writable(folder: Path) -> None:
    """See that a backbone may be written to `folder`; see `model.folders.ensure_writable`."""
    folders.ensure_writable(folder, WEIGHTS, ("config.json", "tokenizer.json", "README.md"))


def write(folder: Path, network: BEExformer, tokenizer: str, provenance: dict[str, Any]) -> None:
    """Write a full-precision network without its heads, and what it is. Raises TrainingError as `ensure_writable`."""
    ensure_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, parameter in _parts(network):
        array = parameter.detach().numpy()
        if array.ndim == 2:
            tensors[name], tensors[f"{name}.scale"] = quantize(array)
        else:
            tensors[name] = array.copy()
    (folder / WEIGHTS).write_bytes(save(tensors))
    (folder / "tokenizer.json").write_text(tokenizer)
    described = {key: getattr(network.config, key) for key in SHAPE} | {"provenance": provenance}
    (folder / "config.json").write_text(json.dumps(described, indent=1) + "\n")
    (folder / "README.md").write_text(_card(folder.name, network, provenance))


def _card(name: str, network: BEExformer, provenance: dict[str, Any]) -> str:
    config = network.config
    text = "\n".join(
        f"- {table['rows']:,} rows ({table['form']}) of {table['file']}" for table in provenance["recipe"]["text"]
    )
    return f"""# {name}

What training starts from: a BEExformer without heads, {config.n_block} blocks of width {config.d_model} with
{config.n_head} heads, distilled from the states and sentence vectors of the encoder `{provenance["encoder"]}` (packages
in training/encoders.py; Apache-2.0) by `beexformer distill`. It has seen no label. It can't answer anything by itself.

Text it read:

{text}

Rows of development and test files that its recipe names were kept out. The recipe and the last losses are in
config.json. It repeats the biases of that text and of the encoder. IMDB reviews (Maas et
al. 2011) come without a stated licence, Wikinews is CC BY, Wikipedia CC BY-SA.
"""


def _parts(network: BEExformer) -> list[tuple[str, Tensor]]:
    return [(name, p) for name, p in network.named_parameters() if not name.startswith(("heads.", "exact_match"))]
