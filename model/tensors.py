"""
Which tensors a checkpoint of a config holds, and how its weights file lies on disk.

Two arrangements of the same numbers:

- stacked (format 4): as the kernels read them, blocks and heads along a leading axis, weights in tiles. Every tensor
  fills whole runs of 64 bytes and begins at one, so the file is used as it was read, or mapped, without a copy
- named (formats 1 to 3, and what training speaks of): block by block, head by head, without padding

`stack` and `unstack` translate. What fills up rows and outputs is zero.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_tensors

from beexformer.model import bits
from beexformer.model.config import BEEConfig
from beexformer.model.embedding import SCALES, packed_bytes
from beexformer.model.errors import CheckpointError

Spec = dict[str, tuple[str, tuple[int, ...]]]
"""Name -> (dtype, shape)."""

ALIGNMENT = 64  # bytes: a cache line, and the widest load there is
ROWS = 64  # the embedding's rows are filled up to a multiple, so that what follows them is aligned too
BEYOND = 1e6
"""No number of a trained network is as large; and with none larger no sum of the kernels can overflow."""
READERS = ("readers.weight", "readers.scale")
"""An exit's linear map from its mean state to a sentence vector: rows of 8 bits and the scale of each."""
DTYPES = {"int8": "I8", "uint8": "U8", "uint64": "U64", "float32": "F32"}


def spec(config: BEEConfig, readers: bool = False) -> Spec:
    """The stacked tensors of a checkpoint of this config; with `readers`, those of mean states too (`READERS`)."""
    V = _up(config.vocab_size, ROWS)
    result = _embedding(config, V)
    C, E, T = config.n_block, len(config.exits), config.head_thresholds

    def layer(name: str, count: int, k: int, n: int, thresholds: int = 1) -> None:
        width = _up(n, bits.GROUP)
        result[f"{name}.words"] = ("uint64", (count, width // bits.TILE, k // bits.WORD, bits.TILE))
        result[f"{name}.alpha"] = result[f"{name}.bias"] = ("float32", (count, width))
        result[f"{name}.threshold"] = ("float32", (count, thresholds * k))

    for name, k, n in _block_layers(config):
        layer(f"blocks.{name}", C, k, n)
    for norm in ("norm_x", "norm_h"):
        result[f"blocks.{norm}.weight"] = result[f"blocks.{norm}.bias"] = ("float32", (C, config.d_model))
    if config.head == "linear":
        width = _up(config.n_class, bits.TILE)
        result["heads.weight"] = ("int8", (E, width // bits.TILE, config.head_inputs, bits.TILE))
        result["heads.scale"] = result["heads.bias"] = ("float32", (E, width))
    else:
        layer("heads.hidden", E, config.d_model, config.d_head, T)
        layer("heads.out", E, config.d_head, config.n_class)
    if readers:
        weight, scale = READERS
        result[weight] = ("int8", (E, config.d_model, config.d_model))
        result[scale] = ("float32", (E, config.d_model))
    return result


def named_spec(config: BEEConfig) -> Spec:
    """The same tensors block by block and head by head."""
    result = _embedding(config, config.vocab_size)

    def layer(name: str, k: int, n: int, thresholds: int = 1) -> None:
        result[f"{name}.words"] = ("uint64", (k // bits.WORD, n))
        result[f"{name}.alpha"] = result[f"{name}.bias"] = ("float32", (n,))
        result[f"{name}.beta"] = ("float32", (k,) if thresholds == 1 else (thresholds, k))

    for c in range(1, config.n_block + 1):
        for name, k, n in _block_layers(config):
            layer(f"blocks.{c}.{name}", k, n)
        for norm in ("norm_x", "norm_h"):
            result[f"blocks.{c}.{norm}.weight"] = result[f"blocks.{c}.{norm}.bias"] = ("float32", (config.d_model,))
    for c in config.exits:
        if config.head == "linear":
            result[f"heads.{c}.weight"] = ("int8", (config.n_class, config.head_inputs))
            result[f"heads.{c}.scale"] = result[f"heads.{c}.bias"] = ("float32", (config.n_class,))
        else:
            layer(f"heads.{c}.hidden", config.d_model, config.d_head, config.head_thresholds)
            layer(f"heads.{c}.out", config.d_head, config.n_class)
    return result


def _embedding(config: BEEConfig, rows: int) -> Spec:
    half, int8 = config.d_model // 2, config.embedding == "int8"
    result: Spec = {
        "embedding.rows": ("int8" if int8 else "uint8", (rows, half if int8 else packed_bytes(half))),
        SCALES[config.embedding]: ("float32", (rows if int8 else half,)),
    }
    if config.exact_match:
        result["exact_match"] = ("float32", (4, config.d_model))  # by token type, from 1
    return result


def _block_layers(config: BEEConfig) -> list[tuple[str, int, int]]:
    """Name, inputs and outputs of a block's layers."""
    D = config.d_model
    return [("qkv", D, 3 * D), ("o", D, D), ("gates_h", D, 3 * D), ("gates_x", D, 2 * D)]


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


# ---------------------------------------------------------------- from one arrangement to the other


def stack(named: Mapping[str, np.ndarray], config: BEEConfig) -> dict[str, np.ndarray]:
    """Named tensors -> stacked ones."""
    wanted = spec(config)
    result: dict[str, list[np.ndarray]] = {}
    for name in named_spec(config):
        place, array = _stacked_name(name), named[name]
        part = name.rpartition(".")[2]
        if part == "words":
            array = bits.tile(array)
        elif part == "beta":  # x + beta < 0 exactly where x < -beta
            array = -array.reshape(-1)
        elif place == "heads.weight":
            padded = np.pad(array, ((0, -len(array) % bits.TILE), (0, 0)))
            array = padded.reshape(-1, bits.TILE, array.shape[1]).transpose(0, 2, 1)
        else:  # filled up along its first axis
            full = wanted[place][1][0 if _alone(place) else 1]
            array = np.pad(array, [(0, full - len(array)), *[(0, 0)] * (array.ndim - 1)])
        result.setdefault(place, []).append(array)
    return {name: np.ascontiguousarray(parts[0] if _alone(name) else np.stack(parts)) for name, parts in result.items()}


def unstack(stacked: Mapping[str, np.ndarray], config: BEEConfig) -> dict[str, np.ndarray]:
    """Stacked tensors -> named ones; copies."""
    result = {}
    for name, (_, shape) in named_spec(config).items():
        place = _stacked_name(name)
        array = stacked[place] if _alone(place) else stacked[place][_index(name, config)]
        part = name.rpartition(".")[2]
        if part == "words":
            array = bits.untile(array)[:, : shape[1]]
        elif part == "beta":
            array = -array.reshape(shape)
        elif place == "heads.weight":
            array = array.transpose(0, 2, 1).reshape(-1, shape[1])
        result[name] = np.array(array if part == "words" else array[: shape[0]], order="C")
    return result


def _alone(place: str) -> bool:
    """Whether there is one for the whole network."""
    return not place.startswith(("blocks.", "heads."))


def _stacked_name(name: str) -> str:
    if _alone(name):
        return name
    kind, _, rest = name.split(".", 2)
    return f"{kind}.{rest.removesuffix('beta')}threshold" if rest.endswith("beta") else f"{kind}.{rest}"


def _index(name: str, config: BEEConfig) -> int:
    kind, c, _ = name.split(".", 2)
    return int(c) - 1 if kind == "blocks" else config.exits.index(int(c))


# ---------------------------------------------------------------- what is allowed in them


def check(tensors: Mapping[str, np.ndarray], wanted: Spec, where: Path, advice: str) -> None:
    """Refuse, with CheckpointError, tensors that aren't exactly those of a spec, or numbers that no network has."""
    for kind, names in (("lacks", wanted.keys() - tensors.keys()), ("has a foreign", tensors.keys() - wanted.keys())):
        if names:
            raise CheckpointError(f"{where} {kind} tensor {min(names)!r}; {advice}")
    for name, (dtype, shape) in wanted.items():
        array = tensors[name]
        if array.dtype != dtype or array.shape != shape:
            raise CheckpointError(
                f"{where}: tensor {name!r} is {array.dtype} {list(array.shape)} and must be {dtype} {list(shape)}; "
                + advice
            )
        if dtype == "float32" and not np.isfinite(array).all():
            raise CheckpointError(f"{where}: tensor {name!r} holds NaN or infinity; {advice}")
        if dtype == "float32" and np.abs(array).max(initial=0) > BEYOND:
            raise CheckpointError(f"{where}: tensor {name!r} holds numbers beyond {BEYOND:g}; {advice}")


# ---------------------------------------------------------------- the file


def to_bytes(tensors: Mapping[str, np.ndarray]) -> bytes:
    """A safetensors file whose every tensor begins at a multiple of 64 bytes. The tensors' own sizes are multiples, and
    the header is filled up with blanks, as the format allows."""
    content: bytes = save_tensors(dict(tensors))
    header = int.from_bytes(content[:8], "little")
    blanks = -(8 + header) % ALIGNMENT
    return (header + blanks).to_bytes(8, "little") + content[8 : 8 + header] + b" " * blanks + content[8 + header :]


def from_file(content: np.ndarray, wanted: Spec, where: Path, advice: str) -> dict[str, np.ndarray]:
    """Views of the tensors in a file's bytes [size] uint8, whose first is aligned. Raises CheckpointError where the
    header isn't that of `wanted`: nothing is believed of it that a spec doesn't say."""
    result, start = {}, 8 + int.from_bytes(content[:8].tobytes(), "little")
    try:
        if not 8 < start <= content.size:
            raise ValueError("its header is longer than the file")
        header: dict[str, Any] = json.loads(content[8:start].tobytes())
        header.pop("__metadata__", None)
        for name, described in header.items():
            dtype, shape = wanted.get(name, ("uint8", ()))
            first, last = (start + int(offset) for offset in described["data_offsets"])
            if name not in wanted:
                result[name] = content[:0]  # `check` says so
                continue
            size = np.dtype(dtype).itemsize * int(np.prod(shape))
            if described["dtype"] != DTYPES[dtype] or tuple(described["shape"]) != shape or last - first != size:
                raise ValueError(
                    f"tensor {name!r} is {described['dtype']} {described['shape']} and must be {dtype} {list(shape)}"
                )
            if not start <= first <= last <= content.size or first % ALIGNMENT:
                raise ValueError(f"tensor {name!r} lies outside the file or isn't aligned")
            result[name] = content[first:last].view(dtype).reshape(shape)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{where} can't be read ({error}); {advice}") from None
    return result
