"""
Compiled kernels on disk: what may be wrong with them, and how an image is filled with them ahead of time.

    python -m beexformer.model.kernel_cache [LEVEL ...]  compile for these levels, default: all;
         this CPU need not have them

They lie in NUMBA_CACHE_DIR, else beside the source or in the user's cache folder, as numba decides. Knows nothing of
what they compute.
"""

import contextlib
import hashlib
import logging
import multiprocessing
import os
import platform
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from numba import njit
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    InTreeCacheLocator,
    UserProvidedCacheLocator,
    UserWideCacheLocator,
)
from numba.core.runtime import rtsys

from beexformer.model.config import Attention
from beexformer.model.errors import BEEError
from beexformer.model.kernel_compiler import Whole

CHECKPOINTS = Path(__file__).parent / "checkpoints"
log = logging.getLogger("bee.kernels")
said: set[str] = set()
"""What the cache could not do so far."""


def cached(function: Callable[..., Any]) -> Any:
    """numba's njit without the GIL, for a kernel that is called from Python: compiled when it is first called, or taken
    from the cache. With a cache that is missing, full, read-only or damaged it is compiled in memory, and one warning
    says so; numba's own would raise."""
    kernel = njit(nogil=True, no_cfunc_wrapper=True, pipeline_class=Whole)(function)
    try:
        kernel._cache = _Cache(function)  # what cache=True does with a cache of numba's own
    except (RuntimeError, OSError) as error:  # no folder is there and none can be made
        _say("there is no folder to keep compiled kernels in", error)
    return kernel


def digest_of_sources() -> str:
    """Of all modules of `model`: numba looks at the kernel's own file alone, and what is compiled into it has parts and
    constants from others (the exit rule, vectors, configuration), which would go on as they were."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()


class _OfAllSources:
    def get_source_stamp(self) -> str:
        return digest_of_sources()


class _InTree(_OfAllSources, InTreeCacheLocator):  # type: ignore[misc]
    pass


class _UserWide(_OfAllSources, UserWideCacheLocator):  # type: ignore[misc]
    pass


class _GivenFolder(_OfAllSources, UserProvidedCacheLocator):  # type: ignore[misc]
    """NUMBA_CACHE_DIR, which numba wants to be writable even where it only reads."""

    def ensure_cache_path(self) -> None:
        with contextlib.suppress(OSError):  # if something is to be kept after all, that fails and says so
            super().ensure_cache_path()


class _Implementation(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_GivenFolder, _InTree, _UserWide)


class _Cache(FunctionCache):  # type: ignore[misc]
    _impl_class = _Implementation

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """As numba's own, but for all that it loads beforehand to be able to compile: a third of a second, and scipy
        where that is installed. What is compiled already needs numba's runtime only; compiling loads the rest then."""
        try:
            rtsys.initialize(target_context)
            with self._guard_against_spurious_io_errors():
                return self._load_overload(sig, target_context)
            return None
        except Exception as error:  # whatever a damaged file makes pickle and LLVM raise
            _say(f"compiled kernels in {self.cache_path} can't be read", error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            try:
                self._cache_file._load_index()
            except Exception:  # it is damaged: begin another one
                self.flush()
            super().save_overload(sig, data)
        except Exception as error:
            _say(f"compiled kernels can't be kept in {self.cache_path}", error)


def _say(what: str, error: Exception) -> None:
    """Once a process."""
    if what not in said:
        said.add(what)
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        log.warning("%s (%s); they are compiled in memory, which takes some seconds", what, reason)


def fill(levels: Sequence[str] = ()) -> None:
    """Compile what serving calls for these levels of model/target.py, or all: LLVM needs no CPU to compile for it."""
    from beexformer.model.target import LEVELS

    # numba reads its target once a process; an executor notices if LLVM ends one
    process = partial(ProcessPoolExecutor, 1, multiprocessing.get_context("spawn"))
    with process() as first:
        signatures = first.submit(_signatures).result()
    if platform.machine() != "x86_64":
        return  # no levels there: what ran just now was compiled for the CPU at hand
    for level in levels or LEVELS:
        cpu, features, _ = LEVELS[level]
        os.environ |= {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
        with process() as one:
            one.submit(_compile, signatures).result()
        print(f"compiled for {level}")


def _signatures() -> list[Any]:
    """The types with which the engine calls `early_exit_forward`, found by running the shipped checkpoints, with either
    attention."""
    from beexformer.model import checkpoint, kernels
    from beexformer.model.engine import Engine

    for config in CHECKPOINTS.glob("*/config.json"):
        shipped = checkpoint.read(config.parent)
        for numbers in get_args(Attention):
            Engine(replace(shipped, config=replace(shipped.config, attention=numbers), probes=())).warm()
    result: list[Any] = kernels.early_exit_forward.signatures
    return result


def _compile(signatures: list[Any]) -> None:
    """Other kernels are compiled as `early_exit_forward` needs them: which ones depends on the CPU."""
    from beexformer.model import kernel_cache, kernels  # by the name under which the kernels know it

    for signature in signatures:
        kernels.early_exit_forward.compile(signature)
    if kernel_cache.said:
        raise BEEError(f"kernels were compiled and not kept: {min(kernel_cache.said)}")


if __name__ == "__main__":
    fill(sys.argv[1:])
