"""
Files of rows to Parquet with answers on a Ray cluster: what `beexformer classify rows.csv -o scored.parquet` does on
one machine, for files that one machine is too small for. Needs the extra [ray] on every node.

    python deploy/ray/score.py --input s3://bucket/reviews/ --text review --id id --out s3://bucket/scored

Parquet, JSON lines or CSV in (one kind, a file or a folder); columns are kept, and those of the command line's output
stand behind them. One engine an actor, a core each. Rows go in blocks of `--rows`, whatever files they come from.

After a kill the same command goes on. What is done is known by the ids, which have to differ from row to row: a block's
ids are written to OUT.partial/checkpoint before its rows are, and count once the rows are there (Ray Data's
CheckpointConfig), so no row is lost, and none is written twice. An actor or a node that dies costs the blocks that it
was at. Output files come in no order; the ids say which row is which. Ends with one line of JSON.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when ray is imported
# Ray reads the footers of Parquet files in 32 processes unless told otherwise. One reads 128 files at a time, and each
# costs two seconds of a CPU to start.
os.environ.setdefault("RAY_DATA_PARQUET_FOOTER_NUM_ACTORS", "1")

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import ray
import ray.data
from ray.data.checkpoint import CheckpointConfig

from beexformer.app.chunked_output import Output, answer_types
from beexformer.app.score_files import Scoring, answer
from beexformer.app.settings import cpus
from beexformer.model.checkpoint import SHIPPED
from beexformer.model.engine import Engine
from beexformer.model.errors import BEEError, DataError
from beexformer.model.options import ExitOptions

KINDS = {".parquet": ("parquet",), ".jsonl": ("jsonl", "ndjson"), ".csv": ("csv",)}
BATCH = 500  # rows that an engine is given at once
ENGINE_CPUS = 0.01  # for Ray's book-keeping: had engines all CPUs, no task that reads a block could ever start
OTHER_CPUS = 0.1
CPUS_A_FILTER = 16  # an actor that leaves out what is done has a CPU in Ray's books
LEAST_CPUS = 3  # in Ray's books: such an actor, a task that reads, and the engines' shares


class Scorer:
    """One engine in a process of its own, for tables [n rows] with the columns of `scoring.inputs`."""

    def __init__(self, scoring: Scoring, folder: Path) -> None:
        self.scoring, self.engine = scoring, Engine.load(folder)
        self.engine.warm()

    def __call__(self, table: pa.Table) -> pa.Table:
        """The table with the columns of the command line's output behind its own."""
        rows = table.select(self.scoring.inputs).to_pylist()
        several = self.engine.thresholds is not None
        output = Output(Path("scored.parquet"), self.scoring.source, tuple(table.column_names), several)
        values = [output.answer_cells(outcome) for outcome in answer(self.scoring, self.engine, rows)]
        names, types = output.names[table.num_columns :], answer_types(several)
        columns = zip(*values, strict=True) if values else ([] for _ in names)
        for name, column, type_ in zip(names, columns, types, strict=True):
            table = table.append_column(name, pa.array(column, type_))
        return table


def located(address: str) -> tuple[pa.fs.FileSystem, str]:
    """(where a path or URI lies, its path there). Raises DataError."""
    try:
        filesystem, path = pa.fs.FileSystem.from_uri(address)
    # in this order: a relative path, a scheme that pyarrow doesn't know, a store that can't be reached
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise DataError(f"{address}: {error}; give an absolute path, or an URI that every node can read") from None
    return filesystem, path


def kind_of(filesystem: pa.fs.FileSystem, path: str) -> tuple[str, str]:
    """(the kind of a file, or of the files below a folder, as in KINDS, one of the files). Raises DataError."""
    info = filesystem.get_file_info(path)
    if info.type == pa.fs.FileType.NotFound:
        raise DataError(f"{path}: no such file or folder")
    files = [path]
    if info.type == pa.fs.FileType.Directory:
        below = filesystem.get_file_info(pa.fs.FileSelector(path, recursive=True))
        files = [one.path for one in below if one.is_file and not one.base_name.startswith((".", "_"))]
    kinds: dict[str, str] = {}
    for file in files:
        suffix = os.path.splitext(file.removesuffix(".gz"))[1].lower()
        kind = next((kind for kind, suffixes in KINDS.items() if suffix[1:] in suffixes), None)
        if kind is None:
            raise DataError(f"{file}: give files of {', '.join(KINDS)} and no others")
        kinds.setdefault(kind, file)
    if len(kinds) != 1:
        raise DataError(f"{path}: {'files of ' + ' and '.join(kinds) if kinds else 'no files'}; give one kind")
    return kinds.popitem()


def read(path: str) -> ray.data.Dataset:
    """The rows of a file or folder. CSV has a header, commas and UTF-8; its values stay text. Raises DataError."""
    filesystem, inside = located(path)
    kind, file = kind_of(filesystem, inside)
    options: dict[str, Any] = {
        "filesystem": filesystem,
        "file_extensions": [*KINDS[kind], *(f"{suffix}.gz" for suffix in KINDS[kind])],
        "num_cpus": OTHER_CPUS,
        "partitioning": None,
    }
    if kind == ".parquet":
        return ray.data.read_parquet(inside, **options)
    if kind == ".jsonl":
        return ray.data.read_json(inside, **options)
    import pyarrow.csv as pc

    parse = pc.ParseOptions(newlines_in_values=True)
    with filesystem.open_input_stream(file, compression="gzip" if file.endswith(".gz") else None) as stream:
        header = pc.open_csv(stream, parse_options=parse).schema.names
    convert = pc.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False)
    return ray.data.read_csv(inside, parse_options=parse, convert_options=convert, **options)


def written(filesystem: pa.fs.FileSystem, out: str) -> tuple[int, int]:
    """(rows, rows without an answer) of an output, by the footers of its files and the column of errors."""
    rows = bad = 0
    for info in filesystem.get_file_info(pa.fs.FileSelector(out, allow_not_found=True)):
        with filesystem.open_input_file(info.path) as file:
            parquet = pq.ParquetFile(file)
            rows += parquet.metadata.num_rows
            error = parquet.schema_arrow.names[-1]
            bad += sum(len(batch) - batch.column(0).null_count for batch in parquet.iter_batches(columns=[error]))
    return rows, bad


def fingerprint(asked: argparse.Namespace, scoring: Scoring, folder: Path) -> bytes:
    """What a partial output comes from; one of anything else is not gone on with."""
    engine = Engine.load(folder)
    engine.resolve(scoring.options)  # an option that no row can have is refused before the first one
    text = "a text that tells this network from another"
    logits = engine.logits([engine.encode(text, text if engine.input == "pair" else None)])
    return json.dumps(
        {
            "input": asked.input,
            "columns": [asked.id, *scoring.inputs],
            "options": asdict(scoring.options),
            "model": [engine.name, list(engine.labels), hashlib.sha256(logits.tobytes()).hexdigest()],
            "thresholds": engine.thresholds and [*engine.thresholds],
        }
    ).encode()


def begin(filesystem: pa.fs.FileSystem, out: str, run: bytes) -> bool:
    """Begin OUT.partial for the run of this fingerprint, or go on with it; whether it was there. Raises BEEError for
    another run's, and for an output that is finished."""
    state = f"{out}.partial/fingerprint.json"
    if filesystem.get_file_info(state).is_file:
        with filesystem.open_input_stream(state) as file:
            if file.read() != run:
                raise BEEError(
                    f"{out}.partial belongs to answers of another input, model or option; remove it and {out} to begin "
                    "anew, or name another --out"
                )
        return True
    if filesystem.get_file_info(out).type != pa.fs.FileType.NotFound:
        raise BEEError(f"{out} exists; name another --out, or remove it")
    filesystem.create_dir(f"{out}.partial", recursive=True)
    with filesystem.open_output_stream(state) as file:
        file.write(run)
    return False


def score(asked: argparse.Namespace) -> dict[str, Any]:
    """Rows in, rows out, rows that could not be answered, and the seconds it took. Raises BEEError."""
    folder = SHIPPED / asked.model if (SHIPPED / asked.model / "config.json").is_file() else Path(asked.model)
    scoring = Scoring(Path(asked.input), Path(asked.out), asked.text, asked.text_pair, options=options_of(asked))
    filesystem, out = located(asked.out.rstrip("/"))
    engines = join_or_start()
    booked = int(ray.cluster_resources().get("CPU", 0))
    if booked < LEAST_CPUS:
        raise BEEError(f"the cluster has {booked} CPUs; it needs {LEAST_CPUS}, by num_cpus where there are fewer cores")
    ray.data.DataContext.get_current().enable_progress_bars = sys.stderr.isatty()
    rows = read(asked.input)
    columns = rows.schema().names
    for name in (asked.id, *scoring.inputs):
        if name not in columns:
            raise DataError(f"{asked.input}: no column {name!r}; it has {', '.join(columns)}")
    resumed = begin(filesystem, out, fingerprint(asked, scoring, folder))
    begun = time.monotonic()
    done = CheckpointConfig(asked.id, f"{asked.out.rstrip('/')}.partial/checkpoint", delete_checkpoint_on_success=False)
    done.checkpoint_actor_pool_max_size = max(1, booked // CPUS_A_FILTER)
    rows.context.checkpoint_config = done
    actors = asked.actors or engines
    scored = rows.repartition(target_num_rows_per_block=asked.rows).map_batches(
        Scorer,
        fn_constructor_args=(scoring, folder),
        batch_format="pyarrow",
        batch_size=min(BATCH, asked.rows),  # a larger one would join blocks
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=ENGINE_CPUS,
        scheduling_strategy="SPREAD",
    )
    scored.write_parquet(out, filesystem=filesystem, ray_remote_args={"num_cpus": OTHER_CPUS})
    there, bad = written(filesystem, out)
    rows.context.checkpoint_config = None  # it would leave out what is done
    if resumed and there != (total := rows.count()):
        raise BEEError(f"{total} rows of input, {there} of output: the ids in {asked.id!r} are not all different")
    filesystem.delete_dir(f"{out}.partial")
    return {
        "rows": there,
        "bad": bad,
        "resumed": resumed,
        "actors": actors,
        "seconds": round(time.monotonic() - begun, 1),
    }


def join_or_start() -> int:
    """The cluster that there is, else one of this machine; how many engines it has cores for."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    try:
        ray.init("auto", **quiet)
    except ConnectionError:
        cores = cpus()
        try:
            ray.init("local", num_cpus=cores + LEAST_CPUS - 1, include_dashboard=False, **quiet)
        except Exception as error:
            if type(error) is not Exception:  # Ray has no class of its own for a start that took longer than 30 s
                raise
            raise BEEError(f"Ray didn't start on this machine ({error}); the same command tries again") from None
        return cores
    return int(ray.cluster_resources().get("CPU", 0))


def options_of(asked: argparse.Namespace) -> ExitOptions:
    return ExitOptions(
        delta=asked.delta,
        entropy_threshold=asked.entropy_threshold,
        min_blocks=asked.min_blocks,
        max_blocks=asked.max_blocks,
        profile=asked.profile,
    )


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, help="file or folder, absolute or as an URI")
    parser.add_argument("--out", required=True, help="folder for Parquet files, absolute or as an URI")
    parser.add_argument("--id", required=True, help="column whose values differ from row to row")
    parser.add_argument("--text", default="text", help="column of texts (%(default)s)")
    parser.add_argument("--text-pair", help="column of second texts")
    parser.add_argument("--model", default="sst2", help="a shipped checkpoint, or the folder of one on every node")
    parser.add_argument("--delta", type=float)
    parser.add_argument("--entropy-threshold", type=float)
    parser.add_argument("--min-blocks", type=int)
    parser.add_argument("--max-blocks", type=int)
    parser.add_argument("--profile")
    parser.add_argument("--actors", type=int, help="engines at once; one for each CPU of the cluster unless given")
    parser.add_argument("--rows", type=int, default=20_000, help="of a block, and so of an output file (%(default)s)")
    return parser.parse_args(given)


def main() -> int:
    try:
        summary = score(arguments())
    except BEEError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
