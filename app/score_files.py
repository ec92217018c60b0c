"""
Files of rows to files of rows with answers: `beexformer classify rows.csv --text review -o scored.csv`.

Rows go in chunks to processes, one a core, each with an engine of its own; a chunk's answers are a file in a folder
beside the output (`scored.csv.partial`), written whole or not at all. After a kill the same command leaves out the
chunks that are there, so no row is lost, and none is answered twice. In the end the parts become the output, in order.
Knows files and engines; nothing of HTTP.
"""

import contextlib
import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from beexformer.app.chunked_output import Outcome, Output
from beexformer.model import tables
from beexformer.model.engine import Engine, Row
from beexformer.model.errors import BEEError, DataError, InputError
from beexformer.model.options import NOTHING_ASKED, ExitOptions
from beexformer.model.registry import load_one

ROWS = 500  # of a chunk: what a kill can lose in each process


@dataclass(frozen=True)
class Scoring:
    """What is to be scored, with what, into what."""

    source: Path
    out: Path
    text: str = "text"
    text_pair: str | None = None
    encoding: str | None = None
    options: ExitOptions = NOTHING_ASKED
    paths: tuple[Path, ...] = ()  # of checkpoints, none for the shipped ones; among them the one named `model`
    model: str = ""

    @property
    def inputs(self) -> list[str]:
        return [self.text, self.text_pair] if self.text_pair else [self.text]

    def chunks(self) -> Iterator[tuple[int, list[tables.Row]]]:
        """(number, rows) from the first row on; the last chunk may be short."""
        with tables.read(self.source, self.inputs, self.encoding) as table:
            number = 0
            while chunk := list(islice(table.rows, ROWS)):
                yield number, chunk
                number += 1


@dataclass(frozen=True)
class Scored:
    """How it ended: rows answered, and those that could not be."""

    rows: int
    bad: int


def score(scoring: Scoring, engine: Engine, processes: int, console: Console) -> Scored:
    """Score a file; a call with the same arguments after a kill goes on. `engine` is what the processes will load.

    Raises BEEError for a file that can't be read to its end, before a row is answered, for an output that exists, and
    for a partial output of another run.
    """
    engine.resolve(scoring.options)  # an option that no row can have is refused before the first one
    Output(scoring.out, scoring.source, ())
    if scoring.out.exists():
        raise BEEError(f"{scoring.out} exists; name another file with -o, or remove it")
    rows, columns = _looked_through(scoring)
    output = Output(scoring.out, scoring.source, columns, several=engine.thresholds is not None)
    processes = min(processes, -(-rows // ROWS))
    # processes before the bar, whose thread none of them should be a copy of
    with (
        _locked(output.folder, _fingerprint(scoring, engine)),
        _processes(scoring, output, engine, processes) as pool,
        _bar(console) as bar,
    ):
        task = bar.add_task(scoring.source.name, total=rows, kept=0)
        _run(scoring, output, engine, pool, processes, partial(bar.update, task))
        bad = output.join()
        shutil.rmtree(output.folder)
    return Scored(rows, bad)


def _looked_through(scoring: Scoring) -> tuple[int, tuple[str, ...]]:
    """(rows, columns) of the whole file: what is broken is met now and not after an hour."""
    with tables.read(scoring.source, scoring.inputs, scoring.encoding) as table:
        columns, rows = dict.fromkeys(table.columns), 0
        for row in table.rows:
            rows += 1
            columns.update(dict.fromkeys(row))
    if not rows:
        raise BEEError(f"{scoring.source}: no rows")
    return rows, tuple(columns)


@contextlib.contextmanager
def _processes(
    scoring: Scoring, output: Output, engine: Engine, count: int
) -> Iterator[Callable[[int, list[tables.Row]], Future[None]] | None]:
    """So many processes, and what gives them a chunk; None where this one is enough. They are forks of this one, which
    has checkpoint and kernels already; where it has threads, whose locks a fork would copy, they load both anew."""
    global _at_work
    if count == 1:
        yield None
        return
    alone = sys.platform == "linux" and threading.active_count() == 1
    if alone:
        _at_work = scoring, output, engine
    context = multiprocessing.get_context("fork" if alone else "spawn")
    with ProcessPoolExecutor(count, context, _start, (() if alone else (scoring, output))) as pool:
        try:
            for started in [pool.submit(os.getpid) for _ in range(count)]:
                started.result()
            yield lambda number, chunk: pool.submit(_write, number, chunk)
        except BrokenProcessPool:
            raise BEEError(
                "a process was killed, for want of memory perhaps; the same command goes on, --threads 1 needs less"
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _run(
    scoring: Scoring,
    output: Output,
    engine: Engine,
    submit: Callable[[int, list[tables.Row]], Future[None]] | None,
    processes: int,
    update: Callable[..., object],
) -> None:
    """Write the parts that are not there yet."""
    there = output.parts()
    kept = 0

    def left() -> Iterator[tuple[int, list[tables.Row]]]:
        nonlocal kept
        for number, chunk in scoring.chunks():
            if number in there:
                kept += len(chunk)
                update(advance=len(chunk), kept=kept)
            else:
                yield number, chunk

    if submit is None:
        for number, chunk in left():
            output.write(number, chunk, answer(scoring, engine, chunk))
            update(advance=len(chunk))
        return
    waiting: dict[Future[None], int] = {}
    for number, chunk in left():
        waiting[submit(number, chunk)] = len(chunk)
        if len(waiting) >= 3 * processes:
            _collect(waiting, update)
    while waiting:
        _collect(waiting, update)


def _collect(waiting: dict[Future[None], int], update: Callable[..., object]) -> None:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        update(advance=waiting.pop(future))
        future.result()


# ---------------------------------------------------------------- in a process of its own

_at_work: tuple[Scoring, Output, Engine]
"""Of a process: what it scores, into what, and its engine."""


def _start(*loading: Any) -> None:
    """Of a process that is no fork, `loading` is what it scores into what; it loads the engine for it."""
    global _at_work
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:  # a process of a pool would wait for ever for a parent that was killed
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which lets what runs be written
    if not loading:
        return
    scoring, output = loading
    _at_work = scoring, output, load_one(scoring.paths, scoring.model)


def _write(number: int, chunk: list[tables.Row]) -> None:
    scoring, output, engine = _at_work
    output.write(number, chunk, answer(scoring, engine, chunk))


def answer(scoring: Scoring, engine: Engine, chunk: Sequence[tables.Row]) -> list[Outcome]:
    """An answer for each row, or the sentence that says why there is none."""
    encoded: list[Row | str] = []
    for row in chunk:
        try:
            text, *pair = (tables.text_of(row.get(name)) for name in scoring.inputs)
            encoded.append(engine.encode(text, pair[0] if pair else None, scoring.options))
        except (InputError, DataError) as error:
            encoded.append(str(error))
    answers = iter(engine.predict([row for row in encoded if isinstance(row, Row)]))
    return [row if isinstance(row, str) else next(answers) for row in encoded]


# ---------------------------------------------------------------- whose the partial output is


def _fingerprint(scoring: Scoring, engine: Engine) -> dict[str, Any]:
    """What a partial output comes from; one of anything else is not gone on with."""
    stat = scoring.source.stat()
    text = "a text that tells this network from another"
    logits = engine.logits([engine.encode(text, text if engine.input == "pair" else None)])
    return {
        "source": [str(scoring.source.resolve()), stat.st_size, stat.st_mtime_ns],
        "columns": scoring.inputs,
        "encoding": scoring.encoding,
        "options": asdict(scoring.options),
        "model": [engine.name, list(engine.labels), hashlib.sha256(logits.tobytes()).hexdigest()],
        "thresholds": engine.thresholds and [*engine.thresholds],
        "chunk_rows": ROWS,
    }


@contextlib.contextmanager
def _locked(folder: Path, fingerprint: dict[str, Any]) -> Iterator[None]:
    """The folder of parts, for this process alone."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "fingerprint.json").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BEEError(f"{folder} is being written by another process; wait for it, or name another -o") from None
        file.seek(0)
        stated = file.read()
        try:
            same = not stated or json.loads(stated) == fingerprint
        except ValueError:
            same = False
        if not same:
            raise BEEError(
                f"{folder} has answers of another file, model or option; remove it to begin anew, or name another -o"
            )
        if not stated:
            file.write(json.dumps(fingerprint))
            file.flush()
        yield


# ---------------------------------------------------------------- the bar


class _Rate(ProgressColumn):
    """Rows a second of this run, without those that an earlier one had answered."""

    def render(self, task: Task) -> Text:
        done = task.completed - task.fields["kept"]
        return Text(f"{done / task.elapsed:,.0f} rows/s" if done and task.elapsed else "")


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        disable=not console.is_terminal,
    )
