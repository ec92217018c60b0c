"""A forward pass in slices: the answer of `predict`, to the bit, and no memory kept of long texts."""

import numpy as np
import pytest
from tiny import random_checkpoint, random_texts

from beexformer.model import forward as forward_module
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


def row_of(tokens: int) -> Row:
    return Row(np.arange(tokens, dtype=np.int32) % 50, False, ExitSettings(0.0, 0.0, 1, 1))


def test_of_long_texts_one_workspace_is_kept_for_all_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_module, "_spare", spare := [])
    first, second = (Engine(random_checkpoint(max_tokens=512, n_block=1)) for _ in range(2))
    wide = Engine(random_checkpoint(max_tokens=512, n_block=1, d_model=192, n_head=6))
    alone = second.predict([row_of(200)])
    spare.clear()
    forwards = [first.begin(row_of(tokens)) for tokens in (300, 200)]
    assert [forward.advance() and forward.answer().tokens for forward in forwards] == [300, 200]
    ((room, _, work),) = spare
    assert room == 300
    assert second.predict([row_of(200)]) == alone, "what an earlier text has left there doesn't matter"
    assert spare[0][2] is work
    second.predict([row_of(512)])
    assert spare[0][0] == 512
    wide.predict([row_of(200)])
    assert spare[0][:2] == (200, (192, *spare[0][1][1:])), "one of other widths is made, and kept in its place"


def test_scratches_of_ordinary_texts_are_kept_and_those_of_long_ones_are_not() -> None:
    engine = Engine(random_checkpoint(max_tokens=4 * ORDINARY, n_block=1))

    def waiting() -> list[int]:
        return [scratch.work.h.size for scratch in engine.pool._kept]

    engine.predict([row_of(4 * ORDINARY)])
    assert waiting() == []
    engine.predict([row_of(ORDINARY), row_of(3)])
    assert len(waiting()) == 1
    forwards = [engine.begin(row_of(5)) for _ in range(3 * KEPT)]
    for forward in forwards:
        forward.advance()
    assert [forward.answer().tokens for forward in forwards] == [5] * len(forwards)
    assert len(waiting()) == KEPT
