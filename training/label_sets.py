"""
Several labels a text: cells of a label column to sets of labels, and folds in which every label is about as frequent.

A cell is a JSON array of texts, as JSON lines and Parquet have it, or labels with a separator between them, or a single
label; an empty one says that no label applies. `applies` [N, m] bool is how rows have them from then on.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from beexformer.model.errors import TrainingError

LIST = re.compile(r"""\[\s*(["'\d-].*)?\]""", re.DOTALL)
"""A cell that is a list of texts or numbers, or none of them, and no label's name: JSON, or what is meant to be it."""


def is_list(cell: str) -> bool:
    return LIST.fullmatch(cell) is not None


def parts(path: Path, cells: Sequence[str], separator: str | None) -> list[list[str]]:
    """Each cell's labels, without blanks around them; none twice. Raises TrainingError for a list that is no JSON array
    of texts or numbers."""
    result = []
    for number, cell in enumerate(cells, start=1):
        if is_list(cell):
            try:
                listed = json.loads(cell)
            except ValueError:
                listed = [None]
            if not all(isinstance(label, str | int) and not isinstance(label, bool) for label in listed):
                raise TrainingError(
                    f"{path}: row {number} has the labels {cell[:80]} and a list of them is JSON, as "
                    '["late", "damaged"]; write it so, or with a separator (--label-separator)'
                )
            labels = [str(label) for label in listed]
        else:
            labels = cell.split(separator) if separator else [cell]
        result.append([label for label in dict.fromkeys(label.strip() for label in labels) if label])
    return result


def indicator(rows: Sequence[Sequence[str]], index: dict[str, int]) -> np.ndarray:
    """Labels of each row -> whether each label applies [N, m] bool."""
    applies = np.zeros((len(rows), len(index)), bool)
    for i, labels in enumerate(rows):
        applies[i, [index[label] for label in labels]] = True
    return applies


def looks_joined(names: Sequence[str]) -> str | None:
    """The separator, where class names look like several labels joined by it: most parts stand there by themselves or
    with others."""
    for separator in (";", "|", ","):
        joined = [name for name in names if separator in name]
        pieces = [part.strip() for name in joined for part in name.split(separator)]
        again = [part for part in pieces if part in names or pieces.count(part) > 1]
        if len(joined) > 1 and all(pieces) and len(again) > 0.8 * len(pieces):
            return separator
    return None


def folds(applies: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """The fold [N], from 0, of every row, of `count` folds: iterative stratification (Sechidis, Tsoumakas, Vlahavas
    2011). Rows of the rarest label go first, each to the fold that still lacks most rows of it; rows without a label
    fill up."""
    rng = np.random.default_rng(seed)
    N = len(applies)
    result = np.full(N, -1)
    rows_left = np.full(count, N / count)
    lacks = np.tile(applies.sum(0) / count, (count, 1))  # [folds, m]

    def put(row: int, wish: np.ndarray) -> None:
        best = np.flatnonzero(wish == wish.max())
        best = best[rows_left[best] == rows_left[best].max()]
        fold = int(rng.choice(best))
        result[row] = fold
        rows_left[fold] -= 1
        lacks[fold] -= applies[row]

    left = applies.astype(np.int64)
    while left.any():
        counts = left.sum(0)
        label = int(np.where(counts > 0, counts, N + 1).argmin())
        for row in rng.permutation(np.flatnonzero(left[:, label])).tolist():
            put(row, lacks[:, label])
            left[row] = 0
    for row in rng.permutation(np.flatnonzero(result < 0)).tolist():
        put(row, rows_left)
    return result
