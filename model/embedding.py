"""
What a token is before the first block: a learned half, kept as int8 rows with a scale, beside a sinusoid (eq. 1-2).
"""

import numpy as np

from model.config import BEEConfig


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


def embed(rows: np.ndarray, scale: np.ndarray, positions: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """int8 rows, scales, sinusoid and token ids [L] -> h_0 [L, D] float32 (eq. 2)."""
    return np.concatenate([rows[ids] * scale[ids, None], positions[: len(ids)]], axis=1)
