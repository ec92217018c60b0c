"""
A loop run to its end, with a bar, a log and a file to go on from after a kill: what tasks and backbones have in common.
"""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from beexformer.model.errors import TrainingError
from beexformer.model.folders import replacing
from beexformer.training.loop import Loop, Report
from beexformer.training.progress import RunProgress

SAVE_SECONDS = 60.0  # at most so much work is lost by a kill, and what `Budget.every` steps take
FINGERPRINT = "fingerprint"


def run(loop: Loop, path: Path, fingerprint: str, progress: RunProgress, name: str) -> None:
    """Train until the budget is spent. What `path` holds of an earlier run is where this one begins; beside it, with
    the suffix .jsonl, stands a line for every stretch of steps. Raises TrainingError where the earlier run was made of
    something else."""
    if path.exists():
        loop.restore(load(path, fingerprint))
        progress.say(f"{name}: {'is finished' if loop.progress >= 1 else f'goes on at step {loop.step}'}")
    bar, saved = progress.stage(name), time.monotonic()

    def keep(loop: Loop) -> None:
        nonlocal saved
        if loop.progress >= 1 or time.monotonic() - saved >= SAVE_SECONDS:
            saved = time.monotonic()
            save(loop.state(), path, fingerprint)

    with path.with_suffix(".jsonl").open("a", buffering=1) as log:

        def report(done: Report) -> None:
            log.write(json.dumps(asdict(done)) + "\n")
            bar(round(1000 * loop.progress), 1000, str(done))

        loop.run(report, keep)


def save(state: dict[str, Any], path: Path, fingerprint: str = "") -> None:
    """Tensors and plain values, whole or not at all; `fingerprint` says what the run is made of."""
    with replacing(path) as partial:
        torch.save({**state, FINGERPRINT: fingerprint} if fingerprint else state, partial)


def load(path: Path, fingerprint: str) -> dict[str, Any]:
    """What `save` wrote. Raises TrainingError where it is the state of a run that is made of something else."""
    result: dict[str, Any] = torch.load(path, weights_only=True)
    if result.pop(FINGERPRINT, None) != fingerprint:
        raise TrainingError(
            f"{path.parent} holds a run of another recipe, start, teacher or data; remove it or give another --work"
        )
    return result
