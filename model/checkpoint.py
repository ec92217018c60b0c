"""
A checkpoint is a folder: config.json, model.safetensors, tokenizer.json, evaluation.json, README.md.

config.json carries the format version, the network's config, the labels and the SHA-256 of its four neighbours. Reading
checks all of it and refuses with one sentence that says what to do; nothing here ever unpickles. Writing goes to a
hidden folder beside it that is renamed into place, so a reader never sees half a checkpoint.
"""

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from beexformer.model import folders
from beexformer.model.config import BEEConfig
from beexformer.model.embedding import SCALES, packed_bytes
from beexformer.model.errors import CheckpointError

SHIPPED = Path(__file__).parent / "checkpoints"
FORMAT = 3
READABLE = (1, 2, 3)  # every version that was ever shipped
WEIGHTS = "model.safetensors"
FILES = (WEIGHTS, "tokenizer.json", "evaluation.json", "README.md")
FETCH_AGAIN = "copy the folder again or export it anew with `beexformer train`"


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds, verified: tensors by name as `tensor_spec` lists them."""

    name: str
    config: BEEConfig
    labels: tuple[str, ...]
    default_delta: float
    tensors: dict[str, np.ndarray]
    tokenizer: str
    evaluation: dict[str, Any]
    card: str
    size_bytes: int = 0
    format_version: int = FORMAT


def tensor_spec(config: BEEConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (dtype, shape) of every tensor in a checkpoint of this config."""
    D = config.d_model
    int8 = config.embedding == "int8"
    spec: dict[str, tuple[str, tuple[int, ...]]] = {
        "embedding.rows": ("int8" if int8 else "uint8", (config.vocab_size, D // 2 if int8 else packed_bytes(D // 2))),
        SCALES[config.embedding]: ("float32", (config.vocab_size if int8 else D // 2,)),
    }
    if config.exact_match:
        spec["exact_match"] = ("float32", (4, D))  # by token type, from 1

    def linear(name: str, k: int, n: int, thresholds: int = 1) -> None:
        spec[f"{name}.words"] = ("uint64", (k // 64, n))
        spec[f"{name}.alpha"] = spec[f"{name}.bias"] = ("float32", (n,))
        spec[f"{name}.beta"] = ("float32", (k,) if thresholds == 1 else (thresholds, k))

    for c in range(1, config.n_block + 1):
        linear(f"blocks.{c}.qkv", D, 3 * D)
        linear(f"blocks.{c}.o", D, D)
        linear(f"blocks.{c}.gates_h", D, 3 * D)
        linear(f"blocks.{c}.gates_x", D, 2 * D)
        for norm in ("norm_x", "norm_h"):
            spec[f"blocks.{c}.{norm}.weight"] = spec[f"blocks.{c}.{norm}.bias"] = ("float32", (D,))
    for c in config.exits:
        linear(f"heads.{c}.hidden", D, config.d_head, config.head_thresholds)
        linear(f"heads.{c}.out", config.d_head, config.n_class)
    return spec


def ensure_writable(folder: Path) -> None:
    """See that a checkpoint may be written to `folder`; see `model.folders.ensure_writable`."""
    folders.ensure_writable(folder, WEIGHTS, ("config.json", *FILES))


def save(checkpoint: Checkpoint, folder: Path) -> None:
    """Write `folder`, replacing a checkpoint that stands there, in one rename. Raises TrainingError where something
    else stands."""
    ensure_writable(folder)
    _check_tensors(checkpoint.config, checkpoint.tensors, folder)
    contents = {
        WEIGHTS: save_tensors(checkpoint.tensors),
        "tokenizer.json": checkpoint.tokenizer.encode(),
        "evaluation.json": _json(checkpoint.evaluation),
        "README.md": checkpoint.card.encode(),
    }
    described = {
        "format_version": FORMAT,
        "name": checkpoint.name,
        "network": checkpoint.config.to_dict(),
        "labels": list(checkpoint.labels),
        "default_delta": checkpoint.default_delta,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        new = Path(beside) / "new"
        new.mkdir()
        for name, content in {**contents, "config.json": _json(described)}.items():
            (new / name).write_bytes(content)
        if folder.exists():
            folder.rename(Path(beside) / "old")
        new.rename(folder)


def read(folder: Path) -> Checkpoint:
    """Read and verify a folder. Raises CheckpointError, one sentence, for whatever is wrong with it."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no checkpoint folder; give the folder that holds config.json")
    described = _parse(_bytes(folder / "config.json"), folder / "config.json")
    version = described.get("format_version")
    if version not in READABLE:
        raise CheckpointError(
            f"{folder} has checkpoint format {version!r} and this release reads {', '.join(map(str, READABLE))}; "
            "export it anew with `beexformer train` or install the release that wrote it"
        )
    digests = described.get("sha256")
    if not isinstance(digests, dict) or set(digests) != set(FILES):
        raise CheckpointError(f"{folder / 'config.json'} must list the SHA-256 of {', '.join(FILES)}; {FETCH_AGAIN}")
    contents = {}
    for name in FILES:
        contents[name] = _bytes(folder / name)
        if hashlib.sha256(contents[name]).hexdigest() != digests[name]:
            raise CheckpointError(
                f"{folder / name} is damaged: its SHA-256 is not the one in config.json; {FETCH_AGAIN}"
            )
    try:
        config = BEEConfig(**described["network"])
        labels = tuple(str(label) for label in described["labels"])
        name, delta = str(described["name"]), float(described["default_delta"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / 'config.json'} doesn't describe a network ({error}); {FETCH_AGAIN}") from None
    if len(labels) != config.n_class or len(set(labels)) != len(labels):
        raise CheckpointError(f"{folder / 'config.json'} must name {config.n_class} different labels; {FETCH_AGAIN}")
    if not -1 <= delta <= 1:
        raise CheckpointError(f"{folder / 'config.json'} has default_delta {delta}, not in [-1, 1]; {FETCH_AGAIN}")
    if not config.binary or config.slfn != "depth":
        raise CheckpointError(f"{folder} is a full-precision or time-reading network; only 1-bit depth ones are served")
    try:
        # copied: what safetensors returns are read-only views into one buffer, at any alignment
        tensors = {name: tensor.copy() for name, tensor in load_tensors(contents[WEIGHTS]).items()}
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} can't be read ({error}); {FETCH_AGAIN}") from None
    _check_tensors(config, tensors, folder / WEIGHTS)
    return Checkpoint(
        name=name,
        config=config,
        labels=labels,
        default_delta=delta,
        tensors=tensors,
        tokenizer=contents["tokenizer.json"].decode(),
        evaluation=_parse(contents["evaluation.json"], folder / "evaluation.json"),
        card=contents["README.md"].decode(),
        format_version=version,
        size_bytes=sum(map(len, contents.values())) + (folder / "config.json").stat().st_size,
    )


def _check_tensors(config: BEEConfig, tensors: dict[str, np.ndarray], path: Path) -> None:
    spec = tensor_spec(config)
    for kind, names in (("lacks", spec.keys() - tensors.keys()), ("has a foreign", tensors.keys() - spec.keys())):
        if names:
            raise CheckpointError(f"{path} {kind} tensor {min(names)!r}; {FETCH_AGAIN}")
    for name, (dtype, shape) in spec.items():
        found = tensors[name]
        if found.dtype != dtype or found.shape != shape:
            raise CheckpointError(
                f"{path}: tensor {name!r} is {found.dtype} {list(found.shape)} and must be {dtype} {list(shape)}; "
                + FETCH_AGAIN
            )
        if dtype == "float32" and not np.isfinite(found).all():
            raise CheckpointError(f"{path}: tensor {name!r} holds NaN or infinity; {FETCH_AGAIN}")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} can't be read ({error.strerror}); {FETCH_AGAIN}") from None


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _parse(content: bytes, path: Path) -> dict[str, Any]:
    try:
        parsed = json.loads(content)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{path} is no JSON object; {FETCH_AGAIN}")
    return parsed
