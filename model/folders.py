"""Files and folders that commands write: whole or not at all, and what somebody else put there is never lost to it."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from beexformer.model.errors import TrainingError


def ensure_writable(folder: Path, weights: str, others: Collection[str]) -> None:
    """See that `folder` can be written, and replaced without a loss. Writes nothing.

    It may be missing, empty, or hold `weights` and at most `others` beside it. Raises TrainingError for any other.
    """
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"{folder} is a file; give --out a folder of its own")
    result = {path.name for path in folder.iterdir()} if folder.exists() else set()
    foreign = sorted(result - {weights, *others} if weights in result else result)
    if foreign:
        raise TrainingError(f"{folder} holds {foreign[0]!r}, which is not ours; give --out a folder of its own")
    above = next(path for path in folder.absolute().parents if path.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise TrainingError(f"{folder} can't be written, because of {above}; give --out another folder")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place when the block ends without an exception."""
    partial = path.with_name(f"{path.name}.partial")
    yield partial
    partial.replace(path)
