"""
Which checkpoints are served, and how that changes while the service runs: SIGHUP loads all of them anew, /admin changes
one. The parent of the workers does it, and only puts workers in the place of others when everything is verified: every
digest, the answers of stored self-test texts, a test inference. Where something is wrong, what was served stays.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from beexformer.app import store
from beexformer.app.errors import ChangeRefused
from beexformer.app.settings import Settings, place_of
from beexformer.model.engine import Engine
from beexformer.model.registry import Place, Registry

log = logging.getLogger("bee.deployment")


@dataclass(frozen=True, slots=True)
class Change:
    """Of one model; `folder` is what a load reads, or a URL."""

    kind: Literal["load", "reload", "unload"]
    name: str
    folder: str | None = None


@dataclass(frozen=True)
class _Served:
    """What is served, and how it differs from what the settings name."""

    registry: Registry
    loaded: Mapping[str, Place] = field(default_factory=dict)  # over /admin, by name
    unloaded: frozenset[str] = frozenset()


class Deployment:
    """The parent's side."""

    def __init__(self, settings: Settings, load: Callable[..., Engine]) -> None:
        self._settings, self._load = settings, load
        self._served = self._before = _Served(load_registry(settings, load))

    @property
    def registry(self) -> Registry:
        """What is served."""
        return self._served.registry

    def renew(self, asked: dict[str, Any]) -> Registry:
        """What shall be served from now on: the change that a worker asks for, or at a SIGHUP, {}, all checkpoints
        anew. Raises BEEError, and then what was served is served on."""
        if asked:
            change = Change(**asked)
            served = self._changed(change)
            log.info("changed", extra={"fields": {"change": change.kind, "model": change.name}})
        else:
            served = self._all_anew()
        self._before, self._served = self._served, served
        return self.registry

    def put_back(self) -> None:
        """The workers with what was renewed last didn't get to serve: what was served before is served on."""
        self._served = self._before

    def _all_anew(self) -> _Served:
        registry = load_registry(self._settings, self._load)
        for name in self._served.unloaded & registry.folders.keys():
            registry = registry.without(name)
        for folder in self._served.loaded.values():
            registry = registry.with_engine(self._read(folder), folder)
        registry.warm()
        return replace(self._served, registry=registry)

    def _read(self, place: Place) -> Engine:
        engine = reading(self._settings, self._load)(place)
        if defaults := self._settings.model_defaults.get(engine.name):
            engine.set_defaults(defaults)
        return engine

    def _changed(self, change: Change) -> _Served:
        registry, name = self.registry, change.name
        loaded, unloaded = {**self._served.loaded}, self._served.unloaded
        if change.kind == "unload":
            loaded.pop(name, None)
            return _Served(registry.without(name), loaded, unloaded | {name})
        known = name in registry.folders
        if change.kind == "load" and known:
            raise ChangeRefused(f"model {name!r} is loaded already; reload it, or unload it first")
        folder = place_of(change.folder) if change.folder else registry.folder(name)
        engine = self._read(folder)
        if engine.name != name:
            raise ChangeRefused(f"{Path(folder).name} holds model {engine.name!r}, not {name!r}")
        engine.warm()
        if change.kind == "load":
            loaded[name], unloaded = folder, unloaded - {name}
        return _Served(registry.with_engine(engine, folder), loaded, unloaded)


def load_registry(settings: Settings, load: Callable[..., Engine] = Engine.load) -> Registry:
    """The checkpoints that the settings name, read and verified. BEEError says in one sentence what is wrong."""
    registry = Registry(settings.checkpoints, settings.default_model, reading(settings, load))
    for name, defaults in settings.model_defaults.items():
        registry.get(name).set_defaults(defaults)
    return registry


def reading(settings: Settings, load: Callable[..., Engine]) -> Callable[[Place], Engine]:
    """`load` of folders and of URLs, asking for a signature where the settings have a key."""
    key = settings.trusted_key

    def read(place: Place) -> Engine:
        folder = store.local(place, settings.checkpoint_cache, key) if isinstance(place, str) else place
        return load(folder, trusted_key=key) if key else load(folder)

    return read


def below_roots(folder: str, roots: tuple[Place, ...]) -> Place:
    """`folder`, which may be relative to one of `roots`, where it really is. Raises ChangeRefused for any other."""
    if store.is_url(folder):
        if ".." not in folder and any(folder.startswith(f"{str(root).rstrip('/')}/") for root in roots):
            return folder
    else:
        for root in (root.resolve() for root in roots if isinstance(root, Path)):
            result = (root / folder).resolve()  # links followed: what lies elsewhere is elsewhere
            if result.is_relative_to(root) and result.is_dir():
                return result
    raise ChangeRefused("there is no such folder below the configured roots (BEE_CHECKPOINT_ROOTS)")
