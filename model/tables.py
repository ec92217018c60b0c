"""
Files of rows as people have them: CSV and its kin, JSON lines, sheets of Excel and OpenDocument, Parquet; the text
forms gzipped too.

One row after another, as a mapping of column names to values, so that a file of any size can be scored; for training
and serving alike. Every error names the file, the row, the column and what to do. Sheets and Parquet need a library of
the extra [train] each, which is loaded when such a file is met.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import date, time
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from beexformer.model import delimited
from beexformer.model.delimited import Lines
from beexformer.model.errors import DataError

DELIMITED = (".csv", ".tsv", ".tab", ".psv")
JSON = (".jsonl", ".ndjson", ".json")
SHEETS = (".xlsx", ".xls", ".xlsb", ".ods")
SUFFIXES = (*DELIMITED, *JSON, *SHEETS, ".parquet")
LOOKED_AT = 100  # first rows of JSON lines whose fields are the columns, where rows may differ
MAGIC = {b"PK\x03\x04": ".xlsx", b"\xd0\xcf\x11\xe0": ".xls", b"PAR1": ".parquet"}

Row = Mapping[str, Any]
"""Values of one row by column; a column that it lacks is empty."""


@dataclass(frozen=True)
class Table:
    """A file that is being read: names of its columns, and an iterator over its rows, which closes it at the end. Who
    stops earlier uses it as a context manager."""

    path: Path
    columns: tuple[str, ...]
    rows: Iterator[Row]
    files: ExitStack

    def __enter__(self) -> "Table":
        return self

    def __exit__(self, *raised: object) -> None:
        self.files.close()

    def require(self, *names: str) -> None:
        """Raise DataError where a column isn't there, or is there twice."""
        for name in names:
            if name in self.columns and f"{name}.1" not in self.columns:
                continue
            if name in self.columns:
                raise DataError(f"{self.path}: 2 columns {name!r}; rename one, or take it out")
            alike = next((c for c in self.columns if c.strip().lower() == name.lower()), None)
            hint = f"; did you mean {alike!r}?" if alike else "; say which one it is, or name the columns in line 1"
            raise DataError(f"{self.path}: no column {name!r}; it has {', '.join(self.columns)}{hint}")


def suffix_of(path: Path) -> str | None:
    """What kind of file a name says it is, in lower case and without .gz; None for a kind that isn't read."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def read(path: Path, wanted: Sequence[str] = (), encoding: str | None = None) -> Table:
    """Open a file of rows; `wanted` are columns that it must have, `encoding` a codec's name where it is no Unicode.

    Raises DataError, at once or while rows are read.
    """
    suffix = suffix_of(path)
    if suffix is None:
        raise DataError(f"{path}: unknown format; give one of {', '.join(SUFFIXES)} (text forms also as .gz)")
    if path.is_dir():
        raise DataError(f"{path} is a folder; give the file in it")
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from None
    binary = MAGIC.get(start)
    if binary and suffix not in (*SHEETS, ".parquet"):
        raise DataError(f"{path}: is a {binary} file in spite of its name; rename it, or save it as CSV")

    def open_lines() -> Lines:
        file = (gzip.open if start[:2] == b"\x1f\x8b" else open)(path, "rb")
        return files.enter_context(closing(Lines(cast(BinaryIO, file), path, encoding)))

    with ExitStack() as files:
        with _cut_off(path, suffix):
            columns, rows = _open(path, suffix, wanted, open_lines)
        table = Table(path, columns, _closing(path, suffix, rows, kept := files.pop_all()), kept)
        files.push(kept)
        table.require(*wanted)
        files.pop_all()
    return table


def _open(
    path: Path, suffix: str, wanted: Sequence[str], open_lines: Callable[[], Lines]
) -> tuple[tuple[str, ...], Iterator[Row]]:
    if suffix in JSON:
        return _peeked(_json(open_lines()))
    if suffix == ".parquet":
        return _parquet(path)
    if suffix in SHEETS:
        header, records = _sheet(path)
    else:
        header, records = delimited.records(open_lines, suffix, wanted)
    columns = distinct(header)
    return columns, (dict(zip(columns, record, strict=True)) for record in records)


def _closing(path: Path, suffix: str, rows: Iterator[Row], files: ExitStack) -> Iterator[Row]:
    with files, _cut_off(path, suffix):
        yield from rows


@contextmanager
def _cut_off(path: Path, suffix: str) -> Iterator[None]:
    """What ends in the middle of being read is an error that names the file."""
    try:
        yield
    except (EOFError, OSError, zlib.error) as error:
        kind = suffix[1:].upper()
        raise DataError(f"{path}: can't be read as {kind}: {error}; the file is cut off or damaged") from None


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names of columns as pandas makes them distinct: the second x is x.1."""
    taken: list[str] = []
    for name in names:
        count, new = 0, name
        while new in taken:
            count += 1
            new = f"{name}.{count}"
        taken.append(new)
    return tuple(taken)


# ---------------------------------------------------------------- JSON


def _peeked(rows: Iterator[Row]) -> tuple[tuple[str, ...], Iterator[Row]]:
    first = list(islice(rows, LOOKED_AT))
    return tuple(dict.fromkeys(name for row in first for name in row)), chain(first, rows)


def _json(lines: Lines) -> Iterator[Row]:
    """Objects, one a line, or the objects of one array."""
    first = next((line for line in lines if line.strip()), "")
    if first.lstrip().startswith("["):
        yield from _array(lines.path, first + "".join(lines))
        return
    for line in chain([first] if first else [], lines):
        lines.record.clear()
        if line.strip():
            lines.rows += 1
            yield _object(line, f"{lines.path}: row {lines.rows} (line {lines.number})")


def _array(path: Path, text: str) -> Iterator[Row]:
    try:
        result = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: is no JSON array: {error}; write one object a line instead") from None
    for number, row in enumerate(result, start=1):
        if not isinstance(row, dict):
            raise DataError(f'{path}: row {number} is no object; each row is one, as {{"text": ..., "label": ...}}')
        yield row


def _object(line: str, where: str) -> Row:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            raise DataError(f"{where} has a field twice; take one of them out")
        return result

    try:
        row = json.loads(line, object_pairs_hook=once)
    except ValueError as error:
        raise DataError(f"{where} is no JSON: {error}; each line is one object") from None
    except RecursionError:
        raise DataError(f"{where} is nested too deep; each line is one object") from None
    if not isinstance(row, dict):
        raise DataError(f'{where} is no object; each line is one, as {{"text": "...", "label": "..."}}')
    return row


# ---------------------------------------------------------------- sheets and Parquet


def _missing(path: Path, library: str) -> DataError:
    return DataError(f"{path}: needs {library}; pip install 'beexformer[train]', or save the rows as CSV")


def _sheet(path: Path) -> tuple[list[str], Iterator[list[Any]]]:
    try:
        import python_calamine
    except ImportError:
        raise _missing(path, "python-calamine") from None
    try:
        book = python_calamine.load_workbook(path)
        sheets = {name: book.get_sheet_by_name(name).to_python() for name in book.sheet_names}
    except (python_calamine.CalamineError, ValueError) as error:
        raise DataError(f"{path}: can't be read as a sheet: {error}; save it as CSV") from None
    filled = {name: rows for name, rows in sheets.items() if rows}
    if len(filled) > 1:
        raise DataError(f"{path}: has {len(filled)} sheets with rows, {', '.join(filled)}; save the right one as CSV")
    rows = next(iter(filled.values()), [])
    if not rows:
        raise DataError(f"{path}: no rows; the sheet is empty")
    header = [text_of(_whole(value)).strip() for value in rows[0]]
    return header, ([*map(_whole, row)] for row in rows[1:] if any(value != "" for value in row))


def _whole(value: Any) -> Any:
    """Sheets keep 4 as 4.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _parquet(path: Path) -> tuple[tuple[str, ...], Iterator[Row]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise _missing(path, "pyarrow") from None
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: can't be read as PARQUET: {error}") from None
    columns = distinct(file.schema_arrow.names)

    def rows() -> Iterator[Row]:
        try:
            for batch in file.iter_batches(4096):
                yield from batch.rename_columns(columns).to_pylist()
        except (pyarrow.ArrowException, UnicodeDecodeError) as error:
            raise DataError(f"{path}: can't be read as PARQUET: {error}; write it anew") from None

    return columns, rows()


# ---------------------------------------------------------------- values


def text_of(value: Any) -> str:
    """A value as text: nothing is "", true is "true". Raises DataError for lists, objects and half a surrogate pair."""
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value):
            raise DataError("holds half of a surrogate pair")
        return value
    if value is None or value != value:  # NaN is what pandas leaves where there is nothing
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Mapping | list | tuple | bytes):
        kind = "an object" if isinstance(value, Mapping) else "bytes" if isinstance(value, bytes) else "a list"
        raise DataError(f"holds {kind}, not text")
    return str(value)


def texts(table: Table, names: Sequence[str], lists: str | None = None) -> Iterator[list[str]]:
    """The columns of a table as text, row by row; in the column `lists` a list is text too, as JSON. Raises DataError,
    naming row and column, for what is no text."""
    for number, row in enumerate(table.rows, start=1):
        result = []
        for name in names:
            try:
                value = row.get(name)
                listed = name == lists and isinstance(value, list | tuple)
                result.append(text_of(json.dumps(value, ensure_ascii=False, default=text_of) if listed else value))
            except DataError as error:
                raise DataError(
                    f"{table.path}: row {number}: column {name!r} {error}; write it as text, or name another column"
                ) from None
        yield result


def strings(table: Table, names: Iterable[str], lists: str | None = None) -> list[list[str]]:
    """Whole columns of a table that has rows, as `texts` has them. Raises DataError too where there is no row."""
    names = list(names)
    with table:
        result = list(texts(table, names, lists))
    if not result:
        raise DataError(f"{table.path}: no rows")
    return [list(column) for column in zip(*result, strict=True)]
