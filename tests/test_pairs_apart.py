"""Two texts that are read apart: what is answered, in what order, and what it costs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import random_checkpoint, random_texts

from beexformer.model import exits, flops
from beexformer.model.checkpoint import Checkpoint, save
from beexformer.model.config import BEEConfig
from beexformer.model.engine import Engine, Row
from beexformer.model.errors import InputError
from beexformer.model.options import ExitOptions

LABELS = ("no", "perhaps", "yes")


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return random_checkpoint(6, LABELS, input="pair", head="linear", pairs="apart")


@pytest.fixture(scope="module")
def engine(checkpoint: Checkpoint) -> Engine:
    return Engine(checkpoint)


@pytest.fixture(scope="module")
def rows(engine: Engine) -> list[Row]:
    texts = random_texts(60, longest=40)
    deltas = (1e-4, -0.1, 0.05)
    return [
        engine.encode(a, b, ExitOptions(delta=deltas[i % 3], min_blocks=i % 6 + 1))
        for i, (a, b) in enumerate(zip(texts[:30], texts[30:], strict=True))
    ]


def test_heads_read_difference_and_product_of_both_mean_states(engine: Engine, rows: list[Row]) -> None:
    """The reference implementation runs each text by itself, in another order of summation."""
    agree = [np.abs(engine.logits([row])[0] - engine.reference_logits(row)).max() < 1e-3 for row in rows]
    assert np.mean(agree) > 0.4, "a sign that lies near its threshold may flip in another order of summation"


def test_a_pair_is_two_texts_as_a_model_of_single_texts_reads_them(checkpoint: Checkpoint, engine: Engine) -> None:
    config = replace(checkpoint.config, pairs="together", n_class=2)
    single = Engine(
        replace(random_checkpoint(6, input="text", head="linear"), tokenizer=checkpoint.tokenizer, config=config)
    )
    row = engine.encode("a warm film", "the worst movie ever")
    assert row.pair_ids is not None
    assert (row.ids == single.encode("a warm film").ids).all()
    assert (row.pair_ids == single.encode("the worst movie ever").ids).all()


def test_the_rule_is_that_of_exits_and_answers_are_of_the_exit_taken(engine: Engine, rows: list[Row]) -> None:
    left = set()
    for row in rows:
        [answer], [logits] = engine.predict([row]), engine.logits([row])
        policy = exits.entropy_gain(row.exit.delta)
        assert answer.exit_index == exits.exit_layer(logits, policy, row.exit.min_blocks)
        scores = exits.softmax(logits[answer.exit_index - 1])
        np.testing.assert_allclose(list(answer.scores.values()), scores, rtol=1e-12)
        left.add(answer.exit_index)
    assert len(left) > 2


def test_a_pair_does_not_feel_its_neighbours_its_turns_or_its_window(engine: Engine, rows: list[Row]) -> None:
    alone = [engine.predict([row])[0] for row in rows]
    assert engine.predict(rows) == alone
    assert engine.predict(rows[::-1]) == alone[::-1]
    forwards = [engine.begin(row) for row in rows]
    turns, waiting = 0, [*forwards]
    while waiting:
        waiting = [forward for forward in waiting if not forward.advance(0.0)]
        turns += 1
    assert turns > 4, "they took turns"
    assert [forward.answer() for forward in forwards] == alone


def test_equal_texts_differ_in_nothing(engine: Engine) -> None:
    one, other = (engine.logits([engine.encode(*pair)]) for pair in (("a film", "a movie"), ("a movie", "a film")))
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_bounds_hold(engine: Engine) -> None:
    for low, high in ((1, 1), (3, 3), (6, 6), (2, 4)):
        row = engine.encode("a warm film", "it is dull", ExitOptions(min_blocks=low, max_blocks=high))
        assert low <= engine.predict([row])[0].exit_index <= high


def test_flops_are_those_of_both_texts(engine: Engine) -> None:
    row = engine.encode("a warm and often funny film", "dull", ExitOptions(min_blocks=2, max_blocks=2))
    [answer] = engine.predict([row])
    a, b = row.lengths  # type: ignore[misc]
    config = engine.config
    both = [flops.forward(replace(config, pairs="together"), n, 2).flops for n in (a, b)]
    m, D = 3, config.d_model
    head, pooling = 2 * D * m + 2 * m + 6 * m + 3, 3 * D
    assert answer.flops == pytest.approx(sum(both) + 2 * (pooling + 2 * 2 * D * m + 2 * m + 6 * m + 3 - 2 * head))
    assert (answer.tokens, answer.flops) == (a + b, flops.forward(config, (a, b), 2).flops)
    assert answer.flops_full == flops.forward(config, (a, b), 6).flops


def test_each_text_has_the_whole_window_and_is_refused_alone(engine: Engine) -> None:
    long = "film " * 100
    row = engine.encode(long, "dull")
    assert (len(row.ids), row.truncated) == (engine.config.max_tokens, True)
    assert row.pair_ids is not None
    assert len(row.pair_ids) == 3
    with pytest.raises(InputError, match="longer than the model's window"):
        engine.encode("dull", long, truncate=False)
    with pytest.raises(InputError, match="text_pair is empty or blank"):
        engine.encode("dull", " ")
    with pytest.raises(InputError, match="send text_pair too"):
        engine.encode("dull")


def test_the_file_comes_back_as_it_was_and_its_probes_are_of_both(
    engine: Engine, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    from beexformer.model import probes

    made = replace(checkpoint, probes=probes.make(engine))
    assert made.probes
    save(made, tmp_path / "pairs")
    again = Engine.load(tmp_path / "pairs")
    again.warm()
    pair = "a warm film", "it is dull"
    assert again.predict([again.encode(*pair)]) == engine.predict([engine.encode(*pair)])
    again.calibrate()
    assert again.predict([again.encode(*pair)]) == engine.predict([engine.encode(*pair)])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="goes with linear heads"):
        BEEConfig(vocab_size=9, n_class=2, d_model=64, pairs="apart")
    with pytest.raises(ValueError, match="must be one of"):
        BEEConfig(vocab_size=9, n_class=2, d_model=64, pairs="mixed")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="input must be 'pair'"):
        random_checkpoint(6, LABELS, input="text", head="linear", pairs="apart")
