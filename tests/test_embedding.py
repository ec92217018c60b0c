import math

import numpy as np
import pytest

from beexformer.model.config import BEEConfig
from beexformer.model.embedding import (
    embed,
    fours,
    pack,
    packed_bytes,
    quantize,
    real,
    sinusoid,
    steps,
    token_types,
    unpack,
)

CONFIG = BEEConfig(vocab_size=10, n_class=2, d_model=64, max_tokens=8)


def test_sinusoid_is_equation_1() -> None:
    table = sinusoid(CONFIG)
    assert table.shape == (8, 32)
    for i in (1, 5, 8):
        for d in (0, 1, 6, 7, 31):
            angle = i / 10000 ** ((d if d % 2 == 0 else d - 1) / 32)
            assert math.isclose(table[i - 1, d], math.sin(angle) if d % 2 == 0 else math.cos(angle), abs_tol=1e-6)


def test_token_types_say_which_text_and_whether_the_other_has_it_too() -> None:
    CLS, SEP, cat, dog, cow = range(5)
    assert token_types(np.array([CLS, cat, dog, cat, SEP, cow, cat, SEP])).tolist() == [0, 2, 1, 2, 0, 3, 4, 0]
    assert not token_types(np.array([CLS, cat, dog, cat, SEP])).any(), "there is no other text"


def test_int8_rows_are_within_half_a_step() -> None:
    rows = np.random.default_rng(0).normal(size=(10, 32)).astype(np.float32)
    rows[3] = 0
    packed, scale = quantize(rows)
    assert (np.abs(packed * scale[:, None] - rows) <= 0.5001 * scale[:, None]).all()


def test_embed_puts_both_halves_side_by_side() -> None:
    learned = real(*quantize(np.eye(10, 32, dtype=np.float32)))
    h = embed(learned[[4, 4]], sinusoid(CONFIG))
    assert h.shape == (2, 64)
    assert h.dtype == np.float32
    assert h[1, :32].argmax() == 4
    assert (h[:, 32:] == sinusoid(CONFIG)[:2]).all()


def normal(width: int, count: int = 4000) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=(count, width)) * np.geomspace(2, 0.1, width)).astype(np.float32)


@pytest.mark.parametrize(("width", "four", "size"), [(32, 8, 10), (64, 20, 21), (192, 64, 64), (256, 84, 85)])
def test_packed_codes_come_back(width: int, four: int, size: int) -> None:
    assert (fours(width), packed_bytes(width)) == (four, size)
    rng = np.random.default_rng(width)
    rows = rng.integers(0, 256, (500, size), dtype=np.uint8)
    step = rng.uniform(1e-3, 2, width).astype(np.float32)
    result = unpack(rows, step)
    assert (result.shape, result.dtype) == ((500, width), np.float32)
    assert (pack(result, step) == rows).all()
    assert (real(rows, step) == result).all()


def test_a_code_lies_where_the_format_says() -> None:
    codes = np.random.default_rng(0).integers(0, 16, 32) & np.where(np.arange(32) < 8, 15, 3)
    row = sum(int(code) << (4 * d if d < 8 else 2 * (8 + d)) for d, code in enumerate(codes))
    middle = np.where(np.arange(32) < 8, 7.5, 1.5)
    result = unpack(np.frombuffer(row.to_bytes(10, "little"), np.uint8)[None], np.full(32, 0.5, np.float32))
    assert result[0].tolist() == ((codes - middle) / 2).tolist()


def test_packing_takes_the_nearest_value() -> None:
    weight, step = normal(32), np.linspace(0.1, 1, 32, dtype=np.float32)
    values = (np.arange(16) - 7.5) * step[:, None], (np.arange(4) - 1.5) * step[:, None]
    result = unpack(pack(weight, step), step)
    for d in range(32):
        nearest = np.abs(weight[:, d, None] - values[d >= 8][d]).min(1)
        np.testing.assert_allclose(np.abs(result[:, d] - weight[:, d]), nearest, atol=1e-6)


def test_steps_have_the_least_error_where_rows_count() -> None:
    weight = normal(32)
    sigma, step = np.sqrt(np.square(weight).mean(0)), steps(weight)
    np.testing.assert_allclose(step[:8] / sigma[:8], 0.3352, rtol=0.1)
    np.testing.assert_allclose(step[8:] / sigma[8:], 0.9957, rtol=0.1)
    weights = np.where(np.arange(4000) < 40, 1.0, 0.0)
    for result, rows in ((step, weight), (steps(weight, weights), weight[:40])):
        least = np.square(unpack(pack(rows, result), result) - rows).mean(0)
        for tried in (result * np.float32(0.8), result * np.float32(1.25)):
            other = np.square(unpack(pack(rows, tried), tried) - rows).mean(0)
            assert (least <= other).all()


def test_an_axis_that_says_nothing_is_packed_as_nothing() -> None:
    weight = np.zeros((3, 32), np.float32)
    assert np.abs(unpack(pack(weight, steps(weight)), steps(weight))).max() < 1e-30
