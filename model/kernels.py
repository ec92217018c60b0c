"""
The arithmetic of the engine, compiled by numba for whole rows. Beside each kernel stands its numpy reference,
`<name>_reference`.

- integers agree exactly with it; floats agree to a few units in the last place
- a row's numbers depend on that row alone, and on no machine: rows never mix, and every sum has one order (see `simd`)
- kernels hold no GIL and allocate nothing: outputs and scratch are arguments, nothing lives in globals
- where a kernel says `Any` it takes an array, or the address of one (`simd`): the forward pass has all weights and
  scratch by address, which is quick to call and quick to compile

Shapes: L tokens of one row, D = d_model, H heads, k inputs and n outputs of a binarized layer, W = k/64 words. Between
kernels real numbers lie as `Tiles` (`tiles` and `rows` convert), and everything but attention goes through a block in
groups of GROUP rows: what lies between products stays in the second cache, whatever the text's length, and a row can
stop after any group. Other arrays are flat, and used from their beginning for as many elements as the row needs.

Only the whole forward pass can be called from Python and is cached (model/kernel_cache.py); the others are parts of it.
They do without min and max where they can: numba makes machine code of these by themselves, as slow to come as a part.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import float32, types, uint64
from numba.extending import overload

from beexformer.model import attention, bits, exits, target
from beexformer.model.config import START_SCALE, START_TOKENS
from beexformer.model.embedding import embed as join
from beexformer.model.embedding import real, token_types
from beexformer.model.kernel_cache import cached
from beexformer.model.kernel_compiler import PART, compiled
from beexformer.model.simd import (
    absolute,
    address_of_real,
    address_of_word,
    along_columns,
    along_fours_of_columns,
    along_fours_of_rows,
    along_rows,
    first_reals,
    fma,
    fours_of,
    greatest,
    high_counts,
    high_nibbles,
    lanes_below,
    larger,
    last_reals,
    load_codes_2,
    load_codes_4,
    load_f16,
    load_i8,
    load_i16,
    load_o32,
    load_u8,
    look_up,
    low_counts,
    low_nibbles,
    mask_bits,
    nearest,
    popcount,
    real_of,
    splat_f16,
    splat_h32,
    splat_i16,
    splat_o32,
    splat_u8,
    spread_f16,
    spread_u8,
    store,
    store_octets,
    store_word,
    sums_of_fours,
    times_power_of_two,
    to_real,
    total,
    transpose_f16,
    where,
    widen,
    without_bits,
)

TILE = bits.TILE
GROUP = 32  # rows that go through a block together; the last ones of a row up to GROUP + TILE
STEP = GROUP + TILE + 1  # of `Tiles` that hold a group
TOGETHER = 64  # keys whose scores and values stay in the first cache
KEYS = 8 if target.MANY_REGISTERS else 4  # whose scores, and columns whose means, attention holds in registers
CACHE_LINE = 64  # bytes
MOST_OCTETS = 31  # that a byte can count the differing signs of
START_DECAY = np.float32(math.exp(-1 / START_SCALE))  # weight of a token in that of the one before


class Tiles(NamedTuple):
    """Real numbers [L, n] as [n/16, step, 16], from element `start` of a flat float32 array on: what registers take
    lies together, whatever the width. `step` is odd: at 64 tokens, say, all tiles of a token would meet in the same set
    of the first cache."""

    numbers: Any
    start: int
    step: int


class Linear(NamedTuple):
    """A BinaryLinear, packed: words [n/16, W, 16] uint64 (see `arrange`), alpha [n], bias [n], threshold [k] float32
    (-beta). n is padded to a multiple of 64; outputs of the padding are 0."""

    words: np.ndarray
    alpha: np.ndarray
    bias: np.ndarray
    threshold: np.ndarray


class Layer(NamedTuple):
    """A `Linear` as kernels read it: k inputs for each row of signs, n outputs."""

    words: Any
    alpha: Any
    bias: Any
    threshold: Any
    k: int
    n: int


def layer(linear: Linear) -> Layer:
    """A layer by its arrays."""
    return Layer(*linear, linear.words.shape[-2] * bits.WORD, linear.alpha.size)


class Norm(NamedTuple):
    """A layer norm: weight [D], bias [D] float32."""

    weight: np.ndarray
    bias: np.ndarray


class Block(NamedTuple):
    """Everything one transformer block has learned. Of attention on integers qkv leaves v as what `values` is to be
    applied to (`attention`); of real numbers `values` is empty."""

    qkv: Linear
    o: Linear
    gates_h: Linear
    gates_x: Linear
    norm_x: Norm
    norm_h: Norm
    values: Norm


class LinearHead(NamedTuple):
    """One layer of 8-bit weights on k numbers: the mean state (k = D), with the start-weighted mean beside it, or the
    features of two texts (2 D). weight [m'/16, k, 16] int8, m' being m padded with zeros to a multiple of 16; scale
    [m'], bias [m'] float32. In a network with binary heads all three are empty."""

    weight: np.ndarray
    scale: np.ndarray
    bias: np.ndarray


class Head(NamedTuple):
    """Everything one exit has learned: the two layers of a binary head, or a linear one; what it isn't is empty."""

    hidden: Linear
    out: Linear
    linear: LinearHead


class Embedding(NamedTuple):
    """positions [max_tokens, D/2] float32 beside the learned half in one of the forms of model.embedding: rows
    [V, D/2] int8 with scale [V] float32, or packed rows [V, bytes], taken as int8 too, with the axes' steps as scale
    [D/2]. exact_match [4, D] float32 by token type, or [0, D] without. One type for all, so that `early_exit_forward`
    is compiled once."""

    rows: np.ndarray
    scale: np.ndarray
    positions: np.ndarray
    exact_match: np.ndarray


class Network(NamedTuple):
    """A whole network: blocks and heads have a leading axis, C blocks and one head an exit."""

    embedding: Embedding
    blocks: Block
    heads: Head


class Integers(NamedTuple):
    """What attention on integers needs of one row of up to L tokens, four octets in an int32: keys [D/16, L, 4] and
    their scales [H, 16] float32, all 16 equal; values [D/16, L/4 + 1, 16], of four tokens each; queries of a head
    [D/H/4, 32]; and weights [2, 32] float32, of what is known of their means and of the keys at hand."""

    keys: Any
    key_scales: Any
    values: Any
    queries: Any
    weights: Any


class Workspace(NamedTuple):
    """Scratch of one row of up to L tokens: h [D, L] and qkv [3 D, L] as tiles, and scores [L, 32], of attention on
    integers [TOGETHER, 32]; the others hold a group of rows, or a head's. Flat, float32 but for the packed words.
    `integers` are None where attention is of real numbers; in the forward pass their addresses [5] int64."""

    words: Any
    words_x: Any
    h: Any
    qkv: Any
    x: Any
    mixed: Any
    gates: Any
    across: Any
    scores: Any
    hidden: Any
    integers: Any


def zeros(size: int, dtype: type) -> np.ndarray:
    """[size], from the beginning of a line of the caches on: registers of AVX-512 that numpy's allocator would have
    across two lines take two accesses each, 6 % of a forward pass."""
    lines = np.zeros(size * np.dtype(dtype).itemsize + CACHE_LINE, np.uint8)
    first = -lines.ctypes.data % CACHE_LINE
    return lines[first : first + size * np.dtype(dtype).itemsize].view(dtype)


def workspace(
    max_tokens: int, d_model: int, d_head: int, head_thresholds: int = 1, integers: bool = False
) -> Workspace:
    """Scratch for `early_exit_forward`: 16 D + 128 bytes a token, 18 D of integers, and 0.3 MB at D = 384.

    Zeros, because lanes beyond a short row's tokens are computed with as well: with denormal numbers, which memory that
    others have left can hold, such a row takes two to four times as long."""
    S, D, real, lanes = max_tokens | 1, d_model, np.float32, 2 * TILE
    return Workspace(
        words=zeros(max(STEP * D, head_thresholds * D, d_head) // 64, np.uint64),
        words_x=zeros(STEP * D // 64, np.uint64),
        h=zeros(S * D, real),
        qkv=zeros(S * 3 * D + lanes * TILE, real),  # whole registers of queries are read at once
        x=zeros(STEP * D, real),
        mixed=zeros(STEP * D + TILE * TILE, real),  # and written
        gates=zeros(5 * bits.GROUP * STEP, real),
        across=zeros(D * lanes, real),
        scores=zeros(((attention.TOGETHER if integers else max_tokens) + KEYS) * lanes, real),
        hidden=zeros((head_thresholds + 2) * d_head, real),
        integers=Integers(
            keys=zeros((S + KEYS) * D // 4, np.int32),
            key_scales=zeros(D, real),
            values=zeros((max_tokens // 4 + 1) * D, np.int32),
            queries=zeros(D * lanes // 4, np.int32),
            weights=zeros(2 * lanes, real),
        )
        if integers
        else None,
    )


def tiles(x: np.ndarray) -> Tiles:
    """[L, n] -> tiles of odd step."""
    padded = np.pad(x, ((0, 1 - len(x) % 2), (0, 0)))
    flat = np.ascontiguousarray(padded.reshape(len(padded), -1, TILE).transpose(1, 0, 2)).reshape(-1)
    return Tiles(flat, 0, len(padded))


def rows(x: Tiles, L: int, n: int) -> np.ndarray:
    """Tiles -> [L, n]."""
    return x.numbers[x.start :][: x.step * n].reshape(-1, x.step, TILE).transpose(1, 0, 2).reshape(x.step, n)[:L]


@compiled
def _at(x: Tiles, t: int, i: int) -> int:
    """Where tile t of row i begins."""
    return x.start + (t * x.step + i) * TILE


@compiled
def _from_row(x: Tiles, i: int) -> Tiles:
    return Tiles(x.numbers, x.start + i * TILE, x.step)


@compiled
def _from_tile(x: Tiles, t: int) -> Tiles:
    return Tiles(x.numbers, x.start + t * x.step * TILE, x.step)


# ---------------------------------------------------------------- signs and products


def pack_reference(x: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """x [L, k], threshold [k] -> words [L, W] of the signs of x - threshold."""
    return bits.pack(np.where(x < threshold, -1.0, 1.0))


@compiled
def pack(x: Tiles, L: int, threshold: Any, W: int, out: Any) -> None:
    """out [L, W], flat."""
    for i in range(L):
        for w in range(W):
            word = uint64(0)
            for part in range(4):
                t = 4 * w + part
                signs = mask_bits(load_f16(x.numbers, _at(x, t, i)) < load_f16(threshold, t * TILE))
                word |= signs << uint64(16 * part)
            store_word(out, i * W + w, word)


def product_reference(words: np.ndarray, layer: Linear) -> np.ndarray:
    """words [L, W] -> alpha * (signs . sign(W)) + bias, [L, n] float32 (eq. 6)."""
    return bits.dot(words, rearrange(layer.words)).astype(np.float32) * layer.alpha + layer.bias


@compiled
def product_by_counting(words: Any, L: int, layer: Layer, first: int, last: int, out: Tiles) -> None:
    """words [L, W]; out has the layer's tiles first..last - 1, whole groups of 64 outputs. Counts of 2 rows by 16
    outputs stay in registers; the weights of 16 outputs come into the first cache once for all rows."""
    W = layer.k // 64
    for t in range(first, last):
        i = 0
        while i + 2 <= L:
            a0 = a1 = b0 = b1 = splat_u8(0)
            for w in range(W):
                a, b = load_u8(layer.words, (t * W + w) * TILE), load_u8(layer.words, (t * W + w) * TILE + 8)
                x = spread_u8(words, i * W + w)
                a0, b0 = a0 + popcount(a ^ x), b0 + popcount(b ^ x)
                x = spread_u8(words, (i + 1) * W + w)
                a1, b1 = a1 + popcount(a ^ x), b1 + popcount(b ^ x)
            _scale(to_real(a0, b0), layer, t, out, t - first, i)
            _scale(to_real(a1, b1), layer, t, out, t - first, i + 1)
            i += 2
        while i < L:
            a0 = b0 = splat_u8(0)
            for w in range(W):
                x = spread_u8(words, i * W + w)
                a0 = a0 + popcount(load_u8(layer.words, (t * W + w) * TILE) ^ x)
                b0 = b0 + popcount(load_u8(layer.words, (t * W + w) * TILE + 8) ^ x)
            _scale(to_real(a0, b0), layer, t, out, t - first, i)
            i += 1


@compiled
def product_by_table(words: Any, L: int, layer: Layer, first: int, last: int, out: Tiles) -> None:
    """The same with `bits.tile_octets`. The four signs of an input say which table of 16 counts applies, those of 32
    outputs which counts are taken from it: two instructions for 128 signs. Counts of 4 rows by 64 outputs stay in
    registers, as bytes, for as many octets as a byte can count."""
    octets = layer.k // 8
    for t in range(first, last, 4):
        weights = t * octets * TILE  # bytes before these 64 outputs, 64 for each octet
        i = 0
        while i + 4 <= L:
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = splat_h32(0)
            x0, x1, x2, x3 = i * octets, (i + 1) * octets, (i + 2) * octets, (i + 3) * octets
            for start in range(0, octets, MOST_OCTETS):
                c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = splat_o32(0)
                for o in range(start, min(start + MOST_OCTETS, octets)):
                    c, d = load_o32(layer.words, weights + 64 * o), load_o32(layer.words, weights + 64 * o + 32)
                    c_low, c_high, d_low, d_high = low_nibbles(c), high_nibbles(c), low_nibbles(d), high_nibbles(d)
                    c0, d0 = _differing(c0, d0, words, x0 + o, c_low, c_high, d_low, d_high)
                    c1, d1 = _differing(c1, d1, words, x1 + o, c_low, c_high, d_low, d_high)
                    c2, d2 = _differing(c2, d2, words, x2 + o, c_low, c_high, d_low, d_high)
                    c3, d3 = _differing(c3, d3, words, x3 + o, c_low, c_high, d_low, d_high)
                a0, a1, a2, a3 = a0 + widen(c0), a1 + widen(c1), a2 + widen(c2), a3 + widen(c3)
                b0, b1, b2, b3 = b0 + widen(d0), b1 + widen(d1), b2 + widen(d2), b3 + widen(d3)
            _scale_64(a0, b0, layer, t, out, t - first, i)
            _scale_64(a1, b1, layer, t, out, t - first, i + 1)
            _scale_64(a2, b2, layer, t, out, t - first, i + 2)
            _scale_64(a3, b3, layer, t, out, t - first, i + 3)
            i += 4
        while i < L:
            a0 = b0 = splat_h32(0)
            for start in range(0, octets, MOST_OCTETS):
                c0 = d0 = splat_o32(0)
                for o in range(start, min(start + MOST_OCTETS, octets)):
                    c, d = load_o32(layer.words, weights + 64 * o), load_o32(layer.words, weights + 64 * o + 32)
                    c_low, c_high, d_low, d_high = low_nibbles(c), high_nibbles(c), low_nibbles(d), high_nibbles(d)
                    c0, d0 = _differing(c0, d0, words, i * octets + o, c_low, c_high, d_low, d_high)
                a0, b0 = a0 + widen(c0), b0 + widen(d0)
            _scale_64(a0, b0, layer, t, out, t - first, i)
            i += 1


@compiled
def _differing(
    c: Any, d: Any, words: Any, octet: int, c_low: Any, c_high: Any, d_low: Any, d_high: Any
) -> tuple[Any, Any]:
    """Counts of 32 outputs twice (bytes), more by the signs in which this octet of `words` differs from theirs."""
    low, high = low_counts(words, octet), high_counts(words, octet)
    return c + look_up(low, c_low) + look_up(high, c_high), d + look_up(low, d_low) + look_up(high, d_high)


@compiled
def _scale_64(a: Any, b: Any, layer: Layer, t: int, out: Tiles, to: int, i: int) -> None:
    """`_scale` of the layer's 64 outputs from tile t on."""
    _scale(first_reals(a), layer, t, out, to, i)
    _scale(last_reals(a), layer, t + 1, out, to + 1, i)
    _scale(first_reals(b), layer, t + 2, out, to + 2, i)
    _scale(last_reals(b), layer, t + 3, out, to + 3, i)


@compiled
def _scale(differ: Any, layer: Layer, t: int, out: Tiles, to: int, i: int) -> None:
    """Differing signs of the 16 outputs of the layer's tile t -> alpha * (k - 2 differ) + bias, rounded twice like the
    meaning, in tile `to` of row i."""
    dot = splat_f16(layer.k) - (differ + differ)
    store(out.numbers, _at(out, to, i), dot * load_f16(layer.alpha, t * TILE) + load_f16(layer.bias, t * TILE))


product = product_by_table if target.LOOK_UP else product_by_counting
arrange, rearrange = (bits.tile_octets, bits.untile_octets) if target.LOOK_UP else (bits.tile, bits.untile)
"""Packed weights [W, n] -> a layer's words, as `product` reads them; and back."""


def linear_reference(x: np.ndarray, layer: Linear) -> np.ndarray:
    """BL(x) = alpha * (sign(x + beta) . sign(W)) + b (eq. 6): [L, k] -> [L, n] float32. Where the layer has several
    thresholds for an input, the sum of what is read at each."""
    thresholds = layer.threshold.reshape(-1, x.shape[1])
    dots = sum(bits.dot(pack_reference(x, threshold), rearrange(layer.words)) for threshold in thresholds)
    return np.asarray(dots, np.float32) * layer.alpha + layer.bias


@compiled
def linear(x: Tiles, L: int, layer: Layer, words: Any, out: Tiles) -> None:
    pack(x, L, layer.threshold, layer.k // 64, words)
    product(words, L, layer, 0, layer.n // TILE, out)


# ---------------------------------------------------------------- functions of one number


@compiled
def _two_to(x: Any) -> Any:
    """2^x for x <= 0, float32: n + r, n being the nearest whole number, a polynomial in r (fitted to the least relative
    error, 1e-7), n into the exponent's bits. A number to which 1.5 * 2^23 is added is rounded to a whole one."""
    x = where(x < splat_f16(-126.0), splat_f16(-126.0), x)
    n = x + splat_f16(12582912.0)
    r = x - (n - splat_f16(12582912.0))
    p = fma(splat_f16(1.3264726902e-03), r, splat_f16(9.6715126609e-03))
    p = fma(p, r, splat_f16(5.5507337442e-02))
    p = fma(p, r, splat_f16(2.4022242085e-01))
    p = fma(p, r, splat_f16(6.9314697760e-01))
    return times_power_of_two(fma(p, r, splat_f16(1.0)), n)


@compiled
def _tanh(x: Any) -> Any:
    """tanh, float32: the clamped rational function of Eigen's ptanh, which needs no look-up and no branch."""
    bound = splat_f16(7.90531110763549805)
    x = where(bound < x, bound, x)
    x = where(x < splat_f16(-7.90531110763549805), splat_f16(-7.90531110763549805), x)
    y = x * x
    p = fma(splat_f16(-2.76076847742355e-16), y, splat_f16(2.00018790482477e-13))
    p = fma(p, y, splat_f16(-8.60467152213735e-11))
    p = fma(p, y, splat_f16(5.12229709037114e-08))
    p = fma(p, y, splat_f16(1.48572235717979e-05))
    p = fma(p, y, splat_f16(6.37261928875436e-04))
    p = fma(p, y, splat_f16(4.89352455891786e-03))
    q = fma(splat_f16(1.19825839466702e-06), y, splat_f16(1.18534705686654e-04))
    q = fma(q, y, splat_f16(2.26843463243900e-03))
    q = fma(q, y, splat_f16(4.89352518554385e-03))
    return x * p / q


# ---------------------------------------------------------------- real-valued parts of a block


def attend_reference(qkv: np.ndarray, n_head: int) -> np.ndarray:
    """q, k and v side by side [L, 3 D] -> softmax(q k' / sqrt(D/H)) v of every head, [L, D] float32 (eq. 15)."""
    L, D = qkv.shape[0], qkv.shape[1] // 3
    q, k, v = qkv.reshape(L, 3, n_head, D // n_head).transpose(1, 2, 0, 3)
    scores = q @ k.transpose(0, 2, 1) / np.float32(np.sqrt(D // n_head))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    heads = weights @ v / weights.sum(-1)[..., None]
    return heads.transpose(1, 0, 2).reshape(L, D)


_scores_by_16, _scores_by_32 = along_columns(KEYS, 1), along_columns(KEYS, 2)
_scores_4_by_16, _scores_4_by_32 = along_columns(4, 1), along_columns(4, 2)
_means_by_16, _means_by_32 = along_rows(KEYS, 1), along_rows(KEYS, 2)
_means_4_by_16, _means_4_by_32 = along_rows(4, 1), along_rows(4, 2)
_means_1_by_16, _means_1_by_32 = along_rows(1, 1), along_rows(1, 2)


@compiled
def attend(
    qkv: Tiles, L: int, D: int, n_head: int, first: int, n: int, values: Norm, work: Workspace, out: Tiles
) -> None:
    """Queries first..first + n - 1 -> rows 0..n - 1 of `out`. Queries are the lanes, one or two registers of them, so
    that nothing adds across lanes; keys and values are read where they lie. Scores of these queries wait in the first
    cache, or the second where L is in the hundreds, until all keys have theirs: no running maximum is needed."""
    i = 0
    while i < n:
        lanes = 2 * TILE if target.MANY_REGISTERS and n - i > TILE else TILE
        for t in range(D // TILE):  # across [D, lanes]: queries, and in their place means, once a head is done
            for lane in range(0, lanes, TILE):
                place = _at(qkv, t, first + i + lane)
                transpose_f16(qkv.numbers, place, TILE, work.across, t * TILE * lanes + lane, lanes)
        for head in range(n_head):
            _attend_head_on(qkv, L, D, head, D // n_head, lanes, first + i + head == 0, values, work)
        for t in range(D // TILE):  # rows beyond n fall on the next tile's first, which come after
            for lane in range(0, lanes, TILE):
                place = _at(out, t, i + lane)
                transpose_f16(work.across, t * TILE * lanes + lane, lanes, out.numbers, place, TILE)
        i += lanes


def _attend_head_on(
    qkv: Tiles, L: int, D: int, head: int, width: int, lanes: int, begins: bool, values: Norm, work: Workspace
) -> None:
    """`_attend_head`, or `_attend_head_in_integers` where the workspace has room for them: what is compiled is one of
    them."""


@overload(_attend_head_on, jit_options=PART)
def _of_numbers(
    qkv: Any, L: Any, D: Any, head: Any, width: Any, lanes: Any, begins: Any, values: Any, work: Any
) -> Any:
    def real(qkv: Any, L: Any, D: Any, head: Any, width: Any, lanes: Any, begins: Any, values: Any, work: Any) -> None:
        _attend_head(qkv, L, D, head, width, lanes, work)

    def whole(qkv: Any, L: Any, D: Any, head: Any, width: Any, lanes: Any, begins: Any, values: Any, work: Any) -> None:
        if begins:
            for each in range(D // width):
                _keys_and_values(qkv, L, D, each, width, work)
        _attend_head_in_integers(L, D, head, width, lanes, values, work)

    return real if work.types[-1] is types.none else whole


@compiled
def _attend_head(qkv: Tiles, L: int, D: int, head: int, width: int, lanes: int, work: Workspace) -> None:
    """Queries of one head [width, lanes] -> their means of values, in place. Where there are two registers of queries,
    `a` is of the first and `b` of the second. Sums over keys are sums of those of TOGETHER keys."""
    low, high, across, scores = head * width, (head + 1) * width, work.across, work.scores
    a = b = splat_f16(-math.inf)
    for start in range(0, L, TOGETHER):
        _score(qkv, D, start, min(start + TOGETHER, L), low, high, lanes, work)
        a, b = _largest(scores, start, min(start + TOGETHER, L), lanes, a, b)
    factor = splat_f16(math.log2(math.e) / math.sqrt(width))
    a, b = a * factor, b * factor
    a_sum = b_sum = splat_f16(0.0)
    for start in range(0, L, TOGETHER):
        a_part, b_part = _shares(scores, start, min(start + TOGETHER, L), lanes, factor, a, b)
        a_sum, b_sum = a_sum + a_part, b_sum + b_part
        _average(qkv, D, start, min(start + TOGETHER, L), low, high, lanes, work)
    a, b = splat_f16(1.0) / a_sum, splat_f16(1.0) / b_sum
    for place in range(low * lanes, high * lanes, lanes):
        store(across, place, load_f16(across, place) * a)
        if lanes > TILE:
            store(across, place + TILE, load_f16(across, place + TILE) * b)


@compiled
def _score(qkv: Tiles, D: int, first: int, last: int, low: int, high: int, lanes: int, work: Workspace) -> None:
    """Keys first..last - 1 times `lanes` queries of the head in columns low..high - 1, into the keys' scores."""
    across, scores, numbers, step = work.across, work.scores, qkv.numbers, qkv.step * TILE
    j = first
    while j < last:  # what is read of keys beyond the last one is never looked at
        keys, to = _at(qkv, D // TILE, j), j * lanes
        if last - j > 4:
            if lanes == TILE:
                _scores_by_16(numbers, keys, step, low, high, across, 0, scores, to)
            else:
                _scores_by_32(numbers, keys, step, low, high, across, 0, scores, to)
            j += KEYS
        else:
            if lanes == TILE:
                _scores_4_by_16(numbers, keys, step, low, high, across, 0, scores, to)
            else:
                _scores_4_by_32(numbers, keys, step, low, high, across, 0, scores, to)
            j += 4


@compiled
def _average(qkv: Tiles, D: int, first: int, last: int, low: int, high: int, lanes: int, work: Workspace) -> None:
    """Adds values of keys first..last - 1, each times its share, to the head's means, of which key 0 is the first."""
    across, scores, numbers = work.across, work.scores, qkv.numbers
    d = low
    while d < high:
        values, to = _at(qkv, (2 * D + d) // TILE, 0) + d % TILE, d * lanes
        together = min(high, (d // TILE + 1) * TILE) - d  # of one tile
        if together >= KEYS:
            together = KEYS
            if lanes == TILE:
                _means_by_16(numbers, values, TILE, first, last, scores, 0, across, to)
            else:
                _means_by_32(numbers, values, TILE, first, last, scores, 0, across, to)
        elif together >= 4:
            together = 4
            if lanes == TILE:
                _means_4_by_16(numbers, values, TILE, first, last, scores, 0, across, to)
            else:
                _means_4_by_32(numbers, values, TILE, first, last, scores, 0, across, to)
        else:
            together = 1
            if lanes == TILE:
                _means_1_by_16(numbers, values, TILE, first, last, scores, 0, across, to)
            else:
                _means_1_by_32(numbers, values, TILE, first, last, scores, 0, across, to)
        d += together


@compiled
def _largest(scores: Any, first: int, last: int, lanes: int, a: Any, b: Any) -> tuple[Any, Any]:
    """The largest scores of the queries among keys first..last - 1, `a` and `b` being those so far."""
    if lanes == TILE:
        for place in range(first * TILE, last * TILE, TILE):
            v = load_f16(scores, place)
            a = where(a < v, v, a)
    else:
        for place in range(first * 2 * TILE, last * 2 * TILE, 2 * TILE):
            v, w = load_f16(scores, place), load_f16(scores, place + TILE)
            a, b = where(a < v, v, a), where(b < w, w, b)
    return a, b


@compiled
def _shares(scores: Any, first: int, last: int, lanes: int, factor: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """Scores of keys first..last - 1 -> 2^(score factor - a), in place, `b` being the second register's; their sums.
    Two at a time: one has a dozen operations that wait for each other."""
    a_sum = b_sum = splat_f16(0.0)
    if lanes == TILE:
        for place in range(first * TILE, last * TILE, TILE):
            v = _two_to(load_f16(scores, place) * factor - a)
            store(scores, place, v)
            a_sum = a_sum + v
    else:
        for place in range(first * 2 * TILE, last * 2 * TILE, 2 * TILE):
            x, y = load_f16(scores, place) * factor - a, load_f16(scores, place + TILE) * factor - b
            v, w = _two_to(x), _two_to(y)
            store(scores, place, v)
            store(scores, place + TILE, w)
            a_sum, b_sum = a_sum + v, b_sum + w
    return a_sum, b_sum


_integer_scores_by_16, _integer_scores_by_32 = along_fours_of_columns(KEYS, 1), along_fours_of_columns(KEYS, 2)
_integer_means_by_16, _integer_means_by_32 = along_fours_of_rows(KEYS, 1), along_fours_of_rows(KEYS, 2)
_P3, _P2, _P1 = attention.POLYNOMIAL


@compiled
def _scale_to_integers(largest: Any, most: int) -> Any:
    """`attention.scale`"""
    return without_bits(splat_f16(most) / (largest + splat_f16(attention.LEAST)), attention.COARSE)


@compiled
def _keys_and_values(qkv: Tiles, L: int, D: int, head: int, width: int, work: Workspace) -> None:
    """A head's keys and values as integers, of the whole text."""
    keys, key_scales, values = work.integers[0], work.integers[1], work.integers[2]
    first, last, largest = head * width // TILE, (head + 1) * width // TILE, splat_f16(0.0)
    for t in range(first, last):
        for j in range(L):
            x = absolute(load_f16(qkv.numbers, _at(qkv, D // TILE + t, j)))
            largest = where(largest < x, x, largest)
    scale = _scale_to_integers(splat_f16(greatest(largest)), attention.KEY)
    store(key_scales, head * TILE, scale)
    for t in range(first, last):
        for j in range(L):  # unsigned: all scores of a query are larger by as much then, and shares the same
            x = load_f16(qkv.numbers, _at(qkv, D // TILE + t, j))
            store_octets(keys, (t * (L | 1) + j) * (TILE // 4), nearest(x * scale) + splat_i16(128))
        for j in range(0, L, 4):  # tokens beyond the last have no share
            place = _at(qkv, 2 * D // TILE + t, j)
            a, b = _value(qkv.numbers, place), _value(qkv.numbers, place + TILE)
            c, d = _value(qkv.numbers, place + 2 * TILE), _value(qkv.numbers, place + 3 * TILE)
            store(values, (t * (L // 4 + 1) + j // 4) * TILE, fours_of(a, b, c, d))


@compiled
def _value(numbers: Any, place: int) -> Any:
    """Values that are whole numbers, as octets."""
    x, bound = load_f16(numbers, place), splat_f16(attention.VALUE)
    x = where(bound < x, bound, x)
    x = where(x < splat_f16(-attention.VALUE), splat_f16(-attention.VALUE), x)
    return nearest(x) & splat_i16(255)


@compiled
def _attend_head_in_integers(L: int, D: int, head: int, width: int, lanes: int, values: Norm, work: Workspace) -> None:
    """`_attend_head` of whole numbers: `attention.attend`, in the same order."""
    low, high, across = head * width, (head + 1) * width, work.across
    key_scale = load_f16(work.integers[1], head * TILE)
    a_factor = b_factor = _queries_in_integers(low, width, lanes, 0, key_scale, work)
    if lanes > TILE:
        b_factor = _queries_in_integers(low, width, lanes, TILE, key_scale, work)
    a = b = splat_i16(-(2**30))  # below any score
    a_sum = b_sum = splat_f16(0.0)
    for start in range(0, L, attention.TOGETHER):
        last = start + attention.TOGETHER if start + attention.TOGETHER < L else L
        _score_in_integers(L, start, last, low, width, lanes, work)
        a, a_sum = _shares_in_integers(last - start, lanes, 0, a, a_factor, a_sum, start == 0, work)
        if lanes > TILE:
            b, b_sum = _shares_in_integers(last - start, lanes, TILE, b, b_factor, b_sum, start == 0, work)
        _average_in_integers(L, start, last, low, high, lanes, work)
    a, b = splat_f16(1.0) / a_sum, splat_f16(1.0) / b_sum
    for d in range(low, high):
        weight, bias = spread_f16(values.weight, d), spread_f16(values.bias, d)
        store(across, d * lanes, load_f16(across, d * lanes) * a * weight + bias)
        if lanes > TILE:
            store(across, d * lanes + TILE, load_f16(across, d * lanes + TILE) * b * weight + bias)


@compiled
def _queries_in_integers(low: int, width: int, lanes: int, lane: int, key_scale: Any, work: Workspace) -> Any:
    """16 queries of a head as integers; what their scores are to be multiplied by."""
    across = work.across
    largest = splat_f16(0.0)
    for place in range(low * lanes + lane, (low + width) * lanes + lane, lanes):
        x = absolute(load_f16(across, place))
        largest = where(largest < x, x, largest)
    scale, octet = _scale_to_integers(largest, attention.QUERY), splat_i16(255)
    for place in range(0, width * lanes, 4 * lanes):
        at = low * lanes + lane + place
        a, b = nearest(load_f16(across, at) * scale), nearest(load_f16(across, at + lanes) * scale)
        c, d = nearest(load_f16(across, at + 2 * lanes) * scale), nearest(load_f16(across, at + 3 * lanes) * scale)
        store(work.integers[3], place // 4 + lane, fours_of(a & octet, b & octet, c & octet, d))
    return splat_f16(math.log2(math.e) / math.sqrt(width)) / (scale * key_scale)


@compiled
def _score_in_integers(L: int, first: int, last: int, low: int, width: int, lanes: int, work: Workspace) -> None:
    """Scores of keys first..last - 1; what is read of keys beyond the last one is never looked at."""
    keys, queries, scores, step = work.integers[0], work.integers[3], work.scores, (L | 1) * (TILE // 4)
    for j in range(first, last, KEYS):
        place, to = low // TILE * step + j * (TILE // 4), (j - first) * lanes
        if lanes == TILE:
            _integer_scores_by_16(keys, place, step, 0, width // 4, queries, 0, scores, to)
        else:
            _integer_scores_by_32(keys, place, step, 0, width // 4, queries, 0, scores, to)


@compiled
def _shares_in_integers(
    n: int, lanes: int, lane: int, so_far: Any, factor: Any, total: Any, begins: bool, work: Workspace
) -> tuple[Any, Any]:
    """Scores of n keys -> their shares, in fours: those of a key and the next three in row key / 4 of the same array.
    Returns the largest score and the sum of shares so far."""
    scores, weights = work.scores, work.integers[4]
    top = load_i16(scores, lane)
    for place in range(lanes + lane, n * lanes, lanes):
        top = larger(top, load_i16(scores, place))
    largest = larger(so_far, top)
    before = splat_f16(0.0) if begins else _power(real_of(so_far - largest) * factor, float32(0))
    now = _power(real_of(top - largest) * factor, float32(0))
    store(weights, lane, before)
    store(weights, lanes + lane, now)
    shares = splat_i16(0)
    for j in range(0, n, 4):
        place = j * lanes + lane
        a, b = _share(scores, place, top, factor), _share(scores, place + lanes, top, factor)
        c, d = _share(scores, place + 2 * lanes, top, factor), _share(scores, place + 3 * lanes, top, factor)
        those = fours_of(a, b, c, d) & splat_i16(-1 if j + 4 <= n else (1 << 8 * (n - j)) - 1)  # there are n
        store(scores, j // 4 * lanes + lane, those)
        shares = shares + sums_of_fours(those)
    return largest, total * before + real_of(shares) * now


@compiled
def _share(scores: Any, place: int, top: Any, factor: Any) -> Any:
    """`attention.share`"""
    return nearest(_power(real_of(load_i16(scores, place) - top) * factor, float32(7)))


@compiled
def _power(x: Any, more: float) -> Any:
    """`attention.power` times 2^more, which is in the number that rounds."""
    x = where(x < splat_f16(attention.FAR), splat_f16(attention.FAR), x)
    n = x + splat_f16(float32(12582912.0) + more)
    r = x - (n - splat_f16(float32(12582912.0) + more))
    p = fma(splat_f16(_P3), r, splat_f16(_P2))
    p = fma(p, r, splat_f16(_P1))
    return times_power_of_two(fma(p, r, splat_f16(attention.TOP)), n)


@compiled
def _average_in_integers(L: int, first: int, last: int, low: int, high: int, lanes: int, work: Workspace) -> None:
    """`_average` of whole numbers, by the weights that `_shares_in_integers` has left."""
    values, weights, scores, across = work.integers[2], work.integers[4], work.scores, work.across
    fours = (last - first + 3) // 4
    for d in range(low, high, KEYS):
        place, to = (d // TILE * (L // 4 + 1) + first // 4) * TILE + d % TILE, d * lanes
        if lanes == TILE:
            _integer_means_by_16(values, place, TILE, 0, fours, scores, 0, across, to, weights)
        else:
            _integer_means_by_32(values, place, TILE, 0, fours, scores, 0, across, to, weights)


def add_norm_reference(a: np.ndarray, b: np.ndarray, norm: Norm) -> np.ndarray:
    """Layer norm of a + b: [L, D] twice -> [L, D] float32, epsilon 1e-5 as in torch."""
    y = a + b
    centred = y - y.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(1e-5)) * norm.weight + norm.bias


@compiled
def add_norm(a: Tiles, b: Tiles, L: int, D: int, norm: Norm, out: Tiles) -> None:
    """64 partial sums, which is what D is a multiple of. `out` may be a or b."""
    y = out.numbers
    for i in range(L):
        s0 = s1 = s2 = s3 = splat_f16(0.0)
        for t in range(0, D // TILE, 4):
            y0 = load_f16(a.numbers, _at(a, t, i)) + load_f16(b.numbers, _at(b, t, i))
            y1 = load_f16(a.numbers, _at(a, t + 1, i)) + load_f16(b.numbers, _at(b, t + 1, i))
            y2 = load_f16(a.numbers, _at(a, t + 2, i)) + load_f16(b.numbers, _at(b, t + 2, i))
            y3 = load_f16(a.numbers, _at(a, t + 3, i)) + load_f16(b.numbers, _at(b, t + 3, i))
            s0, s1, s2, s3 = s0 + y0, s1 + y1, s2 + y2, s3 + y3
            store(y, _at(out, t, i), y0)
            store(y, _at(out, t + 1, i), y1)
            store(y, _at(out, t + 2, i), y2)
            store(y, _at(out, t + 3, i), y3)
        mean = splat_f16(total((s0 + s1) + (s2 + s3)) / float32(D))
        s0 = s1 = s2 = s3 = splat_f16(0.0)
        for t in range(0, D // TILE, 4):
            y0, y1 = load_f16(y, _at(out, t, i)) - mean, load_f16(y, _at(out, t + 1, i)) - mean
            y2, y3 = load_f16(y, _at(out, t + 2, i)) - mean, load_f16(y, _at(out, t + 3, i)) - mean
            s0, s1, s2, s3 = fma(y0, y0, s0), fma(y1, y1, s1), fma(y2, y2, s2), fma(y3, y3, s3)
        variance = total((s0 + s1) + (s2 + s3)) / float32(D)
        scale = splat_f16(float32(1.0) / math.sqrt(variance + float32(1e-5)))
        for t in range(D // TILE):
            place = _at(out, t, i)
            centred = (load_f16(y, place) - mean) * scale
            store(y, place, fma(centred, load_f16(norm.weight, t * TILE), load_f16(norm.bias, t * TILE)))


def select_reference(
    x: np.ndarray, h: np.ndarray, gates_x: np.ndarray, gates_h: np.ndarray, carry_x: bool
) -> np.ndarray:
    """Gates before their functions, [L, 2 D] of x and [L, 3 D] of h -> g(Sh) * carry and g(Sg) * g(Tg), apart (eq.
    20-23): two [L, D] float32 arrays whose sum is the new state before its layer norm."""
    sg_x, tg_x = np.split(gates_x, 2, -1)
    sh, sg_h, tg_h = np.split(gates_h, 3, -1)

    def sigmoid(z: np.ndarray) -> np.ndarray:
        return 0.5 + 0.5 * np.tanh(0.5 * z)

    def g(a: np.ndarray) -> np.ndarray:
        return a * (2 - np.abs(a))

    kept = g(sigmoid(sh)) * (x if carry_x else h)
    return np.stack([kept, g(sigmoid(sg_x + sg_h)) * g(np.tanh(tg_x + tg_h))])


@compiled
def select(carry: Tiles, L: int, gates: Tiles, kept: Tiles, new: Tiles) -> None:
    """For 64 axes: `gates` are 64 numbers each of Sh, Sg and Tg of h, then of Sg and Tg of x. carry is x or h; `kept`
    and `new` may be it."""
    one, two, half, z = splat_f16(1.0), splat_f16(2.0), splat_f16(0.5), gates.numbers
    for t in range(4):
        for i in range(L):
            sh = half * (_tanh(half * load_f16(z, _at(gates, t, i))) + one)
            sg = load_f16(z, _at(gates, 12 + t, i)) + load_f16(z, _at(gates, 4 + t, i))
            sg = half * (_tanh(half * sg) + one)
            tg = _tanh(load_f16(z, _at(gates, 16 + t, i)) + load_f16(z, _at(gates, 8 + t, i)))
            carried = load_f16(carry.numbers, _at(carry, t, i))
            store(kept.numbers, _at(kept, t, i), sh * (two - sh) * carried)
            store(new.numbers, _at(new, t, i), sg * (two - sg) * (tg * (two - absolute(tg))))


# ---------------------------------------------------------------- a block, an exit, a row


def block_reference(h: np.ndarray, layers: Block, n_head: int, carry_x: bool) -> np.ndarray:
    """f_c of eq. 5 on one row: h_{c-1} [L, D] -> h_c [L, D] float32."""
    qkv, values = linear_reference(h, layers.qkv), layers.values
    if values.weight.size:
        q, k, v = qkv.reshape(len(h), 3, n_head, -1).transpose(1, 0, 2, 3)
        heads = attention.attend(q, k, v, values.weight, values.bias)
    else:
        heads = attend_reference(qkv, n_head)
    mixed = linear_reference(heads, layers.o)
    x = add_norm_reference(h, mixed, layers.norm_x)
    kept, new = select_reference(
        x, h, linear_reference(x, layers.gates_x), linear_reference(h, layers.gates_h), carry_x
    )
    return add_norm_reference(kept, new, layers.norm_h)


@compiled
def block(h: Tiles, L: int, D: int, layers: Block, n_head: int, carry_x: bool, work: Workspace) -> None:
    """All of a block, in place; `early_exit_forward` may stop between groups."""
    for group in range(groups(L)):
        first, n = rows_of(group, L)
        block_qkv(h, L, first, n, layers, work)
    for group in range(groups(L)):
        first, n = rows_of(group, L)
        block_rest(h, L, D, first, n, layers, n_head, carry_x, work)


def count_groups(L: int) -> int:
    """How many groups of rows a text goes through a block in."""
    count = (L - TILE + GROUP - 1) // GROUP
    return count if count > 1 else 1


groups = compiled(count_groups)


@compiled
def rows_of(group: int, L: int) -> tuple[int, int]:
    """A group's first row, and its number of rows."""
    first = group * GROUP
    return first, L - first if group == groups(L) - 1 else GROUP


@compiled
def block_qkv(h: Tiles, L: int, first: int, n: int, layers: Block, work: Workspace) -> None:
    """The first half of a block, for n rows: q, k and v. Comes for all rows before `block_rest` of any."""
    linear(_from_row(h, first), n, layers.qkv, work.words, Tiles(work.qkv, first * TILE, L | 1))


@compiled
def block_rest(
    h: Tiles, L: int, D: int, first: int, n: int, layers: Block, n_head: int, carry_x: bool, work: Workspace
) -> None:
    """The second half, for n rows: attention to all rows, gates and norms; these rows of h become those of h_c."""
    of, x, mixed = _from_row(h, first), Tiles(work.x, 0, STEP), Tiles(work.mixed, 0, STEP)
    attend(Tiles(work.qkv, 0, L | 1), L, D, n_head, first, n, layers.values, work, mixed)
    linear(mixed, n, layers.o, work.words, x)
    add_norm(of, x, n, D, layers.norm_x, x)
    pack(of, n, layers.gates_h.threshold, D // 64, work.words)
    pack(x, n, layers.gates_x.threshold, D // 64, work.words_x)
    gates, each = Tiles(work.gates, 0, STEP), D // TILE
    for t in range(0, each, 4):  # what selects 64 axes stays in the first cache
        for part in range(3):
            start = part * each + t
            product(work.words, n, layers.gates_h, start, start + 4, _from_tile(gates, 4 * part))
        for part in range(2):
            start = part * each + t
            product(work.words_x, n, layers.gates_x, start, start + 4, _from_tile(gates, 12 + 4 * part))
        select(_from_tile(x if carry_x else of, t), n, gates, _from_tile(mixed, t), _from_tile(x, t))
    add_norm(mixed, x, n, D, layers.norm_h, of)


def head_reference(h: np.ndarray, layers: Head) -> np.ndarray:
    """Phi_c of eq. 14 on one row: h_c [L, D] -> logits float32, [m] padded with zeros to a multiple of 64; of a linear
    head of 16. A binary head's hidden layer reads the mean at each of T thresholds; a linear head of 2 D inputs reads
    the start-weighted mean as well."""
    pooled = h.mean(0, keepdims=True)
    if layers.linear.scale.size:
        start = [start_state_reference(h)] if layers.linear.weight.shape[1] > h.shape[1] else []
        return linear_head_reference(np.concatenate([pooled[0], *start]), layers.linear)
    return linear_reference(linear_reference(pooled, layers.hidden).clip(-1, 1), layers.out)[0]


def pair_features_reference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean states of two texts [D] each -> what their head reads, |a - b| and a * b [2 D]."""
    return np.concatenate([np.abs(a - b), a * b])


@compiled
def mean_state(h: Tiles, L: int, D: int, out: Any) -> None:
    """The mean of L tokens' states into out [D]."""
    for t in range(D // TILE):
        s = splat_f16(0.0)
        for i in range(L):
            s = s + load_f16(h.numbers, _at(h, t, i))
        store(out, t * TILE, s / splat_f16(L))


def start_state_reference(h: np.ndarray) -> np.ndarray:
    """The mean of the first tokens' states, [L, D] -> [D] float32, START_DECAY^i being the weight of token i (from 0,
    special tokens included)."""
    weights = START_DECAY ** np.arange(min(len(h), START_TOKENS), dtype=np.float32)
    result: np.ndarray = weights @ h[: len(weights)] / weights.sum()
    return result


@compiled
def start_state(h: Tiles, L: int, D: int, out: Any) -> None:
    """The start-weighted mean into out [D]; states and weights are summed from the last token on (Horner)."""
    decay, one = splat_f16(START_DECAY), splat_f16(1.0)
    for t in range(D // TILE):
        s = weights = splat_f16(0.0)
        for i in range((L if L < START_TOKENS else START_TOKENS) - 1, -1, -1):
            s, weights = fma(s, decay, load_f16(h.numbers, _at(h, t, i))), fma(weights, decay, one)
        store(out, t * TILE, s / weights)


@compiled
def pair_head(h: Tiles, L: int, D: int, first: Any, layers: Head, outputs: int, work: Workspace, out: Any) -> None:
    """The linear head of a pair: `first` [D] is the first text's mean state, h the second text's states."""
    x = work.x
    mean_state(h, L, D, x)
    for d in range(0, D, TILE):
        a, b = load_f16(first, d), load_f16(x, d)
        store(x, D + d, where(a < b, b - a, a - b))
        store(x, 2 * D + d, a * b)
    linear_head(address_of_real(x, D), 2 * D, layers.linear, outputs, out)


@compiled
def head(
    h: Tiles, L: int, D: int, layers: Head, thresholds: int, inputs: int, outputs: int, work: Workspace, out: Any
) -> None:
    """out is padded as in the reference. A linear head has so many inputs, D or 2 D, and outputs, padded; `inputs` are
    0 for a binary one."""
    mean_state(h, L, D, work.x)
    if inputs:
        if inputs > D:
            start_state(h, L, D, address_of_real(work.x, D))
        linear_head(work.x, inputs, layers.linear, outputs, out)
    else:
        _binary_head(work.x, thresholds, layers.hidden, layers.out, work, out)


@compiled
def _binary_head(pooled: Any, T: int, first: Layer, second: Layer, work: Workspace, out: Any) -> None:
    """pooled [D]. Its signs at each of T thresholds are rows of one product, so that weights are read once; the rows'
    sums are whole numbers, scaled when they are added up."""
    k, n, hidden, one = first.k, first.n, work.hidden, splat_f16(1.0)
    ones, zeros = T * n, T * n + n
    for d in range(0, n, TILE):
        store(hidden, ones + d, one)
        store(hidden, zeros + d, splat_f16(0.0))
    for row in range(T):
        threshold, words = address_of_real(first.threshold, row * k), address_of_word(work.words, row * k // 64)
        pack(Tiles(pooled, 0, 1), 1, threshold, k // 64, words)
    unscaled = Layer(first.words, address_of_real(hidden, ones), address_of_real(hidden, zeros), 0, k, n)
    product(work.words, T, unscaled, 0, n // TILE, Tiles(hidden, 0, T))
    for d in range(0, n, TILE):
        v = load_f16(hidden, d * T)
        for row in range(1, T):
            v = v + load_f16(hidden, d * T + row * TILE)
        v = v * load_f16(first.alpha, d) + load_f16(first.bias, d)
        v = where(v < splat_f16(-1.0), splat_f16(-1.0), v)
        store(hidden, d, where(one < v, one, v))
    linear(Tiles(hidden, 0, 1), 1, second, work.words, Tiles(out, 0, 1))


def linear_head_reference(pooled: np.ndarray, layer: LinearHead) -> np.ndarray:
    """pooled [k] -> scale * (W pooled) + bias, [m'] float32."""
    weight = layer.weight.transpose(0, 2, 1).reshape(-1, pooled.size).astype(np.float32)
    return weight @ pooled * layer.scale + layer.bias


@compiled
def linear_head(pooled: Any, k: int, layer: LinearHead, n: int, out: Any) -> None:
    """16 outputs at a time, each with four partial sums over every fourth input: one order on every machine."""
    for t in range(n // TILE):
        s0 = s1 = s2 = s3 = splat_f16(0.0)
        for d in range(0, k, 4):
            place = (t * k + d) * TILE
            s0 = fma(load_i8(layer.weight, place), spread_f16(pooled, d), s0)
            s1 = fma(load_i8(layer.weight, place + TILE), spread_f16(pooled, d + 1), s1)
            s2 = fma(load_i8(layer.weight, place + 2 * TILE), spread_f16(pooled, d + 2), s2)
            s3 = fma(load_i8(layer.weight, place + 3 * TILE), spread_f16(pooled, d + 3), s3)
        sums = (s0 + s1) + (s2 + s3)
        store(out, t * TILE, fma(sums, load_f16(layer.scale, t * TILE), load_f16(layer.bias, t * TILE)))


def embed_reference(ids: np.ndarray, embedding: Embedding) -> np.ndarray:
    """Token ids [L] -> h_0 [L, D] float32 (eq. 2), with what was learned of types where there is such."""
    rows, positions, exact = embedding.rows[ids], embedding.positions, embedding.exact_match
    packed = rows.shape[1] < positions.shape[1]
    learned = real(rows.view(np.uint8), embedding.scale) if packed else real(rows, embedding.scale[ids])
    h = join(learned, positions)
    if len(exact):
        h += np.concatenate([np.zeros_like(exact[:1]), exact])[token_types(ids)]
    return h


@compiled
def embed(ids: np.ndarray, embedding: Embedding, row_bytes: int, half: int, exact: bool, out: Tiles) -> None:
    """`embedding.embed` of a text's tokens: their learned halves beside their positions (eq. 2)."""
    rows, packed = embedding.rows, row_bytes < half
    fours = half // 3 // 4 * 4  # `embedding.fours`
    four, two = splat_f16(7.5), splat_f16(1.5)
    for i in range(ids.size):
        start = ids[i] * row_bytes
        for d in range(0, half, TILE):
            if not packed:
                value = load_i8(rows, start + d) * spread_f16(embedding.scale, ids[i])
            else:
                if d + TILE <= fours:
                    code = load_codes_4(rows, start + d // 2) - four
                else:
                    code = load_codes_2(rows, start + (fours + d) // 4) - two
                    if d < fours:  # both in one tile
                        code = where(lanes_below(fours - d), load_codes_4(rows, start + d // 2) - four, code)
                value = code * load_f16(embedding.scale, d)
            store(out.numbers, _at(out, d // TILE, i), value)
            store(out.numbers, _at(out, (half + d) // TILE, i), load_f16(embedding.positions, i * half + d))
    if exact:
        _add_token_types(ids, 2 * half, embedding.exact_match, out)


@compiled
def _add_token_types(ids: np.ndarray, D: int, exact_match: Any, out: Tiles) -> None:
    """Add to each token of a pair what was learned of its type (`embedding.token_types`). Every token is compared with
    the other text's: as long as a thirtieth of a block, from 25 tokens to 128."""
    L, between = ids.size, 0
    while ids[between] != ids[L - 1]:
        between += 1
    if between == L - 1:
        return
    for i in range(1, L - 1):
        if i == between:
            continue
        first = i < between
        kind = 0 if first else 2
        for j in range(between + 1 if first else 1, L - 1 if first else between):
            if ids[j] == ids[i]:
                kind += 1
                break
        for t in range(D // TILE):
            place = _at(out, t, i)
            store(out.numbers, place, load_f16(out.numbers, place) + load_f16(exact_match, kind * D + t * TILE))


@compiled
def softmax(logits: np.ndarray, out: np.ndarray) -> float:
    """`exits.softmax` of one exit's logits float32 into out [m], and `exits.entropy` of them in nats, float64."""
    top = np.float64(logits[0])
    for j in range(1, out.size):
        top = logits[j] if logits[j] > top else top
    total_ = 0.0
    for j in range(out.size):
        out[j] = math.exp(logits[j] - top)
        total_ += out[j]
    mean = 0.0
    for j in range(out.size):
        mean += (logits[j] - top) * out[j]
    for j in range(out.size):
        out[j] /= total_
    nats = math.log(total_) - mean / total_
    return 0.0 if nats < 0.0 else nats


@compiled
def sigmoids(logits: np.ndarray, out: np.ndarray) -> float:
    """`exits.sigmoid` of one exit's logits float32 into out [m], and `exits.entropy_of_label_sets` of them, float64."""
    nats = 0.0
    for j in range(out.size):
        z = np.float64(logits[j])
        size = abs(z)
        e = math.exp(-size)
        out[j] = (e if z < 0 else 1.0) / (1.0 + e)
        nats += math.log(1.0 + e) + size * e / (1.0 + e)
    return nats


should_exit = compiled(exits.should_exit)

SIZES = 13  # of a network, before its addresses
_OF_EMBEDDING, _OF_BLOCK, _OF_HEAD = 4, 22, 11  # addresses


def one_of(stack: Any, i: int) -> Any:
    """Block or head i (from 0) of a stack of them."""
    if isinstance(stack, np.ndarray):
        return stack[i] if len(stack) else stack  # the layers of the head that it hasn't got are empty
    return type(stack)(*(one_of(part, i) for part in stack))


def address(array: np.ndarray) -> int:
    """Of the first element. The array must live as long as anyone uses it."""
    assert array.flags.c_contiguous
    return array.ctypes.data


def addresses(parts: Any) -> np.ndarray:
    """The arrays of a named tuple of arrays, however deep, by address: int64, in order."""

    def arrays(part: Any) -> list[int]:
        return [address(part)] if isinstance(part, np.ndarray) else [one for inner in part for one in arrays(inner)]

    return np.array(arrays(parts), np.int64)


def table(network: Network, n_head: int, carry_x: bool, multi_label: bool = False) -> np.ndarray:
    """A network as `early_exit_forward` takes it, [SIZES + addresses] int64: sizes, then the addresses of the arrays of
    the embedding, of each block and of each head. Numba needs microseconds to look into dozens of arrays."""
    blocks, heads, embedding = network.blocks, network.heads, network.embedding
    C, D = blocks.norm_x.weight.shape
    binary = not heads.linear.scale.size
    sizes = [
        D,
        C,
        len(heads.out.alpha if binary else heads.linear.scale),
        n_head,
        int(carry_x),
        heads.hidden.threshold.shape[1] // D if binary else 0,
        heads.hidden.alpha.shape[1] if binary else 0,
        heads.out.alpha.shape[1] if binary else heads.linear.scale.shape[1],
        int(binary),
        embedding.rows.shape[1],
        len(embedding.exact_match),
        int(multi_label),
        0 if binary else heads.linear.weight.shape[2],
    ]

    parts = [addresses(embedding), *(addresses(one_of(blocks, c)) for c in range(C))]
    return np.concatenate([np.array(sizes), *parts, *(addresses(one_of(heads, e)) for e in range(sizes[2]))])


@compiled
def _layer_at(table: np.ndarray, p: int, k: int, n: int) -> Layer:
    return Layer(table[p], table[p + 1], table[p + 2], table[p + 3], k, n)


@compiled
def _block_at(table: np.ndarray, c: int) -> Block:
    """Block c (from 0) of a network."""
    D, p = table[0], SIZES + _OF_EMBEDDING + c * _OF_BLOCK
    return Block(
        _layer_at(table, p, D, 3 * D),
        _layer_at(table, p + 4, D, D),
        _layer_at(table, p + 8, D, 3 * D),
        _layer_at(table, p + 12, D, 2 * D),
        Norm(table[p + 16], table[p + 17]),
        Norm(table[p + 18], table[p + 19]),
        Norm(table[p + 20], table[p + 21]),
    )


@compiled
def _head_at(table: np.ndarray, e: int) -> Head:
    """Head e (from 0) of a network."""
    p = SIZES + _OF_EMBEDDING + table[1] * _OF_BLOCK + e * _OF_HEAD
    return Head(
        _layer_at(table, p, table[0], table[6]),
        _layer_at(table, p + 4, table[6], table[7]),
        LinearHead(table[p + 8], table[p + 9], table[p + 10]),
    )


@cached
def early_exit_forward(
    ids: np.ndarray,
    delta: float,
    entropy_threshold: float,
    min_blocks: int,
    max_blocks: int,
    table: np.ndarray,
    work: np.ndarray,
    logits: np.ndarray,
    scores: np.ndarray,
    entropies: np.ndarray,
    done: np.ndarray,
    blocks: float,
    side: int,
    ready: int,
    states: np.ndarray,
    integers: np.ndarray | None,
) -> int:
    """Alg. 2 on one row: token ids [L] int32, `table(network)` and `addresses(workspace)` -> the block it leaves after,
    from 1; or 0 where the work of `blocks` blocks, a fraction perhaps, came first. `done` [2] int64 counts blocks, and
    steps of the next one; it is 0 for a new row, and called again with the same arrays, the row goes on where it
    stopped. A step is half of a block for one group of rows, and one is always taken.

    Exit e (from 0) on the way leaves its logits in logits[e] (float32, padded to a multiple of 64) and its entropy in
    entropies[e] (nats, float64); scores [m] float64 is the softmax of the last one, or the sigmoids of several labels.

    Of two texts that are read apart (`side`; 0 where a row is all there is) the first, 1, leaves its mean state after
    every block in states [E, D] float32 and nothing else, and stops after block `max_blocks`; the second, 2, reads
    these, as many as are `ready`, has the heads of the pair, and stops where the first has to go on.

    Of attention on integers `integers` are their addresses; this is compiled for either kind when it is asked for.
    """
    L, D, C, E, n_head, carry_x = ids.size, table[0], table[1], table[2], table[3], table[4] != 0
    at = work
    space = Workspace(at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], at[8], at[9], integers)
    h, several, of_qkv = Tiles(space.h, 0, L | 1), table[11] != 0, _share_of_qkv(L)
    most = scores.size * math.log(2.0) if several else math.log(scores.size)
    if done[0] == 0 and done[1] == 0:
        embedding = Embedding(table[SIZES], table[SIZES + 1], table[SIZES + 2], table[SIZES + 3])
        embed(ids, embedding, table[9], D // 2, table[10] != 0, h)
    while True:
        if side == 2 and done[0] >= ready:
            return 0
        layers = _block_at(table, done[0])
        first, n = rows_of(done[1] % groups(L), L)
        if done[1] < groups(L):
            block_qkv(h, L, first, n, layers, space)
            blocks -= n / L * of_qkv
        else:
            block_rest(h, L, D, first, n, layers, n_head, carry_x, space)
            blocks -= n / L * (1 - of_qkv)
        done[1] += 1
        if done[1] == 2 * groups(L):
            done[0], done[1] = done[0] + 1, 0
            c = done[0]
            e = c - 1 - (C - E)  # without early exit, the only head is the last block's
            if side == 1:
                mean_state(h, L, D, address_of_real(states, e * D))
                if c >= max_blocks:
                    return c
            elif e >= 0:
                out = address_of_real(logits, e * logits.shape[1])
                if side == 2:
                    first_state = address_of_real(states, e * D)
                    pair_head(h, L, D, first_state, _head_at(table, e), table[7], space, out)
                else:
                    head(h, L, D, _head_at(table, e), table[5], table[12], table[7], space, out)
                entropies[e] = sigmoids(logits[e], scores) if several else softmax(logits[e], scores)
                previous = entropies[e - 1] if e else most
                if c >= max_blocks or (
                    c >= min_blocks and should_exit(previous, entropies[e], delta, entropy_threshold * most)
                ):
                    return c
            if c == C:
                return c
        if blocks <= 0:
            return 0


@compiled
def _share_of_qkv(L: int) -> float:
    """About what part of a block's time `block_qkv` takes of a text of L tokens, measured with AVX-512."""
    return 1 / (4.5 + L / 90)
