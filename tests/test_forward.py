"""A forward pass in slices: the answer of `predict`, to the bit, and no memory kept of long texts."""

import numpy as np
import pytest
from tiny import random_checkpoint, random_texts

from beexformer.model.engine import Engine, Row
from beexformer.model.forward import KEPT, ORDINARY
from beexformer.model.options import ExitOptions, ExitSettings


@pytest.fixture(scope="module")
def rows(engine: Engine) -> list[Row]:
    return [
        engine.encode(text, options=ExitOptions(delta=delta, min_blocks=low))
        for text, delta, low in zip(random_texts(24), [-1.0, 1e-4, 0.1] * 8, [1, 2, 3, 6] * 6, strict=True)
    ]


def test_a_row_that_stops_between_slices_has_the_answer_of_predict(engine: Engine, rows: list[Row]) -> None:
    alone = engine.predict(rows)
    for row, expected in zip(rows, alone, strict=True):
        forward, calls = engine.begin(row), 1
        while not forward.advance(0):
            calls += 1
        assert forward.answer() == expected
        assert calls >= expected.exit_index
        assert forward.advance(0)
        assert forward.answer() == expected, "asked again, the same"


def test_rows_take_turns(engine: Engine, rows: list[Row]) -> None:
    expected, forwards = engine.predict(rows), [engine.begin(row) for row in rows]
    waiting = list(forwards)
    while waiting:
        waiting = [forward for forward in waiting if not forward.advance(0)]
    assert [forward.answer() for forward in forwards] == expected


def test_without_a_limit_one_call_is_enough(engine: Engine, rows: list[Row]) -> None:
    forward = engine.begin(rows[0])
    assert forward.advance()


def test_there_is_no_answer_before_the_row_has_left(engine: Engine) -> None:
    forward = engine.begin(engine.encode("a funny film", options=ExitOptions(min_blocks=6)))
    with pytest.raises(RuntimeError, match="has not left yet"):
        forward.answer()
    forward.advance(0)
    with pytest.raises(RuntimeError, match="call advance"):
        forward.answer()


def test_scratches_of_ordinary_texts_are_kept_and_those_of_long_ones_are_not() -> None:
    engine = Engine(random_checkpoint(max_tokens=4 * ORDINARY, n_block=1))

    def row(tokens: int) -> Row:
        return Row(np.zeros(tokens, np.int32), False, ExitSettings(0.0, 0.0, 1, 1))

    def waiting() -> list[int]:
        return [scratch.work.h.size for scratch in engine.pool._kept]

    engine.predict([row(4 * ORDINARY)])
    assert waiting() == []
    engine.predict([row(ORDINARY), row(3)])
    assert len(waiting()) == 1
    forwards = [engine.begin(row(5)) for _ in range(3 * KEPT)]
    for forward in forwards:
        forward.advance()
    assert [forward.answer().tokens for forward in forwards] == [5] * len(forwards)
    assert len(waiting()) == KEPT
