"""
Text data for training: files to labelled rows, free text to sentences.

Reads CSV (RFC 4180 quoting), TSV (no quoting, the GLUE form), JSONL and Parquet, each of the text forms also gzipped.
Knows neither the network nor torch.
"""

import gzip
import hashlib
import itertools
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from beexformer.model.errors import TrainingError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")

Input = str | tuple[str, str]
"""What a network reads: a text, or the two of a pair."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold the text, the second text of a pair (or None) and the label."""

    text: str = "text"
    text_pair: str | None = None
    label: str = "label"

    def inputs(self) -> list[str]:
        """The columns a network reads: one, or the two of a pair."""
        return [self.text, self.text_pair] if self.text_pair else [self.text]


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

    def longest(self, count: int) -> "Rows":
        """The `count` rows with the most words, in their order."""
        words = np.array([sum(len(side.split()) for side in sides(row)) for row in self.inputs()])
        return self.take(np.sort(np.argsort(-words, kind="stable")[:count]))

    def inputs(self) -> list[Input]:
        return [*zip(self.texts, self.pairs, strict=True)] if self.pairs else [*self.texts]

    def sha256(self) -> str:
        """Of texts and labels in their order, hexadecimal."""
        return digest(
            "\t".join([*sides(row), str(label)]) for row, label in zip(self.inputs(), self.labels, strict=True)
        )


def sides(row: Input) -> tuple[str, ...]:
    """The texts of an input: one, or two."""
    return (row,) if isinstance(row, str) else row


def key(row: Input) -> Input:
    """An input as it is compared with others: without case and blanks, which tokenized text has before its stops."""
    if isinstance(row, str):
        return "".join(row.lower().split())
    return "".join(row[0].lower().split()), "".join(row[1].lower().split())


def digest(lines: Iterable[str]) -> str:
    """SHA-256 of lines, hexadecimal."""
    found = hashlib.sha256()
    for line in lines:
        found.update(f"{line}\n".encode())
    return found.hexdigest()


def find_split(folder: Path, split: str) -> Path | None:
    """The file of a split ("train", "dev", "test") in a data folder, whatever its format; None where there is none."""
    for suffix in SUFFIXES:
        for name in (f"{split}{suffix}", f"{split}{suffix}.gz"):
            if (folder / name).is_file():
                return folder / name
    return None


def read_table(path: Path) -> pa.Table:
    """A data file as an Arrow table; what CSV and TSV hold is text, spelled as in the file ("01", "true", "NA").

    Raises TrainingError for a missing, foreign or broken file, and for one that isn't UTF-8.
    """
    kind = next((suffix for suffix in SUFFIXES if path.name.removesuffix(".gz").endswith(suffix)), None)
    if kind is None:
        raise TrainingError(f"{path}: unknown format; give one of {', '.join(SUFFIXES)} (text forms also as .gz)")
    try:
        if kind == ".parquet":
            table = pa.parquet.read_table(path)
        elif kind == ".jsonl":
            table = pa.json.read_json(path)
        else:
            table = _read_delimited(path, quoted=kind == ".csv")
        table.validate(full=True)  # what is no UTF-8 would only show when it is used
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such file") from None
    except (OSError, pa.ArrowException) as error:
        utf8 = "; save it as UTF-8" if "UTF8" in str(error) else ""
        raise TrainingError(f"{path}: can't be read as {kind[1:].upper()}: {error}{utf8}") from None
    return table


def _read_delimited(path: Path, quoted: bool) -> pa.Table:
    parse = pa.csv.ParseOptions(
        delimiter="," if quoted else "\t", quote_char='"' if quoted else False, newlines_in_values=quoted
    )
    with pa.csv.open_csv(path, parse_options=parse) as head:
        names = head.schema.names
    convert = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    return pa.csv.read_csv(path, parse_options=parse, convert_options=convert)


def read_rows(path: Path, columns: Columns, labels: list[str] | None = None) -> tuple[Rows, list[str]]:
    """Labelled rows of a file and the names of the classes.

    With `labels`, the file's labels are members of it, or integers that are indices into it; without, the classes are
    the file's distinct labels, sorted (integers by value). Raises TrainingError, naming column or row, for a missing
    column or one that holds no text, a blank text, an empty label, real numbers as labels, or a label outside `labels`.
    """
    *inputs, found = _read_strings(path, *columns.inputs(), columns.label)
    _refuse_blank(path, inputs)
    bare = next((i for i, label in enumerate(found) if not label.strip()), None)
    if bare is not None:
        raise TrainingError(f"{path}: row {bare + 1} has no label")
    known = set(found)
    integers = all(map(_is_integer, known))
    if not integers and all(map(_is_number, known)):
        raise TrainingError(f"{path}: column {columns.label!r} holds real numbers; classes are integers or names")
    if labels is None:
        labels = sorted(known, key=int if integers else None)
    by_index = integers and not known <= set(labels)
    index = {str(i) if by_index else name: i for i, name in enumerate(labels)}
    strange = next((i for i, label in enumerate(found) if label not in index), None)
    if strange is not None:
        raise TrainingError(f"{path}: row {strange + 1} has the label {found[strange]!r}; known are {labels}")
    texts, pairs = inputs if columns.text_pair else (inputs[0], None)
    return Rows(texts, pairs, np.array([index[label] for label in found], dtype=np.int64)), labels


def read_inputs(path: Path, columns: Columns) -> list[Input]:
    """What the rows of a file give to read, whatever labels it has or has not. Raises TrainingError as `read_rows`."""
    inputs = _read_strings(path, *columns.inputs())
    _refuse_blank(path, inputs)
    return [*zip(*inputs, strict=True)] if columns.text_pair else [*inputs[0]]


def _read_strings(path: Path, *names: str) -> list[list[str]]:
    """Columns of a file that has rows, as text; "" where there is none."""
    table = read_table(path)
    for name in names:
        if (count := table.column_names.count(name)) != 1:
            wrong = f"{count} columns" if count else "no column"
            raise TrainingError(f"{path}: {wrong} {name!r}; it has {', '.join(table.column_names)}")
    if len(table) == 0:
        raise TrainingError(f"{path}: no rows")
    return [_strings(path, name, table[name]) for name in names]


def _refuse_blank(path: Path, inputs: list[list[str]]) -> None:
    """Rows that the engine would refuse are met here, before anything is learned from the others."""
    blank = [i for i, row in enumerate(zip(*inputs, strict=True)) if not all(text.strip() for text in row)]
    if blank:
        more = f", and {len(blank) - 1} more have none" if len(blank) > 1 else ""
        raise TrainingError(f"{path}: row {blank[0] + 1} has no text{more}; take such rows out")


def _strings(path: Path, name: str, column: pa.ChunkedArray) -> list[str]:
    try:
        return pc.fill_null(column.cast(pa.string()), "").to_pylist()
    except pa.ArrowException:
        raise TrainingError(f"{path}: column {name!r} holds {column.type}, not text") from None


def _is_integer(label: str) -> bool:
    return label.removeprefix("-").isdecimal()


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True


def split_rows(rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Rows parted at random into (rest, fraction); for data that comes without a development set."""
    order = np.random.default_rng(seed).permutation(len(rows))
    cut = max(1, round(len(rows) * fraction))
    return rows.take(np.sort(order[cut:])), rows.take(np.sort(order[:cut]))


def without(rows: Rows, *others: Rows | None) -> Rows:
    """The rows that are in none of the others, compared by `key` and whatever their labels."""
    known = {key(row) for other in others if other for row in other.inputs()}
    return rows.take(np.array([i for i, row in enumerate(rows.inputs()) if key(row) not in known], dtype=np.int64))


def paragraphs(path: Path) -> list[str]:
    """Lines of a gzipped or plain text file, without the empty ones."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            return [line for line in map(str.strip, lines) if line]
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} is no text file: {error}") from None


def cut(paragraph: str) -> list[str]:
    """The sentences of a paragraph: what ends with final punctuation and is followed by white space."""
    return re.split(r"(?<=[.!?])\s+", paragraph)


def sentences(
    path: Path, count: int, seed: int, lengths: tuple[int, int] = (3, 40), without: Collection[Input] = ()
) -> list[str]:
    """`count` distinct sentences of a text file with one paragraph a line, drawn at random.

    Sentences with fewer or more words than `lengths` allows are left out, and so are those whose `key` is in `without`.
    All others are returned, in random order, where the file has fewer than `count`.
    """
    shortest, longest = lengths
    found = {s for line in paragraphs(path) for s in cut(line) if shortest <= len(s.split()) <= longest}
    ordered = sorted(found)  # a set's order differs from run to run
    drawn = (ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered)))
    return list(itertools.islice((s for s in drawn if key(s) not in without), count))
