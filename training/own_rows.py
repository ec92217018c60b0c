"""
The recipe of rows that come without one: single texts and pairs get heads on a backbone that knows English already, of
one of two sizes.
"""

import re
from pathlib import Path
from typing import Any

from beexformer.model.errors import TrainingError
from beexformer.training.recipe import NAME, Recipe, parse

SMALL = "small"
SIZES = {SMALL: "english", "base": "backbones/english-base"}
"""Size -> its backbone. What does not ship lies in the data folder, where the command below writes it."""
MAKING = (
    "beexformer distill --recipe recipes/backbone-base.toml --data {root} --out {folder}",
    "40 MB, about an hour on one NVIDIA H200 by estimate; on CPUs add --minutes, a day of which is a start",
)
"""What makes `base`, and what it takes (docs/train-your-own.md)."""

OWN_TEXTS: dict[str, Any] = {
    "network": {"head": "linear", "embedding": "int4+2"},
    "optim": {"embedding": "frozen"},
    "heads": {},
}
"""Where rows of single texts come without a recipe: the backbone knows English, and a thousand rows find its heads."""

OWN_OPTIM = {
    **{"epochs": 10, "tokens_a_step": 1024, "learning_rate": 1e-3},
    **{"dropout": 0.1, "embedding": "frozen", "precision": "auto"},
}

OWN_PAIRS: dict[str, Any] = {**OWN_TEXTS, "network": {**OWN_TEXTS["network"], "pairs": "apart"}}
"""The same of pairs: each text by itself, so that heads see what the two have in common and what they have not."""
OWN_TRAINED_PAIRS: dict[str, Any] = {
    "network": {"head_thresholds": 4, "embedding": "int4+2", "exact_match": True},
    "optim": OWN_OPTIM,
}
"""Where an owner's flags ask for a network that is trained on pairs, read as one text."""


def own_name(name: str) -> None:
    """Raises TrainingError where an owner's model can't be called that."""
    if not re.fullmatch(NAME, name):
        raise TrainingError(f"a model is named after --out, and {name!r} is no name: a-z, 0-9, - and _ make one")


def backbone_of(size: str, root: Path) -> str:
    """The backbone of a size, as `backbone.read` takes it beside the data folder `root`. Raises TrainingError where it
    isn't there, with the command that makes it."""
    if size not in SIZES:
        raise TrainingError(f"there is no size {size!r}; there are {' and '.join(SIZES)}")
    name = SIZES[size]
    if size != SMALL and not (root / name / "config.json").exists():
        command, takes = MAKING
        raise TrainingError(
            f"size {size} does not ship and is not at {root / name}; "
            f"{command.format(root=root, folder=root / name)} writes it there ({takes})"
        )
    return name


def own_rows(
    name: str, columns: dict[str, Any], start: str | None = None, *,
    size: str = SMALL, root: Path = Path(), trained: bool = False,
) -> Recipe:  # fmt: skip
    """The recipe of rows that come without one; `columns` are fields of [data], `start` is a checkpoint to go on from,
    without which a backbone is begun with as `backbone_of` says; `trained`: pairs are to train a network. Raises
    TrainingError as `parse`."""
    own_name(name)
    content = OWN_TEXTS
    if columns.get("text_pair"):
        content = OWN_TRAINED_PAIRS if trained else OWN_PAIRS
    if start:
        content = {"optim": {**OWN_OPTIM, "learning_rate": 5e-4}}
    begin = {"checkpoint": start} if start else {"backbone": backbone_of(size, root)}
    return parse({"name": name, "data": columns, "start": begin, **content}, "arguments", Recipe)
