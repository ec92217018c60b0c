"""
Soft labels of a file: what another model says of every row, as logits or as probabilities.

A column for each class, all named `logit_<label>` or all `p_<label>`. A row that has them needs no label; one that has
both is learned from as a mixture (`[data] soft_share`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from beexformer.model.errors import TrainingError
from beexformer.model.exits import softmax

LOGIT, PROBABILITY = "logit_", "p_"
SLACK = 0.02  # by which probabilities that were rounded may miss 1 in all


@dataclass(frozen=True)
class SoftColumns:
    """The columns of a file that hold soft labels, in its order, and the classes that they name."""

    prefix: str
    labels: list[str]

    @property
    def names(self) -> list[str]:
        return [f"{self.prefix}{label}" for label in self.labels]

    def read(self, path: Path, columns: Sequence[Sequence[str]], labels: Sequence[str]) -> np.ndarray:
        """Columns as text -> distributions [N, m] float32 over `labels`, in their order. Raises TrainingError for
        classes that are not those, and for what is no number, no logit or no distribution."""
        if set(labels) != set(self.labels):
            raise TrainingError(
                f"{path}: soft labels of {', '.join(self.labels)}, and the classes are {', '.join(labels)}; "
                f"give a column {self.prefix}<label> for each of these and no other"
            )
        order = [self.labels.index(label) for label in labels]
        try:
            result = np.array([columns[i] for i in order], dtype=np.float64).T
        except ValueError:
            result = np.array([[_number(cell) for cell in columns[i]] for i in order]).T
        wrong = ~np.isfinite(result).all(1)
        if self.prefix == PROBABILITY:
            wrong |= (result < 0).any(1) | (np.abs(result.sum(1) - 1) > SLACK)
        if wrong.any():
            said = dict(zip(labels, result[wrong.argmax()].tolist(), strict=True))
            kind = "logits" if self.prefix == LOGIT else "probabilities that sum to 1"
            raise TrainingError(f"{path}: row {wrong.argmax() + 1} has {said} in place of {kind}; correct it")
        shares = softmax(result) if self.prefix == LOGIT else result / result.sum(1, keepdims=True)
        return np.asarray(shares, dtype=np.float32)


def find(path: Path, columns: Sequence[str]) -> SoftColumns | None:
    """The soft labels among a file's columns; None where there are none. Raises TrainingError for both kinds in one
    file, or a single class."""
    by_prefix = {
        prefix: [name.removeprefix(prefix) for name in columns if name.startswith(prefix) and name != prefix]
        for prefix in (LOGIT, PROBABILITY)
    }
    kinds = [prefix for prefix, labels in by_prefix.items() if labels]
    if not kinds:
        return None
    if len(kinds) > 1:
        raise TrainingError(f"{path}: columns {LOGIT}... and {PROBABILITY}... beside each other; keep one kind")
    labels = by_prefix[kinds[0]]
    return SoftColumns(kinds[0], labels) if len(labels) > 1 else None


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")
