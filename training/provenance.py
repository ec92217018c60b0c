"""
Where a network comes from, JSON-ready, for evaluation.json, the model card and the record of a run.
"""

import datetime
import platform
import subprocess
from typing import Any

import torch

from beexformer.training.prepare import Prepared
from beexformer.training.recipe import Recipe


def of(recipe: Recipe, data: Prepared, tokens: int, seconds: float, how: str) -> dict[str, Any]:
    """Facts of the data, what was trained on so many tokens for so many seconds, on which machine and `how`."""
    return {
        **data.facts,
        "data": recipe.data.train,
        "data_sha256": data.train.sha256(),
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
        "seed": recipe.optim.seed,
        "tokens": tokens,
        "seconds": round(seconds),
        "machine": f"{platform.machine()}, torch {torch.__version__}, {how}",
        "recipe": recipe.model_dump(),
    }


def commit() -> str:
    """Of the working folder; "unknown" where there is no repository, or no git, as in a container."""
    head = ["git", "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
