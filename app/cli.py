"""
The verbs of serving: `beexformer serve | classify | models`. Thin: each calls one function.

Heavy imports happen inside the verbs, so that `--help` answers at once.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from beexformer.model.errors import BEEError, Stopped

if TYPE_CHECKING:
    from beexformer.app.score_files import Scoring
    from beexformer.model.engine import Engine
    from beexformer.model.options import ExitOptions

app = typer.Typer()
Checkpoint = Annotated[
    Path | None, typer.Option(help="A checkpoint folder, or a folder of them; default: the shipped ones.")
]
ModelName = Annotated[str | None, typer.Option(help="Name of the model, where there are several.")]

Source = Annotated[
    str,
    typer.Argument(
        help="A sentence; or a .txt file, one text a line; or .jsonl; or - for stdin; with --output a file of rows."
    ),
]
TextPair = Annotated[
    str | None,
    typer.Option(help="The second text of a sentence pair; with --output the column of second texts."),
]
TextColumn = Annotated[str, typer.Option(help="With --output: column of the text.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Score a file of rows into this .csv, .tsv, .jsonl or .parquet file."),
]
Encoding = Annotated[str | None, typer.Option(help="With --output: of a file that is not UTF-8 or UTF-16, as cp1252.")]
JsonLines = Annotated[bool, typer.Option("--jsonl", help="Lines are JSON objects whatever the file's name.")]
Threads = Annotated[int, typer.Option(help="Engine threads, with --output processes; 0 for one a CPU.", min=0)]

# the exit options of a request
Delta = Annotated[float | None, typer.Option(help="Leave when a block gains less than this; -1 to 1.")]
EntropyThreshold = Annotated[
    float | None, typer.Option(help="Leave once the entropy is below this share of ln(classes); 0 to 1.")
]
MinBlocks = Annotated[int | None, typer.Option(help="Run at least so many blocks.")]
MaxBlocks = Annotated[int | None, typer.Option(help="Run at most so many blocks.")]
Profile = Annotated[str | None, typer.Option(help="A profile of the model, which sets the options above.")]


def _paths(checkpoint: Path | None) -> list[Path]:
    return [checkpoint] if checkpoint else []


@app.command(
    # all flags are the settings, declared once in beexformer.app.settings; "--help" goes there too
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def serve(context: typer.Context) -> None:
    """Serve checkpoints over HTTP; `serve --help` lists the settings."""
    from pydantic import ValidationError
    from pydantic_settings import CliApp, SettingsError

    from beexformer.app.settings import RETIRED, Settings, sentences

    for flag in context.args:
        name = "BEE_" + flag.partition("=")[0].removeprefix("--").replace("-", "_").upper()
        if name in RETIRED:
            raise BEEError(f"{flag} is no setting any more; {RETIRED[name]}")
    try:
        settings = CliApp.run(Settings, cli_args=context.args)
    except ValidationError as error:
        raise BEEError("\nbeexformer: ".join(sentences(error))) from None
    except SettingsError as error:
        raise BEEError(str(error)) from None
    os.environ["BEE_CPU"] = settings.cpu  # the kernels read it when they are imported
    # no thread may be alive where workers are forked; neither library has use for any here
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    from beexformer.app.serve import serve as run

    run(settings)


class TextCommand(TyperCommand):
    """A command whose argument may be a text that begins with a dash: what has a blank in it is no option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        takes_value = {flag for option in self.params if not getattr(option, "is_flag", True) for flag in option.opts}
        moved = [
            i
            for i, (before, argument) in enumerate(zip(["", *args], args, strict=False))
            if argument.startswith("-") and " " in argument.split("=")[0] and before not in takes_value
        ]
        if "--" in args or not moved:
            return super().parse_args(ctx, args)
        others = [argument for i, argument in enumerate(args) if i not in moved]
        return super().parse_args(ctx, [*others, "--", *(args[i] for i in moved)])


@app.command(cls=TextCommand)
def classify(
    source: Source,
    text_pair: TextPair = None,
    text: TextColumn = "text",
    output: Output = None,
    encoding: Encoding = None,
    checkpoint: Checkpoint = None,
    model: ModelName = None,
    delta: Delta = None,
    entropy_threshold: EntropyThreshold = None,
    min_blocks: MinBlocks = None,
    max_blocks: MaxBlocks = None,
    profile: Profile = None,
    jsonl: JsonLines = False,
    threads: Threads = 0,
) -> None:
    """Classify a sentence, a file or stdin; one JSON object a line on stdout, in order.

    With --output the rows of a CSV, TSV, JSONL, Excel or Parquet file are written with all their columns and what was
    predicted; after a kill the same command goes on. What can't be answered gives a problem, the rest goes on, and the
    exit code is 1."""
    if output:  # one process a core, forked from this one: no library needs threads for it
        os.environ |= {"OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    from beexformer.app.settings import cpus
    from beexformer.model.options import ExitOptions
    from beexformer.model.registry import load_one

    engine = load_one(_paths(checkpoint), model)
    engine.warm()  # which also sees that it answers as when it was exported
    options = ExitOptions(
        delta=delta,
        entropy_threshold=entropy_threshold,
        min_blocks=min_blocks,
        max_blocks=max_blocks,
        profile=profile,
    )
    threads = threads or cpus()
    if output:
        from beexformer.app.score_files import Scoring

        paths = tuple(_paths(checkpoint))
        _score(Scoring(Path(source), output, text, text_pair, encoding, options, paths, engine.name), engine, threads)
    else:
        _answer(engine, source, text_pair, options, jsonl=jsonl, threads=threads)


def _answer(
    engine: "Engine", source: str, text_pair: str | None, options: "ExitOptions", *, jsonl: bool, threads: int
) -> None:
    """A sentence, a file or stdin on stdout; exit code 1 where lines have no answer."""
    from beexformer.app.classify_lines import classify_file, classify_text, is_file

    if not is_file(source, jsonl):
        print(classify_text(engine, source, text_pair, options))
        return
    if text_pair is not None:
        raise BEEError("--text-pair goes with a sentence; in a .jsonl file each line may have a text_pair")
    bad = classify_file(engine, source, options, jsonl=jsonl, threads=threads)
    if bad:
        print(f"beexformer: lines that could not be answered: {bad}", file=sys.stderr)
        raise SystemExit(1)


def _score(scoring: "Scoring", engine: "Engine", processes: int) -> None:
    """Score a file of rows into another one; exit code 1 where some have no answer."""
    from rich.console import Console

    from beexformer.app.score_files import score

    try:
        result = score(scoring, engine, processes, Console(stderr=True))
    except KeyboardInterrupt:
        raise Stopped("stopped; the same command goes on where it was") from None
    print(f"beexformer: {scoring.out} has {result.rows} rows, {result.bad} of them without an answer", file=sys.stderr)
    if result.bad:
        raise SystemExit(1)


@app.command()
def models(
    checkpoint: Checkpoint = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array, everything the checkpoints say.")] = False,
) -> None:
    """List checkpoints: labels, size, score on the development data and FLOPs saved."""
    from beexformer.model.registry import Registry

    descriptions = [engine.description for engine in Registry(_paths(checkpoint), None)]
    if as_json:
        print(json.dumps(descriptions, indent=1, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "labels", "size", "dev score", "FLOPs saved")
    for described in descriptions:
        dev = described["evaluation"].get("dev", {})
        score, saved = (f"{dev[key]:.1%}" if key in dev else "-" for key in ("score", "flops_saved_ratio"))
        table.add_row(
            described["name"], ", ".join(described["labels"]), f"{described['size_bytes'] / 1e6:.2f} MB", score, saved
        )
    Console().print(table)
