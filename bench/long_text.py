"""
How far a checkpoint for sentiment agrees on whole reviews with an MPNet that reads 512 tokens.

    python bench/long_text.py --data folder [--checkpoint sst2 another-folder ...] [--work runs/long_text] [--seed 1]

The reviews are the 2,000 that `recipes/backbone.toml` holds out: no backbone has read one of their sentences. They
have no labels; MPNet, fine-tuned on the 12,000 longest labelled rows of SST-2 for one epoch, says what they are.
Another --seed makes one that says otherwise of one review in twenty, so ask two. What it says is kept in --work, in
mpnet.npz: the first call takes a quarter of an hour of a core with bfloat16 products, later ones half a minute a
checkpoint. Sentences of --trained-on, which a task's own training may have read (with a teacher's labels), may stand
in some reviews; the others are counted apart. Prints a table and one JSON line.
"""

import argparse
import datetime
import json
import os
import platform
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from beexformer.model.checkpoint import SHIPPED
from beexformer.model.config import DEFAULT_DELTA
from beexformer.model.engine import Engine
from beexformer.model.options import ExitOptions, ExitSettings
from beexformer.training import corpus, precision, teacher
from beexformer.training.data import Columns, Rows, cut, key, read_rows
from beexformer.training.distill import BackboneRecipe
from beexformer.training.encoders import locate
from beexformer.training.evaluate import answers, encode_rows, exits_taken, flops_saved, logits_of
from beexformer.training.progress import RunProgress

ROOT = Path(__file__).parent.parent
TOKENS = 512
LABELLED = 12_000  # rows of SST-2 that MPNet is fine-tuned on, the longest
LENGTHS = ((0, 128), (129, 256), (257, 511), (512, TOKENS))
"""Tokens of a review, from and to, that are counted apart; the last are those that fill 512 or were cut there."""


def held_out(root: Path) -> list[str]:
    """The reviews, each once, in the order of their lines."""
    recipe = BackboneRecipe.model_validate(tomllib.loads((ROOT / "recipes" / "backbone.toml").read_text()))
    assert recipe.held_out
    path = root / recipe.held_out.file
    numbers, _ = corpus.hold_out(path, recipe.held_out.paragraphs, recipe.held_out.seed)
    texts = [text for text, _ in corpus.documents(path)]
    return [*{key(texts[i]): texts[i] for i in numbers}.values()]


def untouched(reviews: Sequence[str], files: Sequence[Path]) -> np.ndarray:
    """Which reviews have no sentence of four words or more in data files [N] bool."""
    read = corpus.keys_of(files)
    return np.array(
        [not any(key(s) in read for s in cut(text) if len(s.split()) >= corpus.FEW_WORDS) for text in reviews]
    )


def mpnet(root: Path, reviews: list[str], work: Path, seed: int, progress: RunProgress) -> dict[str, Any]:
    """What MPNet says: logits [N, 2] of the reviews, tokens [N] it read of them, and its accuracy on SST-2 dev."""
    kept = work / "mpnet.npz"
    if not kept.exists():
        columns, names = Columns("sentence"), ["negative", "positive"]
        train, dev = (
            read_rows(root / "glue/sst2" / f"{split}.tsv.gz", columns, names)[0] for split in ("train", "dev")
        )
        dtype, place = precision.faster(), locate("mpnet", work / "encoders")
        tutor = teacher.finetune(
            place, train.longest(LABELLED), 2, work / "mpnet", epochs=1, learning_rate=3e-5, batch_size=32, dtype=dtype,
            seed=seed, report=progress.stage("MPNet is fine-tuned"), max_tokens=TOKENS,
        )  # fmt: skip

        def ask(name: str, texts: list[str]) -> np.ndarray:
            report = progress.stage(f"MPNet reads {name}")
            return teacher.answer(tutor, texts, None, work / "mpnet" / name, dtype=dtype, report=report)

        accuracy = float((ask("dev", dev.texts).argmax(1) == dev.labels).mean())
        tokens = np.array([len(ids) for ids in tutor.encode(reviews, None)])
        np.savez(kept, logits=ask("reviews", reviews), tokens=tokens, dev_accuracy=accuracy)
    with np.load(kept) as file:
        result = {name: file[name] for name in file.files}
    if len(result["logits"]) != len(reviews):
        raise SystemExit(f"{kept} is of other reviews; give --work another folder")
    return result


def measured(
    engine: Engine, reviews: list[str], said: np.ndarray, tokens: np.ndarray, clean: np.ndarray
) -> dict[str, Any]:
    """Agreement with `said` [N] as the checkpoint ships, by the paper's rule over all blocks, and at full depth."""
    rows = Rows(reviews, None, said)
    logits, read = logits_of(engine, rows)
    paper = ExitSettings(DEFAULT_DELTA, 0.0, 1, engine.config.n_block)
    policies = {"as it ships": engine.resolve(ExitOptions()), "by the paper's rule": paper}
    left = {name: exits_taken(engine.config, logits, settings) for name, settings in policies.items()}
    left["at full depth"] = np.full(len(reviews), engine.config.n_block)
    result: dict[str, Any] = {
        "max_tokens": engine.config.max_tokens,
        "cut": float(np.mean([row.truncated for row in encode_rows(engine, rows)])),
        "tokens_read": float(read.mean()),
    }
    for name, taken in left.items():
        agrees = answers(logits, taken) == said
        result[name] = {
            "agreement": float(agrees.mean()),
            "flops_saved_ratio": flops_saved(engine.config, read, taken),
            "by_tokens": {f"{a}-{b}": float(agrees[(tokens >= a) & (tokens <= b)].mean()) for a, b in LENGTHS},
            "untouched": float(agrees[clean].mean()),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("BEE_DATA"), required="BEE_DATA" not in os.environ)
    parser.add_argument("--checkpoint", nargs="*", default=["sst2"], help="names of shipped ones, or folders")
    parser.add_argument("--work", type=Path, default=Path("runs/long_text"))
    parser.add_argument("--seed", type=int, default=1, help="of MPNet's fine-tuning; another one needs its own --work")
    parser.add_argument(
        "--trained-on", nargs="*", default=["teacher/sst2_unlabelled.tsv.gz"], help="of the data folder"
    )
    arguments = parser.parse_args()
    root = Path(arguments.data)
    arguments.work.mkdir(parents=True, exist_ok=True)
    reviews = held_out(root)
    progress = RunProgress(Console(stderr=True))
    with progress.bar:
        their = mpnet(root, reviews, arguments.work, arguments.seed, progress)
    said, tokens = their["logits"].argmax(1), their["tokens"]
    clean = untouched(reviews, [root / file for file in arguments.trained_on])
    by_checkpoint = {}
    columns = ("checkpoint", "reads", "cut", "exits", "agreement", "FLOPs saved", *(f"{a}-{b}" for a, b in LENGTHS))
    table = Table(*columns, f"untouched ({clean.sum()})")
    for place in arguments.checkpoint:
        engine = Engine.load(Path(place) if Path(place).is_dir() else SHIPPED / place)
        result = by_checkpoint[place] = measured(engine, reviews, said, tokens, clean)
        for name in ("as it ships", "by the paper's rule", "at full depth"):
            its = result[name]
            shares = [its["agreement"], its["flops_saved_ratio"], *its["by_tokens"].values(), its["untouched"]]
            cells = [
                place,
                str(result["max_tokens"]),
                f"{result['cut']:.0%}",
                name,
                *(f"{100 * x:.1f}" for x in shares),
            ]
            table.add_row(*cells)
    Console().print(table)
    facts = {
        "reviews": len(reviews),
        "untouched": int(clean.sum()),
        "by_tokens": {f"{a}-{b}": int(((tokens >= a) & (tokens <= b)).sum()) for a, b in LENGTHS},
        "mpnet": {"seed": arguments.seed, "dev_accuracy": float(their["dev_accuracy"]), "positive": float(said.mean())},
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "date": str(datetime.date.today()),
    }
    print(json.dumps({**facts, "checkpoints": by_checkpoint}))


if __name__ == "__main__":
    main()
