"""
The verbs of training: `beexformer train | distill | evaluate`. Thin: each calls one function.

Loaded when one of them is called or listed; torch only when one is called. What they need is the extra [train].
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from beexformer.model.errors import BEEError

app = typer.Typer()
Checkpoint = Annotated[
    Path | None, typer.Option(help="A checkpoint folder, or a folder of them; default: the shipped ones.")
]


@contextmanager
def train_extra() -> Iterator[None]:
    """Around imports: what is missing there is one sentence with the command that installs it."""
    try:
        yield
    except ImportError as error:
        raise BEEError(
            f"this verb needs the extra [train] ({error.name} is missing): `make train` in a clone installs it for "
            "CPUs; pip install 'beexformer[train]' may fetch gigabytes for GPUs where torch isn't there yet"
        ) from None


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
    with train_extra():
        from beexformer.training import recipe as recipes
        from beexformer.training.train import run
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
    with train_extra():
        from beexformer.training import distill
        from beexformer.training.recipe import read
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
    with train_extra():
        from beexformer.training import evaluate, pictures, tables
        from beexformer.training.data import Columns, read_rows
    from rich.console import Console
    from rich.progress import track

    from beexformer.model.registry import Registry

    if (rows is None) != every:
        raise BEEError("give either a file of rows or --all")
    console, bar = Console(), Console(stderr=True)
    registry = Registry([checkpoint] if checkpoint else [], model)
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
