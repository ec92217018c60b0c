"""
`beexformer tune`: rows through a checkpoint, exit options for what is wanted, and a profile in the checkpoint that has
them with their evidence. Answers to requests that don't name the profile stay as they are.
"""

import dataclasses
import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beexformer.model import checkpoint
from beexformer.model.budget import Budget
from beexformer.model.checkpoint import Checkpoint
from beexformer.model.engine import Engine
from beexformer.model.errors import TrainingError
from beexformer.model.manifest import NAME, Profile
from beexformer.model.options import ExitOptions
from beexformer.training import data, diagnosis
from beexformer.training.data import Columns, Input, digest, sides
from beexformer.training.evaluate import Progress, read_labelled
from beexformer.training.tuning import Observed, Want, ladder, tune


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What was found, and where it stands now."""

    name: str
    options: ExitOptions
    evidence: dict[str, Any]
    folder: Path


def name_of(want: Want, value: float) -> str:
    """What a profile is called where nobody says: flops-40, agree-98, risk-2 in per cent, ms-500 in microseconds."""
    number = round(value * (1000 if want == "ms" else 100), 3)
    return f"{want}-{number:g}".replace(".", "_")


def folder_of(named: str) -> Path:
    """A checkpoint folder, or the shipped one of that name."""
    shipped = checkpoint.SHIPPED / named
    return shipped if not Path(named).exists() and "/" not in named and shipped.is_dir() else Path(named)


def ensure_storable(folder: Path, out: Path | None, name: str) -> None:
    """Raise TrainingError where a profile of that name can't be stored."""
    if not NAME.fullmatch(name):
        raise TrainingError(f"a profile can't be called {name!r}; a-z, 0-9, - and _ make a name")
    if out is None and folder.resolve().parent == checkpoint.SHIPPED.resolve():
        raise TrainingError(f"{folder.name} ships with the package and stays as it is; give --out for a copy")
    if out:
        checkpoint.ensure_writable(out)


def observe(engine: Engine, rows: Path, columns: Columns, labelled: bool, progress: Progress = iter) -> Observed:
    """The rows of a file through every exit, with their labels where they have some."""
    labels = None
    if labelled:
        result = read_labelled(engine, rows, columns)
        inputs, labels = result.inputs(), result.labels
    else:
        inputs = data.read_inputs(rows, columns)
    return observed(engine, inputs, labels, progress)


def observed(engine: Engine, inputs: Sequence[Input], labels: np.ndarray | None, progress: Progress = iter) -> Observed:
    encoded = [engine.encode(row) if isinstance(row, str) else engine.encode(*row) for row in inputs]
    batches: Iterable[int] = progress(range(0, len(encoded), 64))
    logits = np.concatenate([engine.logits(encoded[start : start + 64]) for start in batches])
    tokens = np.array([row.lengths for row in encoded], dtype=np.int64)
    thresholds = None if engine.thresholds is None else np.array(engine.thresholds)
    return Observed(engine.config, logits, tokens, labels, thresholds)


def run(
    folder: Path,
    rows: Path,
    columns: Columns,
    want: Want,
    value: float,
    *,
    confidence: float = 0.95,
    labelled: bool,
    name: str | None = None,
    default: bool = False,
    out: Path | None = None,
    progress: Progress = iter,
) -> Tuned:
    """Find options for what is wanted on the rows of a file and store them as a profile of the checkpoint in `folder`,
    or in a copy at `out`; with `default` they are in effect where a request asks for nothing."""
    name = name or name_of(want, value)
    ensure_storable(folder, out, name)
    result = checkpoint.read(folder)
    engine = Engine(result)
    seen = observe(engine, rows, columns, labelled, progress)
    cost = None
    if want == "ms":
        engine.calibrate()
        cost = engine.cost.milliseconds
    options, evidence = tune(seen, want, value, confidence, cost)
    inputs = data.read_inputs(rows, columns)
    evidence |= {
        "rows": len(seen),
        "labelled": labelled,
        "tokens_mean": round(float(seen.tokens.sum()) / len(seen), 1),
        "data": rows.name,
        "data_sha256": digest("\t".join(sides(row)) for row in inputs),
        "date": datetime.date.today().isoformat(),
    }
    budget = None
    if want == "ms":
        budget = Budget(value, round(float(seen.tokens.sum()) / len(seen)), ladder(seen))
    store(result, out or folder, name, Profile(options, evidence, budget), default)
    return Tuned(name, options, evidence, out or folder)


def store(result: Checkpoint, folder: Path, name: str, profile: Profile, default: bool = False) -> None:
    """Write a checkpoint with one profile more, or another one of that name."""
    profiles = {**result.profiles, name: profile}
    exit_ = ExitOptions(profile=name) if default else result.exit
    card = f"{_without_section(result.card)}\n{section(profiles)}"
    checkpoint.save(dataclasses.replace(result, profiles=profiles, exit=exit_, card=card), folder)


def take(folder: Path, result: dict[str, Any]) -> ExitOptions:
    """Make what an evaluation recommends the default of a checkpoint, as its profile "recommended". Raises
    TrainingError where the defaults are as good already."""
    ensure_storable(folder, None, RECOMMENDED)
    fit = diagnosis.recommended(result)
    if fit is None:
        raise TrainingError("the defaults are as good as anything on these rows; there is nothing to take")
    options, point = fit
    evidence = {key: value for key, value in point.items() if key in ("score", "flops_saved_ratio", "exits")}
    evidence |= {"metric": result["metric"], "rows": result["rows"], "date": datetime.date.today().isoformat()}
    evidence["flops_ratio"] = 1 - evidence["flops_saved_ratio"]
    store(checkpoint.read(folder), folder, RECOMMENDED, Profile(options, evidence), default=True)
    return options


RECOMMENDED = "recommended"
HEADING = "## Profiles\n"


def section(profiles: dict[str, Profile]) -> str:
    """The section of a model card on profiles."""
    lines = [
        f"| `{name}` | {profile.options.stated()} | {_share(profile.evidence.get('flops_ratio'))} "
        f"| {_share(profile.evidence.get('agreement'))} "
        f"| {profile.evidence.get('guarantee', 'chosen on ' + str(profile.evidence.get('rows', '?')) + ' rows')} |"
        for name, profile in profiles.items()
    ]
    table = "| name | exit options | FLOPs | agrees with full depth | |\n| --- | --- | ---: | ---: | --- |\n"
    return f'{HEADING}\nRequests name one as `"profile"`; config.json has the evidence of each.\n\n{table}' + "\n".join(
        [*lines, ""]
    )


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _without_section(card: str) -> str:
    return card.split(f"\n{HEADING}")[0].rstrip("\n") + "\n"
