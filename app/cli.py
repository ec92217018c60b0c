"""
`beexformer serve | classify | models | train | distill | evaluate | report`: thin verbs, each calls one function.

Heavy imports happen inside the verbs: `--help` answers at once, and only training loads torch. Whatever is wrong with
what was asked is one sentence on stderr and exit code 2.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from beexformer.model import kernel_cache
from beexformer.model.errors import BEEError

if TYPE_CHECKING:
    from beexformer.app.scoring import Scored

app = typer.Typer(
    name="beexformer",
    help="Text classification on a plain CPU with a 1-bit transformer that stops when another block no longer pays.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Checkpoint = Annotated[
    Path | None, typer.Option(help="A checkpoint folder, or a folder of them; default: the shipped ones.")
]


def main() -> None:
    """The console entry."""
    try:
        kernel_cache.use_read_only()
        app()
    except BEEError as error:
        print(f"beexformer: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:  # `beexformer classify - | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:  # a folder that can't be written, a full disk
        if error.filename is None:
            raise
        print(f"beexformer: {error.filename}: {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None


def _paths(checkpoint: Path | None) -> list[Path]:
    return [checkpoint] if checkpoint else []


def _without_train_extra(error: ImportError) -> BEEError:
    return BEEError(f"this verb needs the extra [train] ({error.name} is missing): pip install 'beexformer[train]'")


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
    from beexformer.app.main import serve as run

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
    source: Annotated[
        str,
        typer.Argument(
            help="A sentence; or a .txt file, one text a line; or .jsonl; or - for stdin; with --output a file of rows."
        ),
    ],
    text_pair: Annotated[
        str | None,
        typer.Option(help="The second text of a sentence pair; with --output the column of second texts."),
    ] = None,
    text: Annotated[str, typer.Option(help="With --output: column of the text.")] = "text",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Score a file of rows into this .csv, .tsv, .jsonl or .parquet file."),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="With --output: of a file that is not UTF-8 or UTF-16, as cp1252.")
    ] = None,
    checkpoint: Checkpoint = None,
    model: Annotated[str | None, typer.Option(help="Name of the model, where there are several.")] = None,
    delta: Annotated[float | None, typer.Option(help="Leave when a block gains less than this; -1 to 1.")] = None,
    entropy_threshold: Annotated[
        float | None, typer.Option(help="Leave once the entropy is below this share of ln(classes); 0 to 1.")
    ] = None,
    min_blocks: Annotated[int | None, typer.Option(help="Run at least so many blocks.")] = None,
    max_blocks: Annotated[int | None, typer.Option(help="Run at most so many blocks.")] = None,
    profile: Annotated[str | None, typer.Option(help="A profile of the model, which sets the options above.")] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Lines are JSON objects whatever the file's name.")] = False,
    threads: Annotated[int, typer.Option(help="Engine threads, with --output processes; 0 for one a CPU.", min=0)] = 0,
) -> None:
    """Classify a sentence, a file or stdin; one JSON object a line on stdout, in order.

    With --output the rows of a CSV, TSV, JSONL, Excel or Parquet file are written with all their columns and what was
    predicted; after a kill the same command goes on. What can't be answered gives a problem, the rest goes on, and the
    exit code is 1."""
    from rich.console import Console

    from beexformer.app.batch_inference import classify_file, classify_text, is_file
    from beexformer.app.registry import Registry
    from beexformer.app.scoring import Scoring, score
    from beexformer.app.settings import cpus
    from beexformer.model.options import ExitOptions

    engine = Registry(_paths(checkpoint), model).get()
    options = ExitOptions(
        delta=delta,
        entropy_threshold=entropy_threshold,
        min_blocks=min_blocks,
        max_blocks=max_blocks,
        profile=profile,
    )
    if output:
        scoring = Scoring(
            Path(source), output, text, text_pair, encoding, options, tuple(_paths(checkpoint)), engine.name
        )
        _scored(score(scoring, engine, threads or cpus(), Console(stderr=True)), output)
        return
    if is_file(source, jsonl):
        if text_pair is not None:
            raise BEEError("--text-pair goes with a sentence; in a .jsonl file each line may have a text_pair")
        bad = classify_file(engine, source, options, jsonl=jsonl, threads=threads or cpus())
        if bad:
            print(f"beexformer: lines that could not be answered: {bad}", file=sys.stderr)
            raise SystemExit(1)
        return
    print(classify_text(engine, source, text_pair, options))


def _scored(found: "Scored", output: Path) -> None:
    print(f"beexformer: {output} has {found.rows} rows, {found.bad} of them without an answer", file=sys.stderr)
    if found.bad:
        raise SystemExit(1)


@app.command()
def models(
    checkpoint: Checkpoint = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array, everything the checkpoints say.")] = False,
) -> None:
    """List checkpoints: labels, size, score on the development data and FLOPs saved."""
    from beexformer.app.registry import Registry

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


@app.command()
def train(
    out: Annotated[Path | None, typer.Option(help="Checkpoint folder to write; other variants have none.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="A recipe file (TOML); its paths are relative to --data.")] = None,
    data: Annotated[Path, typer.Option(envvar="BEE_DATA", help="The data folder.")] = Path(),
    train: Annotated[
        str | None, typer.Option(help="Without a recipe: a CSV, TSV, JSONL or Parquet file, or a folder of splits.")
    ] = None,
    dev: Annotated[
        str | None, typer.Option(help="Development file; a tenth of the rows is held out without one.")
    ] = None,
    text: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    text_pair: Annotated[str | None, typer.Option(help="Column of the second text of a pair.")] = None,
    label: Annotated[str, typer.Option(help="Column of the label.")] = "label",
    start: Annotated[
        str | None, typer.Option(help="Without a recipe: a checkpoint of the same classes to go on from, as sst2.")
    ] = None,
    variant: Annotated[
        str, typer.Option(help="proposed; or, to compare with, wee, wee-fp or fp: these leave a record, no checkpoint.")
    ] = "proposed",
    seed: Annotated[int | None, typer.Option(min=0, help="Of initialisation and order; default: the recipe's.")] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder that keeps the progress of a recipe's runs; default: runs/<its name>.")
    ] = None,
) -> None:
    """Train a network and write its checkpoint; the same command again goes on where a killed run stopped."""
    try:
        from beexformer.training import recipe as recipes
        from beexformer.training.train import run
    except ImportError as error:
        raise _without_train_extra(error) from None
    from rich.console import Console

    if (recipe is None) == (train is None):
        raise BEEError("give either --recipe or --train")
    if recipe and start:
        raise BEEError("a recipe says itself what it starts from: [start] checkpoint")
    if recipe:
        plan = recipes.read(recipe, recipes.Recipe)
    else:
        if out is None:
            raise BEEError("without a recipe the network is named after --out; give one")
        columns = {"train": train, "dev": dev, "text": text, "text_pair": text_pair, "label": label}
        plan = recipes.own_rows(out.name, columns, start)
    if seed is not None:
        plan = plan.seeded(seed)
    run(plan, data, out, work or Path("runs") / plan.name, Console(), variant)


@app.command()
def distill(
    recipe: Annotated[Path, typer.Option(help="A body's recipe (TOML); its paths are relative to --data.")],
    out: Annotated[Path, typer.Option(help="Folder of the body to write.")],
    data: Annotated[Path, typer.Option(envvar="BEE_DATA", help="The data folder.")] = Path(),
    work: Annotated[
        Path | None, typer.Option(help="Folder that keeps the run's progress; default: runs/<name of the body>.")
    ] = None,
) -> None:
    """Distil a body that training starts from, on plain text; a killed run goes on where it stopped."""
    try:
        from beexformer.training import distill
        from beexformer.training.recipe import read
    except ImportError as error:
        raise _without_train_extra(error) from None
    from rich.console import Console

    distill.run(read(recipe, distill.BackboneRecipe), data, out, work or Path("runs") / out.name, Console())


@app.command()
def evaluate(
    rows: Annotated[Path | None, typer.Argument(help="Labelled rows: CSV, TSV, JSONL or Parquet.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every checkpoint on the development rows that it names, under --data.")
    ] = False,
    data: Annotated[Path, typer.Option(envvar="BEE_DATA", help="The data folder, for --all.")] = Path(),
    checkpoint: Checkpoint = None,
    model: Annotated[str | None, typer.Option(help="Name of the model, where there are several.")] = None,
    text: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    text_pair: Annotated[str | None, typer.Option(help="Column of the second text of a pair.")] = None,
    label: Annotated[str, typer.Option(help="Column of the label.")] = "label",
    metric: Annotated[str, typer.Option(help="accuracy, f1, macro_f1 or matthews.")] = "accuracy",
    picture: Annotated[Path | None, typer.Option(help="Draw the same as a PNG, SVG or PDF.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Score per exit, score and FLOPs along delta, and where rows leave, as tables and as a picture.

    With --all a line for each checkpoint: scores at delta 1e-4 and at full depth, FLOPs saved, exits, size."""
    try:
        from beexformer.training import evaluate, pictures, tables
        from beexformer.training.data import Columns, read_rows
    except ImportError as error:
        raise _without_train_extra(error) from None
    from rich.console import Console
    from rich.progress import track

    from beexformer.app.registry import Registry

    if (rows is None) != every:
        raise BEEError("give either a file of rows or --all")
    console, bar = Console(), Console(stderr=True)
    registry = Registry(_paths(checkpoint), model)
    if every:
        if picture:
            raise BEEError("--picture goes with a file of rows; `beexformer report` draws all checkpoints")
        engines = [registry.get(model)] if model else list(registry)
        lines = [
            evaluate.shipped(engine, data, lambda batches, name=engine.name: track(batches, name, console=bar))  # type: ignore[misc]
            for engine in engines
        ]
        if as_json:
            print(json.dumps(lines, indent=1))
        else:
            console.print(tables.shipped_table(lines))
        return
    engine = registry.get()
    assert rows
    if picture and picture.suffix not in pictures.SUFFIXES:
        raise BEEError(f"--picture {picture}: the name must end in {', '.join(pictures.SUFFIXES)}")
    if metric not in evaluate.METRICS:
        raise BEEError(f"unknown metric {metric!r}; known are {', '.join(evaluate.METRICS)}")
    labelled, _ = read_rows(rows, Columns(text, text_pair, label), list(engine.labels))
    found = evaluate.evaluate(
        engine, labelled, metric, progress=lambda batches: track(batches, engine.name, console=bar)
    )
    if picture:
        pictures.picture(engine.name, found, picture)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        console.print(tables.tables(engine.name, found))


@app.command()
def report(
    data: Annotated[Path, typer.Option(envvar="BEE_DATA", help="The data folder.")] = Path(),
    runs: Annotated[Path, typer.Option(help="Folder with records of training runs and baselines' answers.")] = Path(
        "docs/report/runs"
    ),
    out: Annotated[Path, typer.Option(help="Folder to write README.md and its pictures into.")] = Path("docs/report"),
    work: Annotated[Path, typer.Option(help="Folder that keeps the weights of a baseline.")] = Path("runs/report"),
    checkpoint: Checkpoint = None,
    encoder: Annotated[bool, typer.Option(help="Fine-tune MiniLM, where its answers aren't kept.")] = True,
) -> None:
    """Rebuild the paper's tables and figures from checkpoints, records and data, with baselines and intervals."""
    try:
        from beexformer.report import tables
    except ImportError as error:
        raise _without_train_extra(error) from None
    from rich.console import Console

    from beexformer.app.registry import Registry

    path = tables.run(Registry(_paths(checkpoint), None), data, runs, out, work, Console(stderr=True), encoder)
    print(path)
