"""
The arithmetic of the engine, compiled by numba for whole rows. Beside each kernel stands its plain numpy meaning,
`<name>_numpy`.

- integers agree exactly with their meaning; floats agree to a few units in the last place
- a row's numbers depend on that row alone, and on no machine: rows never mix, and every sum has one order (see `simd`)
- kernels hold no GIL and allocate nothing: outputs and scratch are arguments, nothing lives in globals

Shapes: L tokens of one row, D = d_model, H heads, k inputs and n outputs of a binarized layer, W = k/64 words. Between
kernels, real numbers [L, n] lie as tiles [n/16, S, 16] (`tiles` and `rows` convert): what registers take lies together,
whatever the width. S is L made odd: at 64 tokens, say, all tiles of a token would meet in the same set of the first
cache. Arrays are flat, and used from their beginning for as many elements as the row needs.

One file, because what numba has cached of a kernel is compiled anew only when that kernel's own file changes. The
arrays that kernels read by position are here for the same reason: reordered elsewhere, they would meet stale code.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import float32, njit, uint64

from beexformer.model import bits, exits, target
from beexformer.model.simd import (
    absolute,
    first_reals,
    floor,
    fma,
    high_counts,
    high_nibbles,
    lanes_between,
    largest,
    last_reals,
    load_f16,
    load_i8,
    load_o32,
    load_u8,
    look_up,
    low_counts,
    low_nibbles,
    mask_bits,
    popcount,
    power_of_two,
    splat_f16,
    splat_h32,
    splat_o32,
    splat_u8,
    spread_f16,
    spread_u8,
    store,
    to_real,
    total,
    transpose_f16,
    where,
    widen,
)

compiled = njit(nogil=True, cache=True)
TILE = bits.TILE
MOST_OCTETS = 31  # that a byte can count the differing signs of


class Linear(NamedTuple):
    """A BinaryLinear, packed: words [n/16, W, 16] uint64 (see `arrange`), alpha [n], bias [n], threshold [k] float32
    (-beta). n is padded to a multiple of 64; outputs of the padding are 0."""

    words: np.ndarray
    alpha: np.ndarray
    bias: np.ndarray
    threshold: np.ndarray


class Norm(NamedTuple):
    """A layer norm: weight [D], bias [D] float32."""

    weight: np.ndarray
    bias: np.ndarray


class Block(NamedTuple):
    """Everything one transformer block has learned."""

    qkv: Linear
    o: Linear
    gates_h: Linear
    gates_x: Linear
    norm_x: Norm
    norm_h: Norm


class LinearHead(NamedTuple):
    """One layer of 8-bit weights on the mean state: weight [m'/16, D, 16] int8, m' being m padded with zeros to a
    multiple of 16; scale [m'], bias [m'] float32. In a network with binary heads all three are empty."""

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


class Workspace(NamedTuple):
    """Scratch of one thread, for rows of up to L tokens; flat, float32 but for the packed words."""

    words: np.ndarray
    h: np.ndarray
    x: np.ndarray
    mixed: np.ndarray
    wide: np.ndarray
    gates: np.ndarray
    keys: np.ndarray
    scores: np.ndarray
    hidden: np.ndarray


def workspace(max_tokens: int, d_model: int, d_head: int, head_thresholds: int = 1) -> Workspace:
    """Scratch for `early_exit_forward`: 36 D bytes a token and a little more."""
    S, D, real = max_tokens | 1, d_model, np.float32
    states = max(S, head_thresholds) * D  # a head reads its mean once for each threshold
    padded = -(-max_tokens // TILE) * TILE
    return Workspace(
        words=np.empty(max(states, d_head) // 64, np.uint64),
        h=np.empty(S * D, real),
        x=np.empty(states, real),
        mixed=np.empty(S * D, real),
        wide=np.empty(S * 3 * D + TILE * TILE, real),  # keys of 16 tokens are read at once
        gates=np.empty(S * 2 * D, real),
        keys=np.empty(padded * D, real),
        scores=np.empty(4 * padded, real),
        hidden=np.empty(max(D, d_head), real),
    )


def tiles(x: np.ndarray) -> np.ndarray:
    """[L, n] -> [n/16, S, 16], flat."""
    padded = np.pad(x, ((0, 1 - len(x) % 2), (0, 0)))
    return np.ascontiguousarray(padded.reshape(len(padded), -1, TILE).transpose(1, 0, 2)).reshape(-1)


def rows(flat: np.ndarray, L: int, n: int) -> np.ndarray:
    """[n/16, S, 16], flat and perhaps longer -> [L, n]."""
    S = L | 1
    return flat[: S * n].reshape(-1, S, TILE).transpose(1, 0, 2).reshape(S, n)[:L]


# ---------------------------------------------------------------- signs and products


def pack_reference(x: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """x [L, k], threshold [k] -> words [L, W] of the signs of x - threshold."""
    return bits.pack(np.where(x < threshold, -1.0, 1.0))


@compiled
def pack(x: np.ndarray, L: int, threshold: np.ndarray, out: np.ndarray) -> None:
    """x in tiles; out [L, W]."""
    W, S = threshold.size // 64, L | 1
    for i in range(L):
        for w in range(W):
            word = uint64(0)
            for part in range(4):
                t = 4 * w + part
                signs = mask_bits(load_f16(x, (t * S + i) * TILE) < load_f16(threshold, t * TILE))
                word |= signs << uint64(16 * part)
            out[i * W + w] = word


def product_reference(words: np.ndarray, layer: Linear) -> np.ndarray:
    """words [L, W] -> alpha * (signs . sign(W)) + bias, [L, n] float32 (eq. 6)."""
    return bits.dot(words, rearrange(layer.words)).astype(np.float32) * layer.alpha + layer.bias


@compiled
def product_by_counting(words: np.ndarray, L: int, layer: Linear, out: np.ndarray) -> None:
    """words [L, W]; out in tiles. Counts of 2 rows by 16 outputs stay in registers; the weights of 16 outputs come into
    the first cache once for all rows."""
    W, S = layer.words.shape[1], L | 1
    for t in range(layer.words.shape[0]):
        i = 0
        while i + 2 <= L:
            a0 = a1 = b0 = b1 = splat_u8(0)
            for w in range(W):
                a, b = load_u8(layer.words, (t * W + w) * TILE), load_u8(layer.words, (t * W + w) * TILE + 8)
                x = spread_u8(words, i * W + w)
                a0, b0 = a0 + popcount(a ^ x), b0 + popcount(b ^ x)
                x = spread_u8(words, (i + 1) * W + w)
                a1, b1 = a1 + popcount(a ^ x), b1 + popcount(b ^ x)
            _scale(to_real(a0, b0), layer, t, out, (t * S + i) * TILE)
            _scale(to_real(a1, b1), layer, t, out, (t * S + i + 1) * TILE)
            i += 2
        while i < L:
            a0 = b0 = splat_u8(0)
            for w in range(W):
                x = spread_u8(words, i * W + w)
                a0 = a0 + popcount(load_u8(layer.words, (t * W + w) * TILE) ^ x)
                b0 = b0 + popcount(load_u8(layer.words, (t * W + w) * TILE + 8) ^ x)
            _scale(to_real(a0, b0), layer, t, out, (t * S + i) * TILE)
            i += 1


@compiled
def product_by_table(words: np.ndarray, L: int, layer: Linear, out: np.ndarray) -> None:
    """The same with `bits.tile_octets`. The four signs of an input say which table of 16 counts applies, those of 32
    outputs which counts are taken from it: two instructions for 128 signs. Counts of 4 rows by 64 outputs stay in
    registers, as bytes, for as many octets as a byte can count."""
    octets, S = 8 * layer.words.shape[1], L | 1
    for t in range(0, layer.words.shape[0], 4):
        weights = t * octets * 2  # words before these 64 outputs, 8 for each octet
        i = 0
        while i + 4 <= L:
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = splat_h32(0)
            x0, x1, x2, x3 = i * octets, (i + 1) * octets, (i + 2) * octets, (i + 3) * octets
            for start in range(0, octets, MOST_OCTETS):
                c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = splat_o32(0)
                for o in range(start, min(start + MOST_OCTETS, octets)):
                    c, d = load_o32(layer.words, weights + 8 * o), load_o32(layer.words, weights + 8 * o + 4)
                    c_low, c_high, d_low, d_high = low_nibbles(c), high_nibbles(c), low_nibbles(d), high_nibbles(d)
                    c0, d0 = _differing(c0, d0, words, x0 + o, c_low, c_high, d_low, d_high)
                    c1, d1 = _differing(c1, d1, words, x1 + o, c_low, c_high, d_low, d_high)
                    c2, d2 = _differing(c2, d2, words, x2 + o, c_low, c_high, d_low, d_high)
                    c3, d3 = _differing(c3, d3, words, x3 + o, c_low, c_high, d_low, d_high)
                a0, a1, a2, a3 = a0 + widen(c0), a1 + widen(c1), a2 + widen(c2), a3 + widen(c3)
                b0, b1, b2, b3 = b0 + widen(d0), b1 + widen(d1), b2 + widen(d2), b3 + widen(d3)
            _scale_64(a0, b0, layer, t, out, i, S)
            _scale_64(a1, b1, layer, t, out, i + 1, S)
            _scale_64(a2, b2, layer, t, out, i + 2, S)
            _scale_64(a3, b3, layer, t, out, i + 3, S)
            i += 4
        while i < L:
            a0 = b0 = splat_h32(0)
            for start in range(0, octets, MOST_OCTETS):
                c0 = d0 = splat_o32(0)
                for o in range(start, min(start + MOST_OCTETS, octets)):
                    c, d = load_o32(layer.words, weights + 8 * o), load_o32(layer.words, weights + 8 * o + 4)
                    c_low, c_high, d_low, d_high = low_nibbles(c), high_nibbles(c), low_nibbles(d), high_nibbles(d)
                    c0, d0 = _differing(c0, d0, words, i * octets + o, c_low, c_high, d_low, d_high)
                a0, b0 = a0 + widen(c0), b0 + widen(d0)
            _scale_64(a0, b0, layer, t, out, i, S)
            i += 1


@compiled
def _differing(
    c: Any, d: Any, words: np.ndarray, octet: int, c_low: Any, c_high: Any, d_low: Any, d_high: Any
) -> tuple[Any, Any]:
    """Counts of 32 outputs twice (bytes), more by the signs in which this octet of `words` differs from theirs."""
    low, high = low_counts(words, octet), high_counts(words, octet)
    return c + look_up(low, c_low) + look_up(high, c_high), d + look_up(low, d_low) + look_up(high, d_high)


@compiled
def _scale_64(a: Any, b: Any, layer: Linear, t: int, out: np.ndarray, i: int, S: int) -> None:
    """`_scale` of the 64 outputs from tile t on, of row i."""
    _scale(first_reals(a), layer, t, out, (t * S + i) * TILE)
    _scale(last_reals(a), layer, t + 1, out, ((t + 1) * S + i) * TILE)
    _scale(first_reals(b), layer, t + 2, out, ((t + 2) * S + i) * TILE)
    _scale(last_reals(b), layer, t + 3, out, ((t + 3) * S + i) * TILE)


@compiled
def _scale(differ: Any, layer: Linear, t: int, out: np.ndarray, place: int) -> None:
    """Differing signs of 16 outputs -> alpha * (k - 2 differ) + bias, rounded twice like the meaning."""
    dot = splat_f16(layer.threshold.size) - (differ + differ)
    store(out, place, dot * load_f16(layer.alpha, t * TILE) + load_f16(layer.bias, t * TILE))


product = product_by_table if target.LOOK_UP else product_by_counting
arrange, rearrange = (bits.tile_octets, bits.untile_octets) if target.LOOK_UP else (bits.tile, bits.untile)
"""Packed weights [W, n] -> a layer's words, as `product` reads them; and back."""


def linear_reference(x: np.ndarray, layer: Linear) -> np.ndarray:
    """BL(x) = alpha * (sign(x + beta) . sign(W)) + b (eq. 6): [L, k] -> [L, n] float32."""
    return product_reference(pack_reference(x, layer.threshold), layer)


@compiled
def linear(x: np.ndarray, L: int, layer: Linear, words: np.ndarray, out: np.ndarray) -> None:
    pack(x, L, layer.threshold, words)
    product(words, L, layer, out)


# ---------------------------------------------------------------- functions of one number


@compiled
def _exp(x: Any) -> Any:
    """exp for x <= 0, float32: x = n ln 2 + r, a polynomial in r, n into the exponent's bits (Cody and Waite)."""
    x = where(x < splat_f16(-87.0), splat_f16(-87.0), x)
    n = floor(fma(x, splat_f16(1.44269504), splat_f16(0.5)))
    r = fma(n, splat_f16(2.12194440e-4), fma(n, splat_f16(-0.693359375), x))
    p = fma(splat_f16(1.9875691500e-4), r, splat_f16(1.3981999507e-3))
    p = fma(p, r, splat_f16(8.3334519073e-3))
    p = fma(p, r, splat_f16(4.1665795894e-2))
    p = fma(p, r, splat_f16(1.6666665459e-1))
    p = fma(p, r, splat_f16(5.0000001201e-1))
    return fma(p, r * r, r + splat_f16(1.0)) * power_of_two(n)


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


@compiled
def attend(qkv: np.ndarray, L: int, D: int, n_head: int, keys: np.ndarray, scores: np.ndarray, out: np.ndarray) -> None:
    """Four queries at a time, 16 keys or 16 columns of v in a register; the last four overlap where L isn't 4 m."""
    width, padded, S = D // n_head, -(-L // TILE) * TILE, L | 1
    scale = splat_f16(1.0 / math.sqrt(width))
    for t in range(D // TILE):  # keys [padded/16, D, 16]: a register holds the same column of 16 of them
        for j in range(0, padded, TILE):
            transpose_f16(qkv, ((D // TILE + t) * S + j) * TILE, TILE, keys, j * D + t * TILE * TILE, TILE)
    for head in range(n_head):
        lo, hi = head * width, (head + 1) * width
        for i in range(0, L, 4):
            r0, r1, r2, r3 = i * TILE, min(i + 1, L - 1) * TILE, min(i + 2, L - 1) * TILE, min(i + 3, L - 1) * TILE
            for j in range(0, padded, TILE):
                s0 = s1 = s2 = s3 = splat_f16(0.0)
                for d in range(lo, hi):
                    key, q = load_f16(keys, j * D + d * TILE), (d // TILE) * S * TILE + d % TILE
                    s0 = fma(key, spread_f16(qkv, q + r0), s0)
                    s1 = fma(key, spread_f16(qkv, q + r1), s1)
                    s2 = fma(key, spread_f16(qkv, q + r2), s2)
                    s3 = fma(key, spread_f16(qkv, q + r3), s3)
                store(scores, j, s0 * scale)
                store(scores, padded + j, s1 * scale)
                store(scores, 2 * padded + j, s2 * scale)
                store(scores, 3 * padded + j, s3 * scale)
            t0 = splat_f16(_softmax(scores, 0, L, padded))
            t1 = splat_f16(_softmax(scores, padded, L, padded))
            t2 = splat_f16(_softmax(scores, 2 * padded, L, padded))
            t3 = splat_f16(_softmax(scores, 3 * padded, L, padded))
            for t in range(lo // TILE, (hi + TILE - 1) // TILE):
                v, to = (2 * D // TILE + t) * S * TILE, t * S * TILE
                m0 = m1 = m2 = m3 = splat_f16(0.0)
                for j in range(L):
                    value = load_f16(qkv, v + j * TILE)
                    m0 = fma(value, spread_f16(scores, j), m0)
                    m1 = fma(value, spread_f16(scores, padded + j), m1)
                    m2 = fma(value, spread_f16(scores, 2 * padded + j), m2)
                    m3 = fma(value, spread_f16(scores, 3 * padded + j), m3)
                mine = lanes_between(lo - t * TILE, hi - t * TILE)  # of narrow heads, several share a tile
                store(out, to + r0, where(mine, m0 * t0, load_f16(out, to + r0)))
                store(out, to + r1, where(mine, m1 * t1, load_f16(out, to + r1)))
                store(out, to + r2, where(mine, m2 * t2, load_f16(out, to + r2)))
                store(out, to + r3, where(mine, m3 * t3, load_f16(out, to + r3)))


@compiled
def _softmax(scores: np.ndarray, start: int, L: int, padded: int) -> float:
    """Scores of L keys -> their exp after subtracting the largest, in place; returns 1 / sum."""
    for j in range(start + L, start + padded):
        scores[j] = float32(-np.inf)
    top = load_f16(scores, start)
    for j in range(start + TILE, start + padded, TILE):
        v = load_f16(scores, j)
        top = where(top < v, v, top)
    shift = splat_f16(largest(top))
    sums = splat_f16(0.0)
    for j in range(start, start + padded, TILE):
        v = _exp(load_f16(scores, j) - shift)
        store(scores, j, v)
        sums = sums + v  # the padding adds exp(-87), nothing beside the 1 that is among the rest
    return float32(1.0) / total(sums)


def add_norm_reference(a: np.ndarray, b: np.ndarray, norm: Norm) -> np.ndarray:
    """Layer norm of a + b: [L, D] twice -> [L, D] float32, epsilon 1e-5 as in torch."""
    y = a + b
    centred = y - y.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(1e-5)) * norm.weight + norm.bias


@compiled
def add_norm(a: np.ndarray, b: np.ndarray, L: int, norm: Norm, out: np.ndarray) -> None:
    """Tiles in, tiles out. 64 partial sums, which is what D is a multiple of. `out` may be a or b."""
    D, S = norm.weight.size, L | 1
    step = S * TILE
    for i in range(L):
        s0 = s1 = s2 = s3 = splat_f16(0.0)
        for t in range(0, D // TILE, 4):
            p0 = (t * S + i) * TILE
            p1, p2, p3 = p0 + step, p0 + 2 * step, p0 + 3 * step
            y0, y1 = load_f16(a, p0) + load_f16(b, p0), load_f16(a, p1) + load_f16(b, p1)
            y2, y3 = load_f16(a, p2) + load_f16(b, p2), load_f16(a, p3) + load_f16(b, p3)
            s0, s1, s2, s3 = s0 + y0, s1 + y1, s2 + y2, s3 + y3
            store(out, p0, y0)
            store(out, p1, y1)
            store(out, p2, y2)
            store(out, p3, y3)
        mean = splat_f16(total((s0 + s1) + (s2 + s3)) / float32(D))
        s0 = s1 = s2 = s3 = splat_f16(0.0)
        for t in range(0, D // TILE, 4):
            p0 = (t * S + i) * TILE
            y0, y1 = load_f16(out, p0) - mean, load_f16(out, p0 + step) - mean
            y2, y3 = load_f16(out, p0 + 2 * step) - mean, load_f16(out, p0 + 3 * step) - mean
            s0, s1, s2, s3 = fma(y0, y0, s0), fma(y1, y1, s1), fma(y2, y2, s2), fma(y3, y3, s3)
        variance = total((s0 + s1) + (s2 + s3)) / float32(D)
        scale = splat_f16(float32(1.0) / np.sqrt(variance + float32(1e-5)))
        for t in range(D // TILE):
            place = (t * S + i) * TILE
            y = (load_f16(out, place) - mean) * scale
            store(out, place, fma(y, load_f16(norm.weight, t * TILE), load_f16(norm.bias, t * TILE)))


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
def select(
    carry: np.ndarray, L: int, D: int, gates_x: np.ndarray, gates_h: np.ndarray, kept: np.ndarray, new: np.ndarray
) -> None:
    """carry is x or h. `kept` and `new` may be it."""
    n, one, two, half = (L | 1) * D, splat_f16(1.0), splat_f16(2.0), splat_f16(0.5)
    for p in range(0, n, TILE):
        sh = half * (_tanh(half * load_f16(gates_h, p)) + one)
        sg = half * (_tanh(half * (load_f16(gates_x, p) + load_f16(gates_h, n + p))) + one)
        tg = _tanh(load_f16(gates_x, n + p) + load_f16(gates_h, 2 * n + p))
        carried = load_f16(carry, p)
        store(kept, p, sh * (two - sh) * carried)
        store(new, p, sg * (two - sg) * (tg * (two - absolute(tg))))


# ---------------------------------------------------------------- a block, an exit, a row


def block_reference(h: np.ndarray, layers: Block, n_head: int, carry_x: bool) -> np.ndarray:
    """f_c of eq. 5 on one row: h_{c-1} [L, D] -> h_c [L, D] float32."""
    mixed = linear_reference(attend_reference(linear_reference(h, layers.qkv), n_head), layers.o)
    x = add_norm_reference(h, mixed, layers.norm_x)
    kept, new = select_reference(
        x, h, linear_reference(x, layers.gates_x), linear_reference(h, layers.gates_h), carry_x
    )
    return add_norm_reference(kept, new, layers.norm_h)


@compiled
def block(h: np.ndarray, L: int, layers: Block, n_head: int, carry_x: bool, work: Workspace) -> None:
    """In place: h holds L D numbers."""
    D = layers.norm_x.weight.size
    linear(h, L, layers.qkv, work.words, work.wide)
    attend(work.wide, L, D, n_head, work.keys, work.scores, work.mixed)
    linear(work.mixed, L, layers.o, work.words, work.x)
    add_norm(h, work.x, L, layers.norm_x, work.x)
    linear(h, L, layers.gates_h, work.words, work.wide)
    linear(work.x, L, layers.gates_x, work.words, work.gates)
    select(work.x if carry_x else h, L, D, work.gates, work.wide, work.mixed, work.x)
    add_norm(work.mixed, work.x, L, layers.norm_h, h)


def head_reference(h: np.ndarray, layers: Head) -> np.ndarray:
    """Phi_c of eq. 14 on one row: h_c [L, D] -> logits float32, [m] padded with zeros to a multiple of 64; of a linear
    head of 16. A binary head's hidden layer has k = T D inputs: the mean, once for each of T thresholds."""
    pooled = h.mean(0, keepdims=True)
    if layers.linear.scale.size:
        return linear_head_reference(pooled[0], layers.linear)
    T = layers.hidden.threshold.size // h.shape[1]
    return linear_reference(linear_reference(np.tile(pooled, T), layers.hidden).clip(-1, 1), layers.out)[0]


@compiled
def head(h: np.ndarray, L: int, D: int, layers: Head, work: Workspace, out: np.ndarray) -> None:
    pooled = work.x
    for d in range(0, D, TILE):
        s = splat_f16(0.0)
        for i in range(L):
            s = s + load_f16(h, d * (L | 1) + i * TILE)
        store(pooled, d, s / splat_f16(L))
    if layers.linear.scale.size:
        linear_head(pooled, D, layers.linear, out)
    else:
        _binary_head(pooled, D, layers, work, out)


@compiled
def _binary_head(pooled: np.ndarray, D: int, layers: Head, work: Workspace, out: np.ndarray) -> None:
    """pooled [D] in work.x, which has room for it once for each threshold."""
    wide, d_head, one = layers.hidden.threshold.size, layers.out.threshold.size, splat_f16(1.0)
    hidden = work.hidden
    for place in range(D, wide, TILE):
        store(pooled, place, load_f16(pooled, place - D))
    linear(pooled, 1, layers.hidden, work.words, hidden)
    for d in range(0, d_head, TILE):
        v = load_f16(hidden, d)
        v = where(v < splat_f16(-1.0), splat_f16(-1.0), v)
        store(hidden, d, where(one < v, one, v))
    linear(hidden, 1, layers.out, work.words, out)


def linear_head_reference(pooled: np.ndarray, layer: LinearHead) -> np.ndarray:
    """pooled [D] -> scale * (W pooled) + bias, [m'] float32."""
    weight = layer.weight.transpose(0, 2, 1).reshape(-1, pooled.size).astype(np.float32)
    return weight @ pooled * layer.scale + layer.bias


@compiled
def linear_head(pooled: np.ndarray, D: int, layer: LinearHead, out: np.ndarray) -> None:
    """16 outputs at a time, each with four partial sums over every fourth input: one order on every machine."""
    for t in range(layer.weight.shape[0]):
        s0 = s1 = s2 = s3 = splat_f16(0.0)
        for d in range(0, D, 4):
            place = (t * D + d) * TILE
            s0 = fma(load_i8(layer.weight, place), spread_f16(pooled, d), s0)
            s1 = fma(load_i8(layer.weight, place + TILE), spread_f16(pooled, d + 1), s1)
            s2 = fma(load_i8(layer.weight, place + 2 * TILE), spread_f16(pooled, d + 2), s2)
            s3 = fma(load_i8(layer.weight, place + 3 * TILE), spread_f16(pooled, d + 3), s3)
        sums = (s0 + s1) + (s2 + s3)
        store(out, t * TILE, fma(sums, load_f16(layer.scale, t * TILE), load_f16(layer.bias, t * TILE)))


@compiled
def embed(ids: np.ndarray, embedding: Embedding, out: np.ndarray) -> None:
    """`embedding.embed` of a text's tokens: their learned halves beside their positions (eq. 2); out in tiles."""
    L, half = ids.size, embedding.positions.shape[1]
    packed = embedding.rows.shape[1] < half
    fours = half // 3 // 4 * 4  # `embedding.fours`
    for i in range(L):
        row = embedding.rows[ids[i]]
        for d in range(half):
            if not packed:
                value = float32(row[d]) * embedding.scale[ids[i]]
            elif d < fours:
                value = (float32(_code(row, 4 * d, 15)) - float32(7.5)) * embedding.scale[d]
            else:
                value = (float32(_code(row, 2 * (fours + d), 3)) - float32(1.5)) * embedding.scale[d]
            out[_place(d, i, L)] = value
            out[_place(half + d, i, L)] = embedding.positions[i, d]
    if embedding.exact_match.shape[0]:
        _add_token_types(ids, embedding.exact_match, out)


@compiled
def _add_token_types(ids: np.ndarray, exact_match: np.ndarray, out: np.ndarray) -> None:
    """Add to each token of a pair what was learned of its type (`embedding.token_types`); out in tiles. Every token is
    compared with the other text's: as long as a thirtieth of a block, from 25 tokens to 128."""
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
        for d in range(exact_match.shape[1]):
            out[_place(d, i, L)] += exact_match[kind, d]


@compiled
def _code(row: np.ndarray, bit: int, mask: int) -> int:
    """The code that begins at this bit of a packed row; the mask takes away what the sign of an int8 shifts in."""
    return (row[bit // 8] >> (bit % 8)) & mask


@compiled
def _place(d: int, i: int, L: int) -> int:
    return (d // TILE * (L | 1) + i) * TILE + d % TILE


@compiled
def softmax(logits: np.ndarray, out: np.ndarray) -> float:
    """`exits.softmax` of one exit's logits [m] float32 into out [m], and `exits.entropy` of them in nats, float64."""
    top = np.float64(logits.max())
    total_ = 0.0
    for j in range(out.size):
        out[j] = math.exp(logits[j] - top)
        total_ += out[j]
    mean = 0.0
    for j in range(out.size):
        mean += (logits[j] - top) * out[j]
    for j in range(out.size):
        out[j] /= total_
    return max(math.log(total_) - mean / total_, 0.0)


def flat(network: Network) -> tuple[np.ndarray, ...]:
    """The arrays of a network in a row, as `early_exit_forward` takes them: numba needs microseconds to look
    into nested tuples."""

    def arrays(part: Any) -> list[np.ndarray]:
        return [part] if isinstance(part, np.ndarray) else [array for inner in part for array in arrays(inner)]

    return tuple(arrays(network))


@compiled
def _network_of(p: Any) -> Network:
    return Network(
        Embedding(p[0], p[1], p[2], p[3]),
        Block(
            Linear(p[4], p[5], p[6], p[7]),
            Linear(p[8], p[9], p[10], p[11]),
            Linear(p[12], p[13], p[14], p[15]),
            Linear(p[16], p[17], p[18], p[19]),
            Norm(p[20], p[21]),
            Norm(p[22], p[23]),
        ),
        Head(
            Linear(p[24], p[25], p[26], p[27]),
            Linear(p[28], p[29], p[30], p[31]),
            LinearHead(p[32], p[33], p[34]),
        ),
    )


@compiled
def _linear_of(stack: Linear, c: int) -> Linear:
    return Linear(stack.words[c], stack.alpha[c], stack.bias[c], stack.threshold[c])


@compiled
def _norm_of(stack: Norm, c: int) -> Norm:
    return Norm(stack.weight[c], stack.bias[c])


@compiled
def block_of(stack: Block, c: int) -> Block:
    """Block c (from 0) of a network."""
    return Block(
        _linear_of(stack.qkv, c),
        _linear_of(stack.o, c),
        _linear_of(stack.gates_h, c),
        _linear_of(stack.gates_x, c),
        _norm_of(stack.norm_x, c),
        _norm_of(stack.norm_h, c),
    )


@compiled
def head_of(stack: Head, e: int) -> Head:
    """Head e (from 0) of a network."""
    linear = LinearHead(stack.linear.weight[e], stack.linear.scale[e], stack.linear.bias[e])
    return Head(_linear_of(stack.hidden, e), _linear_of(stack.out, e), linear)


@compiled
def early_exit_forward(
    ids: np.ndarray,
    delta: float,
    entropy_threshold: float,
    min_blocks: int,
    max_blocks: int,
    n_head: int,
    carry_x: bool,
    arrays: tuple[np.ndarray, ...],
    work: Workspace,
    logits: np.ndarray,
    scores: np.ndarray,
    entropies: np.ndarray,
    done: np.ndarray,
    slices: int,
) -> int:
    """Alg. 2 on one row: token ids [L] int32 and `flat(network)` -> the block it leaves after, from 1; or 0 where
    `slices`, so many blocks at most, ended first. `done` [1] int64 is 0 for a new row; called again with the same
    arrays, the row goes on where it stopped.

    Exit e (from 0) on the way leaves its logits in logits[e] (float32, padded to a multiple of 64) and its entropy in
    entropies[e] (nats, float64); scores [m] float64 is the softmax of the last one.
    """
    network = _network_of(arrays)
    L, C, E = ids.size, network.blocks.norm_x.weight.shape[0], entropies.size
    D = network.blocks.norm_x.weight.shape[1]
    if done[0] == 0:
        embed(ids, network.embedding, work.h)
    most = math.log(scores.size)
    for c in range(done[0] + 1, min(C, done[0] + slices) + 1):
        block(work.h, L, block_of(network.blocks, c - 1), n_head, carry_x, work)
        done[0] = c
        e = c - 1 - (C - E)  # without early exit, the only head is the last block's
        if e < 0:
            continue
        head(work.h, L, D, head_of(network.heads, e), work, logits[e])
        entropies[e] = softmax(logits[e, : scores.size], scores)
        previous = entropies[e - 1] if e else most
        if c >= max_blocks or (
            c >= min_blocks and exits.should_exit(previous, entropies[e], delta, entropy_threshold * most)
        ):
            return c
    return C if done[0] == C else 0
