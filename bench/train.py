"""
Tokens a second of training: eager against compiled, float32 against bfloat16, on random rows of a recipe's shape.

    python bench/train.py [recipes/sst2.toml] [--steps 8] [--tokens 22] [--device cuda]

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

from beexformer.training import device, malloc
from beexformer.training import recipe as recipes
from beexformer.training.data import Rows
from beexformer.training.prepare import Prepared
from beexformer.training.recipe import Recipe
from beexformer.training.trainer import Trainer


def tokens_per_second(recipe: Recipe, tokens: int, steps: int, on: torch.device) -> float:
    """Median over `steps` steps on rows of `tokens` tokens, after two that warm up. Pads are counted."""
    rng = np.random.default_rng(0)
    count = 2 * max(1, recipe.optim.tokens_a_step // tokens)
    ids = [rng.integers(1, 30000, tokens, dtype=np.int32) for _ in range(count)]
    config = recipe.network.config(30522, 2)
    targets = np.full((count, 2), 0.5, np.float32)
    rows = Rows(["a"] * count, ["b"] * count if recipe.data.text_pair else None, np.zeros(count, np.int64))
    data = Prepared(config, ["a", "b"], "", None, ids, targets, rows, rows, [], None, {})
    loop = Trainer(recipe, data, None, on).loop
    loop.prepare()
    feed, spent, sizes = iter(loop.feed), [], []
    for _ in range(steps + 2):
        start, before = time.perf_counter(), loop.tokens
        loop.train_step(*next(feed))
        if on.type == "cuda":
            torch.cuda.synchronize(on)
        spent.append(time.perf_counter() - start)
        sizes.append(loop.tokens - before)
    return statistics.median(size / seconds for size, seconds in list(zip(sizes, spent, strict=True))[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path, nargs="?", default=Path("recipes/sst2.toml"))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=22)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    recipe, on = recipes.read(arguments.recipe, Recipe), device.choose(arguments.device)
    malloc.keep_freed()
    result = {}
    table = Table("products", "elementwise parts", "tokens/s", "against the first")
    for precision in ("float32", "bfloat16"):
        for compiled in (False, True):
            optim = recipe.optim.model_copy(update={"precision": precision, "compile": compiled})
            plan = recipe.model_copy(update={"optim": optim})
            speed = tokens_per_second(plan, arguments.tokens, arguments.steps, on)
            kind = "compiled" if compiled else "eager"
            result[f"{precision}_{kind}"] = round(speed)
            table.add_row(precision, kind, f"{speed:.0f}", f"{speed / result['float32_eager']:.2f}")
            torch.compiler.reset()
    Console().print(table)
    machine = f"{platform.machine()}, {device.describe(on)}, torch {torch.__version__}"
    print(json.dumps({**result, "tokens": arguments.tokens, "machine": machine, "date": str(datetime.date.today())}))


if __name__ == "__main__":
    main()
