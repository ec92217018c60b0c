"""
A checkpoint is a folder: config.json, model.safetensors, tokenizer.json, evaluation.json, README.md.

config.json describes the network and carries the SHA-256 of its four neighbours and of its own content. Reading checks
all of it, before anything is allocated for it, and refuses with one sentence that says what to do; nothing here ever
unpickles. Writing goes to a hidden folder beside it that is renamed into place, so a reader never sees half a
checkpoint. docs/design.md has the format as a table.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from beexformer.model import folders, manifest, signature, tensors
from beexformer.model.errors import CheckpointError
from beexformer.model.manifest import Manifest
from beexformer.model.options import ExitOptions, resolve

SHIPPED = Path(__file__).parent / "checkpoints"
FORMAT = 4
READABLE = (1, 2, 3, 4)  # every version that was ever shipped
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FILES = (WEIGHTS, "tokenizer.json", "evaluation.json", "README.md")
LARGEST_TEXT = 64 << 20  # bytes of any file but the weights, whose size follows from the config
LARGEST_HEADER = 1 << 20
FETCH_AGAIN = "copy the folder again or export it anew with `beexformer train`"


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Manifest):
    """What a folder holds, verified: tensors by name as `tensors.spec` lists them."""

    tensors: Mapping[str, np.ndarray]
    tokenizer: str
    evaluation: dict[str, Any] = field(default_factory=dict)
    card: str = ""
    size_bytes: int = 0
    format_version: int = FORMAT

    @property
    def default_delta(self) -> float:
        """The delta in effect where a request asks for nothing."""
        options = {name: profile.options for name, profile in self.profiles.items()}
        return resolve(ExitOptions(), defaults=self.exit, profiles=options, config=self.config, model=self.name).delta


def ensure_writable(folder: Path) -> None:
    """See that a checkpoint may be written to `folder`; see `model.folders.ensure_writable`."""
    folders.ensure_writable(folder, WEIGHTS, (CONFIG, CONFIG + signature.SUFFIX, *FILES))


def save(checkpoint: Checkpoint, folder: Path) -> None:
    """Write `folder`, replacing a checkpoint that stands there, in one rename. Raises TrainingError where something
    else stands."""
    ensure_writable(folder)
    tensors.check(checkpoint.tensors, _spec(checkpoint), folder, FETCH_AGAIN)
    contents = {
        WEIGHTS: tensors.to_bytes(checkpoint.tensors),
        "tokenizer.json": checkpoint.tokenizer.encode(),
        "evaluation.json": _json(checkpoint.evaluation),
        "README.md": checkpoint.card.encode(),
    }
    described = {
        "format_version": FORMAT,
        **manifest.to_json(checkpoint),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    described["digest"] = digest(described)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        new = Path(beside) / "new"
        new.mkdir()
        for name, content in {**contents, CONFIG: _json(described)}.items():
            (new / name).write_bytes(content)
        if folder.exists():
            folder.rename(Path(beside) / "old")
        new.rename(folder)


def read(folder: Path, trusted_key: str | None = None) -> Checkpoint:
    """Read and verify a folder. With `trusted_key`, a public key of minisign, config.json must be signed by it, and so
    is all that it has digests of. Raises CheckpointError, one sentence, for whatever is wrong."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no checkpoint folder; give the folder that holds {CONFIG}")
    stated, described, version = _described(folder, trusted_key)
    contents = {}
    for name, (most, wanted) in _expected(stated, described).items():
        contents[name] = content = _content(folder / name, most)
        if hashlib.sha256(content.data).hexdigest() != wanted:
            raise CheckpointError(f"{folder / name} is damaged: its SHA-256 is not the one in {CONFIG}; {FETCH_AGAIN}")
    return Checkpoint(
        **{each.name: getattr(described, each.name) for each in fields(Manifest)},
        tensors=_tensors(contents[WEIGHTS], described, version, folder / WEIGHTS),
        tokenizer=_decoded(contents["tokenizer.json"], folder / "tokenizer.json"),
        evaluation=_evaluation(contents["evaluation.json"], folder / "evaluation.json"),
        card=_decoded(contents["README.md"], folder / "README.md"),
        format_version=version,
        size_bytes=sum(content.size for content in contents.values()) + (folder / CONFIG).stat().st_size,
    )


def expected(folder: Path, trusted_key: str | None = None) -> dict[str, tuple[int, str]]:
    """Of a folder that has only config.json as yet: the other files, the bytes that each may have, and its SHA-256.
    Raises CheckpointError, as `read` does."""
    stated, described, _ = _described(folder, trusted_key)
    return _expected(stated, described)


def digest(described: Mapping[str, Any]) -> str:
    """SHA-256 of config.json's content but `digest` itself, as JSON with sorted keys and no blanks between them."""
    content = {name: value for name, value in described.items() if name != "digest"}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _described(folder: Path, trusted_key: str | None) -> tuple[dict[str, Any], Manifest, int]:
    """config.json: as it stands, what it means, and its format version."""
    path = folder / CONFIG
    content = _content(path, LARGEST_TEXT)
    if trusted_key is not None:
        signature.verify(path, content.tobytes(), trusted_key)
    stated = _parsed(content, path)
    version = stated.get("format_version")
    if type(version) is not int or version not in READABLE:
        raise CheckpointError(
            f"{folder} has checkpoint format {version!r} and this release reads {', '.join(map(str, READABLE))}; "
            "export it anew with `beexformer train` or install the release that wrote it"
        )
    digests = stated.get("sha256")
    if not isinstance(digests, dict) or set(digests) != set(FILES):
        raise CheckpointError(f"{path} must list the SHA-256 of {', '.join(FILES)}; {FETCH_AGAIN}")
    if version >= 4 and stated.get("digest") != digest(stated):
        raise CheckpointError(f"{path} is damaged: the SHA-256 of its content is not its digest; {FETCH_AGAIN}")
    meant = {name: value for name, value in stated.items() if name not in ("format_version", "sha256", "digest")}
    try:
        return stated, (manifest.from_json if version >= 4 else manifest.from_json_of_old)(meant), version
    except KeyError as error:
        raise CheckpointError(f"{path} doesn't describe a network (it lacks {error}); {FETCH_AGAIN}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} doesn't describe a network ({error}); {FETCH_AGAIN}") from None


def _spec(described: Manifest) -> tensors.Spec:
    return tensors.spec(described.config, described.candidate_labels)


def _expected(stated: Mapping[str, Any], described: Manifest) -> dict[str, tuple[int, str]]:
    weights = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for dtype, shape in _spec(described).values())
    most = dict.fromkeys(FILES, LARGEST_TEXT) | {WEIGHTS: LARGEST_HEADER + weights}
    return {name: (most[name], stated["sha256"][name]) for name in FILES}


def _tensors(content: np.ndarray, described: Manifest, version: int, where: Path) -> Mapping[str, np.ndarray]:
    wanted = _spec(described)
    if version >= 4:
        result = tensors.from_file(content, wanted, where, FETCH_AGAIN)
        tensors.check(result, wanted, where, FETCH_AGAIN)
        return result
    try:
        named = load_tensors(content.tobytes())
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{where} can't be read ({error}); {FETCH_AGAIN}") from None
    tensors.check(named, tensors.named_spec(described.config), where, FETCH_AGAIN)
    return tensors.stack(named, described.config)


def _evaluation(content: np.ndarray, where: Path) -> dict[str, Any]:
    """Shown to users and free but for its outermost form."""
    result = _parsed(content, where)
    for split in ("dev", "test"):
        if not isinstance(result.get(split, {}), dict):
            raise CheckpointError(f"{where}: {split} must be an object; {FETCH_AGAIN}")
    return result


def _content(path: Path, most: int) -> np.ndarray:
    """A file's bytes [size] uint8, the first of them aligned; one that is larger than `most` isn't read."""
    try:
        if not path.is_file():
            raise CheckpointError(f"{path} can't be read (no such file); {FETCH_AGAIN}")
        size = path.stat().st_size
        if size > most:
            raise CheckpointError(f"{path} has {size} bytes, far more than it can need; {FETCH_AGAIN}")
        space = np.empty(size + tensors.ALIGNMENT, np.uint8)
        first = -space.ctypes.data % tensors.ALIGNMENT
        content = space[first : first + size]
        with path.open("rb") as file:
            read = file.readinto(content.data)
        return content[:read]
    except OSError as error:
        raise CheckpointError(f"{path} can't be read ({error.strerror}); {FETCH_AGAIN}") from None


def _decoded(content: np.ndarray, path: Path) -> str:
    try:
        return content.tobytes().decode()
    except UnicodeDecodeError:
        raise CheckpointError(f"{path} is no UTF-8 text; {FETCH_AGAIN}") from None


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _parsed(content: np.ndarray, path: Path) -> dict[str, Any]:
    try:
        return manifest.parse(content.tobytes())
    except ValueError as error:
        raise CheckpointError(f"{path} can't be understood: {error}; {FETCH_AGAIN}") from None
