"""
Compiled kernels on disk, the files that numba keeps in NUMBA_CACHE_DIR: filled ahead of time, and used read-only.

    python -m model.kernel_cache     compile for every level in model/target.py, whatever this CPU has

Knows where compiled code lies; nothing of what it computes.
"""

import atexit
import multiprocessing
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from model.errors import BEEError

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
        links = tempfile.mkdtemp(prefix="beexformer-kernels-")
    except OSError:
        raise BEEError(
            f"{folder} is read-only and there is no temporary folder to work in; mount one that can be written at /tmp"
        ) from None
    atexit.register(shutil.rmtree, links, ignore_errors=True)
    shutil.copytree(os.path.abspath(folder), links, copy_function=os.symlink, dirs_exist_ok=True)
    os.environ[FOLDER] = links


def fill() -> None:
    """Compile what serving calls, for every level. What this CPU lacks is compiled all the same; it only can't run."""
    from model.target import LEVELS

    spawn = multiprocessing.get_context("spawn")  # numba reads its target once a process
    with spawn.Pool(1) as process:
        signatures = process.apply(_signatures)
    for level, (cpu, features, _) in LEVELS.items():
        os.environ |= {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
        with spawn.Pool(1) as process:
            process.apply(_compile, (signatures,))
        print(f"compiled for {level}: {', '.join(signatures)}")


def _signatures() -> dict[str, list[Any]]:
    """The types with which each kernel is called, found by running the shipped checkpoints."""
    from numba.core.dispatcher import Dispatcher

    from model import kernels
    from model.engine import Engine

    for config in CHECKPOINTS.glob("*/config.json"):
        Engine.load(config.parent).warm()
    found = {name: kernel.signatures for name, kernel in vars(kernels).items() if isinstance(kernel, Dispatcher)}
    return {name: signatures for name, signatures in found.items() if signatures}


def _compile(signatures: dict[str, list[Any]]) -> None:
    from model import kernels

    for name, found in signatures.items():
        for signature in found:
            getattr(kernels, name).compile(signature)


if __name__ == "__main__":
    fill()
