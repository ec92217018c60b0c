"""
CSV and its kin as records: what separates fields, whether quotes fold them, and how the bytes spell letters.

- the separator is that of comma, semicolon, tab and pipe under which the header has the columns that are asked for
- quotes fold fields (RFC 4180) but in files parted by tabs, where they are plain characters, as GLUE has them, unless
  every one of them stands as pandas and R would write it
- letters are UTF-8, or UTF-16 where a byte order mark or the zeros between letters say so; else as the caller says

Python's own csv module reads, in its strict mode, because it alone says at which line a record begins: a quote that
never closes is then an error with its row, where pyarrow and polars return what is left of the file.
"""

import codecs
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from beexformer.model.errors import DataError

SEPARATORS = (",", ";", "\t", "|")
SNIFFED = 65536  # bytes at the start that tell the encoding
REMEMBERED = 2000  # records whose short values tell a swallowed row from a text of several lines
SHORT = 64
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
CP1252 = "save it as UTF-8, or say what it is: --encoding cp1252 is what older Windows programs write"

csv.field_size_limit(2**31 - 1)  # of a process; the default, 128 KiB, is shorter than a long report


def encoding_of(start: bytes, stated: str | None) -> str:
    """The codec of a file that starts with these bytes; a byte order mark outweighs what was stated."""
    marked = next((name for mark, name in MARKS if start.startswith(mark)), None)
    if marked:
        return marked
    if stated:
        try:
            return codecs.lookup(stated).name
        except LookupError:
            raise DataError(f"--encoding {stated}: no such encoding; utf-8, utf-16 and cp1252 are usual") from None
    odd, even = start[1::2].count(0), start[::2].count(0)
    if 4 * max(odd, even) > len(start):  # the other half of each Latin letter
        return "utf-16-le" if odd > even else "utf-16-be"
    return "utf-8"


class Lines:
    """The lines of a text file, ends included, with their number; those of the record being read are kept."""

    def __init__(self, file: BinaryIO, path: Path, encoding: str | None) -> None:
        try:
            buffered = io.BufferedReader(file, SNIFFED)  # type: ignore[type-var]
            self.path, self.encoding = path, encoding_of(buffered.peek(SNIFFED), encoding)
        except BaseException:
            file.close()
            raise
        # bytes that are no UTF-8 become surrogates, so that their line can be named
        errors = "surrogateescape" if self.encoding.startswith("utf-8") else "strict"
        self.text = io.TextIOWrapper(buffered, self.encoding, errors, newline="")
        self.close = self.text.close
        self.number = self.rows = 0
        self.record: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = next(self.text)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.path}: after row {self.rows} something is not {self.encoding} ({error.reason}); "
                "give the right --encoding"
            ) from None
        self.number += 1
        if not line.isascii():
            try:
                line.encode()
            except UnicodeEncodeError as error:
                byte = ord(line[error.start]) & 0xFF
                raise DataError(
                    f"{self.path}: row {self.rows + 1} (line {self.number}) is not UTF-8, byte 0x{byte:02X} after "
                    f"{line[max(0, error.start - 20) : error.start]!r}; {CP1252}"
                ) from None
        self.record.append(line)
        return line


def records(
    open_lines: Callable[[], Lines], suffix: str, wanted: Sequence[str]
) -> tuple[list[str], Iterator[list[str]]]:
    """(names of the columns, records of as many fields each) of a file parted by one of SEPARATORS.

    `open_lines()` begins the file anew, `wanted` are columns that help to tell the separator. Raises DataError that
    names row, line and column, at once or while it is read.
    """
    lines = open_lines()
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise DataError(f"{lines.path}: no rows; the file is empty")
    stated = _excel_separator(first)
    if stated:
        first = next(lines, "")
    separator = stated or separator_of(first, "\t" if suffix == ".tsv" else ",", wanted)
    quoted = separator != "\t" or _folded(open_lines(), separator)
    reader = _reader(_chain(first, lines), separator, quoted)
    names = [name.strip() for name in next(reader)]
    lines.record.clear()
    return names, _checked(reader, lines, names, separator, quoted)


def _excel_separator(line: str) -> str | None:
    """What Excel writes before the header where it is asked to state the separator: sep=; alone in a line."""
    bare = line.strip().strip('"').lower()
    return bare[4:] if bare.startswith("sep=") and len(bare) == 5 else None


def separator_of(header: str, usual: str, wanted: Sequence[str]) -> str:
    """The separator under which a header has most of the wanted columns, then most columns, then the usual one."""

    def rank(separator: str) -> tuple[int, int, bool]:
        names = [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
        return len(set(wanted).intersection(names)), len(names), separator == usual

    return max(SEPARATORS, key=rank)


def _chain(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from lines


def _reader(lines: Iterable[str], separator: str, quoted: bool) -> Iterator[list[str]]:
    if quoted:
        return csv.reader(lines, delimiter=separator, strict=True)
    return csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE)


def _checked(
    reader: Iterator[list[str]], lines: Lines, names: list[str], separator: str, quoted: bool
) -> Iterator[list[str]]:
    """Records as the file has them, without those in which every field is empty."""
    seen: list[set[str]] = [set() for _ in names]
    while True:
        begun = lines.number + 1
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise DataError(_quote(lines, names, separator, begun, str(error))) from None
        if record is None:
            return
        if any(record):
            lines.rows += 1
            where = f"{lines.path}: row {lines.rows} (line {begun})"
            if len(record) != len(names):
                raise DataError(_ragged(where, record, names, separator, quoted))
            if len(lines.record) > 2 and quoted:
                _refuse_swallowed(where, lines.record, record, seen, separator, names)
            if lines.rows <= REMEMBERED:
                for values, field in zip(seen, record, strict=True):
                    if 0 < len(field) <= SHORT:
                        values.add(field)
            yield record
        lines.record.clear()


def _ragged(where: str, record: list[str], names: list[str], separator: str, quoted: bool) -> str:
    shown = {"\t": "tab"}.get(separator, f"{separator!r}")
    cure = f"put a field that holds a {shown} between quotes" if quoted else f"take the {shown} out of the field"
    if len(record) < len(names):
        cure = "add what is missing, or take the row out"
    return f"{where} has {len(record)} fields and the header has {len(names)}, {', '.join(names)}; {cure}"


def _quote(lines: Lines, names: list[str], separator: str, begun: int, error: str) -> str:
    """What to say where a quote stands wrong in the record that began at line `begun`."""
    opened = next(csv.reader(lines.record[:1], delimiter=separator), [""])
    column = names[min(len(opened), len(names)) - 1]
    where = f"{lines.path}: row {lines.rows + 1} (line {begun})"
    cure = 'write "" for a quote inside a quoted field'
    if "unexpected end" in error:
        return (
            f"{where} opens a quote in column {column!r} that never closes, so the rest of the file is in it; "
            f"close it, or {cure}"
        )
    if len(lines.record) > 1:
        return (
            f"{where} opens a quote in column {column!r} that closes only in line {lines.number}, in the middle of a "
            f"field; close it, or {cure}"
        )
    return f"{where} has text after the quote that closes a field; {cure}"


def _refuse_swallowed(
    where: str, lines: list[str], record: list[str], seen: list[set[str]], separator: str, names: list[str]
) -> None:
    """Refuse a record whose inner lines are rows themselves: of the header's width, nowhere blank, and with a short
    value that other rows, or this one, have in the same column. A quote was forgotten there, and one further down
    closed it by chance."""
    for inner in lines[1:-1]:
        fields = next(csv.reader([inner], delimiter=separator), [])
        if len(fields) == len(names) and all(map(str.strip, fields)):
            for values, own, field in zip(seen, record, fields, strict=True):
                if len(field) <= SHORT and (field in values or field == own):
                    raise DataError(
                        f"{where} opens a quote that closes {len(lines) - 1} lines further down, and the lines between "
                        f'look like rows ({inner.strip()[:40]!r}); close it, or write "" for a quote inside a field'
                    )


def _folded(lines: Lines, separator: str) -> bool:
    """Whether the quotes of a file parted by tabs fold fields: every one stands where pandas or R put it, and there is
    a field that needs its quotes, or the header is quoted throughout."""
    needed = False
    try:
        for number, record in enumerate(csv.reader(lines, delimiter=separator, strict=True)):
            quotes = sum(line.count('"') for line in lines.record)
            lines.record.clear()
            if not quotes:
                continue
            inner = [field.count('"') for field in record]
            folded = [n > 0 or not {separator, "\n", "\r"}.isdisjoint(f) for n, f in zip(inner, record, strict=True)]
            least = sum(2 + 2 * n for n, needs in zip(inner, folded, strict=True) if needs)
            if quotes < least or (quotes - least) % 2:
                return False  # a quote stands bare inside a field, as in plain text
            needed = needed or least > 0 or (number == 0 and quotes == 2 * len(record))
    except csv.Error:
        return False
    return needed
