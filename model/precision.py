"""
The type of products in training: bfloat16 halves their time where a CPU multiplies it, and multiplies it where the CPU
can't (a twentieth of the speed was seen with AVX2). Which of both this CPU is, is measured: no name of an instruction
set says it on every machine.
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
    a, b = torch.ones(1024, 384, dtype=dtype), torch.ones(384, 384, dtype=dtype)
    spent = []
    for _ in range(2 + TIMES):
        began = time.perf_counter()
        a @ b.T
        spent.append(time.perf_counter() - began)
    return statistics.median(spent[2:])
