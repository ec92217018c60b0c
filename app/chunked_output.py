"""
A scored file while it is written: parts in a folder, each whole or not there, that become one file in the end.

CSV, TSV, JSON lines or Parquet, by the suffix of the output. A part has the rows of a chunk with all their columns, and
what was found of each; its name has its number, how many of its rows have no answer, and its bytes. By these a part
that a power failure left empty is told from a whole one: the system is asked only once, for the whole output, to have
everything on the disk, because for a part that takes as long as twenty of its rows.
"""

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beexformer.model import tables
from beexformer.model.answer import Answer
from beexformer.model.errors import BEEError

KINDS = (".csv", ".tsv", ".jsonl", ".parquet")
ANSWER_COLUMNS = ("predicted_label", "predicted_score", "exit_index", "flops_saved_ratio", "truncated", "error")
"""Columns that an output has beyond those of its input."""
SEVERAL = "predicted_labels"
"""One more column, of models that give several labels a text: a list, in CSV as JSON."""

Outcome = Answer | str
"""An answer, or why there is none."""


@dataclass(frozen=True)
class Output:
    """Where the rows of `source` go, whose columns are `columns`. Raises BEEError for a suffix not among KINDS."""

    out: Path
    source: Path
    columns: tuple[str, ...]
    several: bool = False  # labels a text

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BEEError(f"--output {self.out}: the name must end in {', '.join(KINDS)}")
        if self.kind == ".parquet":
            try:
                import pyarrow  # noqa: F401
            except ImportError:
                raise BEEError(f"--output {self.out}: needs pyarrow; pip install 'beexformer[train]'") from None

    @property
    def kind(self) -> str:
        return self.out.suffix.lower()

    @property
    def folder(self) -> Path:
        return self.out.with_name(f"{self.out.name}.partial")

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the output: those of the input, then ANSWER_COLUMNS, made distinct."""
        return tables.distinct([*self.columns, *([SEVERAL] if self.several else []), *ANSWER_COLUMNS])

    def parts(self) -> dict[int, Path]:
        """The parts that are there whole, by number."""
        paths = sorted(self.folder.glob(f"[0-9]*{self.kind}"))
        return {int(path.name[:9]): path for path in paths if path.stat().st_size == _facts(path)[1]}

    def write(self, number: int, rows: Sequence[tables.Row], outcomes: Sequence[Outcome]) -> None:
        """Write a part: an outcome for each row."""
        records = [
            [*(row.get(column) for column in self.columns), *self.answer_cells(outcome)]
            for row, outcome in zip(rows, outcomes, strict=True)
        ]
        bad = sum(isinstance(outcome, str) for outcome in outcomes)
        hidden = self.folder / f".{number:09}{self.kind}"
        if self.kind == ".parquet":
            _write_parquet(hidden, self, records)
        else:
            hidden.write_text("".join(self._lines(records)), encoding="utf-8", newline="")
        hidden.rename(self.folder / f"{number:09}-{bad}-{hidden.stat().st_size}{self.kind}")

    def join(self) -> int:
        """Make the parts one file, in order; the number of rows without an answer."""
        parts = self.parts()
        hidden = self.folder / f".whole{self.kind}"
        if self.kind == ".parquet":
            _join_parquet(hidden, [*parts.values()])
        else:
            with hidden.open("wb") as whole:
                if self.kind != ".jsonl":
                    whole.write("".join(self._lines([self.names])).encode())
                for path in parts.values():
                    with path.open("rb") as part:
                        shutil.copyfileobj(part, whole)
        with hidden.open("rb") as written:
            os.fsync(written.fileno())
        hidden.rename(self.out)
        return sum(_facts(path)[0] for path in parts.values())

    def answer_cells(self, outcome: Outcome) -> list[Any]:
        """The values of SEVERAL, where it is there, and of ANSWER_COLUMNS."""
        if isinstance(outcome, str):
            return [*([None] * self.several), None, None, None, None, None, outcome]
        labels = [[*outcome.says]] if self.several else []
        saved = round(outcome.flops_saved_ratio, 6)
        return [*labels, outcome.label, round(outcome.score, 6), outcome.exit_index, saved, outcome.truncated, None]

    def _lines(self, records: Sequence[Sequence[Any]]) -> Iterator[str]:
        if self.kind == ".jsonl":
            for record in records:
                fields = enumerate(zip(self.names, record, strict=True))
                stated = {name: value for i, (name, value) in fields if i < len(self.columns) or value is not None}
                yield json.dumps(stated, ensure_ascii=False, default=tables.text_of) + "\n"
            return
        text = io.StringIO()
        writer = csv.writer(text, delimiter="\t" if self.kind == ".tsv" else ",", lineterminator="\n")
        writer.writerows([_cell(value) for value in record] for record in records)
        yield text.getvalue()


def answer_types(several: bool) -> list[Any]:
    """The types of SEVERAL, where it is there, and of ANSWER_COLUMNS in Parquet."""
    import pyarrow as pa

    result = [pa.string(), pa.float64(), pa.int64(), pa.float64(), pa.bool_(), pa.string()]
    return [pa.list_(pa.string()), *result] if several else result


def _facts(part: Path) -> tuple[int, int]:
    """What a part's name says: rows without an answer, and bytes."""
    bad, size = part.stem.split("-")[1:]
    return int(bad), int(size)


def _cell(value: Any) -> str:
    """A value in CSV; lists and objects as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else tables.text_of(value)


def _write_parquet(path: Path, output: Output, records: list[list[Any]]) -> None:
    """Types of a Parquet input stay; of others they are those of the values, text where they differ."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stated: list[Any] = [None] * len(output.columns)
    if tables.suffix_of(output.source) == ".parquet":
        types = pq.read_schema(output.source).types
        stated = [type_.value_type if pa.types.is_dictionary(type_) else type_ for type_ in types]
    arrays = []
    for values, type_ in zip(zip(*records, strict=True), [*stated, *answer_types(output.several)], strict=True):
        try:
            arrays.append(pa.array(values, type_))
        except (pa.ArrowException, TypeError):
            arrays.append(pa.array([None if value is None else _cell(value) for value in values], pa.string()))
    pq.write_table(pa.table(arrays, names=[*output.names]), path)


def _join_parquet(path: Path, parts: Sequence[Path]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schemas = [pq.read_schema(part) for part in parts]
    fields = []
    for name, *types in zip(schemas[0].names, *(schema.types for schema in schemas), strict=True):
        known = {type_ for type_ in types if not pa.types.is_null(type_)}
        if known == {pa.int64(), pa.float64()}:
            known = {pa.float64()}
        fields.append(pa.field(name, known.pop() if len(known) == 1 else pa.string()))
    with pq.ParquetWriter(path, pa.schema(fields)) as whole:
        for part in parts:
            whole.write_table(pq.read_table(part).cast(pa.schema(fields)))
