"""
What loading a checkpoint takes, and what an exit's head takes, by kind and number of classes.

    python bench/checkpoint.py [--repeats 30]

CPU time of one process, in turns, medians. read: a folder from the page cache, all of it checked. load: the same and an
engine made of it, its probes' ids checked, where a model with the same tokenizer is loaded already. probes: their
logits, kernels being there. Prints tables and one line of JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from beexformer.model import checkpoint, probes, target, tensors
from beexformer.model.config import BEEConfig
from beexformer.model.engine import Engine, Row
from beexformer.model.options import ExitSettings

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from tiny import random_checkpoint

SHIPPED = sorted(path.parent for path in checkpoint.SHIPPED.glob("*/config.json"))
CLASSES = (2, 20, 150, 1000)
TOKENS = 25


def timed(run: Callable[[], Any]) -> float:
    """Milliseconds of CPU time."""
    start = time.process_time()
    run()
    return 1000 * (time.process_time() - start)


def loading(repeats: int) -> list[dict[str, Any]]:
    result = []
    for folder in SHIPPED:
        engine = Engine.load(folder)
        engine.warm()
        kept = checkpoint.read(folder)
        steps: dict[str, Callable[[], Any]] = {
            "read_ms": lambda folder=folder: checkpoint.read(folder),  # type: ignore[misc]
            "load_ms": lambda folder=folder: Engine.load(folder),  # type: ignore[misc]
            "probes_ms": lambda engine=engine, kept=kept: probes.check_logits(engine, kept.probes),  # type: ignore[misc]
        }
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(repeats):
            for name, step in steps.items():
                times[name].append(timed(step))
        sizes = {"mb": round(kept.size_bytes / 1e6, 2)}
        result.append({"name": kept.name, **sizes, **{name: round(median(each), 2) for name, each in times.items()}})
    return result


def heads(repeats: int) -> list[dict[str, Any]]:
    """Microseconds of a row of TOKENS tokens through one block and its head at D = 384, and the size of the head."""
    result = []
    for m in CLASSES:
        labels = tuple(map(str, range(m)))
        shape: dict[str, Any] = {"d_model": 384, "n_head": 12, "n_block": 1, "d_head": 768, "vocabulary": 200}
        engines = {
            "binary": Engine(random_checkpoint(labels=labels, head_thresholds=4, **shape)),
            "linear": Engine(random_checkpoint(labels=labels, head="linear", **shape)),
        }
        row = Row(np.arange(1, TOKENS + 1, dtype=np.int32), False, ExitSettings(0.0, 0.0, 1, 1))
        times: dict[str, list[float]] = {kind: [] for kind in engines}
        for _ in range(20 * repeats):
            for kind, engine in engines.items():
                times[kind].append(1000 * timed(lambda engine=engine, row=row: engine.logits([row])))  # type: ignore[misc]
        line: dict[str, Any] = {"classes": m}
        for kind, engine in engines.items():
            line[f"{kind}_us"] = round(median(times[kind]), 1)
            line[f"{kind}_head_kb"] = round(head_bytes(engine.config) / 1000, 1)
        result.append(line)
    return result


def head_bytes(config: BEEConfig) -> int:
    """Of one head in its file."""
    heads = [of for name, of in tensors.spec(config).items() if name.startswith("heads.")]
    return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for dtype, shape in heads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    result = {"level": target.level, "loading": loading(repeats), "heads": heads(repeats)}
    for lines in (result["loading"], result["heads"]):
        for line in lines:
            print("  ".join(f"{name} {value}" for name, value in line.items()))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
