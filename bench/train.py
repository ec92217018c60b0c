"""
Tokens a second of training: eager against compiled, float32 against bfloat16, on random rows of a recipe's shape.

    python bench/train.py [recipes/sst2.toml] [--steps 8] [--tokens 22]

Prints a table and one JSON line. The ratios are what travels; tokens/s belong to the machine named in the line.
"""

import argparse
import datetime
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from beexformer.training import memory
from beexformer.training import recipe as recipes
from beexformer.training.data import Rows
from beexformer.training.prepare import Prepared
from beexformer.training.recipe import Recipe
from beexformer.training.trainer import Trainer


def tokens_per_second(recipe: Recipe, tokens: int, steps: int) -> float:
    """Median over `steps` steps on batches of `tokens` tokens a row, after two that warm up."""
    batch = recipe.optim.batch_size
    rng = np.random.default_rng(0)
    ids = [rng.integers(1, 30000, tokens, dtype=np.int32) for _ in range(batch * 2)]
    config = recipe.network.config(30522, 2)
    targets = np.full((len(ids), 2), 0.5, np.float32)
    none = Rows([], None, np.array([], np.int64))
    trainer = Trainer(recipe, Prepared(config, ["a", "b"], "", None, ids, targets, none, none, [], None, {}))
    spent = []
    for step in range(steps + 2):
        start = time.perf_counter()
        trainer.train_step(np.arange(batch) + batch * (step % 2))
        spent.append(time.perf_counter() - start)
    return batch * tokens / statistics.median(spent[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path, nargs="?", default=Path("recipes/sst2.toml"))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=22)
    arguments = parser.parse_args()
    recipe = recipes.read(arguments.recipe, Recipe)
    memory.keep_freed()
    found = {}
    table = Table("products", "elementwise parts", "tokens/s", "against the first")
    for precision in ("float32", "bfloat16"):
        for compiled in (False, True):
            optim = recipe.optim.model_copy(update={"precision": precision, "compile": compiled})
            speed = tokens_per_second(recipe.model_copy(update={"optim": optim}), arguments.tokens, arguments.steps)
            kind = "compiled" if compiled else "eager"
            found[f"{precision}_{kind}"] = round(speed)
            table.add_row(precision, kind, f"{speed:.0f}", f"{speed / found['float32_eager']:.2f}")
            torch.compiler.reset()
    Console().print(table)
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(json.dumps({**found, "tokens": arguments.tokens, "machine": machine, "date": str(datetime.date.today())}))


if __name__ == "__main__":
    main()
