"""
The rows of a task as its training reads them: train, development and test rows, and the names of the classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from beexformer.model.errors import TrainingError
from beexformer.training.data import Rows, find_split, read_rows, split_rows
from beexformer.training.recipe import Data

SPLIT_SEED = 1  # of the tenth that is held out: the runs of all seeds are scored on the same rows


class Splits(NamedTuple):
    """The rows of a task and the names of its classes, as its training reads them."""

    train: Rows
    dev: Rows
    test: Rows | None
    labels: list[str]


def located(data: Data, root: Path) -> Path:
    """The training file or folder. Raises TrainingError where there is none."""
    path = root / data.train
    if not path.exists():
        raise TrainingError(f"{path}: no such file or folder; is {root} the data folder (--data, or BEE_DATA)?")
    return path


def splits(data: Data, root: Path, labels: Sequence[str] | None = None, *, hold_out: bool = True) -> Splits:
    """The rows that a recipe's section [data] names, from the data folder `root`. `labels` are the names of the classes
    where they are known; otherwise the section's, or those found in the training rows. Where there is no development
    file, a tenth of the training rows is held out for it; with `hold_out` False, all of them are trained on and `dev`
    is the same object as `train`, for who cross-validates.

    Raises TrainingError where rows are missing or broken.
    """
    path = located(data, root)
    folder = path if path.is_dir() else None
    train_file = find_split(path, "train") if folder else path
    if train_file is None:
        raise TrainingError(f"{path} has no train file (train.csv, .tsv, .jsonl or .parquet)")
    given = bool(labels or data.labels)  # names that training rows spell themselves are no names of integers
    train, names = read_rows(train_file, data.columns, list(labels) if labels else data.labels)
    several = train.multi_label

    for file in data.also:
        train = train.joined(read_rows(root / file, data.columns, names, positions=given, multi_label=several)[0])

    def other(name: str | None, split: str) -> Rows | None:
        file = root / name if name else folder and find_split(folder, split)
        return read_rows(file, data.columns, names, positions=given, multi_label=several)[0] if file else None

    dev, test = other(data.dev, "dev"), other(data.test, "test")
    if dev is None:
        train, dev = split_rows(train, 0.1, SPLIT_SEED) if hold_out else (train, train)
    return Splits(train, dev, test, names)
