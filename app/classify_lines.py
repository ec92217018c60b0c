"""
Classifying without a server: a sentence, a file or stdin to JSON lines. Knows files and engines; nothing of HTTP.

Answers and problems have the shapes of the HTTP answers; a problem also has the number of its `line`. Lines keep their
order, one in and one out; a bad one stands alone; what comes through a pipe is answered line by line as it comes.
"""

import json
import os
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console
from rich.progress import Progress

from beexformer.app.errors import InvalidFields, NotJSON, problem
from beexformer.app.schemas import to_json
from beexformer.model.engine import Engine, Row
from beexformer.model.errors import BEEError, InputError
from beexformer.model.options import ExitOptions

ROWS = 32  # lines of a file that run together
JSONL = (".jsonl", ".ndjson")


class Line(BaseModel):
    """A line of a .jsonl file; other fields, a label or an id, are left aside."""

    model_config = ConfigDict(strict=True)

    text: str
    text_pair: str | None = None


def is_file(source: str, jsonl: bool) -> bool:
    """Whether the argument names a file or stdin; everything else is a sentence. Raises BEEError for other files."""
    if jsonl or source == "-":
        return True
    readable = Path(source).suffix.lower() in (".txt", *JSONL)
    if os.path.exists(source):  # never raises, however long the sentence is
        if readable:
            return True
        raise BEEError(
            f"{source} is a file or folder; texts are read from .txt, a line each, from .jsonl, or from - (stdin); "
            "rows of other files with --output"
        )
    return readable and " " not in source  # a sentence may end in the name of a file


def classify_text(engine: Engine, text: str, text_pair: str | None, options: ExitOptions) -> str:
    """The answer to one text as a line of JSON."""
    [answer] = engine.predict([engine.encode(text, text_pair, options)])
    return to_json(answer).decode()


def classify_file(engine: Engine, source: str, options: ExitOptions, *, jsonl: bool, threads: int) -> int:
    """Answer each line on stdout; the number of lines that couldn't be answered."""
    engine.resolve(options)  # an option that no line can have is refused before the first one
    work = partial(_classify, engine, options, jsonl or Path(source).suffix.lower() in JSONL)
    # reading ahead would keep back the answer to a line from a pipe until more lines come
    rows, ahead = (1, 0) if source == "-" else (ROWS, 2 * threads)
    bad = 0
    with _open(source) as file, _progress() as progress, ThreadPoolExecutor(threads) as pool:
        task = progress.add_task("classify", total=None if source == "-" else Path(source).stat().st_size)
        pending: deque[Future[tuple[list[str], int]]] = deque()
        lines = enumerate(file, start=1)
        while (chunk := list(islice(lines, rows))) or pending:
            if chunk:
                pending.append(pool.submit(work, chunk))
            if len(pending) > ahead or not chunk:
                answers, failed = pending.popleft().result()
                bad += failed
                print(*answers, sep="\n", flush=True)
            progress.advance(task, sum(len(line) for _, line in chunk))
    return bad


def _classify(
    engine: Engine, options: ExitOptions, jsonl: bool, chunk: list[tuple[int, bytes]]
) -> tuple[list[str], int]:
    """(a line of JSON for each line, how many of them are problems)"""
    outcomes: list[Row | str] = []
    for number, line in chunk:
        try:
            outcomes.append(_encode(engine, options, jsonl, line))
        except (InputError, NotJSON, InvalidFields) as error:
            result = problem(error).model_dump(exclude_none=True)
            outcomes.append(json.dumps({"line": number, **result}, ensure_ascii=False))
    rows = [outcome for outcome in outcomes if isinstance(outcome, Row)]
    answers = iter(engine.predict(rows))
    lines = [outcome if isinstance(outcome, str) else to_json(next(answers)).decode() for outcome in outcomes]
    return lines, len(outcomes) - len(rows)


def _encode(engine: Engine, options: ExitOptions, jsonl: bool, line: bytes) -> Row:
    try:
        text = line.rstrip(b"\r\n").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"the line is not UTF-8 at byte {error.start}; convert the file") from None
    if not jsonl:
        return engine.encode(text, options=options)
    try:
        parsed = Line.model_validate(json.loads(text))
    except ValidationError as error:
        raise InvalidFields(error.errors()) from None
    except ValueError as error:
        raise NotJSON(f"the line is not JSON: {error}") from None
    return engine.encode(parsed.text, parsed.text_pair, options)


def _open(source: str) -> BinaryIO:
    try:
        return sys.stdin.buffer if source == "-" else Path(source).open("rb")
    except OSError as error:
        raise BEEError(f"{source} can't be read ({error.strerror}); give a sentence, a file or -") from None


def _progress() -> Progress:
    # no bar among answers on the same screen
    silent = not sys.stderr.isatty() or sys.stdout.isatty()
    return Progress(console=Console(stderr=True), disable=silent, redirect_stdout=False)
