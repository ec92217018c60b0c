"""
The type of products in training. bfloat16 takes half the time of float32 on a CPU that multiplies it; on others it is
emulated, and training was seen ten times as slow with AVX2. One product in both types tells which CPU this is: no
name of an instruction set does on every machine.
"""

import functools
import statistics
import time

import torch

TIMES = 7  # products a type is timed by, after two that warm up; a fifth of a second altogether


def of(name: str) -> torch.dtype:
    """Type of products by its name in a recipe: "float32", "bfloat16", or "auto", whichever is faster here."""
    return faster() if name == "auto" else getattr(torch, name)


@functools.cache
def faster() -> torch.dtype:
    """torch.bfloat16 where a product of a block's shape takes less time in it, torch.float32 elsewhere."""
    spent = {dtype: _seconds(dtype) for dtype in (torch.float32, torch.bfloat16)}
    return min(spent, key=lambda dtype: spent[dtype])


@torch.no_grad()
def _seconds(dtype: torch.dtype) -> float:
    """Median seconds of a product [1024, 384] x [384, 384] in `dtype`."""
    a, b = torch.ones(1024, 384, dtype=dtype), torch.ones(384, 384, dtype=dtype)
    spent = []
    for _ in range(2 + TIMES):
        began = time.perf_counter()
        a @ b.T
        spent.append(time.perf_counter() - began)
    return statistics.median(spent[2:])
