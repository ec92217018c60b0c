"""
Attention on integers of 16 bits (`attention = "int16"`): what it computes, in numpy. The kernels compute the same
numbers, to the bit, on every CPU: integers are exact, and real numbers have one order.

- a query is scaled so that its length is nearly 2^15, and rounded; keys likewise, by the longest one of the text. So a
  sum of their products is at most 2^30 (Cauchy-Schwarz) and what rounding adds to it, a ten-thousandth. Two scores of
  a query can only be too far apart for 32 bits where scales lose nothing and the longest key's opposite is a key too
- shares of a softmax are whole numbers, the largest being 2^15 - 1; a mean is divided by their sum
- values are z/2 for the sums z of signs that v = alpha z + b comes from: whole numbers, so nothing is rounded. alpha
  and b are applied to their mean, which is the same, because shares sum to one
"""

import math

import numpy as np

MOST = 2**15 - 1  # of an integer of 16 bits
LEAST_LENGTH = 1e-20  # squared: what a vector of zeros is taken for
COARSE = 0xFFFF  # bits of a scale's mantissa that are 0: the last digits of a sum of squares must not decide
TOGETHER = 128  # keys whose shares times values are summed as integers; such sums are added up as float32
TOP = np.float32(MOST / 2**15)  # what 2^0 is
POLYNOMIAL = tuple(np.float32(c * MOST / 2**15) for c in (0.0095828621, 0.0559064633, 0.2402409869, 0.6931241890))
"""2^r - 1 for |r| <= 1/2, highest power first, within 3e-6; with the constant TOP in front."""


def scale(squared: np.ndarray) -> np.ndarray:
    """Sums of squares of any shape, float32 -> by what vectors are multiplied before they are rounded, float32."""
    exact = np.float32(MOST) / np.sqrt(squared + np.float32(LEAST_LENGTH))
    result: np.ndarray = (np.asarray(exact).view(np.int32) & ~np.int32(COARSE)).view(np.float32)
    return result


def share(x: np.ndarray) -> np.ndarray:
    """x <= 0 of any shape, float32 -> MOST times 2^x to the nearest whole number, as float64."""
    x = np.maximum(x, np.float32(-17))
    n = np.rint(x)
    r, p = (x - n).astype(np.float64), np.full(x.shape, POLYNOMIAL[0], np.float64)
    for c in (*POLYNOMIAL[1:], TOP):  # each step rounded once to float32, as a fused multiply-add is
        p = (p * r + c).astype(np.float32).astype(np.float64)
    power = (n.astype(np.int64) + 15 + 1023 << 52).view(np.float64)
    result: np.ndarray = np.rint(p * power)
    return result


def attend(q: np.ndarray, k: np.ndarray, values: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """q and k [L, H, D/H] float32, values [L, H, D/H] whole numbers -> means of values by softmax(q k' / sqrt(D/H)),
    times weight [D], plus bias [D]: [L, D] float32 (eq. 15)."""
    mean = np.zeros(q.shape, np.float32)
    for head in range(q.shape[1]):
        mean[:, head] = _mean(q[:, head], k[:, head], values[:, head])
    result: np.ndarray = mean.reshape(len(q), -1) * weight + bias
    return result


def _mean(q: np.ndarray, k: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Of one head: [L, D/H] three times -> [L, D/H] float32."""
    of_q, of_k = scale((q * q).sum(-1, keepdims=True)), scale((k * k).sum(-1).max())
    scores = np.rint(q * of_q).astype(np.float64) @ np.rint(k * of_k).astype(np.float64).T
    factor = np.float32(math.log2(math.e) / math.sqrt(q.shape[1])) / (of_q * of_k)
    shares = share((scores - scores.max(-1, keepdims=True)).astype(np.float32) * factor)
    mean = np.zeros(q.shape, np.float32)
    for first in range(0, len(k), TOGETHER):
        mean += (shares[:, first : first + TOGETHER] @ values[first : first + TOGETHER]).astype(np.float32)
    result: np.ndarray = mean * (np.float32(1) / shares.sum(-1, keepdims=True).astype(np.float32))
    return result
