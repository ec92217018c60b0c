"""
Compiled kernels on disk, the files that numba keeps in NUMBA_CACHE_DIR: filled ahead of time, and used read-only.

    python -m beexformer.model.kernel_cache [LEVEL ...]  compile for these levels, default: all;
         this CPU need not have them

Knows where compiled code lies; nothing of what it computes.
"""

import atexit
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from beexformer.model.errors import BEEError

FOLDER = "NUMBA_CACHE_DIR"
CHECKPOINTS = Path(__file__).parent / "checkpoints"


def use_read_only() -> None:
    """Lets NUMBA_CACHE_DIR be a folder that this process may not write to. Comes before numba is imported.

    numba asks to write where it reads from; so it gets a temporary folder of links, and keeps there what it compiles
    itself. Worker processes inherit it."""
    folder = os.environ.get(FOLDER, "")
    if not os.path.isdir(folder) or os.access(folder, os.W_OK):
        return
    try:
        links = Path(tempfile.mkdtemp(prefix="beexformer-kernels-"))
    except OSError:
        raise BEEError(
            f"{folder} is read-only and there is no temporary folder to work in; mount one that can be written at /tmp"
        ) from None
    atexit.register(shutil.rmtree, links, ignore_errors=True)
    kernels = Path(folder).absolute()
    for path in kernels.rglob("*"):  # a folder comes before what is in it
        link = links / path.relative_to(kernels)
        link.mkdir() if path.is_dir() else link.symlink_to(path)
    os.environ[FOLDER] = str(links)


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
    """The types with which the engine calls `walk`, found by running the shipped checkpoints."""
    from beexformer.model import kernels
    from beexformer.model.engine import Engine

    for config in CHECKPOINTS.glob("*/config.json"):
        Engine.load(config.parent).warm()
    found: list[Any] = kernels.early_exit_forward.signatures
    return found


def _compile(signatures: list[Any]) -> None:
    """Other kernels are compiled as `walk` needs them: which ones depends on the CPU."""
    from beexformer.model import kernels

    for signature in signatures:
        kernels.early_exit_forward.compile(signature)


if __name__ == "__main__":
    fill(sys.argv[1:])
