"""
One SHA-256 of what the shipped checkpoints answer: equal on every level of instructions and every kind of CPU.

    python bench/equal.py [--models sst2,mrpc]

Logits of all exits, labels, scores, exits and entropies, of sentences, of rows of awkward lengths, and of one row that
stops at every step; with attention on integers, as they ship, and on real numbers. Ends with one JSON line.
"""

import argparse
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np

from beexformer.model import checkpoint, target
from beexformer.model.config import Attention
from beexformer.model.engine import Engine, Row

TEXTS = (
    "a warm , funny film",
    "it 's dull , lifeless and far too long .",
    "caf\u00e9 na\u00efve \u65e5\u672c\u8a9e",
    "the film 's performances are thrilling , and its " * 8,
)
LENGTHS = (1, 2, 17, 48, 49, 130)


def rows(engine: Engine) -> list[Row]:
    texts = [engine.encode(text, text if engine.input == "pair" else None) for text in TEXTS]
    ids = [np.arange(length, dtype=np.int32) * 37 % engine.config.vocab_size for length in LENGTHS]
    return [*texts, *(replace(texts[0], ids=some) for some in ids)]


def digest(folder: Path) -> str:
    shipped, result = checkpoint.read(folder), hashlib.sha256()
    for numbers in get_args(Attention):
        engine = Engine(replace(shipped, config=replace(shipped.config, attention=numbers)))
        some = rows(engine)
        result.update(engine.logits(some).tobytes())
        answers, stopping = engine.predict(some), engine.begin(some[-1])
        while not stopping.advance(0):
            pass
        assert stopping.answer() == answers[-1], "a row that stops on its way has another answer"
        for answer in answers:
            result.update(repr((answer.label, answer.score, answer.exit_index, answer.entropies)).encode())
    return result.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="", help="some of the shipped ones, default all")
    names = parser.parse_args().models
    folders = sorted(Path(checkpoint.SHIPPED).glob("*/config.json"))
    wanted = names.split(",") if names else [folder.parent.name for folder in folders]
    print(json.dumps({"level": target.level, **{n: digest(checkpoint.SHIPPED / n) for n in wanted}}))


if __name__ == "__main__":
    main()
