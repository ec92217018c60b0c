"""
The verbs of training: `beexformer train | distill | evaluate | tune`. Thin: each calls one function.

Loaded when one of them is called or listed; torch only when one is called. What they need is the extra [train].
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from beexformer.model.errors import BEEError, Stopped, TrainingError
from beexformer.training.flags import (
    Agreement,
    BackboneRecipeFile,
    BackboneToWrite,
    BackboneWork,
    Balance,
    Checkpoint,
    CheckpointToTune,
    CheckpointToWrite,
    Confidence,
    ConfusionPicture,
    CopyFolder,
    DataFolder,
    DataFolderOfAll,
    DefaultProfile,
    DevFile,
    Device,
    Encoding,
    Epochs,
    EveryCheckpoint,
    Examples,
    FlopsBudget,
    Folds,
    Json,
    LabelColumn,
    LabelledRows,
    LabelSeparator,
    LabelsFile,
    LatencyBudget,
    MaxTokens,
    Metric,
    Minutes,
    ModelName,
    OptionalLabelColumn,
    Picture,
    ProfileName,
    RecipeFile,
    Risk,
    Seed,
    Size,
    Take,
    TakeAtOnce,
    TeacherEncoder,
    TextColumn,
    TextPairColumn,
    TrainFile,
    UnseenRows,
    Variant,
    WarmStart,
    Work,
)

if TYPE_CHECKING:
    from beexformer.model.engine import Engine
    from beexformer.training.evaluate import Progress
    from beexformer.training.recipe import Recipe

app = typer.Typer()


@contextmanager
def train_extra() -> Iterator[None]:
    """Around imports: what is missing there is one sentence with the command that installs it."""
    try:
        yield
    except ImportError as error:
        raise BEEError(
            f"this verb needs the extra [train] ({error}): `make train` in a clone installs it for "
            "CPUs; pip install 'beexformer[train]' may fetch gigabytes for GPUs where torch isn't there yet"
        ) from None


@app.command()
def train(
    out: CheckpointToWrite = None,
    recipe: RecipeFile = None,
    data: DataFolder = Path(),
    train: TrainFile = None,
    dev: DevFile = None,
    text: TextColumn = "text",
    text_pair: TextPairColumn = None,
    label: LabelColumn = "label",
    label_separator: LabelSeparator = None,
    encoding: Encoding = None,
    labels: LabelsFile = None,
    start: WarmStart = None,
    size: Size = None,
    max_tokens: MaxTokens = None,
    balance: Balance = False,
    folds: Folds = None,
    epochs: Epochs = None,
    teacher: TeacherEncoder = None,
    examples: Examples = False,
    take: TakeAtOnce = False,
    variant: Variant = "proposed",
    seed: Seed = None,
    work: Work = None,
    device: Device = "auto",
) -> None:
    """Train a network and write its checkpoint; the same command again goes on where a killed run stopped (heads
    begin anew: seconds).

    Rows of your own (--train) get heads on a backbone that has read English, in seconds; with --epochs or --teacher
    pairs train a network. --labels alone makes a model of what classes are called, without a row."""
    own: dict[str, Any] = {"folds": folds, "epochs": epochs, "teacher": teacher, "examples": examples or None}
    if not (recipe or train or labels) or (recipe and train):
        raise BEEError("give --train, a file of rows; --labels, what classes are called; or --recipe")
    if recipe and any((start, size, max_tokens, encoding, balance, label_separator, labels, *own.values())):
        raise BEEError("a recipe says itself what it starts from and reads; flags like --start go with --train")
    if recipe is None and train is None:
        others = any((dev, text_pair, start, balance, label_separator, *own.values()))
        _train_from_labels(labels, out, max_tokens, size, data, others=others)
        return
    with train_extra():
        from beexformer.training import recipe as recipes
    if recipe:
        plan = recipes.read(recipe, recipes.Recipe)
    else:
        columns: dict[str, Any] = {"train": train, "dev": dev, "text": text, "text_pair": text_pair, "label": label}
        columns |= {"label_separator": label_separator, "encoding": encoding, "balance": balance}
        own |= {"max_tokens": max_tokens, "labels": labels}
        plan = _recipe_of_rows(out, columns, start, size, data, own)
    _train(plan if seed is None else plan.seeded(seed), data, out, work, variant, device, take)


def _train(
    plan: "Recipe", data: Path, out: Path | None, work: Path | None, variant: str, device: str, take: bool
) -> None:
    """Run a recipe, or say at once that it is finished; with `take` the checkpoint gets what the run recommends."""
    with train_extra():
        from beexformer.training.finished import finished
    from rich.console import Console

    if out and variant == "proposed" and (done := finished(out, plan, data)):
        print(done)
        return
    console = Console()
    try:
        with train_extra(), console.status("loading torch"):
            from beexformer.training.train import run
        result = run(plan, data, out, work or Path("runs") / plan.name, console, variant, device)
    except KeyboardInterrupt:
        if plan.heads:
            raise Stopped("stopped, and nothing was written; the same command begins anew, it takes seconds") from None
        raise Stopped("stopped; the same command goes on where it was") from None
    if take and out:
        try:
            _take(out, result["dev"])
        except TrainingError as error:  # it is written all the same
            print(error)


def _recipe_of_rows(
    out: Path | None, columns: dict[str, Any], start: str | None, size: str | None, root: Path, own: dict[str, Any]
) -> "Recipe":
    """The recipe of rows that come without one; `columns` are fields of its section [data], `size` is that of the
    backbone, `root` the data folder, `own` the flags that change it, None where they were not given."""
    from beexformer.training import label_names
    from beexformer.training.own_rows import SMALL, own_rows

    if out is None:
        raise BEEError("without a recipe the network is named after --out; give one")
    if start and size:
        raise BEEError("--start goes on from a checkpoint, which has its size already; leave --size out")
    columns = {**columns, "metric": "macro_f1" if columns["balance"] else "accuracy"}
    if file := own.pop("labels"):
        named = label_names.read(file)
        columns |= {"labels": named.labels, "described": named.described}
    trained = bool(own["epochs"] or own["teacher"])
    result = own_rows(out.name, columns, start, size=size or SMALL, root=root, trained=trained)
    return result.changed(**own)


def _train_from_labels(
    labels: Path | None, out: Path | None, max_tokens: int | None, size: str | None, root: Path, *, others: bool
) -> None:
    """A checkpoint of what classes are called; `others` says that flags came that only rows have a use for."""
    from rich.console import Console

    if out is None:
        raise BEEError("the model is named after --out; give one")
    if others:
        raise BEEError(
            "--labels alone reads no rows, and takes --out, --size and --max-tokens; other flags need --train"
        )
    assert labels
    console = Console()
    try:
        with train_extra(), console.status("loading torch"):
            from beexformer.training import from_labels
            from beexformer.training.own_rows import SMALL
        from_labels.run(labels, out, console, max_tokens, size or SMALL, root)
    except KeyboardInterrupt:
        raise Stopped("stopped, and nothing was written; the same command begins anew, it takes seconds") from None


@app.command()
def distill(
    recipe: BackboneRecipeFile,
    out: BackboneToWrite,
    data: DataFolder = Path(),
    minutes: Minutes = None,
    work: BackboneWork = None,
    device: Device = "auto",
) -> None:
    """Distil a backbone that training starts from, on plain text; a killed run goes on where it stopped."""
    with train_extra():
        from beexformer.training import distill
        from beexformer.training.recipe import read
    from rich.console import Console

    plan = read(recipe, distill.BackboneRecipe)
    plan = plan.lasting(minutes, device) if minutes else plan
    distill.run(plan, data, out, work or Path("runs") / out.name, Console(), device)


@app.command()
def evaluate(
    rows: LabelledRows = None,
    every: EveryCheckpoint = False,
    data: DataFolderOfAll = Path(),
    checkpoint: Checkpoint = None,
    model: ModelName = None,
    text: TextColumn = "text",
    text_pair: TextPairColumn = None,
    label: LabelColumn = "label",
    label_separator: LabelSeparator = None,
    encoding: Encoding = None,
    metric: Metric = None,
    picture: Picture = None,
    confusion: ConfusionPicture = None,
    take: Take = False,
    as_json: Json = False,
) -> None:
    """Score per exit and class, which class is taken for which, score and FLOPs along delta, as tables and pictures.

    With --all a line for each checkpoint: scores at delta 1e-4 and at full depth, FLOPs saved, exits, size."""
    with train_extra():
        from beexformer.training import evaluate, pictures, terminal_tables
        from beexformer.training.data import Columns
    from rich.console import Console

    from beexformer.model.registry import Registry

    if (rows is None) != every:
        raise BEEError("give either a file of rows or --all")
    registry = Registry([checkpoint] if checkpoint else [], model)
    if rows is None:
        if picture:
            raise BEEError("--picture goes with a file of rows; `beexformer report` draws all checkpoints")
        _evaluate_all([registry.get(model)] if model else list(registry), data, as_json)
        return
    engine = registry.get()
    _ensure_evaluable(engine, metric, take, checkpoint, {"--picture": picture, "--confusion": confusion})
    labelled = evaluate.read_labelled(engine, rows, Columns(text, text_pair, label, encoding, label_separator))
    result = evaluate.evaluate(engine, labelled, metric, progress=_progress(engine.name))
    if picture:
        pictures.picture(engine.name, result, picture)
    if confusion:
        pictures.confusion(engine.name, engine.labels, result, confusion)
    if as_json:
        print(json.dumps(result, indent=1))
    else:
        Console().print(terminal_tables.tables(engine.name, result))
        Console().print(terminal_tables.class_tables(engine.labels, result))
    if take and checkpoint:
        _take(checkpoint, result)


def _evaluate_all(engines: "list[Engine]", data: Path, as_json: bool) -> None:
    """Each on the development rows that it names, as JSON or as a table."""
    from rich.console import Console

    from beexformer.training import evaluate, terminal_tables

    lines = [evaluate.shipped(engine, data, _progress(engine.name)) for engine in engines]
    if as_json:
        print(json.dumps(lines, indent=1))
    else:
        Console().print(terminal_tables.shipped_table(lines))


def _ensure_of_label_sets(metric: str | None, confusion: Path | None) -> None:
    """Raises BEEError for what there isn't of a checkpoint that gives several labels a text."""
    from beexformer.training.evaluate import OF_LABEL_SETS

    if confusion:
        raise BEEError("--confusion is for one label a text: of several, none is taken for another")
    if metric not in (None, *OF_LABEL_SETS):
        raise BEEError(f"metric {metric!r} is for one label a text; of several there are {', '.join(OF_LABEL_SETS)}")


def _ensure_evaluable(
    engine: "Engine", metric: str | None, take: bool, checkpoint: Path | None, drawn: dict[str, Path | None]
) -> None:
    """Raises BEEError for what would only be seen once all rows have been evaluated; `drawn` has pictures by flag."""
    from beexformer.training import evaluate, pictures

    for flag, path in drawn.items():
        if path and path.suffix not in pictures.SUFFIXES:
            raise BEEError(f"{flag} {path}: the name must end in {', '.join(pictures.SUFFIXES)}")
    if take and not (checkpoint and (checkpoint / "config.json").exists()):
        raise BEEError("--take needs --checkpoint, the folder of one checkpoint")
    if metric not in (None, *evaluate.METRICS):
        raise BEEError(f"unknown metric {metric!r}; known are {', '.join(evaluate.METRICS)}")
    if engine.config.multi_label:
        _ensure_of_label_sets(metric, drawn["--confusion"])


def _take(checkpoint: Path, result: dict[str, Any]) -> None:
    """Make what the evaluation recommends the default of a checkpoint."""
    from rich.console import Console

    from beexformer.training import profiles

    options = profiles.take(checkpoint, result)
    taken = f"taken: {options.stated()} is the default of {checkpoint} now, its profile 'recommended'"
    Console(stderr=True).print(taken)


def _progress(name: str) -> "Progress":
    """A bar on stderr over the batches of a pass."""
    from rich.console import Console
    from rich.progress import track

    return lambda batches: track(batches, name, console=Console(stderr=True))


@app.command()
def tune(
    checkpoint: CheckpointToTune,
    rows: UnseenRows,
    text: TextColumn = "text",
    text_pair: TextPairColumn = None,
    label: OptionalLabelColumn = None,
    label_separator: LabelSeparator = None,
    encoding: Encoding = None,
    flops: FlopsBudget = None,
    ms: LatencyBudget = None,
    agree: Agreement = None,
    risk: Risk = None,
    confidence: Confidence = 0.95,
    profile: ProfileName = None,
    default: DefaultProfile = False,
    out: CopyFolder = None,
) -> None:
    """Find exit options for what you want, and store them in the checkpoint as a profile with their evidence.

    Requests name it: {"text": "...", "profile": "flops-40"}. With a label column --risk bounds the error above full
    depth's, without one the disagreement with it; too few rows are refused with the number that would do."""
    with train_extra():
        from beexformer.training import profiles
        from beexformer.training.data import Columns

    wants = {"flops": flops, "ms": ms, "agree": agree, "risk": risk}
    asked = [(want, value) for want, value in wants.items() if value is not None]
    if len(asked) != 1:
        raise BEEError("say what you want with one of --flops, --ms, --agree and --risk")
    [(want, value)] = asked
    result = profiles.run(
        profiles.folder_of(checkpoint),
        rows,
        Columns(text, text_pair, label or "label", encoding, label_separator),
        want,  # type: ignore[arg-type]
        value,
        confidence=confidence,
        labelled=label is not None,
        name=profile,
        default=default,
        out=out,
        progress=_progress("rows"),
    )
    print(json.dumps({"profile": result.name, "exit": result.options.stated(), **result.evidence}, indent=1))
    print(f"stored in {result.folder} as profile {result.name!r}")
