"""
Whether a run has been finished already: told in a moment, without torch.
"""

import json
from pathlib import Path

from beexformer.training.recipe import Recipe
from beexformer.training.splits import located


def finished(out: Path, recipe: Recipe, root: Path) -> str | None:
    """What to say where `out` holds the checkpoint of this very run already and its rows haven't changed since; None
    where there is something to do. Raises TrainingError where there are no rows, which is told in a moment too."""
    located(recipe.data, root)
    try:
        described = json.loads((out / "evaluation.json").read_text())
        stated, dev = described["provenance"]["recipe"], described["dev"]
        sources = [root / name for name in (recipe.data.train, recipe.data.dev, recipe.data.test) if name]
        newest = max(path.stat().st_mtime for path in sources)
        if stated != recipe.model_dump() or newest > (out / "config.json").stat().st_mtime:
            return None
        return (
            f"{out} is finished: {dev['metric']} {dev['score']:.4f} of {dev['rows']} rows; change the rows or an "
            "option, or remove it, to train anew"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
