import math

import numpy as np

from model.config import BEEConfig
from model.embedding import embed, quantize, sinusoid

CONFIG = BEEConfig(vocab_size=10, n_class=2, d_model=64, max_tokens=8)


def test_sinusoid_is_equation_1() -> None:
    table = sinusoid(CONFIG)
    assert table.shape == (8, 32)
    for i in (1, 5, 8):
        for d in (0, 1, 6, 7, 31):
            angle = i / 10000 ** ((d if d % 2 == 0 else d - 1) / 32)
            assert math.isclose(table[i - 1, d], math.sin(angle) if d % 2 == 0 else math.cos(angle), abs_tol=1e-6)


def test_int8_rows_are_within_half_a_step() -> None:
    rows = np.random.default_rng(0).normal(size=(10, 32)).astype(np.float32)
    rows[3] = 0
    packed, scale = quantize(rows)
    assert (np.abs(packed * scale[:, None] - rows) <= 0.5001 * scale[:, None]).all()


def test_embed_puts_both_halves_side_by_side() -> None:
    rows, scale = quantize(np.eye(10, 32, dtype=np.float32))
    h = embed(rows, scale, sinusoid(CONFIG), np.array([4, 4]))
    assert h.shape == (2, 64)
    assert h.dtype == np.float32
    assert h[1, :32].argmax() == 4
    assert (h[:, 32:] == sinusoid(CONFIG)[:2]).all()
