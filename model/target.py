"""
Which instructions the kernels are compiled for: a stated level, not the one CPU at hand.

numba stores compiled code under the name and features of a CPU. With its default, the very CPU, an image built here
compiles anew there; with a few levels that many CPUs share, what was compiled once starts anywhere. `BEE_CPU` chooses:
`auto` (the highest level this CPU has), a level by name, or `native`. Answers are the same on all of them, to the bit.

Must be imported before the first `@njit`: numba reads the target then, once a process.
"""

import os
import platform
from collections.abc import Collection, Mapping

import llvmlite.binding as llvm
from numba import config

_V2 = frozenset({"cx16", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2"})
_V3 = _V2 | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_BEST = "+avx512vpopcntdq,+avx512vnni"  # whatever has the one but for a Xeon Phi has the other

LEVELS = {  # best first: name -> (LLVM's CPU, features beside it, what a CPU must have)
    "x86-64-v4-vpopcntdq": ("x86-64-v4", _BEST, _V4 | {"avx512vpopcntdq", "avx512vnni"}),
    "x86-64-v3": ("x86-64-v3", "", _V3),
    "x86-64-v2": ("x86-64-v2", "", _V2),
}
CHOICES = ("auto", "native", *LEVELS)
ARM = platform.machine() in ("aarch64", "arm64")
"""`auto` is one level there, armv8-a, that all 64-bit ones have."""


def choose(wanted: str, features: Mapping[str, bool]) -> str:
    """`BEE_CPU` and this CPU's features -> a level, or "native". Raises ValueError, one sentence, where it can't be."""
    if wanted not in CHOICES:
        raise ValueError(f"BEE_CPU is {wanted!r} and must be one of {', '.join(CHOICES)}")
    has = [level for level, (_, _, needs) in LEVELS.items() if all(features.get(name) for name in needs)]
    if wanted == "native" or (wanted == "auto" and not has):
        return "native"
    if wanted == "auto":
        return has[0]
    if wanted not in has:
        raise ValueError(f"BEE_CPU is {wanted!r}, which this CPU lacks; it has {', '.join([*has, 'native'])}")
    return wanted


level, problem = "native", ""
"""The level that kernels are compiled for, and why it isn't the one that was asked for (empty: it is)."""

if config.CPU_NAME is None:  # else numba's own NUMBA_CPU_NAME has the say
    try:
        level = choose(os.environ.get("BEE_CPU") or "auto", llvm.get_host_cpu_features())
    except ValueError as error:
        problem = str(error)
    if level != "native":
        config.CPU_NAME, config.CPU_FEATURES, _ = LEVELS[level]
    elif ARM and os.environ.get("BEE_CPU") != "native":
        level, config.CPU_NAME, config.CPU_FEATURES = "armv8-a", "generic", "+neon"  # what each of them has


def looks_up(has: Collection[str]) -> bool:
    """Whether a CPU with these features multiplies signs faster by table than by counting bits. On ARM as by the number
    of instructions: NEON counts bits of bytes only, which have to be added up, and its look-ups read a table of 16."""
    return ARM or ("avx2" in has and "avx512vpopcntdq" not in has)


def _has() -> Collection[str]:
    """What the CPU that is compiled for has, as far as it is known."""
    if config.CPU_NAME is None:
        return {name for name, there in llvm.get_host_cpu_features().items() if there}
    known = {(cpu, features): needs for cpu, features, needs in LEVELS.values()}
    return known.get((config.CPU_NAME, config.CPU_FEATURES or ""), frozenset())


LOOK_UP = looks_up(_has())
"""Which of the two products of model/kernels.py is compiled."""

MANY_REGISTERS = "avx512f" in _has()
"""Whether 16 sums of 16 real numbers fit into registers; else the kernels hold 4."""

LANES = 16 if "avx512bw" in _has() else 8 if "avx2" in _has() else 4
"""How many integers of 32 bits a register of x86 holds."""

VNNI = "avx512vnni" in _has()
"""Whether one instruction adds up products of four integers of 8 bits (VPDPBUSD)."""
