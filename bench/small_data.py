"""
What an owner's thousand rows give: test accuracy of `beexformer train` and of what it is measured against.

    python bench/small_data.py --data folder [--full-precision folder] [--tasks trec6 ...] [--only MiniLM train]

Each task is 1,000 of its training rows, in three draws (of clinc150 the first 15 rows a class; STS-B's pairs are three
classes: below 2, below 4, and above). Frozen vectors all get the same heads (`training.heads`), of one text its vector,
of a pair |a - b| and a * b; where there are several blocks, the one with the least cross-validated cross-entropy
answers. Nothing is chosen on test rows. Vectors are kept in --work. Prints a table and one JSON line.

- 1-bit: the backbone that ships, frozen; full precision: another one, in torch, where --full-precision names it. Heads
  of single texts read the mean state, with the start-weighted one beside it where `training.pooling` chooses that
- MiniLM: sentence vectors; Model2Vec: static ones of 256 dimensions, distilled from it by its authors' library
- TF-IDF: words and pairs of words, logistic regression, its strength by cross-validation
- train: the command, as a process: seconds from its start to the checkpoint, peak memory, and the served answers;
  in the JSON line also what they are if its best block answers all rows
"""

import argparse
import csv
import datetime
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from timing import used_by

from beexformer.model import tables
from beexformer.model.config import BEEConfig, Pooling
from beexformer.model.engine import Engine
from beexformer.model.options import ExitOptions
from beexformer.model.tokenizer import Tokenizer
from beexformer.report import baselines
from beexformer.report.vectors import MiniLM, Model2Vec
from beexformer.training import backbone, heads, mean_states, pooling, precision
from beexformer.training.backbone import Backbone
from beexformer.training.batches import pad, sorted_batches
from beexformer.training.calibrate import expected_calibration_error
from beexformer.training.data import Columns, Rows, read_rows, sides
from beexformer.training.evaluate import exits_taken, logits_of
from beexformer.training.network import BEExformer, mean_state, start_state

SINGLE = ("clinc150", "trec6", "subj", "mpqa", "agnews", "tweet_emotion", "sst2_sentences")
TASKS = (*SINGLE, "stsb")
CUTS = (2.0, 4.0)  # between the three classes of STS-B's scores
ROWS, A_CLASS = 1000, 15
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

NAMES = ("1-bit", "full precision", "MiniLM", "Model2Vec", "TF-IDF", "train")

Vectors = Callable[[list[str]], np.ndarray]
"""Texts -> their vectors, one for each block or one in all: [N, C, D] float32, or [N, C, 2 D] with start-weighted ones
beside them."""
Contender = Callable[["Draw"], Any]
"""A draw -> test accuracy, or a dictionary that has it with what else was seen."""


@dataclass(frozen=True)
class Draw:
    name: str
    train: Rows
    test: Rows
    classes: int


def draws(data: Path, task: str, count: int, most: int) -> list[Draw]:
    """The draws of a task, and at most `most` of its test rows, the same for all draws."""
    if task == "stsb":
        train, test = (_scored(data / "glue/stsb" / f"{split}.tsv.gz") for split in ("train", "test"))
        labels = [str(c) for c in range(len(CUTS) + 1)]
    else:
        folder = data / "extra" / task
        train, labels = read_rows(folder / "train.tsv.gz", Columns("sentence"))
        test, _ = read_rows(folder / "test.tsv.gz", Columns("sentence"), labels)
    if len(test) > most:
        test = test.take(np.sort(np.random.default_rng(0).permutation(len(test))[:most]))
    if task == "clinc150":
        first = [np.flatnonzero(train.labels == c)[:A_CLASS] for c in range(len(labels))]
        return [Draw(task, train.take(np.sort(np.concatenate(first))), test, len(labels))]
    seeds = range(1, count + 1)
    taken = [np.sort(np.random.default_rng(seed).permutation(len(train))[:ROWS]) for seed in seeds]
    return [
        Draw(f"{task}-{seed}", train.take(rows), test, len(labels)) for seed, rows in zip(seeds, taken, strict=True)
    ]


def _scored(path: Path) -> Rows:
    """STS-B's pairs by class of their score."""
    names = ["sentence1", "sentence2", "label"]
    first, second, scores = tables.strings(tables.read(path, names, None), names)
    return Rows(first, second, np.digitize([float(score) for score in scores], CUTS))


# ---------------------------------------------------------------- vectors


def bits(start: Backbone, asked: Pooling = "mean") -> Vectors:
    network = mean_states.network_of(start, _config(start, head="linear"))
    engine = mean_states.engine_of(network, start.tokenizer, asked)
    return lambda texts: mean_states.of(engine, [*texts], THREADS)


def full_precision(start: Backbone, asked: Pooling) -> Vectors:
    network = BEExformer(_config(start), precision=precision.faster()).eval()
    start.start(network)
    tokenizer = Tokenizer(start.tokenizer, start.shape["max_tokens"])

    def read(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        poolings = (mean_state,) if asked == "mean" else (mean_state, start_state)
        states = network.states(network.embed(ids), mask)
        return torch.stack([torch.cat([pool(h, mask) for pool in poolings], -1) for h in states], 1)

    return lambda texts: _batched(tokenizer.encode_rows([*texts]), read)


def _config(start: Backbone, **fields: str) -> BEEConfig:
    vocabulary = Tokenizer(start.tokenizer, 8).vocab_size
    return BEEConfig(vocab_size=vocabulary, n_class=2, binary=start.binary, **start.shape, **fields)  # type: ignore[arg-type]


@cache
def _frozen(kind: type[MiniLM] | type[Model2Vec]) -> MiniLM | Model2Vec:
    return kind(Path("runs/encoders"))


def minilm(texts: list[str]) -> np.ndarray:
    """[N, 1, D] sentence vectors."""
    return _frozen(MiniLM)(texts)[:, None]


def model2vec(texts: list[str]) -> np.ndarray:
    """[N, 1, 256] static ones."""
    return _frozen(Model2Vec)(texts)[:, None]


@torch.inference_mode()
def _batched(ids: list[np.ndarray], read: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> np.ndarray:
    parts = [
        (batch, read(*pad([ids[i] for i in batch])).numpy())
        for batch in sorted_batches(np.array([len(row) for row in ids]), 32)
    ]
    result = np.empty((len(ids), *parts[0][1].shape[1:]), np.float32)
    for batch, part in parts:
        result[batch] = part
    return result


# ---------------------------------------------------------------- contenders


def read(rows: Rows, vectors: Vectors) -> np.ndarray:
    """[N, C, D] of single texts; of pairs [N, C, 2 D], how far apart the two are and their product."""
    texts = [text for row in rows.inputs() for text in sides(row)]
    distinct = sorted(set(texts))
    at = {text: i for i, text in enumerate(distinct)}
    result = vectors(distinct)[[at[text] for text in texts]]
    if not rows.pairs:
        return result
    a, b = result[::2], result[1::2]
    return np.concatenate([np.abs(a - b), a * b], -1)


def with_heads(draw: Draw, vectors: Vectors, asked: Pooling, kept: Path) -> dict[str, Any]:
    """Test accuracy of heads on frozen vectors, at the block with the least cross-validated cross-entropy, and which of
    two poolings was chosen where both were `asked` for."""
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, train=read(draw.train, vectors), test=read(draw.test, vectors))
    with np.load(kept) as file:
        train, test = file["train"], file["test"]
    targets = np.eye(draw.classes)[draw.train.labels]
    chosen = pooling.fit(train, targets, asked, THREADS)
    result = chosen.heads
    nats = [heads.cross_entropy(result.cross_validated[:, c], targets) for c in range(train.shape[1])]
    best = int(np.argmin(nats))
    seen = test[:, best, : result.heads[best].weight.shape[1]]
    accuracy = float((result.heads[best](seen).argmax(1) == draw.test.labels).mean())
    return {"accuracy": accuracy, "block": best + 1, "pooling": chosen.pooling, "nats": round(nats[best], 4)}


def with_words(draw: Draw) -> float:
    [predicted] = baselines.lexical(draw.train, [draw.test], "accuracy", lambda *_: None).predicted
    return float((predicted == draw.test.labels).mean())


def with_command(draw: Draw, folder: Path) -> dict[str, float | list[float]]:
    """`beexformer train` in a process of its own, and what its checkpoint answers where nothing is asked."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = bool(draw.train.pairs)
    with (folder / "train.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["text", "other", "label"] if pairs else ["text", "label"])
        writer.writerows(
            [*sides(row), f"c{label:03d}"] for row, label in zip(draw.train.inputs(), draw.train.labels, strict=True)
        )
    command = [
        sys.executable,
        "-c",
        "from beexformer.cli import main; main()",
        "train",
        "--train",
        str(folder / "train.csv"),
    ]
    command += [
        "--out",
        str(folder / "model"),
        "--work",
        str(folder / "work"),
        *(["--text-pair", "other"] if pairs else []),
    ]
    used = used_by(command, folder / "log.txt")
    engine = Engine.load(folder / "model")
    logits, _ = logits_of(engine, draw.test)
    labels = np.array([int(label[1:]) for label in engine.labels])
    taken = exits_taken(engine.config, logits, engine.resolve(ExitOptions()))
    served = logits[np.arange(len(logits)), taken - 1]
    alone = logits[:, engine.resolve(ExitOptions()).max_blocks - 1]
    truth = np.searchsorted(labels, draw.test.labels)
    return {
        "accuracy": float((served.argmax(1) == truth).mean()),
        "one_block": float((alone.argmax(1) == truth).mean()),
        "seconds": round(used.seconds, 1),
        "cpu_seconds": round(used.cpu_seconds, 1),
        "peak_megabytes": round(used.peak_bytes / 1e6),
        "mean_exit": float(taken.mean()),
        "ece_by_exit": [round(expected_calibration_error(logits[:, c], truth), 3) for c in range(logits.shape[1])],
    }


# ---------------------------------------------------------------- all of them


def contenders(chosen: list[str], start: Backbone, leader: str | None, work: Path) -> dict[str, Contender]:
    """By name, what gives the test accuracy for a draw, or more of what was seen."""

    def frozen_by(name: str, make: Callable[[Pooling], Vectors], most: Pooling = "mean") -> Contender:
        made = cache(make)

        def run(draw: Draw) -> dict[str, Any]:
            asked = "mean" if draw.train.pairs else most
            return with_heads(draw, made(asked), asked, work / name / asked / f"{draw.name}-{len(draw.test)}.npz")

        return run

    @cache
    def followed() -> Backbone:
        return backbone.read(str(leader), Path())

    known: dict[str, Contender] = {
        "1-bit": frozen_by("1-bit", lambda asked: bits(start, asked), "mean_and_start"),
        "full precision": frozen_by("full", lambda asked: full_precision(followed(), asked), "mean_and_start"),
        "MiniLM": frozen_by("MiniLM", lambda _: minilm),
        "Model2Vec": frozen_by("Model2Vec", lambda _: model2vec),
        "TF-IDF": with_words,
        "train": lambda draw: with_command(draw, work / "train" / draw.name),
    }
    return {name: known[name] for name in NAMES if name in chosen and (leader or name != "full precision")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("BEE_DATA"), required="BEE_DATA" not in os.environ)
    parser.add_argument("--backbone", default="english", help="the 1-bit one: a shipped one or a folder")
    parser.add_argument("--full-precision", help="a backbone folder to set beside it")
    parser.add_argument("--tasks", nargs="*", default=TASKS, choices=TASKS)
    parser.add_argument("--only", nargs="*", default=NAMES, choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--test-rows", type=int, default=2000, help="at most, drawn once")
    parser.add_argument("--work", type=Path, default=Path("runs/small_data"))
    arguments = parser.parse_args()
    start = backbone.read(arguments.backbone, Path())
    runners = contenders(arguments.only, start, arguments.full_precision, arguments.work)
    table, by_task = Table("task", *runners, "seconds", "MB"), {}
    for task in arguments.tasks:
        runs = []
        for draw in draws(Path(arguments.data), task, arguments.draws, arguments.test_rows):
            runs.append({name: run(draw) for name, run in runners.items()})
            print(draw.name, json.dumps(runs[-1]), file=sys.stderr, flush=True)
        by_task[task] = runs
        took = [run["train"] for run in runs if isinstance(run.get("train"), dict)]
        worst = [f"{max(run[key] for run in took):.0f}" if took else "-" for key in ("seconds", "peak_megabytes")]
        table.add_row(task, *(f"{100 * _mean(runs, name):.1f}" for name in runners), *worst)
    means = {name: float(np.mean([_mean(runs, name) for runs in by_task.values()])) for name in runners}
    table.add_row("mean", *(f"{100 * mean:.1f}" for mean in means.values()), "", "", style="bold")
    Console().print(table)
    machine = f"{platform.machine()}, {THREADS} CPUs, torch {torch.__version__}"
    print(json.dumps({"means": means, "tasks": by_task, "machine": machine, "date": str(datetime.date.today())}))


def _mean(runs: list[dict[str, Any]], name: str) -> float:
    result = [run[name] for run in runs]
    return float(np.mean([one["accuracy"] if isinstance(one, dict) else one for one in result]))


if __name__ == "__main__":
    main()
