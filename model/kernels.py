"""
The arithmetic of the engine, compiled by numba. Beside each kernel stands its plain numpy meaning, `<name>_numpy`.

- integers agree exactly with their meaning; floats agree to a few units in the last place
- a row's numbers depend on that row alone: no kernel mixes rows, and every sum runs over a length that is the row's
- kernels hold no GIL and allocate nothing: outputs and scratch are arguments, nothing lives in globals

Shapes: L tokens of one row, D = d_model, H heads, k inputs and n outputs of a binarized layer, W = k/64 words.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import float32, int32, njit, types, uint64
from numba.extending import intrinsic

from model import bits

SUMS = {"reassoc", "nsz"}  # sums may be split into vector lanes; nan, inf and division stay IEEE


class Linear(NamedTuple):
    """A BinaryLinear, packed: words [W, n] uint64, alpha [n], bias [n], threshold [k] float32 (-beta)."""

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


class Head(NamedTuple):
    """Everything one exit has learned."""

    hidden: Linear
    out: Linear


class Workspace(NamedTuple):
    """Scratch of one thread, for rows of up to L tokens; see `workspace`."""

    words: np.ndarray
    wide: np.ndarray
    gates: np.ndarray
    mixed: np.ndarray
    x: np.ndarray
    scores: np.ndarray
    counts: np.ndarray
    pooled: np.ndarray
    hidden: np.ndarray


def workspace(max_tokens: int, d_model: int, d_head: int) -> Workspace:
    """Scratch for `block` and `head` (float32 but for packed words and counts)."""
    L, D = max_tokens, d_model
    real = np.float32
    return Workspace(
        words=np.empty((L, max(D, d_head) // 64), np.uint64),
        wide=np.empty((L, 3 * D), real),
        gates=np.empty((L, 2 * D), real),
        mixed=np.empty((L, D), real),
        x=np.empty((L, D), real),
        scores=np.empty(L, real),
        counts=np.empty(max(3 * D, d_head), np.int64),
        pooled=np.empty((1, D), real),
        hidden=np.empty((1, d_head), real),
    )


@intrinsic
def _popcount(typingctx: Any, word: Any) -> Any:
    """Set bits of a uint64; LLVM emits POPCNT, VPOPCNTQ or a table look-up, whatever the machine has."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.uint64), codegen


@intrinsic
def _as_float(typingctx: Any, word: Any) -> Any:
    """The float32 whose bits are those of an int32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float32))

    return types.float32(types.int32), codegen


# ---------------------------------------------------------------- signs and products


def pack_numpy(x: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """x [L, k], threshold [k] -> words [L, W] of the signs of x - threshold."""
    return bits.pack(np.where(x < threshold, -1.0, 1.0))


@njit(nogil=True, cache=True)
def pack(x: np.ndarray, threshold: np.ndarray, out: np.ndarray) -> None:
    for i in range(x.shape[0]):
        for w in range(x.shape[1] // 64):
            word = uint64(0)
            for j in range(64):
                word |= uint64(x[i, 64 * w + j] < threshold[64 * w + j]) << uint64(j)
            out[i, w] = word


def product_numpy(words: np.ndarray, weights: np.ndarray, alpha: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """words [L, W], weights [W, n] -> alpha * dot + bias, [L, n] float32 (eq. 6)."""
    return bits.dot(words, weights).astype(np.float32) * alpha + bias


@njit(nogil=True, cache=True)
def product(
    words: np.ndarray, weights: np.ndarray, alpha: np.ndarray, bias: np.ndarray, counts: np.ndarray, out: np.ndarray
) -> None:
    W, n = weights.shape
    for i in range(words.shape[0]):
        for j in range(n):
            counts[j] = 0
        w = 0
        while w + 4 <= W:  # four words a pass: the counts are loaded and stored a quarter as often
            a0, a1, a2, a3 = words[i, w], words[i, w + 1], words[i, w + 2], words[i, w + 3]
            for j in range(n):
                counts[j] += (
                    _popcount(a0 ^ weights[w, j])
                    + _popcount(a1 ^ weights[w + 1, j])
                    + _popcount(a2 ^ weights[w + 2, j])
                    + _popcount(a3 ^ weights[w + 3, j])
                )
            w += 4
        while w < W:
            a0 = words[i, w]
            for j in range(n):
                counts[j] += _popcount(a0 ^ weights[w, j])
            w += 1
        for j in range(n):
            out[i, j] = float32(64 * W - 2 * counts[j]) * alpha[j] + bias[j]


def linear_numpy(x: np.ndarray, layer: Linear) -> np.ndarray:
    """BL(x) = alpha * (sign(x + beta) . sign(W)) + b (eq. 6): [L, k] -> [L, n] float32."""
    return product_numpy(pack_numpy(x, layer.threshold), layer.words, layer.alpha, layer.bias)


@njit(nogil=True, cache=True)
def linear(x: np.ndarray, layer: Linear, words: np.ndarray, counts: np.ndarray, out: np.ndarray) -> None:
    used = words[: x.shape[0], : x.shape[1] // 64]
    pack(x, layer.threshold, used)
    product(used, layer.words, layer.alpha, layer.bias, counts, out)


# ---------------------------------------------------------------- functions of one number


@njit(nogil=True, cache=True, inline="always")
def _exp(x: float) -> float:
    """exp for x <= 0, float32: x = n ln 2 + r, a polynomial in r, n into the exponent's bits (Cody and Waite)."""
    x = max(x, float32(-87.0))
    n = np.floor(x * float32(1.44269504) + float32(0.5))
    r = x - n * float32(0.693359375) - n * float32(-2.12194440e-4)
    p = float32(1.9875691500e-4)
    p = p * r + float32(1.3981999507e-3)
    p = p * r + float32(8.3334519073e-3)
    p = p * r + float32(4.1665795894e-2)
    p = p * r + float32(1.6666665459e-1)
    p = p * r + float32(5.0000001201e-1)
    p = p * r * r + r + float32(1.0)
    return p * _as_float(int32((int32(n) + 127) << 23))


@njit(nogil=True, cache=True, inline="always")
def _tanh(x: float) -> float:
    """tanh, float32: the clamped rational function of Eigen's ptanh, which vectorizes where libm's doesn't."""
    x = min(max(x, float32(-7.90531110763549805)), float32(7.90531110763549805))
    y = x * x
    p = float32(-2.76076847742355e-16)
    p = p * y + float32(2.00018790482477e-13)
    p = p * y + float32(-8.60467152213735e-11)
    p = p * y + float32(5.12229709037114e-08)
    p = p * y + float32(1.48572235717979e-05)
    p = p * y + float32(6.37261928875436e-04)
    p = p * y + float32(4.89352455891786e-03)
    q = float32(1.19825839466702e-06)
    q = q * y + float32(1.18534705686654e-04)
    q = q * y + float32(2.26843463243900e-03)
    q = q * y + float32(4.89352518554385e-03)
    return x * p / q


# ---------------------------------------------------------------- real-valued parts of a block


def attend_numpy(qkv: np.ndarray, n_head: int) -> np.ndarray:
    """q, k and v side by side [L, 3 D] -> softmax(q k' / sqrt(D/H)) v of every head, [L, D] float32 (eq. 15)."""
    L, D = qkv.shape[0], qkv.shape[1] // 3
    q, k, v = qkv.reshape(L, 3, n_head, D // n_head).transpose(1, 2, 0, 3)
    scores = q @ k.transpose(0, 2, 1) / np.float32(np.sqrt(D // n_head))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    heads = weights @ v / weights.sum(-1)[..., None]
    return heads.transpose(1, 0, 2).reshape(L, D)


@njit(nogil=True, cache=True, fastmath=SUMS)
def attend(qkv: np.ndarray, n_head: int, scores: np.ndarray, out: np.ndarray) -> None:
    L, D = qkv.shape[0], qkv.shape[1] // 3
    width = D // n_head
    scale = float32(1.0 / np.sqrt(width))
    for head in range(n_head):
        lo, hi = head * width, (head + 1) * width
        for i in range(L):
            q = qkv[i, lo:hi]
            top = float32(-np.inf)
            for j in range(L):
                k = qkv[j, D + lo : D + hi]
                s = float32(0.0)
                for d in range(width):
                    s += q[d] * k[d]
                scores[j] = s * scale
                top = max(top, scores[j])
            for j in range(L):
                scores[j] = _exp(scores[j] - top)
            total = float32(0.0)
            for j in range(L):
                total += scores[j]
            mixed = out[i, lo:hi]
            for d in range(width):
                mixed[d] = float32(0.0)
            for j in range(L):
                weight = scores[j] / total
                v = qkv[j, 2 * D + lo : 2 * D + hi]
                for d in range(width):
                    mixed[d] += weight * v[d]


def add_norm_numpy(a: np.ndarray, b: np.ndarray, norm: Norm) -> np.ndarray:
    """Layer norm of a + b: [L, D] twice -> [L, D] float32, epsilon 1e-5 as in torch."""
    y = a + b
    centred = y - y.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(1e-5)) * norm.weight + norm.bias


@njit(nogil=True, cache=True, fastmath=SUMS)
def add_norm(a: np.ndarray, b: np.ndarray, norm: Norm, out: np.ndarray) -> None:
    L, D = a.shape
    for i in range(L):
        total = float32(0.0)
        for d in range(D):
            out[i, d] = a[i, d] + b[i, d]
            total += out[i, d]
        mean = total / float32(D)
        square = float32(0.0)
        for d in range(D):
            square += (out[i, d] - mean) * (out[i, d] - mean)
        scale = float32(1.0) / np.sqrt(square / float32(D) + float32(1e-5))
        for d in range(D):
            out[i, d] = (out[i, d] - mean) * scale * norm.weight[d] + norm.bias[d]


def select_numpy(x: np.ndarray, h: np.ndarray, gates_x: np.ndarray, gates_h: np.ndarray, carry_x: bool) -> np.ndarray:
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


@njit(nogil=True, cache=True)
def select(
    x: np.ndarray,
    h: np.ndarray,
    gates_x: np.ndarray,
    gates_h: np.ndarray,
    carry_x: bool,
    kept: np.ndarray,
    new: np.ndarray,
) -> None:
    L, D = x.shape
    one, two, half = float32(1.0), float32(2.0), float32(0.5)
    for i in range(L):
        carry = x[i] if carry_x else h[i]
        for d in range(D):
            sh = half * (_tanh(half * gates_h[i, d]) + one)
            sg = half * (_tanh(half * (gates_x[i, d] + gates_h[i, D + d])) + one)
            tg = _tanh(gates_x[i, D + d] + gates_h[i, 2 * D + d])
            kept[i, d] = sh * (two - sh) * carry[d]
            new[i, d] = sg * (two - sg) * (tg * (two - abs(tg)))


# ---------------------------------------------------------------- a block, an exit


def block_numpy(h: np.ndarray, layers: Block, n_head: int, carry_x: bool) -> np.ndarray:
    """f_c of eq. 5 on one row: h_{c-1} [L, D] -> h_c [L, D] float32."""
    mixed = linear_numpy(attend_numpy(linear_numpy(h, layers.qkv), n_head), layers.o)
    x = add_norm_numpy(h, mixed, layers.norm_x)
    kept, new = select_numpy(x, h, linear_numpy(x, layers.gates_x), linear_numpy(h, layers.gates_h), carry_x)
    return add_norm_numpy(kept, new, layers.norm_h)


@njit(nogil=True, cache=True)
def block(
    h: np.ndarray, starts: np.ndarray, stops: np.ndarray, layers: Block, n_head: int, carry_x: bool, work: Workspace
) -> None:
    """f_c on every row that is still in, in place: h [T, D] holds the rows, row r in starts[r]:stops[r]."""
    for r in range(starts.shape[0]):
        row = h[starts[r] : stops[r]]
        L = row.shape[0]
        wide, gates, mixed, x = work.wide[:L], work.gates[:L], work.mixed[:L], work.x[:L]
        linear(row, layers.qkv, work.words, work.counts, wide)
        attend(wide, n_head, work.scores, mixed)
        linear(mixed, layers.o, work.words, work.counts, x)
        add_norm(row, x, layers.norm_x, x)
        linear(row, layers.gates_h, work.words, work.counts, wide)
        linear(x, layers.gates_x, work.words, work.counts, gates)
        select(x, row, gates, wide, carry_x, mixed, x)
        add_norm(mixed, x, layers.norm_h, row)


def head_numpy(h: np.ndarray, layers: Head) -> np.ndarray:
    """Phi_c of eq. 14 on one row: h_c [L, D] -> logits [m] float32."""
    pooled = h.mean(0, keepdims=True)
    return linear_numpy(linear_numpy(pooled, layers.hidden).clip(-1, 1), layers.out)[0]


@njit(nogil=True, cache=True)
def head(h: np.ndarray, starts: np.ndarray, stops: np.ndarray, layers: Head, work: Workspace, out: np.ndarray) -> None:
    """Phi_c on every row that is still in: h [T, D] -> out [rows, m]."""
    pooled, hidden = work.pooled, work.hidden
    for r in range(starts.shape[0]):
        pooled[:] = float32(0.0)
        for i in range(starts[r], stops[r]):
            for d in range(h.shape[1]):
                pooled[0, d] += h[i, d]
        for d in range(h.shape[1]):
            pooled[0, d] /= float32(stops[r] - starts[r])
        linear(pooled, layers.hidden, work.words, work.counts, hidden)
        for d in range(hidden.shape[1]):
            hidden[0, d] = min(max(hidden[0, d], float32(-1.0)), float32(1.0))
        linear(hidden, layers.out, work.words, work.counts, out[r : r + 1])
