"""
Texts of an owner's own rows that a checkpoint shows to whoever opens the page: only where the owner asked for it.
"""

import dataclasses
from pathlib import Path

import numpy as np

from beexformer.model import checkpoint
from beexformer.model.engine import Engine
from beexformer.model.manifest import Example
from beexformer.training.data import Rows, sides

MOST = 6  # classes of which a text is shown
LONGEST = 160  # characters


def choose(engine: Engine, rows: Rows) -> tuple[Example, ...]:
    """A text for each of the largest classes: of those that are answered right the one of middle length."""
    result = []
    for label in np.argsort(-rows.counts(len(engine.labels)), kind="stable")[:MOST]:
        own = rows.take(rows.of(label)[:200])
        inputs = sorted(
            {row for row in own.inputs() if len(" ".join(sides(row))) <= LONGEST}, key=lambda r: (len(str(r)), r)
        )
        answers = engine.predict(
            [engine.encode(row) if isinstance(row, str) else engine.encode(*row) for row in inputs]
        )
        right = [row for row, answer in zip(inputs, answers, strict=True) if engine.labels[label] in answer.says]
        if right:
            text, *pair = sides(right[len(right) // 2])
            result.append(Example(text, pair[0] if pair else None, engine.labels[label], consent=True))
    return tuple(result)


def store(folder: Path, rows: Rows) -> int:
    """Write examples of these rows into a checkpoint; how many."""
    result = checkpoint.read(folder)
    chosen = choose(Engine(result), rows)
    checkpoint.save(dataclasses.replace(result, examples=chosen), folder)
    return len(chosen)
