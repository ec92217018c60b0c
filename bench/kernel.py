"""
Every kernel against torch in float32, by shape, on one thread; the binary product also against the machine's ceiling.

    python bench/kernel.py [--seconds 0.3]

The ceiling is measured: the product's own instructions on registers alone, nothing read, nothing written: xor, popcount
and add, or where signs are looked up in a table, the look-up and the add.
Cycles are those of a chain of instructions that can't overlap. Prints tables and one JSON line; ratios are torch's time
over ours.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit
from rich.console import Console
from rich.table import Table
from timing import interleaved, machine, pin, today
from torch.nn import functional as F

from beexformer.model import kernels, target
from beexformer.model.simd import first_reals, look_up, popcount, splat_o32, splat_u8, store, widen
from beexformer.training.binarize import g

TIMES = 8  # that a kernel runs in one call: in the engine no kernel is called from Python
ROWS = (1, 10, 25, 64, 128, 512)
INSTRUCTIONS = {"x86-64-v4-vpopcntdq": 3, "x86-64-v3": 8}
"""Vector instructions for 512 signs: xor, popcount and add where there is VPOPCNTQ; on AVX2 four times a look-up and an
add, without what takes octets apart, which 4 rows share."""


def real(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@njit(nogil=True)
def _registers_only(rounds: int, out: np.ndarray) -> None:
    a = b = c = d = e = f = g_ = h = splat_u8(7)
    key = splat_u8(rounds)
    for _ in range(rounds):  # eight chains, each as long as xor, popcount and add take, side by side
        a, b, c, d = a + popcount(a ^ key), b + popcount(b ^ key), c + popcount(c ^ key), d + popcount(d ^ key)
        e, f, g_, h = e + popcount(e ^ key), f + popcount(f ^ key), g_ + popcount(g_ ^ key), h + popcount(h ^ key)
    store(out, 0, a + b + c + d + e + f + g_ + h)


@njit(nogil=True)
def _registers_only_by_table(rounds: int, out: np.ndarray) -> None:
    a = b = c = d = e = f = g_ = h = splat_o32(7)
    key = splat_o32(rounds)
    for _ in range(rounds):
        a, b, c, d = a + look_up(key, a), b + look_up(key, b), c + look_up(key, c), d + look_up(key, d)
        e, f, g_, h = e + look_up(key, e), f + look_up(key, f), g_ + look_up(key, g_), h + look_up(key, h)
    store(out, 0, first_reals(widen(a + b + c + d + e + f + g_ + h)))


@njit(nogil=True)
def _chain(rounds: int, x: int) -> int:
    for _ in range(rounds):
        x = (x << 1) ^ (x >> 3)  # a shift and a xor, one after the other: two cycles
    return x


def ceiling(seconds: float) -> tuple[float, float]:
    """(multiply-accumulates a second, cycles a second) that one thread could at most reach."""
    counts, reals, rounds = np.zeros(8, np.uint64), np.zeros(16, np.float32), 20000
    run, signs = (
        (lambda: _registers_only_by_table(rounds, reals), 128)
        if target.LOOK_UP
        else (lambda: _registers_only(rounds, counts), 512)
    )
    result = interleaved({"registers": run, "chain": lambda: _chain(rounds, 12345)}, seconds)
    return 8 * signs * rounds / result["registers"], 2 * rounds / result["chain"]


@njit(nogil=True)
def _linear(x: kernels.Tiles, L: int, layer: kernels.Layer, words: np.ndarray, out: kernels.Tiles) -> None:
    for _ in range(TIMES):
        kernels.linear(x, L, layer, words, out)


def product(M: int, N: int, K: int, seconds: float) -> tuple[float, float]:
    """Seconds of ours (packing, product, scaling) and of torch's F.linear."""
    rng = np.random.default_rng(0)
    words = kernels.arrange(rng.integers(0, 2**64, (K // 64, N), dtype=np.uint64))
    layer = kernels.layer(kernels.Linear(words, real(N), real(N), real(K)))
    x, packed, out = kernels.tiles(real(M, K)), np.empty(M * K // 64, np.uint64), kernels.tiles(real(M, N))
    tx, tw, tb = torch.randn(M, K), torch.randn(N, K), torch.randn(N)
    result = interleaved(
        {"ours": lambda: _linear(x, M, layer, packed, out), "torch": lambda: F.linear(tx, tw, tb)}, seconds
    )
    return result["ours"] / TIMES, result["torch"]


@njit(nogil=True)
def _attend(L: int, D: int, n_head: int, norm: np.ndarray, at: np.ndarray, integers: np.ndarray | None) -> None:
    """By address, as the forward pass calls it."""
    work = kernels.Workspace(at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], at[8], at[9], integers)
    values, out = kernels.Norm(norm[0], norm[1]), kernels.Tiles(work.mixed, 0, kernels.STEP)
    for _ in range(TIMES):
        for group in range(kernels.groups(L)):
            first, n = kernels.rows_of(group, L)
            kernels.attend(kernels.Tiles(work.qkv, 0, L | 1), L, D, n_head, first, n, values, work, out)


@njit(nogil=True)
def _add_norm(a: kernels.Tiles, b: kernels.Tiles, L: int, D: int, norm: kernels.Norm, out: kernels.Tiles) -> None:
    for _ in range(TIMES):
        kernels.add_norm(a, b, L, D, norm, out)


@njit(nogil=True)
def _select(L: int, D: int, work: kernels.Workspace) -> None:
    for step in range(TIMES * kernels.groups(L)):
        _, n = kernels.rows_of(step % kernels.groups(L), L)
        x, mixed = kernels.Tiles(work.x, 0, kernels.STEP), kernels.Tiles(work.mixed, 0, kernels.STEP)
        for t in range(0, D // kernels.TILE, 4):
            start = t * kernels.STEP * kernels.TILE
            of_x, of_mixed = kernels.Tiles(x.numbers, start, x.step), kernels.Tiles(mixed.numbers, start, x.step)
            kernels.select(of_x, n, kernels.Tiles(work.gates, 0, kernels.STEP), of_mixed, of_x)


def others(M: int, seconds: float) -> dict[str, tuple[float, float]]:
    """The same for the kernels around the products, at D = 384 and 12 heads, as networks have them."""
    D, H = 384, 12
    work, of_integers = kernels.workspace(M, D, 768), kernels.workspace(M, D, 768, integers=True)
    for part in (*work[2:-1], *of_integers[2:-1]):
        part[:] = np.resize(real(997), part.shape)
    norm = kernels.Norm(real(D), real(D))
    at_norm = kernels.addresses(norm)
    at_reals = kernels.addresses(work[:-1])
    at_integers = kernels.addresses(of_integers[:-1]), kernels.addresses(of_integers.integers)
    first, second, out = (kernels.tiles(real(M, D)) for _ in range(3))
    a, b, qkv = torch.randn(M, D), torch.randn(M, D), torch.randn(1, M, 3, H, D // H)
    weight, bias, of_x, of_h = torch.randn(D), torch.randn(D), torch.randn(M, 2 * D), torch.randn(M, 3 * D)

    def attend() -> torch.Tensor:
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v)

    def select() -> torch.Tensor:
        sh, sg_h, tg_h = of_h.chunk(3, -1)
        sg_x, tg_x = of_x.chunk(2, -1)
        return g(torch.sigmoid(sh)) * a + g(torch.sigmoid(sg_x + sg_h)) * g(torch.tanh(tg_x + tg_h))

    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "attend": (lambda: _attend(M, D, H, at_norm, *at_integers), attend),
        "attend, float32": (lambda: _attend(M, D, H, at_norm, at_reals, None), attend),
        "select": (lambda: _select(M, D, work), select),
        "add_norm": (
            lambda: _add_norm(first, second, M, D, norm, out),
            lambda: F.layer_norm(a + b, (D,), weight, bias),
        ),
    }
    result = {}
    for name, (ours, theirs) in pairs.items():
        times = interleaved({"ours": ours, "torch": theirs}, seconds)
        result[name] = times["ours"] / TIMES, times["torch"]
    return result


def measure(seconds: float, console: Console) -> dict[str, Any]:
    """All tables; the numbers for the JSON line."""
    with torch.inference_mode():
        most, cycles = ceiling(seconds)
        table = Table(title="binary product with packing and scaling, one thread")
        for column in ("M", "N", "K", "torch fp32 GMAC/s", "ours GMAC/s", "times torch", "of the ceiling"):
            table.add_column(column, justify="right")
        ratios, speeds = {}, []
        for M in ROWS:
            for N in (384, 1152):
                for K in (384, 768):
                    ours, theirs = product(M, N, K, seconds)
                    macs = M * N * K
                    ratios[M, N, K] = theirs / ours
                    speeds.append(macs / ours)
                    table.add_row(
                        *map(str, (M, N, K)),
                        f"{macs / theirs / 1e9:.0f}",
                        f"{macs / ours / 1e9:.0f}",
                        f"{theirs / ours:.1f}",
                        f"{macs / ours / most:.0%}",
                    )
        console.print(table)
        per_512 = INSTRUCTIONS.get(target.level)
        console.print(
            f"ceiling {most / 1e9:.0f} GMAC/s at {cycles / 1e9:.2f} GHz: {most / cycles:.0f} MAC a cycle"
            + (f", {most / 512 * per_512 / cycles:.1f} vector instructions a cycle" if per_512 else "")
        )
        table = Table(title="kernels around the products, D = 384, 12 heads")
        for column in ("kernel", *(f"M = {M}" for M in ROWS)):
            table.add_column(column, justify="right")
        around = {M: others(M, seconds) for M in ROWS}
        for name in around[1]:
            cells = (around[M][name] for M in ROWS)
            table.add_row(name, *(f"{ours * 1e6:.0f} µs, {theirs / ours:.1f} times torch" for ours, theirs in cells))
        console.print(table)
    return {
        "kernel_vs_torch_min": round(min(ratio for (M, _, _), ratio in ratios.items() if M >= 10), 2),
        "kernel_vs_torch_max": round(max(ratio for (M, _, _), ratio in ratios.items() if M >= 10), 2),
        "kernel_gmacs_max": round(max(speeds) / 1e9, 1),
        "attend_vs_torch": {M: round(around[M]["attend"][1] / around[M]["attend"][0], 2) for M in ROWS},
        "attend_vs_torch_min": round(min(theirs / ours for ours, theirs in (around[M]["attend"] for M in ROWS[2:])), 2),
        "ceiling_gmacs": round(most / 1e9, 1),
        "ceiling_macs_per_cycle": round(most / cycles, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.3, help="time for each cell (%(default)s)")
    seconds = parser.parse_args().seconds
    pin(1)
    torch.set_num_threads(1)
    result = measure(seconds, Console(width=150))
    print(json.dumps({**result, "machine": machine(), "date": today()}))


if __name__ == "__main__":
    main()
