"""
A backbone: embedding and blocks without heads, distilled once and task-free, that every task's training starts from.

A folder: config.json (shape, provenance), tokenizer.json, README.md and model.safetensors. Matrices are int8 rows with
a scale each, `NAME` and `NAME.scale`.

- a 1-bit one has the latent weights behind its signs, so that training can go on, thresholds and scales, and the
  embedding on the grid that checkpoints have (`embedding.rows`, `embedding.step`), and says on which numbers its
  attention is (`attention`). Heads alone make it a classifier (`training.frozen`)
- a full-precision one has real weights, of which bits begin (`training.full_precision`)

Either may have readers: a linear map [D, D] for each block from its mean state to the encoder's sentence vector.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import Tensor

from beexformer.model import folders
from beexformer.model.embedding import pack, quantize, unpack
from beexformer.model.errors import TrainingError
from beexformer.model.folders import replacing
from beexformer.training.network import BEExformer

SHIPPED = Path(__file__).parent / "backbones"
WEIGHTS = "model.safetensors"
SHAPE = ("d_model", "n_block", "n_head", "max_tokens", "carry")
"""Fields of a BEEConfig that a backbone fixes."""
READERS = "readers."


@dataclass(frozen=True)
class Backbone:
    """What a folder says; `shape` has the fields of `SHAPE` (a 1-bit one fixes `embedding` and `attention`
    too), `provenance` is JSON-ready."""

    folder: Path
    shape: dict[str, Any]
    binary: bool
    tokenizer: str
    provenance: dict[str, Any]

    @cached_property
    def tensors(self) -> dict[str, np.ndarray]:
        """As real numbers, by their names in the network: float32. Raises TrainingError where they can't be read."""
        path = self.folder / WEIGHTS
        try:
            result = load_file(path)
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{path} can't be read ({error}); copy it again") from None
        if "embedding.rows" in result:
            step = result.pop("embedding.step")
            result |= {"embedding.weight": unpack(result.pop("embedding.rows"), step), "embedding_step": step}
        scales = {name: result.pop(name) for name in [*result] if name.endswith(".scale")}
        return {
            name: array * scales[f"{name}.scale"][:, None] if array.dtype == np.int8 else array
            for name, array in result.items()
        }

    @property
    def readers(self) -> np.ndarray | None:
        """[C, D, D] float32: block by block, sentence vector = reader @ mean state; None where there are none."""
        names = [f"{READERS}{c}.weight" for c in range(self.shape["n_block"])]
        return np.stack([self.tensors[name] for name in names]) if names[0] in self.tensors else None

    def start(self, network: BEExformer) -> None:
        """Put embedding and blocks into a network of the same kind and shape. Raises TrainingError where it doesn't
        fit."""
        path = self.folder / WEIGHTS
        if network.config.binary != self.binary:
            kinds = ("full precision", "1-bit")
            raise TrainingError(f"{path} is {kinds[self.binary]}, the network {kinds[network.config.binary]}")
        with torch.no_grad():
            for name, tensor in _parts(network):
                array = self.tensors.get(name)
                if array is None or array.shape != tuple(tensor.shape):
                    raise TrainingError(f"{path}: tensor {name!r} is missing or of another shape than the network's")
                tensor.copy_(torch.from_numpy(array))


def read(name: str, root: Path) -> Backbone:
    """The shipped backbone `name`, or the folder `name` relative to `root`. Raises TrainingError where there is
    none."""
    folder = SHIPPED / name if (SHIPPED / name).is_dir() else root / name
    try:
        described = json.loads((folder / "config.json").read_text())
        tokenizer = (folder / "tokenizer.json").read_text()
        binary = bool(described.get("binary", False))
        shape = {key: described[key] for key in SHAPE}
        if binary:
            shape |= {"embedding": "int4+2", "attention": described.get("attention", "real")}
        return Backbone(folder, shape, binary, tokenizer, {"name": name, **described["provenance"]})
    except OSError:
        raise TrainingError(f"{folder} is no backbone: it has no config.json or no tokenizer.json") from None
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{folder / 'config.json'} doesn't describe a backbone ({error}); copy the folder again"
        ) from None


def ensure_writable(folder: Path) -> None:
    """See that a backbone may be written to `folder`; see `model.folders.ensure_writable`."""
    folders.ensure_writable(folder, WEIGHTS, ("config.json", "tokenizer.json", "README.md"))


def write(
    folder: Path,
    network: BEExformer,
    tokenizer: str,
    provenance: dict[str, Any],
    readers: Sequence[Tensor] | None = None,
) -> None:
    """Write a network without its heads, and what it is. Raises TrainingError as `ensure_writable`."""
    ensure_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    binary = network.config.binary
    tensors: dict[str, np.ndarray] = {}
    parts = dict(_parts(network))
    if binary:
        step = parts.pop("embedding_step").numpy()
        tensors["embedding.rows"] = pack(parts.pop("embedding.weight").detach().numpy(), step)
        tensors["embedding.step"] = step.copy()
    parts |= {f"{READERS}{c}.weight": reader for c, reader in enumerate(readers or ())}
    for name, tensor in parts.items():
        array = tensor.detach().numpy()
        if array.ndim == 2:
            tensors[name], tensors[f"{name}.scale"] = _quantized(array, f"{name.removesuffix('weight')}alpha" in parts)
        else:
            tensors[name] = array.copy()
    with replacing(folder / WEIGHTS) as partial:
        partial.write_bytes(save(tensors))
    (folder / "tokenizer.json").write_text(tokenizer)
    fields = (*SHAPE, "attention") if binary else SHAPE
    described = {"binary": binary} | {key: getattr(network.config, key) for key in fields} | {"provenance": provenance}
    (folder / "config.json").write_text(json.dumps(described, indent=1) + "\n")
    (folder / "README.md").write_text(_card(folder.name, network, provenance))


def _quantized(array: np.ndarray, signs: bool) -> tuple[np.ndarray, np.ndarray]:
    """int8 rows and their scales; with `signs`, what is negative stays so: a zero would count as +1."""
    rows, scale = quantize(array)
    if signs:
        rows[(rows == 0) & (array < 0)] = -1
    return rows, scale


def _card(name: str, network: BEExformer, provenance: dict[str, Any]) -> str:
    config = network.config
    text = "\n".join(
        f"- {table['rows']:,} rows ({table['form']}) of {table['file']}"
        for table in provenance.get("text", provenance["recipe"]["text"])
    )
    kind = "1-bit weights and activations" if config.binary else "full precision"
    return f"""# {name}

What training starts from: a BEExformer without heads, {config.n_block} blocks of width {config.d_model} with
{config.n_head} heads, {kind}, distilled from the states and sentence vectors of the encoder
`{provenance["encoder"]}` (packages in training/encoders.py; Apache-2.0). It has seen no label. It can't answer anything
by itself.

Text it read:

{text}

Rows of development and test files that its recipe names were kept out. The recipe and the last losses are in
config.json. It repeats the biases of that text and of the encoder. IMDB reviews (Maas et
al. 2011) come without a stated licence, Wikinews is CC BY, Wikipedia CC BY-SA.
"""


def _parts(network: BEExformer) -> list[tuple[str, Tensor]]:
    """Parameters and buffers but for heads, marks of pairs and positions."""
    others = ("heads.", "exact_match", "positions")
    named = [*network.named_parameters(), *network.named_buffers()]
    return [(name, tensor) for name, tensor in named if not name.startswith(others)]
