"""
Which checkpoints are served, and how that changes while the service runs: SIGHUP loads all of them anew, /admin changes
one. The parent of the workers does it, and only puts workers in the place of others when everything is verified: every
digest, the stored probes' answers, a real forward. Where something is wrong, what was served is served on.
"""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from beexformer.app.settings import Settings
from beexformer.model.engine import Engine
from beexformer.model.errors import BEEError
from beexformer.model.registry import Registry

log = logging.getLogger("bee.deployment")


class ChangeRefused(BEEError):
    """What is served stays as it is."""


@dataclass(frozen=True, slots=True)
class Change:
    """Of one model; `folder` is what a load reads."""

    kind: Literal["load", "reload", "unload"]
    name: str
    folder: str | None = None


class Deployment:
    """The parent's side. `registry` is what is served."""

    def __init__(self, settings: Settings, load: Callable[..., Engine]) -> None:
        self._settings, self._load = settings, trusting(settings, load)
        self._loaded: dict[str, Path] = {}  # over /admin
        self._unloaded: set[str] = set()
        self.registry = load_registry(settings, load)

    def renew(self, asked: dict[str, Any]) -> Registry:
        """What shall be served from now on: the change that a worker asks for, or at a SIGHUP, {}, all checkpoints
        anew. Raises BEEError."""
        if asked:
            change = Change(**asked)
            self.registry = self._changed(change)
            log.info("changed", extra={"fields": {"change": change.kind, "model": change.name}})
        else:
            self.registry = self._all_anew()
        return self.registry

    def _all_anew(self) -> Registry:
        registry = load_registry(self._settings, self._load)
        for name in self._unloaded & registry.folders.keys():
            registry = registry.without(name)
        for folder in self._loaded.values():
            registry = registry.with_engine(self._read(folder), folder)
        registry.warm()
        return registry

    def _read(self, folder: Path) -> Engine:
        engine = self._load(folder)
        if defaults := self._settings.model_defaults.get(engine.name):
            engine.set_defaults(defaults)
        return engine

    def _changed(self, change: Change) -> Registry:
        if change.kind == "unload":
            registry = self.registry.without(change.name)
            self._loaded.pop(change.name, None)
            self._unloaded.add(change.name)
            return registry
        known = change.name in self.registry.folders
        if change.kind == "load" and known:
            raise ChangeRefused(f"model {change.name!r} is loaded already; reload it, or unload it first")
        folder = Path(change.folder) if change.folder else self.registry.folder(change.name)
        engine = self._read(folder)
        if engine.name != change.name:
            raise ChangeRefused(f"{folder.name} holds model {engine.name!r}, not {change.name!r}")
        engine.warm()
        engine.calibrate(next((other for other in self.registry if other.shape == engine.shape), None))
        if change.kind == "load":
            self._loaded[engine.name] = folder
            self._unloaded.discard(engine.name)
        return self.registry.with_engine(engine, folder)


def load_registry(settings: Settings, load: Callable[..., Engine] = Engine.load) -> Registry:
    """The checkpoints that the settings name, read and verified. BEEError says in one sentence what is wrong."""
    registry = Registry(settings.checkpoints, settings.default_model, trusting(settings, load))
    for name, defaults in settings.model_defaults.items():
        registry.get(name).set_defaults(defaults)
    return registry


def trusting(settings: Settings, load: Callable[..., Engine]) -> Callable[[Path], Engine]:
    """`load`, asking for a signature where the settings have a key."""
    return functools.partial(load, trusted_key=settings.trusted_key) if settings.trusted_key else load


def below_roots(folder: str, roots: tuple[Path, ...]) -> Path:
    """`folder`, which may be relative to one of `roots`, where it really is. Raises ChangeRefused for any other."""
    for root in (root.resolve() for root in roots):
        found = (root / folder).resolve()  # links followed: what lies elsewhere is elsewhere
        if found.is_relative_to(root) and found.is_dir():
            return found
    raise ChangeRefused("there is no such folder below the configured roots (BEE_CHECKPOINT_ROOTS)")
