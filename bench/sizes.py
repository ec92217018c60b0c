"""
What width costs: milliseconds, FLOPs and megabytes of the two sizes of network at full depth, in turns, on one thread.

    python bench/sizes.py [--seconds 2]

Networks are untrained, with linear heads of two classes and the vocabulary that ships: at full depth a row takes the
same time whatever its weights say. Prints a table and one JSON line. Takes about half a minute.
"""

import argparse
import json
import math
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from timing import interleaved, machine, pin, today

from beexformer.model.config import BEEConfig
from beexformer.model.engine import Engine, Row
from beexformer.model.errors import BEEError
from beexformer.model.options import ExitOptions
from beexformer.model.tensors import to_bytes
from beexformer.model.tokenizer import Tokenizer
from beexformer.training import export
from beexformer.training.backbone import SHIPPED
from beexformer.training.network import BEExformer

SIZES = {"small": (384, 12), "base": (768, 12)}
"""Size -> width and heads."""
LENGTHS = (10, 25, 64, 128, 512)
WORDS = "a warm funny film that never forgets what its people are about "


def engine_of(size: str, tokenizer: str) -> tuple[Engine, float]:
    """An untrained network of a size, and the megabytes of its checkpoint."""
    torch.manual_seed(0)
    width, heads = SIZES[size]
    config = BEEConfig(
        vocab_size=Tokenizer(tokenizer, 512).vocab_size, n_class=2, d_model=width, n_head=heads, max_tokens=512,
        head="linear", embedding="int4+2",
    )  # fmt: skip
    network = BEExformer(config)
    network.fix_embedding(np.ones(config.vocab_size))
    packed = export.packed(network, size, ["no", "yes"], tokenizer, False, {})
    return Engine(packed), (len(to_bytes(packed.tensors)) + len(tokenizer.encode())) / 1e6


def row_of(engine: Engine, tokens: int) -> Row:
    """A row of exactly so many tokens, which runs all blocks."""
    words = WORDS * math.ceil(tokens / 10)
    for count in range(len(words.split()), 0, -1):
        row = engine.encode(" ".join(words.split()[:count]), options=ExitOptions(min_blocks=engine.config.n_block))
        if len(row.ids) == tokens:
            return row
    raise BEEError(f"no row of {tokens} tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each length")
    seconds = parser.parse_args().seconds
    pin(1)
    torch.set_num_threads(1)
    tokenizer = (SHIPPED / "english" / "tokenizer.json").read_text()
    engines, megabytes = {}, {}
    for size in SIZES:
        engines[size], megabytes[size] = engine_of(size, tokenizer)
    table = Table(title=f"milliseconds a row at full depth, one thread, {machine()}")
    for column in ("tokens", *SIZES, "ratio", "FLOPs ratio"):
        table.add_column(column, justify="right")
    result: dict[int, dict[str, float]] = {}
    for tokens in LENGTHS:
        rows = {size: row_of(engine, tokens) for size, engine in engines.items()}
        calls = {size: partial(engine.predict, [rows[size]]) for size, engine in engines.items()}
        times = interleaved(calls, seconds)
        flops = {size: engine.predict([rows[size]])[0].flops for size, engine in engines.items()}
        ratio, of_flops = times["base"] / times["small"], flops["base"] / flops["small"]
        result[tokens] = {**{size: 1000 * spent for size, spent in times.items()}, "ratio": ratio, "flops": of_flops}
        table.add_row(str(tokens), *(f"{1000 * times[size]:.3f}" for size in SIZES), f"{ratio:.2f}", f"{of_flops:.2f}")
    Console().print(table)
    print(json.dumps({"date": today(), "machine": machine(), "milliseconds": result, "megabytes": megabytes}))


if __name__ == "__main__":
    main()
