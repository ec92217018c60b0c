"""
What a run keeps on disk to go on from after a kill, and whether it belongs to the run that finds it.
"""

from pathlib import Path
from typing import Any

import torch

from beexformer.model.errors import TrainingError
from beexformer.model.folders import replacing

FINGERPRINT = "fingerprint"


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
