"""Every kernel against its reference implementation, at sizes that hurt."""

import functools
import math
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba import njit
from tiny import random_checkpoint

from beexformer.model import attention, bits, exits, kernels
from beexformer.model.embedding import SCALES, embed, token_types
from beexformer.model.embedding import real as real_rows
from beexformer.model.engine import NO_STATES, Engine, Row
from beexformer.model.kernels import Linear, Tiles, rows, tiles
from beexformer.model.options import ExitSettings

LENGTHS = [1, 2, 3, 7, 16, 17, 48, 49, 81]
ULPS = {"rtol": 2e-5, "atol": 2e-6}  # sums of up to 512 terms in another order, and tanh and exp of a few ulp


@functools.cache
def kernel(name: str) -> Any:
    """A kernel that can be called from here; in the engine they are parts of the forward pass only."""
    return njit(nogil=True)(getattr(kernels, name).py_func)


def real(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(params=["counting", "table"])
def product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Either product of signs, with weights and meaning arranged for it."""
    if request.param == "counting":
        arrange, rearrange, name = bits.tile, bits.untile, "product_by_counting"
    elif not llvm.get_host_cpu_features().get("avx2"):
        pytest.skip("this CPU lacks AVX2")
    else:
        arrange, rearrange, name = bits.tile_octets, bits.untile_octets, "product_by_table"
    monkeypatch.setattr(kernels, "arrange", arrange)
    monkeypatch.setattr(kernels, "rearrange", rearrange)
    return kernel(name)


def empty(L: int, n: int) -> Tiles:
    return tiles(np.full((L, n), np.nan, np.float32))


def in_kernels(part: Any) -> Any:
    """A block or a head with its layers as kernels read them."""
    return type(part)(*(kernels.layer(layer) if isinstance(layer, Linear) else layer for layer in part))


def random_linear(k: int, n: int, seed: int = 0) -> Linear:
    padded = -(-n // bits.GROUP) * bits.GROUP
    words = np.random.default_rng(seed).integers(0, 2**64, (k // 64, n), dtype=np.uint64)
    return Linear(kernels.arrange(words), real(padded), real(padded, seed=1), real(k, seed=2))


def test_tiles_and_rows_undo_each_other() -> None:
    x = real(7, 64)
    assert (rows(tiles(x), 7, 64) == x).all()
    assert tiles(x).numbers[16:32].tolist() == x[1, :16].tolist()


@pytest.mark.parametrize("k", [64, 128, 320, 512, 768])
@pytest.mark.parametrize("L", [1, 5])
def test_pack_is_exact_and_counts_a_tie_as_plus(L: int, k: int) -> None:
    x, threshold = real(L, k), real(k, seed=1)
    x[0, ::3] = threshold[::3]
    out = np.empty(L * k // 64, np.uint64)
    kernel("pack")(tiles(x), L, threshold, k // 64, out)
    assert (out.reshape(L, -1) == kernels.pack_reference(x, threshold)).all()


@pytest.mark.parametrize("L", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("k", [64, 192, 256, 320, 512, 768])
@pytest.mark.parametrize("n", [1, 2, 16, 63, 64, 1536])
def test_product_is_exact(product: Any, n: int, k: int, L: int) -> None:
    words = np.random.default_rng(k).integers(0, 2**64, (L, k // 64), dtype=np.uint64)
    weights = random_linear(k, n)
    padded = weights.alpha.size
    out, expected = empty(L, padded), kernels.product_reference(words, weights)
    product(words.reshape(-1), L, kernels.layer(weights), 0, padded // 16, out)
    assert (rows(out, L, padded) == expected).all()
    product(words.reshape(-1), L, kernels.layer(weights), padded // 16 - 4, padded // 16, out)
    assert (rows(out, L, 64) == expected[:, -64:]).all(), "a group of outputs alone"


@pytest.mark.parametrize("extreme", [0, 2**64 - 1])
@pytest.mark.parametrize("L", [2, 4])
def test_product_holds_the_largest_counts(product: Any, L: int, extreme: int) -> None:
    words = np.full((L, 64), extreme, np.uint64)
    weights = random_linear(4096, 64)._replace(words=np.zeros((4, 64, 16), np.uint64))
    out = empty(L, 64)
    product(words.reshape(-1), L, kernels.layer(weights), 0, 4, out)
    assert (rows(out, L, 64) == (4096 if extreme == 0 else -4096) * weights.alpha + weights.bias).all()


UNUSED = kernels.Norm(np.empty(0, np.float32), np.empty(0, np.float32))


def attended(qkv: np.ndarray, heads: int, values: kernels.Norm | None = None) -> np.ndarray:
    L, D = len(qkv), qkv.shape[1] // 3
    work = kernels.workspace(L, D, 64, integers=values is not None)
    for part in work[2:-1]:
        part[:] = np.nan  # what is read beyond a row must not matter
    for part in work.integers or ():
        part.view(np.uint8)[:] = 0x5A
    work.qkv[: (L | 1) * 3 * D] = tiles(qkv).numbers
    result, out = [], Tiles(work.mixed, 0, kernels.STEP)
    for group in range(kernel("groups")(L)):
        first, n = kernel("rows_of")(group, L)
        kernel("attend")(Tiles(work.qkv, 0, L | 1), L, D, heads, first, n, values or UNUSED, work, out)
        result.append(rows(out, n, D))
    return np.concatenate(result)


@pytest.mark.slow
@pytest.mark.parametrize("L", LENGTHS)
@pytest.mark.parametrize("heads", [1, 4, 16, 64, 192])
def test_attend_with_heads_of_every_width(L: int, heads: int) -> None:
    qkv = real(L, 3 * 192)
    np.testing.assert_allclose(attended(qkv, heads), kernels.attend_reference(qkv, heads), **ULPS)


def whole(L: int, D: int, size: float = 1) -> tuple[np.ndarray, kernels.Norm]:
    """q and k as real numbers, v as halved sums of D signs; alpha and b of v."""
    qkv = size * real(L, 3 * D)
    qkv[:, 2 * D :] = np.random.default_rng(1).integers(-D // 2, D // 2 + 1, (L, D))
    return qkv, kernels.Norm(real(D, seed=2), real(D, seed=3))


def meaning(qkv: np.ndarray, heads: int, values: kernels.Norm) -> np.ndarray:
    q, k, v = qkv.reshape(len(qkv), 3, heads, -1).transpose(1, 0, 2, 3)
    return attention.attend(q, k, v, values.weight, values.bias)


@pytest.mark.slow
@pytest.mark.parametrize("L", [*LENGTHS, 128, 129, 300])
@pytest.mark.parametrize("heads", [1, 4, 12])
def test_attention_on_integers_is_its_meaning_to_the_bit(L: int, heads: int) -> None:
    qkv, values = whole(L, 192)
    assert (attended(qkv, heads, values) == meaning(qkv, heads, values)).all()


def test_integers_come_near_real_numbers() -> None:
    qkv, values = whole(60, 192)
    wanted = kernels.attend_reference(qkv, 4) * values.weight + values.bias
    assert np.abs(meaning(qkv, 4, values) - wanted).max() < 0.05 * np.abs(wanted).max()


@pytest.mark.parametrize("size", [0, 1e-15, 1e4])
def test_attention_on_integers_survives_queries_and_keys_of_any_size(size: float) -> None:
    qkv, values = whole(5, 128, size)
    got = attended(qkv, 4, values)
    assert (got == meaning(qkv, 4, values)).all()
    assert np.isfinite(got).all()
    if size < 1:  # all keys are alike
        np.testing.assert_allclose(got[0], qkv[:, 256:].mean(0) * values.weight + values.bias, rtol=1e-5, atol=1e-4)


def test_shares_of_integers_are_powers_of_two() -> None:
    x = np.linspace(-20, 0, 5001, dtype=np.float32)
    shares = attention.share(x)
    assert np.abs(shares - 2.0**x * attention.SHARE).max() <= 0.53
    assert shares[-1] == attention.SHARE
    assert (shares == shares.astype(np.uint8)).all()
    np.testing.assert_allclose(attention.power(x), 2.0**x * attention.TOP, rtol=2e-4)


def test_a_share_that_rounds_to_nothing_beside_the_largest_counts_among_its_own() -> None:
    """600 keys, of which the first has half of the softmax and the others a 1,200th each: of 127, a ninth."""
    q, k = np.ones((1, 1, 16), np.float32), np.zeros((600, 1, 16), np.float32)
    k[0] = math.log(599) / 4
    values = np.zeros((600, 1, 16))
    values[0] = 100
    weight, bias = np.ones(16, np.float32), np.zeros(16, np.float32)
    got = attention.attend(np.repeat(q, 600, 0), k, values, weight, bias)
    assert 47 < got[0, 0] < 55, "half of 100"


def test_scratch_begins_with_lines_of_the_caches() -> None:
    work = kernels.workspace(25, 128, 64, integers=True)
    assert work.integers
    assert not any(kernels.addresses(work) % 64)
    assert not any(part.any() for part in (*work[:-1], *work.integers))


def test_attend_survives_scores_that_overflow_exp() -> None:
    qkv = 100 * real(5, 3 * 128)
    np.testing.assert_allclose(attended(qkv, 4), kernels.attend_reference(qkv, 4), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("L", LENGTHS)
def test_add_norm(L: int) -> None:
    a, b, norm = real(L, 128), real(L, 128, seed=1), kernels.Norm(real(128, seed=2), real(128, seed=3))
    out = empty(L, 128)
    kernel("add_norm")(tiles(a), tiles(b), L, 128, norm, out)
    np.testing.assert_allclose(rows(out, L, 128), kernels.add_norm_reference(a, b, norm), **ULPS)


@pytest.mark.parametrize("carry_x", [True, False])
def test_select_also_where_gates_saturate(carry_x: bool) -> None:
    x, h, gates_x, gates_h = real(7, 64), real(7, 64, seed=1), 9 * real(7, 128, seed=2), 9 * real(7, 192, seed=3)
    kept, new = empty(7, 64), empty(7, 64)
    kernel("select")(tiles(x if carry_x else h), 7, tiles(np.hstack([gates_h, gates_x])), kept, new)
    expected = kernels.select_reference(x, h, gates_x, gates_h, carry_x)
    np.testing.assert_allclose(np.stack([rows(kept, 7, 64), rows(new, 7, 64)]), expected, **ULPS)


@pytest.mark.parametrize("m", [2, 5, 19])
def test_softmax_is_that_of_exits(m: int) -> None:
    logits, scores = 20 * real(m), np.empty(m)
    entropy = kernel("softmax")(logits, scores)
    np.testing.assert_allclose(scores, exits.softmax(logits), rtol=1e-14)
    np.testing.assert_allclose(entropy, exits.entropy(logits), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("m", [2, 5, 19])
def test_sigmoids_are_those_of_exits(m: int) -> None:
    logits, scores = 20 * real(m), np.empty(m)
    logits[0] = 0.0
    entropy = kernel("sigmoids")(logits, scores)
    np.testing.assert_allclose(scores, exits.sigmoid(logits), rtol=1e-14)
    np.testing.assert_allclose(entropy, exits.entropy_of_label_sets(logits), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("m", [2, 16, 17, 1000])
@pytest.mark.parametrize("d_model", [64, 320])
def test_a_linear_head_is_its_reference(d_model: int, m: int) -> None:
    labels = tuple(map(str, range(m)))
    heads = Engine(random_checkpoint(labels=labels, d_model=d_model, n_head=2, n_block=2, head="linear"))._network.heads
    pooled, out = real(d_model), np.full(-(-m // bits.TILE) * bits.TILE, np.nan, np.float32)
    layer = kernels.one_of(heads, 1).linear
    kernel("linear_head")(pooled, d_model, layer, layer.scale.size, out)
    expected = kernels.linear_head_reference(pooled, layer)
    np.testing.assert_allclose(out, expected, rtol=2e-5, atol=2e-5)  # sums of 8-bit weights up to 127
    assert (out[m:] == 0).all(), "what fills a tile is no class"


@pytest.mark.parametrize("L", [1, 2, 31, 32, 33, 512])
def test_the_start_weighted_mean_is_its_reference(L: int) -> None:
    h, out = real(L, 128), np.full(128 + bits.TILE, np.nan, np.float32)
    kernel("start_state")(tiles(h), L, 128, out)
    np.testing.assert_allclose(out[:128], kernels.start_state_reference(h), **ULPS)
    weights = np.exp(-np.arange(min(L, 32)) / 3)
    np.testing.assert_allclose(out[:128], weights @ h[:32] / weights.sum(), **ULPS)
    assert np.isnan(out[128:]).all()


@pytest.mark.slow
@pytest.mark.parametrize("head", ["binary", "linear", "both means"])
@pytest.mark.parametrize(("d_model", "thresholds"), [(64, 1), (128, 4), (192, 3)])
@pytest.mark.parametrize("numbers", ["real", "int8"])
@pytest.mark.parametrize("L", LENGTHS)
def test_block_and_head_are_their_reference(L: int, numbers: str, d_model: int, thresholds: int, head: str) -> None:
    form = {"head": "linear", "pooling": "mean_and_start"} if head == "both means" else {"head": head}
    shape = {"d_model": d_model, "n_head": 2, "n_block": 1, "head_thresholds": thresholds, "attention": numbers, **form}
    network = Engine(random_checkpoint(**shape))._network
    block, layers = kernels.one_of(network.blocks, 0), kernels.one_of(network.heads, 0)
    work = kernels.workspace(max(LENGTHS), d_model, 64, thresholds, integers=numbers == "int8")
    h = real(L, d_model)
    expected = kernels.block_reference(h, block, 2, True)
    flat, logits = tiles(h), np.empty(bits.GROUP, np.float32)
    kernel("block")(flat, L, d_model, in_kernels(block), 2, True, work)
    np.testing.assert_allclose(rows(flat, L, d_model), expected, rtol=1e-4, atol=1e-4)
    inputs, outputs = layers.linear.weight.shape[1], layers.linear.scale.size
    kernel("head")(flat, L, d_model, in_kernels(layers), thresholds, inputs, outputs, work, logits)
    expected = kernels.head_reference(rows(flat, L, d_model), layers)
    np.testing.assert_allclose(logits[: expected.size], expected, rtol=2e-5, atol=2e-6 if head == "binary" else 2e-5)


@pytest.mark.parametrize("form", SCALES)
@pytest.mark.parametrize("d_model", [64, 384])
def test_embed_is_its_meaning(d_model: int, form: str) -> None:
    checkpoint = random_checkpoint(d_model=d_model, n_block=1, embedding=form)
    embedding = Engine(checkpoint)._network.embedding
    ids, out = np.arange(checkpoint.config.vocab_size, dtype=np.int32)[-47:], empty(47, d_model)
    embed_into(out, ids, embedding)
    learned = real_rows(checkpoint.tensors["embedding.rows"], checkpoint.tensors[SCALES[form]])
    assert (rows(out, 47, d_model) == embed(learned[ids], embedding.positions)).all()


def embed_into(out: Tiles, ids: np.ndarray, embedding: kernels.Embedding) -> None:
    exact = len(embedding.exact_match) > 0
    kernel("embed")(ids, embedding, embedding.rows.shape[1], embedding.positions.shape[1], exact, out)


PAIRS = {
    "of equals": [2, 7, 8, 3, 7, 8, 3],
    "in part, one twice": [2, 7, 8, 7, 3, 9, 7, 3],
    "nothing in common": [2, 7, 3, 9, 3],
    "a single text": [2, 7, 8, 7, 3],
    "one empty": [2, 3, 9, 3],
    "no words": [2, 3],
    "one token": [3],
}


@pytest.mark.parametrize("ids", PAIRS.values(), ids=PAIRS)
def test_token_types_are_their_meaning(ids: list[int]) -> None:
    checkpoint = random_checkpoint(exact_match=True, n_block=1)
    embedding = Engine(checkpoint)._network.embedding
    pair, out, L = np.array(ids, np.int32), empty(len(ids), 128), len(ids)
    embed_into(out, pair, embedding)
    learned = real_rows(checkpoint.tensors["embedding.rows"], checkpoint.tensors[SCALES["int8"]])
    added = np.concatenate([np.zeros((1, 128), np.float32), checkpoint.tensors["exact_match"]])[token_types(pair)]
    assert (rows(out, L, 128) == embed(learned[pair], embedding.positions) + added).all()


@pytest.mark.parametrize(
    "shape",
    [
        {"d_model": 64, "n_head": 64},
        {"d_model": 192, "n_head": 2, "d_head": 256},
        {"d_model": 64, "head_thresholds": 9, "embedding": "int4+2", "exact_match": True},
        {"d_model": 64, "head": "linear", "pooling": "mean_and_start"},
        {"d_model": 64, "n_head": 4, "attention": "int8"},
        {"d_model": 192, "n_head": 1, "attention": "int8"},
    ],
)
@pytest.mark.parametrize("L", [1, 2, 3, 15, 16, 17, 48, 49, 80])
def test_a_row_of_full_length_stays_within_its_workspace(L: int, shape: dict[str, Any]) -> None:
    """Nothing checks bounds in compiled code, so guards stand behind every array."""
    engine = Engine(random_checkpoint(n_block=2, max_tokens=80, **shape))
    config, guard = engine.config, 64
    exact = kernels.workspace(
        L, config.d_model, config.d_head, config.head_thresholds, integers=config.attention == "int8"
    )
    behind = []

    def guarded(part: Any) -> Any:
        if isinstance(part, kernels.Integers):
            return kernels.Integers(*map(guarded, part))
        if part is not None:
            behind.append(np.full(part.size + guard, 7, part.dtype))
        return None if part is None else behind[-1][:-guard]

    *parts, integers = map(guarded, exact)
    logits, scores, entropies = np.empty((2, bits.GROUP), np.float32), np.empty(2), np.empty(2)
    ids = np.arange(L, dtype=np.int32)
    ids[-1] = ids[L // 2]  # a pair, from three tokens on
    done = np.zeros(2, int)
    kernels.early_exit_forward(
        ids,
        0.0,
        0.0,
        2,
        2,
        engine._table,
        kernels.addresses(parts),
        logits,
        scores,
        entropies,
        done,
        2.0,
        0,
        0,
        NO_STATES,
        None if integers is None else kernels.addresses(integers),
    )
    assert all((part[-guard:] == 7).all() for part in behind)
    row = Row(ids, False, ExitSettings(0.0, 0.0, 2, 2))
    assert (logits[None, :, :2] == engine.logits([row])).all(), "and is what it is in a longer one"


def test_a_workspace_has_no_denormals_of_whoever_had_its_memory_before() -> None:
    """Lanes beyond a short row's tokens are computed with too: denormals there make it several times as slow."""
    for _ in range(3):
        left = [np.full(size, 1e-40, np.float32) for size in (1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18)]
        del left
        work = kernels.workspace(128, 64, 32)
        assert not any(part.any() for part in work[:-1])
