"""
What a finished training run leaves to reports: the dev logits of every exit and where they come from, in an .npz file.

Everything a table or a figure needs follows from it (scores at any delta, intervals, calibration), so a report
trains none of the networks that it compares. Read without pickle: a record may come from elsewhere.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from beexformer.model.errors import TrainingError
from beexformer.model.folders import replacing

FILE = "record.npz"


@dataclass(frozen=True)
class Record:
    """Dev rows through the network as it is exported: logits [N, exits, m] float32, tokens and labels [N] int64.

    `meta`, JSON-ready: task, variant, seed, metric, class_names, config (the fields of a BEEConfig), dev_sha256,
    commit, date, tokens (trained on), seconds, recipe.
    """

    meta: dict[str, Any]
    logits: np.ndarray
    tokens: np.ndarray
    labels: np.ndarray


def write(record: Record, path: Path) -> None:
    """Whole or not at all."""
    with replacing(path) as partial, partial.open("wb") as out:
        np.savez_compressed(
            out,
            logits=record.logits.astype(np.float32),
            tokens=record.tokens.astype(np.int64),
            labels=record.labels.astype(np.int64),
            meta=np.array(json.dumps(record.meta)),
        )


def read(path: Path) -> Record:
    """Raises TrainingError for a missing file, or one that holds no record."""
    try:
        with np.load(path) as file:
            return Record(json.loads(str(file["meta"])), file["logits"], file["tokens"], file["labels"])
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such file") from None
    except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise TrainingError(f"{path} is no record of a run ({error}); train it again") from None


def find(folder: Path) -> list[Record]:
    """All records under `folder`, by task, variant and seed; .npz files without `meta` are something else."""
    records = [read(path) for path in sorted(folder.glob("**/*.npz")) if _has_meta(path)]
    return sorted(records, key=lambda record: (record.meta["task"], record.meta["variant"], record.meta["seed"]))


def _has_meta(path: Path) -> bool:
    return not zipfile.is_zipfile(path) or "meta.npy" in zipfile.ZipFile(path).namelist()
