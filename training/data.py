"""
Text data for training: files to labelled rows, free text to sentences.

Files are read by `model.tables`; here their columns become texts and classes.
Knows neither the network nor torch.
"""

import difflib
import gzip
import hashlib
import itertools
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from beexformer.model import tables
from beexformer.model.errors import TrainingError
from beexformer.training import label_sets, soft_labels

ONLY_HEADS = (
    "several labels a text are learned by heads on a frozen backbone alone; leave --start out, and recipes without "
    "[heads]"
)
Input = str | tuple[str, str]
"""What a network reads: a text, or the two of a pair."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold the text, the second text of a pair (or None) and the label; the encoding of the
    file where it isn't Unicode; and what stands between the labels of a text where there may be several."""

    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    encoding: str | None = None
    label_separator: str | None = None

    def inputs(self) -> list[str]:
        """The columns a network reads: one, or the two of a pair."""
        return [self.text, self.text_pair] if self.text_pair else [self.text]


@dataclass(frozen=True)
class Rows:
    """Labelled rows: `texts[i]`, `pairs[i]` (None for single texts) and the class index `labels[i]` (int64); of several
    labels a text `labels[i]` is which of them apply, [m] bool.

    `soft` [N, m] float32 are soft labels, where the file has them; a row of which it states no label (`stated` [N]
    bool) has the likeliest class as its own.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: np.ndarray
    soft: np.ndarray | None = None
    stated: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    def counts(self, n_class: int) -> np.ndarray:
        """Rows of each class, or of each label, [m]."""
        if self.multi_label:
            return np.asarray(self.labels.sum(0), dtype=np.int64)
        return np.bincount(self.labels, minlength=n_class)

    def of(self, label: int) -> np.ndarray:
        """Indices of the rows of a class, or of those that a label applies to."""
        return np.flatnonzero(self.labels[:, label] if self.multi_label else self.labels == label)

    def take(self, index: np.ndarray) -> "Rows":
        pairs = self.pairs and [self.pairs[i] for i in index]
        soft, stated = (None if part is None else part[index] for part in (self.soft, self.stated))
        return Rows([self.texts[i] for i in index], pairs, self.labels[index], soft, stated)

    def targets(self, n_class: int, soft_share: float, smoothing: float = 0.0, temperature: float = 1.0) -> np.ndarray:
        """What to learn: distributions [N, m] float32, labels mixed with `soft_share` of soft ones, whose logits are
        divided by `temperature`. A row without a label has its soft one alone."""
        if self.multi_label:
            return np.asarray((1 - smoothing) * self.labels + smoothing / 2, dtype=np.float32)
        hard = (1 - smoothing) * np.eye(n_class)[self.labels] + smoothing / n_class
        if self.soft is None:
            return hard.astype(np.float32)
        share = np.full(len(self), soft_share) if self.stated is None else np.where(self.stated, soft_share, 1.0)
        soft = self.soft ** (1 / temperature)
        soft /= soft.sum(1, keepdims=True)
        mixed: np.ndarray = (1 - share)[:, None] * hard + share[:, None] * soft
        return mixed.astype(np.float32)

    def joined(self, other: "Rows") -> "Rows":
        """These rows, then the others. Raises TrainingError where only one side has soft labels."""
        if (self.soft is None) != (other.soft is None):
            raise TrainingError("some training files have soft labels and some have none; give all of them, or none")
        pairs = [*self.pairs, *other.pairs] if self.pairs and other.pairs else None
        labels = np.concatenate([self.labels, other.labels])
        if self.soft is None or other.soft is None:
            return Rows([*self.texts, *other.texts], pairs, labels)
        stated = [np.ones(len(rows), bool) if rows.stated is None else rows.stated for rows in (self, other)]
        soft = np.concatenate([self.soft, other.soft])
        return Rows([*self.texts, *other.texts], pairs, labels, soft, np.concatenate(stated))

    def swapped(self) -> "Rows":
        """Pairs with their two texts the other way round, and what is said of them."""
        assert self.pairs is not None
        return Rows(self.pairs, self.texts, self.labels, self.soft, self.stated)

    def longest(self, count: int) -> "Rows":
        """The `count` rows with the most words, in their order."""
        words = np.array([sum(len(side.split()) for side in sides(row)) for row in self.inputs()])
        return self.take(np.sort(np.argsort(-words, kind="stable")[:count]))

    def inputs(self) -> list[Input]:
        return [*zip(self.texts, self.pairs, strict=True)] if self.pairs else [*self.texts]

    def sha256(self) -> str:
        """Of texts and labels in their order, hexadecimal."""
        labels = (",".join(map(str, np.flatnonzero(each))) for each in self.labels) if self.multi_label else self.labels
        return digest("\t".join([*sides(row), str(label)]) for row, label in zip(self.inputs(), labels, strict=True))


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
    result = hashlib.sha256()
    for line in lines:
        result.update(f"{line}\n".encode())
    return result.hexdigest()


def find_split(folder: Path, split: str) -> Path | None:
    """The file of a split ("train", "dev", "test") in a data folder, whatever its format; None where there is none."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    by_name = {path.name.lower(): path for path in files if path.is_file()}
    names = (f"{split}{suffix}{packed}" for suffix in tables.SUFFIXES for packed in ("", ".gz"))
    return next((by_name[name] for name in names if name in by_name), None)


def read_rows(
    path: Path,
    columns: Columns,
    labels: list[str] | None = None,
    *,
    positions: bool = True,
    multi_label: bool | None = None,
) -> tuple[Rows, list[str]]:
    """Labelled rows of a file and the names of the classes. Blanks around a label are none of it.

    Without `labels` the classes are those of the file's soft labels (`training.soft_labels`), else its distinct labels,
    sorted (integers by value). With it, every label must be one of them; where they are names and the file has
    integers, these are indices into them. Texts have several labels with `multi_label`; where it is None, with a
    `label_separator`, or a cell that is a list. Raises DataError for a file that can't be read, and TrainingError,
    naming column or row, for a blank text, an empty label where there is no soft one, real numbers as labels, labels
    that differ only in case or blanks, or one that is not among `labels`.
    """
    with tables.read(path, columns.inputs(), columns.encoding) as table:
        soft = soft_labels.find(path, table.columns)
        if soft is None or columns.label in table.columns:
            table.require(columns.label)
        wanted = [*columns.inputs(), *([columns.label] if columns.label in table.columns else [])]
        values = tables.strings(table, [*wanted, *(soft.names if soft else [])], columns.label)
    inputs, rest = values[: len(columns.inputs())], values[len(columns.inputs()) :]
    _refuse_blank(path, inputs)
    result = [label.strip() for label in rest.pop(0)] if columns.label in wanted else [""] * len(inputs[0])
    if multi_label is None:
        multi_label = columns.label_separator is not None or any(map(label_sets.is_list, result))
    if multi_label:
        sets = label_sets.parts(path, result, columns.label_separator)
        if soft and set(soft.labels) & {label for row in sets for label in row}:
            raise TrainingError(
                f"{path}: soft labels ({soft.names[0]}) go with one label a text, and here texts have several; take "
                "those columns out"
            )
        return _label_sets(path, columns, inputs, sets, labels, positions)
    return _classes(path, columns, inputs, result, (soft, rest), labels, positions)


def _classes(
    path: Path,
    columns: Columns,
    inputs: list[list[str]],
    result: list[str],
    soft_labels_: tuple[soft_labels.SoftColumns | None, list[list[str]]],
    labels: list[str] | None,
    positions: bool,
) -> tuple[Rows, list[str]]:
    """`read_rows` of texts with one label each."""
    soft, rest = soft_labels_
    known = set(result) - {""}
    integers = bool(known) and all(map(_is_integer, known))
    if soft and known and not integers and not known & set(soft.labels):
        soft = None  # columns of another meaning, as p_value
    if soft is None:
        _refuse_bare(path, columns.label, result)
    if not integers and known and all(map(_is_number, known)):
        raise TrainingError(
            f"{path}: column {columns.label!r} holds real numbers, as {result[0]!r}; classes are integers or names"
        )
    if labels is None:
        labels = soft.labels if soft else sorted(known, key=int if integers else None)
        _refuse_alike(path, [[label] for label in result])
    by_index = positions and integers and not any(map(_is_integer, labels))
    index = {str(i) if by_index else name.strip(): i for i, name in enumerate(labels)}
    strange = next((i for i, label in enumerate(result) if label and label not in index), None)
    if strange is not None:
        raise TrainingError(_unknown(path, strange, result[strange], known, labels))
    texts, pairs = inputs if columns.text_pair else (inputs[0], None)
    if soft is None:
        return Rows(texts, pairs, np.array([index[label] for label in result], dtype=np.int64)), labels
    shares, stated = soft.read(path, rest, labels), np.array([bool(label) for label in result])
    classes = [index.get(label, int(share.argmax())) for label, share in zip(result, shares, strict=True)]
    return Rows(texts, pairs, np.array(classes, dtype=np.int64), shares, stated), labels


def _label_sets(
    path: Path,
    columns: Columns,
    inputs: list[list[str]],
    result: list[list[str]],
    labels: list[str] | None,
    positions: bool,
) -> tuple[Rows, list[str]]:
    """`read_rows` of texts with several labels each."""
    known = {label for row in result for label in row}
    integers = bool(known) and all(map(_is_integer, known))
    if labels is None:
        if not known:
            raise TrainingError(f"{path}: no row has a label in column {columns.label!r}; nothing can be learned")
        labels = sorted(known, key=int if integers else None)
        _refuse_alike(path, result)
    by_index = positions and integers and not any(map(_is_integer, labels))
    index = {str(i) if by_index else name.strip(): i for i, name in enumerate(labels)}
    for number, row in enumerate(result):
        for label in row:
            if label not in index:
                raise TrainingError(_unknown(path, number, label, known, labels))
    texts, pairs = inputs if columns.text_pair else (inputs[0], None)
    return Rows(texts, pairs, label_sets.indicator(result, index)), labels


def read_inputs(path: Path, columns: Columns) -> list[Input]:
    """What the rows of a file give to read, whatever labels it has or has not. Raises TrainingError as `read_rows`."""
    inputs = tables.strings(tables.read(path, columns.inputs(), columns.encoding), columns.inputs())
    _refuse_blank(path, inputs)
    return [*zip(*inputs, strict=True)] if columns.text_pair else [*inputs[0]]


def _refuse_bare(path: Path, column: str, labels: list[str]) -> None:
    bare = next((i for i, label in enumerate(labels) if not label), None)
    if bare is not None:
        raise TrainingError(f"{path}: row {bare + 1} has no label; give it one in column {column!r}, or take it out")


def _refuse_blank(path: Path, inputs: list[list[str]]) -> None:
    """Rows that the engine would refuse are met here, before anything is learned from the others."""
    blank = [i for i, row in enumerate(zip(*inputs, strict=True)) if not all(text.strip() for text in row)]
    if blank:
        more = f", and {len(blank) - 1} more have none" if len(blank) > 1 else ""
        raise TrainingError(f"{path}: row {blank[0] + 1} has no text{more}; take such rows out")


def _refuse_alike(path: Path, result: list[list[str]]) -> None:
    """Labels that differ only in case or in blanks are one class to whoever wrote them, and two to training."""
    spelled: dict[str, set[str]] = {}
    first = {label: i for i, row in reversed([*enumerate(result)]) for label in row}
    for label in first:
        spelled.setdefault("".join(label.lower().split()), set()).add(label)
    alike = [sorted(names) for names in spelled.values() if len(names) > 1]
    if alike:
        shown = "; ".join(
            ", ".join(f"{name!r} (row {first[name] + 1})" for name in names) for names in sorted(alike)[:3]
        )
        raise TrainingError(
            f"{path}: labels that differ only in case or blanks: {shown}; spell them alike, or rename one where they "
            "are two classes"
        )


def _unknown(path: Path, row: int, label: str, result: set[str], labels: list[str]) -> str:
    """What to say of a label that is not among the known ones, of those that were found."""
    others = result - set(labels)
    shown = ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")
    close = difflib.get_close_matches(label.lower(), [name.lower() for name in labels], 1)
    meant = next((name for name in labels if close and name.lower() == close[0]), None)
    cure = f"did you mean {meant!r}?" if meant else "take such rows out, or add rows of that class to the training rows"
    more = f" and {len(others) - 1} labels more that are unknown" if len(others) > 1 else ""
    return f"{path}: row {row + 1} has the label {label!r}{more}; known are {shown}; {cure}"


def _is_integer(label: str) -> bool:
    return label.removeprefix("-").isdecimal()


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True


def split_rows(rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Rows parted at random into (rest, fraction), class by class, for data that comes without a development set.

    A class of three rows or more has one in the fraction at least; one of one or two has none, unless all are so small.
    Raises TrainingError where no class has a row to spare, and for rows of several labels, which only heads learn from,
    and these hold none out.
    """
    if rows.multi_label:
        raise TrainingError(ONLY_HEADS)
    counts = np.bincount(rows.labels)
    order = np.random.default_rng(seed).permutation(len(rows))
    share = fraction * counts
    held = np.where(counts >= 3, np.maximum(1, np.floor(share)), 0).astype(np.int64)
    spare = np.where(counts >= 3, counts - 1, 0)
    if not held.any():
        held[counts.argmax()] = 1
        if counts.max() < 2:
            raise TrainingError(
                f"{len(rows)} rows, and no class with two: none can be held out to score the network; add rows, or "
                "give a development file"
            )
    for label in np.argsort(held - share, kind="stable"):  # those that are furthest below their share get one more
        if held.sum() >= round(len(rows) * fraction):
            break
        held[label] += held[label] < spare[label]
    taken = np.concatenate([order[rows.labels[order] == label][:n] for label, n in enumerate(held.tolist())])
    rest = np.setdiff1d(np.arange(len(rows)), taken)
    return rows.take(rest), rows.take(np.sort(taken))


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
    result = {s for line in paragraphs(path) for s in cut(line) if shortest <= len(s.split()) <= longest}
    ordered = sorted(result)  # a set's order differs from run to run
    drawn = (ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered)))
    return list(itertools.islice((s for s in drawn if key(s) not in without), count))
