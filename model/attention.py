"""
Attention on integers of 8 bits (`attention = "int8"`): what it computes, in numpy. The kernels compute the same
numbers, to the bit, on every CPU: integers are exact, and real numbers have one order.

- a query is scaled so that its largest axis is nearly QUERY, and rounded; keys likewise, to KEY, by the largest of all
  keys of the text in that head
- keys are taken TOGETHER at a time. Shares of a softmax among them are whole numbers, the largest being SHARE, and
  what they say of values counts by 2^(their largest score - the largest of all so far), as in FlashAttention (Dao et
  al. 2022), where they have the largest of all so far in common
- values are z/2 for the sums z of signs that v = alpha z + b comes from: whole numbers, so nothing is rounded; beyond
  VALUE, 13 times the spread that signs have by chance at D = 384, they are cut. alpha and b are applied to their mean,
  which is the same, because shares sum to one

The bounds are those with which two products of an unsigned number of 8 bits and a signed one have a sum of 16: there is
an instruction for that on every CPU of the last 15 years.
"""

import math

import numpy as np

QUERY, KEY, SHARE, VALUE = 64, 127, 127, 127
TOGETHER = 64
LEAST = 1e-10  # added to the largest axis: zeros have no scale
COARSE = 0xFFFF  # bits of a scale's mantissa that are 0: the last digit of the largest axis must not decide
FAR = -30  # power of two that is taken for those below it
TOP = np.float32(SHARE / 128)  # what 2^0 is: 2^7 times it is a share
POLYNOMIAL = tuple(np.float32(c * SHARE / 128) for c in (0.0559771, 0.2422255, 0.6931125))
"""2^r - 1 for |r| <= 1/2, highest power first, within 1e-4; with the constant TOP in front."""


def scale(largest: np.ndarray, most: int) -> np.ndarray:
    """Largest absolute values of any shape, float32 -> by what vectors are multiplied before they are rounded,
    float32."""
    exact = np.float32(most) / (largest + np.float32(LEAST))
    result: np.ndarray = (np.asarray(exact).view(np.int32) & ~np.int32(COARSE)).view(np.float32)
    return result


def power(x: np.ndarray) -> np.ndarray:
    """x <= 0 of any shape, float32 -> TOP times 2^x, float32."""
    x = np.maximum(x, np.float32(FAR))
    n = np.rint(x)
    r, p = (x - n).astype(np.float64), np.full(x.shape, POLYNOMIAL[0], np.float64)
    for c in (*POLYNOMIAL[1:], TOP):  # each step rounded once to float32, as a fused multiply-add is
        p = (p * r + c).astype(np.float32).astype(np.float64)
    result: np.ndarray = (p * (n.astype(np.int64) + 1023 << 52).view(np.float64)).astype(np.float32)
    return result


def share(x: np.ndarray) -> np.ndarray:
    """x <= 0 of any shape, float32 -> SHARE times 2^x to the nearest whole number, as float32."""
    result: np.ndarray = np.rint(128 * power(x))
    return result


def attend(q: np.ndarray, k: np.ndarray, values: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """q and k [L, H, D/H] float32, values [L, H, D/H] whole numbers -> means of values by softmax(q k' / sqrt(D/H)),
    times weight [D], plus bias [D]: [L, D] float32 (eq. 15)."""
    mean = np.zeros(q.shape, np.float32)
    for head in range(q.shape[1]):
        mean[:, head] = _mean(q[:, head], k[:, head], np.clip(values[:, head], -VALUE, VALUE))
    result: np.ndarray = mean.reshape(len(q), -1) * weight + bias
    return result


def _mean(q: np.ndarray, k: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Of one head: [L, D/H] three times -> [L, D/H] float32."""
    of_q, of_k = scale(np.abs(q).max(-1, keepdims=True), QUERY), scale(np.abs(k).max(), KEY)
    scores = np.rint(q * of_q).astype(np.float64) @ np.rint(k * of_k).T
    factor = np.float32(math.log2(math.e) / math.sqrt(q.shape[1])) / (of_q * of_k)
    mean, total, largest = np.zeros(q.shape, np.float32), np.float32(0), scores[:, :1]
    for first in range(0, len(k), TOGETHER):
        some = scores[:, first : first + TOGETHER]
        top = some.max(-1, keepdims=True)
        so_far, largest = largest, np.maximum(largest, top)
        before, now = (power((each - largest).astype(np.float32) * factor) for each in (so_far, top))
        shares = share((some - top).astype(np.float32) * factor)
        mean = mean * before + (shares @ values[first : first + TOGETHER]) * now
        total = total * before + shares.sum(-1, keepdims=True) * now
    result: np.ndarray = mean * (np.float32(1) / total)
    return result
