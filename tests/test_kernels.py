"""Every kernel against its plain meaning, at sizes that hurt."""

import numpy as np
import pytest
from tiny import random_checkpoint

from model import engine as engines
from model import kernels

LENGTHS = [1, 2, 3, 7, 16, 17, 48]
ULPS = {"rtol": 2e-5, "atol": 2e-6}  # sums of up to 512 terms in another order, and tanh and exp of a few ulp


def real(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("k", [64, 128, 320, 512, 768])
@pytest.mark.parametrize("rows", [1, 5])
def test_pack_is_exact_and_counts_a_tie_as_plus(rows: int, k: int) -> None:
    x, threshold = real(rows, k), real(k, seed=1)
    x[0, ::3] = threshold[::3]
    out = np.empty((rows, k // 64), np.uint64)
    kernels.pack(x, threshold, out)
    assert (out == kernels.pack_numpy(x, threshold)).all()


@pytest.mark.parametrize("k", [64, 192, 256, 320, 512, 768])
@pytest.mark.parametrize("n", [1, 2, 63, 64, 1536])
def test_product_is_exact(n: int, k: int) -> None:
    rng = np.random.default_rng(k)
    words = rng.integers(0, 2**64, (3, k // 64), dtype=np.uint64)
    weights = rng.integers(0, 2**64, (k // 64, n), dtype=np.uint64)
    alpha, bias = real(n), real(n, seed=1)
    out, counts = np.empty((3, n), np.float32), np.empty(n, np.int64)
    kernels.product(words, weights, alpha, bias, counts, out)
    assert (out == kernels.product_numpy(words, weights, alpha, bias)).all()


@pytest.mark.parametrize("L", LENGTHS)
@pytest.mark.parametrize("heads", [1, 4])
def test_attend(L: int, heads: int) -> None:
    qkv, out = real(L, 3 * 128), np.empty((L, 128), np.float32)
    kernels.attend(qkv, heads, np.empty(L, np.float32), out)
    np.testing.assert_allclose(out, kernels.attend_numpy(qkv, heads), **ULPS)


def test_attend_survives_scores_that_overflow_exp() -> None:
    qkv, out = 100 * real(5, 3 * 128), np.empty((5, 128), np.float32)
    kernels.attend(qkv, 4, np.empty(5, np.float32), out)
    np.testing.assert_allclose(out, kernels.attend_numpy(qkv, 4), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("L", LENGTHS)
def test_add_norm(L: int) -> None:
    a, b, norm = real(L, 128), real(L, 128, seed=1), kernels.Norm(real(128, seed=2), real(128, seed=3))
    out = np.empty_like(a)
    kernels.add_norm(a, b, norm, out)
    np.testing.assert_allclose(out, kernels.add_norm_numpy(a, b, norm), **ULPS)


@pytest.mark.parametrize("carry_x", [True, False])
def test_select_also_where_gates_saturate(carry_x: bool) -> None:
    x, h, gates_x, gates_h = real(7, 128), real(7, 128, seed=1), 9 * real(7, 256, seed=2), 9 * real(7, 384, seed=3)
    kept, new = np.empty_like(x), np.empty_like(x)
    kernels.select(x, h, gates_x, gates_h, carry_x, kept, new)
    expected = kernels.select_numpy(x, h, gates_x, gates_h, carry_x)
    np.testing.assert_allclose(np.stack([kept, new]), expected, **ULPS)


@pytest.mark.parametrize("d_model", [64, 128, 192])
@pytest.mark.parametrize("L", LENGTHS)
def test_block_and_head_are_their_meaning(L: int, d_model: int) -> None:
    engine = engines.Engine(random_checkpoint(d_model=d_model, n_head=2, n_block=1))
    layers, head = engine._blocks[0], engine._heads[1]
    work = kernels.workspace(48, d_model, 64)
    h = real(L, d_model)
    expected = kernels.block_numpy(h, layers, 2, True)
    start, stop, logits = np.array([0]), np.array([L]), np.empty((1, 2), np.float32)
    kernels.block(h, start, stop, layers, 2, True, work)
    np.testing.assert_allclose(h, expected, rtol=1e-4, atol=1e-4)
    kernels.head(h, start, stop, head, work, logits)
    np.testing.assert_allclose(logits[0], kernels.head_numpy(h, head), **ULPS)
