"""
Named checkpoints to engines. Knows folders and engines; nothing of HTTP.

Loading reads and verifies every checkpoint (a fraction of a second) and happens when the registry is made, so that a
damaged one ends the process before it listens. Warming compiles the kernels or loads them from the cache and runs a
real forward; it may take long and comes after.
"""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from beexformer.model.checkpoint import SHIPPED
from beexformer.model.engine import Engine
from beexformer.model.errors import BEEError, CheckpointError, UnknownModel

SHIPPED_DEFAULT = "sst2"  # the first in the alphabet would say of every review whether it is good English


Place = Path | str
"""A folder; or what else `load` can get a checkpoint from, as the URL of one."""


class Registry:
    """The loaded engines by the names in their checkpoints, and how far they are: starting, ready or failed.

    Without `paths` they are the shipped ones. `default` answers where no model is named: of the shipped ones `sst2`,
    of others the first, unless stated.
    """

    def __init__(
        self, paths: Sequence[Place], default: str | None, load: Callable[[Any], Engine] = Engine.load
    ) -> None:
        self._engines: dict[str, Engine] = {}
        self.folders: dict[str, Place] = {}
        self.state: Literal["starting", "ready", "failed"] = "starting"
        for path in paths or [SHIPPED]:
            for place in [path] if isinstance(path, str) else checkpoint_folders(path):
                engine = load(place)
                if engine.name in self._engines:
                    raise _second(place, engine.name)
                self._engines[engine.name], self.folders[engine.name] = engine, place
        self.default = default or (next(iter(self._engines)) if paths else SHIPPED_DEFAULT)
        self.get(self.default)

    def __iter__(self) -> Iterator[Engine]:
        return iter(self._engines.values())

    def get(self, name: str | None = None) -> Engine:
        """The engine of that name, or the default one."""
        try:
            return self._engines[self.default if name is None else name]
        except KeyError:
            raise UnknownModel(
                f"no model is named {name or self.default!r}; loaded: {', '.join(self._engines)}"
            ) from None

    def folder(self, name: str) -> Place:
        """Where that engine was read from."""
        return self.folders[self.get(name).name]

    def with_engine(self, engine: Engine, folder: Place) -> "Registry":
        """Another registry, with this engine, which is warm, instead of the one of its name or beside the others."""
        return self._of({**self._engines, engine.name: engine}, {**self.folders, engine.name: folder})

    def without(self, name: str) -> "Registry":
        """Another registry, without that one. Raises BEEError for the default one."""
        if self.get(name).name == self.default:
            raise BEEError(f"model {name!r} answers requests that name none; it stays")
        return self._of(
            {other: engine for other, engine in self._engines.items() if other != name},
            {other: folder for other, folder in self.folders.items() if other != name},
        )

    def _of(self, engines: dict[str, Engine], folders: dict[str, Place]) -> "Registry":
        other = copy.copy(self)
        other._engines, other.folders = engines, folders
        return other

    def warm(self) -> None:
        """One test inference of every engine; only then is the state "ready"."""
        try:
            for engine in self:
                engine.warm()
        except Exception:  # raised again: only the state is noted here
            self.state = "failed"
            raise
        self.state = "ready"


def load_one(paths: Sequence[Path], name: str | None) -> Engine:
    """The engine that `Registry(paths, name)` answers with, without loading the others. `paths` are folders."""
    folders = [folder for path in paths or [SHIPPED] for folder in checkpoint_folders(path)]
    name = name or (None if paths else SHIPPED_DEFAULT)
    if name is None:
        return Engine.load(folders[0])
    named: dict[str, Path] = {}
    for folder in folders:
        if named.setdefault(_name(folder), folder) != folder:
            raise _second(folder, _name(folder))
    if name not in named:
        raise UnknownModel(f"no model is named {name!r}; there are {', '.join(named)}")
    return Engine.load(named[name])


def _second(place: Place, name: str) -> CheckpointError:
    return CheckpointError(f"{place} is a second checkpoint named {name!r}; serve one of them")


def _name(folder: Path) -> str:
    """What the checkpoint in a folder is called. Raises CheckpointError where that can't be read."""
    try:
        return str(json.loads((folder / "config.json").read_bytes())["name"])
    except (OSError, ValueError, LookupError, TypeError):
        return Engine.load(folder).name  # which says what is wrong with it


def checkpoint_folders(path: Path) -> list[Path]:
    """`path` itself, or the checkpoints in it when it is a folder of folders."""
    if not path.is_dir():
        raise CheckpointError(f"{path} is no folder; give a checkpoint folder or a folder of them")
    # hidden ones are what an export was writing when it was interrupted
    inner = sorted(result for result in path.iterdir() if result.is_dir() and not result.name.startswith((".", "__")))
    if inner and not (path / "config.json").exists():
        return inner
    if any(path.iterdir()):
        return [path]  # loading it says what it lacks
    raise CheckpointError(f"{path} holds no checkpoint; train one with `beexformer train` or give another folder")
