"""
What a token is before the first block: a learned half, kept in few bits, beside a sinusoid (eq. 1-2). In a network of
pairs with `exact_match`, plus what it has learned of the token's type.

The learned half has one of two forms (`BEEConfig.embedding`):

- int8: rows of int8 and a scale each
- int4+2: uint8 rows of codes and a step for each axis. Where axes are sorted, most telling first, bits go where they
  help: the first third has codes of 4 bits, the others of 2. A code of b bits means (code - (2^b - 1) / 2) * step.
  Codes follow each other from the lowest bit of the first byte on: code d begins at bit 4 d among the first n4, else
  at bit 2 (n4 + d), and none crosses the end of a byte.
"""

import numpy as np

from beexformer.model.config import BEEConfig

GAUSSIAN = {4: 0.3352, 2: 0.9957}
"""Bits of a code -> the step with the least squared error where numbers are normal, in standard deviations."""

SCALES = {"int8": "embedding.scale", "int4+2": "embedding.step"}
"""Form -> the tensor of a checkpoint beside `embedding.rows`."""


def sinusoid(config: BEEConfig) -> np.ndarray:
    """Position embedding S^p of eq. 1: [max_tokens, D/2] float32. Positions count from 1, as in Alg. 1."""
    width = config.d_model // 2  # D'
    i = np.arange(1, config.max_tokens + 1, dtype=np.float64)[:, None]
    d = np.arange(width)
    angle = i / 10000.0 ** ((d - d % 2) / width)
    return np.where(d % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)


def quantize(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Real rows [V, D/2] -> (int8 rows, scales [V] float32) with rows ~ int8 * scale, error at most scale / 2."""
    scale = np.maximum(np.abs(rows).max(1), np.finfo(np.float32).tiny * 127) / 127
    scale = scale.astype(np.float32)
    return np.rint(rows / scale[:, None]).clip(-127, 127).astype(np.int8), scale


def fours(width: int) -> int:
    """How many of the D/2 axes have 4 bits: a third, in whole bytes of the others."""
    return width // 3 // 4 * 4


def packed_bytes(width: int) -> int:
    """Bytes of a token whose D/2 axes are packed."""
    return (width + fours(width)) // 4


def gaussian_steps(sigma: np.ndarray) -> np.ndarray:
    """Standard deviations [D/2] of the axes -> steps [D/2] float32, the best ones where numbers are normal."""
    four = np.arange(len(sigma)) < fours(len(sigma))
    result: np.ndarray = np.where(four, GAUSSIAN[4], GAUSSIAN[2]) * sigma
    return result.clip(np.finfo(np.float32).tiny).astype(np.float32)


def steps(weight: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Real rows [V, D/2] -> the step of each axis [D/2] float32 with the least squared error, of 33 from half to twice
    the Gaussian one. `weights` [V] says how much each row counts, by default all the same."""
    share = np.full(len(weight), 1 / len(weight)) if weights is None else weights / weights.sum()
    gaussian = gaussian_steps(np.sqrt(share @ np.square(weight, dtype=np.float64)))
    tried = [gaussian * np.float32(factor) for factor in np.geomspace(0.5, 2, 33)]
    errors = [share @ np.square(unpack(pack(weight, step), step) - weight, dtype=np.float64) for step in tried]
    best: np.ndarray = np.take_along_axis(np.stack(tried), np.argmin(errors, 0)[None], 0)[0]
    return best


def pack(weight: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Real rows [V, D/2] and steps [D/2] -> the nearest codes, packed [V, bytes] uint8."""
    n = fours(len(step))
    levels = np.where(np.arange(len(step)) < n, 16, 4)
    codes = np.floor(weight / step + levels / 2).clip(0, levels - 1).astype(np.uint8)
    four, two = codes[:, :n], codes[:, n:]
    halves = four[:, ::2] | four[:, 1::2] << 4
    quarters = two[:, ::4] | two[:, 1::4] << 2 | two[:, 2::4] << 4 | two[:, 3::4] << 6
    return np.concatenate([halves, quarters], 1)


def unpack(rows: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Packed rows [V, bytes] uint8 and steps [D/2] -> real rows [V, D/2] float32."""
    n = fours(len(step))
    halves, quarters = rows[:, : n // 2, None], rows[:, n // 2 :, None]
    four = (halves >> np.array([0, 4], np.uint8) & 15).reshape(len(rows), -1) - np.float32(7.5)
    two = (quarters >> np.array([0, 2, 4, 6], np.uint8) & 3).reshape(len(rows), -1) - np.float32(1.5)
    result: np.ndarray = np.concatenate([four, two], 1) * step
    return result


def real(rows: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Rows of either form, with their scales [V] or the axes' steps [D/2] -> real rows [V, D/2] float32."""
    return rows * scale[:, None] if rows.dtype == np.int8 else unpack(rows, scale)


def embed(learned: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Real rows [L, D/2] of a text's tokens and the sinusoid -> h_0 [L, D] float32 (eq. 2)."""
    return np.concatenate([learned, positions[: len(learned)]], axis=1)


def token_types(ids: np.ndarray) -> np.ndarray:
    """Ids [L] of `[CLS] a [SEP] b [SEP]` -> types [L] int64: 1 or 2 in a, 3 or 4 in b, the higher one where the other
    text has that token too (the exact match of DrQA, Chen et al. 2017), 0 for special tokens and in a single text."""
    result = np.zeros(len(ids), np.int64)
    between = int(np.argmax(ids == ids[-1]))  # a row ends with [SEP], and no text makes one
    if between < len(ids) - 1:
        a, b = ids[1:between], ids[between + 1 : -1]
        result[1:between] = 1 + np.isin(a, b)
        result[between + 1 : -1] = 3 + np.isin(b, a)
    return result
