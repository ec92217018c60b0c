"""
Who meets whom on which rows: shipped checkpoints, recorded runs of every variant, and baselines, task by task.

Everything is measured on a task's development rows, on test rows too where they are labelled, and compared row by row.
What is missing stays missing and is said to be, with a reason.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from beexformer.model.config import BEEConfig
from beexformer.model.engine import Engine
from beexformer.model.errors import BEEError, TrainingError
from beexformer.model.options import ExitOptions, ExitSettings
from beexformer.report.asked import Baselines
from beexformer.report.cited import PAPER
from beexformer.report.results import DELTA, Net, Runs, Task
from beexformer.report.sizes import packed_bytes, real_bytes
from beexformer.training import calibrate
from beexformer.training.data import Rows, key
from beexformer.training.evaluate import answering, logits_of, recorded
from beexformer.training.progress import RunProgress
from beexformer.training.recipe import Data, Network
from beexformer.training.record import Record, find
from beexformer.training.splits import splits

ALIKE = ("network", "start", "teacher")
"""Sections of a recipe that are the same in runs which are compared."""


def gather(
    engines: Iterable[Engine], runs: Path, root: Path, baselines: Baselines, progress: RunProgress
) -> tuple[list[Task], dict[str, str]]:
    """Every task that a checkpoint or a record names, measured; and what was left out, with the reason.

    The paper's tasks come first. `runs` holds records and may be missing.
    """
    tasks: dict[str, Task] = {}
    left_out: dict[str, str] = {}
    for engine in engines:
        try:
            task = task_of(engine.name, recorded(engine), root, list(engine.labels))
        except BEEError as error:
            left_out[f"checkpoint {engine.name}"] = str(error)
            continue
        tasks[engine.name] = task
        _measure(task, engine, progress)
    records: dict[str, list[Record]] = {}
    for record in find(runs):
        name = record.meta["task"]
        try:
            if name not in tasks:
                data = Data.model_validate(record.meta["recipe"]["data"])
                tasks[name] = task_of(name, data, root, record.meta["class_names"])
            if record.meta["dev_sha256"] != tasks[name].dev.sha256():
                raise TrainingError("its development rows are others than those in the data folder")
            records.setdefault(name, []).append(record)
        except BEEError as error:
            left_out[_title(record)] = str(error)
        except (KeyError, TypeError, ValueError) as error:
            left_out[_title(record)] = f"it can't be read ({error}); train it again"
    for name, its in records.items():
        left_out |= add(tasks[name], its)
    order = [*PAPER, *sorted(tasks.keys() - PAPER.keys())]
    result = [tasks[name] for name in order if name in tasks]
    for task in result:
        baselines.ask(task)
    return result, left_out


def task_of(name: str, data: Data, root: Path, labels: list[str]) -> Task:
    """The rows. Baselines learn from training rows that state a label, so files of rows with soft labels alone are not
    read; rows that are also scored on are dropped, as training drops them."""
    train, dev, test, _ = splits(data.model_copy(update={"also": []}), root, labels)
    scored = {key(row) for rows in (dev, test) if rows for row in rows.inputs()}
    stated = np.ones(len(train), bool) if train.stated is None else train.stated
    kept = np.flatnonzero(stated & np.array([key(row) not in scored for row in train.inputs()]))
    if not len(kept):
        raise TrainingError(f"{root / data.train}: every training row is also a development or test row")
    return Task(name, data.metric, labels, train.take(kept), dev, test)


def _measure(task: Task, engine: Engine, progress: RunProgress) -> None:
    """The shipped network anew, by the engine."""

    def run(rows: Rows, split: str) -> tuple[np.ndarray, np.ndarray]:
        report = progress.stage(f"{task.name} on {split}")

        def watched(starts: Sequence[int]) -> Iterable[int]:
            for i, start in enumerate(starts):
                yield start
                report(i + 1, len(starts), "")

        return logits_of(engine, rows, watched)

    logits, tokens = run(task.dev, "dev")
    evaluation = engine.description["evaluation"]
    task.made = evaluation["provenance"]
    task.kind = evaluation.get("calibration", {}).get("kind", "none")
    task.shipped = Net(
        variant="proposed",
        seed=task.made.get("seed", 0),
        config=engine.config,
        logits=logits,
        tokens=tokens,
        size_bytes=engine.description["size_bytes"],
        calibration=calibrate.recorded(evaluation, engine.config),
        settings=engine.resolve(ExitOptions()),
        date=task.made.get("date", ""),
    )
    if task.test:
        logits, tokens = run(task.test, "test")
        task.tested = replace(task.shipped, logits=logits, tokens=tokens)


def add(task: Task, records: Sequence[Record]) -> dict[str, str]:
    """Put records of a task's runs where they belong: with what ships where they were made like it, else with those
    that were made like them; answers those that nothing can be said of, with the reason."""
    sets: list[tuple[dict[str, Any], list[Record]]] = []
    for record in records:
        made = _parts(record.meta["recipe"])
        its = next((theirs for parts, theirs in sets if parts == made), None)
        if its is None:
            sets.append((made, its := []))
        its.append(record)
    ships = _parts(task.made["recipe"]) if "recipe" in task.made else None
    if ships is None and sets:  # the latest that proposes a network stands for what ships
        ships = max(sets, key=lambda each: max((_date(r) for r in each[1] if _proposed(r)), default=""))[0]
    left_out: dict[str, str] = {}
    for made, its in sets:
        if made == ships:
            task.runs = _nets(task, its)
        elif any(map(_proposed, its)) and not all(map(_proposed, its)):
            task.earlier.append(_nets(task, its))
        else:
            part = next(part for part in ALIKE if made[part] != (ships or {})[part])
            reason = f"its recipe has another [{part}] than what ships; train it again"
            left_out |= {_title(record): reason for record in its}
    return left_out


def _parts(recipe: dict[str, Any]) -> dict[str, Any]:
    """Its sections of `ALIKE`; a network was made before its newest fields were there as their defaults have it, and on
    which numbers it answers is not how it was made."""
    network = Network.model_validate({}).model_dump() | (recipe.get("network") or {}) | {"attention": None}
    return {part: recipe.get(part) for part in ALIKE} | {"network": network}


def _date(record: Record) -> str:
    return str(record.meta.get("date", ""))


def _proposed(record: Record) -> bool:
    return bool(record.meta["variant"] == "proposed")


def _title(record: Record) -> str:
    return f"record {record.meta['task']}, {record.meta['variant']}, seed {record.meta['seed']}"


def _nets(task: Task, records: Iterable[Record]) -> Runs:
    result: Runs = {}
    for record in records:
        result.setdefault(record.meta["variant"], []).append(_net(task, record))
    return result


def _net(task: Task, record: Record) -> Net:
    config = BEEConfig(**record.meta["config"])
    variant, logits = record.meta["variant"], record.logits
    settings = _settings(record.meta["recipe"].get("exit") or {}, config)
    calibration = calibrate.recorded(record.meta, config)
    if variant != "proposed":  # which was calibrated when it was exported; what it is compared with is treated alike
        calibration = calibrate.fit_what_pays(logits, record.labels, task.kind, answering(config, settings))
        logits = calibration.of(logits)
    return Net(
        variant=variant,
        seed=record.meta["seed"],
        config=config,
        logits=logits,
        tokens=record.tokens,
        size_bytes=packed_bytes(config) if config.binary else real_bytes(config),
        calibration=calibration,
        settings=settings,
        date=_date(record),
    )


def _settings(asked: dict[str, Any], config: BEEConfig) -> ExitSettings:
    """What a recipe's section [exit] makes a checkpoint's defaults."""
    options = ExitOptions(**asked).over(
        ExitOptions(delta=DELTA, entropy_threshold=0.0, min_blocks=1, max_blocks=config.n_block)
    )
    return ExitSettings(**options.to_dict())  # type: ignore[arg-type]
