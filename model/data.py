"""
Text data for training: files to labelled rows, free text to sentences, rows to batches of like length.

Reads CSV (RFC 4180 quoting), TSV (no quoting, the GLUE form), JSONL and Parquet, each of the text forms also gzipped.
Knows neither the network nor torch.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from model.errors import TrainingError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold the text, the second text of a pair (or None) and the label."""

    text: str = "text"
    text_pair: str | None = None
    label: str = "label"


@dataclass(frozen=True)
class Rows:
    """Labelled rows: `texts[i]`, `pairs[i]` (None for single texts) and the class index `labels[i]` (int64)."""

    texts: list[str]
    pairs: list[str] | None
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, index: np.ndarray) -> "Rows":
        pairs = self.pairs and [self.pairs[i] for i in index]
        return Rows([self.texts[i] for i in index], pairs, self.labels[index])


def find_split(folder: Path, split: str) -> Path | None:
    """The file of a split ("train", "dev", "test") in a data folder, whatever its format; None where there is none."""
    for suffix in SUFFIXES:
        for name in (f"{split}{suffix}", f"{split}{suffix}.gz"):
            if (folder / name).is_file():
                return folder / name
    return None


def read_table(path: Path) -> pa.Table:
    """A data file as an Arrow table. Raises TrainingError for a missing, foreign or broken file."""
    kind = next((suffix for suffix in SUFFIXES if path.name.removesuffix(".gz").endswith(suffix)), None)
    if kind is None:
        raise TrainingError(f"{path}: unknown format; give one of {', '.join(SUFFIXES)} (text forms also as .gz)")
    try:
        if kind == ".parquet":
            return pa.parquet.read_table(path)
        if kind == ".jsonl":
            return pa.json.read_json(path)
        plain = kind == ".tsv"
        return pa.csv.read_csv(
            path,
            parse_options=pa.csv.ParseOptions(
                delimiter="\t" if plain else ",", quote_char=False if plain else '"', newlines_in_values=not plain
            ),
            convert_options=pa.csv.ConvertOptions(strings_can_be_null=False),
        )
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such file") from None
    except pa.ArrowInvalid as error:
        raise TrainingError(f"{path}: can't be read as {kind[1:].upper()}: {error}") from None


def read_rows(path: Path, columns: Columns, labels: list[str] | None = None) -> tuple[Rows, list[str]]:
    """Labelled rows of a file and the names of the classes.

    With `labels`, integer labels in the file are indices into it and text labels are members of it; without, the
    classes are the file's distinct labels in sorted order. Raises TrainingError, naming column or row, for a missing
    column, an empty label or a label outside `labels`.
    """
    table = read_table(path)
    wanted = [name for name in (columns.text, columns.text_pair, columns.label) if name]
    for name in wanted:
        if name not in table.column_names:
            raise TrainingError(f"{path}: no column {name!r}; it has {', '.join(table.column_names)}")
    if len(table) == 0:
        raise TrainingError(f"{path}: no rows")
    column = table[columns.label]
    if column.null_count:
        row = pc.index(pc.is_null(column), pa.scalar(True)).as_py()
        raise TrainingError(f"{path}: row {row + 1} has no label")
    if pa.types.is_floating(column.type):
        raise TrainingError(f"{path}: column {columns.label!r} holds real numbers; classes are integers or names")
    found = column.to_pylist()
    if labels is None:
        labels = [str(label) for label in sorted(set(found))]
    if pa.types.is_integer(column.type) and not set(map(str, found)) <= set(labels):
        index: dict[str | int, int] = {i: i for i in range(len(labels))}
    else:
        index = {name: i for i, name in enumerate(labels)}
        found = [str(label) for label in found]
    strange = next((i for i, label in enumerate(found) if label not in index), None)
    if strange is not None:
        raise TrainingError(f"{path}: row {strange + 1} has the label {found[strange]!r}; known are {labels}")

    def strings(name: str) -> list[str]:
        return pc.fill_null(table[name].cast(pa.string()), "").to_pylist()

    pairs = strings(columns.text_pair) if columns.text_pair else None
    return Rows(strings(columns.text), pairs, np.array([index[label] for label in found], dtype=np.int64)), labels


def split_rows(rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Rows parted at random into (rest, fraction); for data that comes without a development set."""
    order = np.random.default_rng(seed).permutation(len(rows))
    cut = max(1, round(len(rows) * fraction))
    return rows.take(np.sort(order[cut:])), rows.take(np.sort(order[:cut]))


def sentences(path: Path, count: int, seed: int) -> list[str]:
    """`count` distinct sentences of a gzipped or plain text file with one paragraph a line, drawn at random.

    Sentences are cut at final punctuation followed by white space; those of fewer than 3 or more than 40 words are
    left out. All of them are returned, in random order, where the file has fewer than `count`.
    """
    import gzip

    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            found = {
                sentence
                for line in lines
                for sentence in re.split(r"(?<=[.!?])\s+", line.strip())
                if 3 <= len(sentence.split()) <= 40
            }
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such file") from None
    ordered = sorted(found)  # a set's order differs from run to run
    return [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))[:count]]


def length_batches(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Every row index once, in batches of like length, in random order.

    Rows are shuffled, sorted by length within groups of 64 batches, cut, and the batches shuffled: padding stays a few
    per cent, and two epochs never see the same batches.
    """
    order = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), 64 * batch_size):
        group = order[start : start + 64 * batch_size]
        group = group[np.argsort(lengths[group], kind="stable")]
        batches += [group[i : i + batch_size] for i in range(0, len(group), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def sorted_batches(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Every row index once, shortest rows first; for passes whose order does not matter."""
    order = np.argsort(lengths, kind="stable")
    return (order[i : i + batch_size] for i in range(0, len(order), batch_size))


def pad(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of ragged rows -> (ids [B, L] int64 with 0 as pad (Alg. 1), lengths [B] int64)."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    ids = np.zeros((len(rows), lengths.max()), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return ids, lengths
