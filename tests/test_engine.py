"""A row's answer: its own, exact, and never its neighbours'."""

import json
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import random_checkpoint, random_texts

from beexformer.model import exits, flops, kernels
from beexformer.model.answer import Answer
from beexformer.model.checkpoint import Checkpoint
from beexformer.model.engine import RESOLVED, Engine, Row
from beexformer.model.errors import InputError
from beexformer.model.options import ExitOptions

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def rows(engine: Engine) -> list[Row]:
    rng = np.random.default_rng(1)
    deltas, lows = rng.choice([-1.0, -0.01, 1e-4, 0.1, 1.0], 64), rng.integers(1, 7, 64)
    thresholds = rng.choice([0.0, 0.9, 0.99], 64)
    return [
        engine.encode(
            text,
            options=ExitOptions(delta=float(delta), entropy_threshold=float(threshold), min_blocks=int(low)),
        )
        for text, delta, threshold, low in zip(random_texts(64), deltas, thresholds, lows, strict=True)
    ]


@pytest.fixture(scope="module")
def alone(engine: Engine, rows: list[Row]) -> list[Answer]:
    return [engine.predict([row])[0] for row in rows]


def test_a_row_does_not_feel_its_neighbours(engine: Engine, rows: list[Row], alone: list[Answer]) -> None:
    assert engine.predict(rows) == alone
    assert engine.predict(rows[::-1]) == alone[::-1]
    assert len({answer.exit_index for answer in alone}) > 3, "rows must leave at different blocks for this to mean much"


def test_answers_are_the_same_from_two_threads(engine: Engine, rows: list[Row], alone: list[Answer]) -> None:
    with ThreadPoolExecutor(2) as pool:
        result = list(pool.map(lambda part: engine.predict(part), [rows[:40], rows[40:]] * 5))
    assert [answer for part in result for answer in part] == alone * 5


def test_answers_are_the_same_after_a_restart(folder: Path) -> None:
    code = (
        "import sys; from beexformer.model.engine import Engine; engine = Engine.load(sys.argv[1])\n"
        "print([engine.predict([engine.encode(text)])[0] for text in sys.argv[2:]])"
    )
    engine, texts = Engine.load(folder), random_texts(8)
    here = [engine.predict([engine.encode(text)])[0] for text in texts]
    command = [sys.executable, "-c", code, str(folder), *texts]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == repr(here)


def test_rows_are_handed_out_as_they_leave(engine: Engine, rows: list[Row], alone: list[Answer]) -> None:
    seen: list[tuple[int, Answer]] = []
    engine.predict(rows, on_exit=lambda i, answer: seen.append((i, answer)))
    assert seen == list(enumerate(alone))


def test_the_answer_follows_the_rule_on_the_trace(engine: Engine, rows: list[Row], alone: list[Answer]) -> None:
    for row, answer, logits in zip(rows, alone, engine.logits(rows), strict=True):
        c = exits.exit_layer(
            logits,
            exits.entropy_gain(row.exit.delta, row.exit.entropy_threshold),
            row.exit.min_blocks,
            row.exit.max_blocks,
        )
        assert answer.exit_index == c == len(answer.entropies)
        assert list(answer.scores.values()) == pytest.approx(exits.softmax(logits[c - 1]), rel=1e-12)
        assert answer.entropies == pytest.approx(exits.entropy(logits[:c]), rel=1e-12)
        assert answer.label == engine.labels[int(logits[c - 1].argmax())]
        assert answer.score == answer.scores[answer.label] == max(answer.scores.values())
        assert math.isclose(sum(answer.scores.values()), 1)
        assert answer.flops == flops.forward(engine.config, len(row.ids), c).flops


def test_delta_one_leaves_after_block_one(engine: Engine) -> None:
    answer = engine.predict([engine.encode("a funny film", options=ExitOptions(delta=1.0))])[0]
    assert answer.exit_index == 1
    assert 0.8 < answer.flops_saved_ratio < 0.85


def test_an_entropy_threshold_lets_go_of_what_is_sure(engine: Engine) -> None:
    def answer(**options: float) -> Answer:
        return engine.predict([engine.encode("a funny film", options=ExitOptions(**options))])[0]  # type: ignore[arg-type]

    without = answer(delta=-1.0)
    zero, most = (answer(delta=-1.0, entropy_threshold=share) for share in (0.0, 1.0))
    assert without == zero
    assert (most.exit_index, most.entropy_threshold) == (1, 1.0)
    assert without.exit_index > 1
    assert answer(entropy_threshold=1.0, min_blocks=4).exit_index == 4


def test_full_depth_saves_nothing(engine: Engine) -> None:
    options = ExitOptions(delta=1.0, entropy_threshold=1.0, min_blocks=6)
    answer = engine.predict([engine.encode("a funny film", options=options)])[0]
    assert (answer.exit_index, answer.flops_saved, answer.flops_saved_ratio) == (6, 0, 0)


def test_max_blocks_is_the_last_exit(engine: Engine) -> None:
    assert engine.predict([engine.encode("dull", options=ExitOptions(delta=-1.0, max_blocks=2))])[0].exit_index == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delta": math.nan}, "delta is nan"),
        ({"delta": 1.5}, "delta is 1.5"),
        ({"entropy_threshold": math.nan}, "entropy_threshold is nan"),
        ({"entropy_threshold": 1.5}, "entropy_threshold is 1.5 and must lie in"),
        ({"min_blocks": 0}, "min_blocks is 0"),
        ({"max_blocks": 7}, "max_blocks is 7 and must lie in 1..6"),
        ({"min_blocks": 4, "max_blocks": 3}, "min_blocks is 4, above max_blocks"),
    ],
)
def test_options_out_of_range_are_refused(engine: Engine, options: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        engine.encode("fine", options=ExitOptions(**options))  # type: ignore[arg-type]


def test_no_rows_no_answers(engine: Engine) -> None:
    assert engine.predict([]) == []


@pytest.mark.parametrize(
    "shape",
    [
        {"d_model": 64, "n_head": 1, "n_block": 1},
        {"d_model": 192, "n_head": 6, "carry": "h", "embedding": "int4+2", "head_thresholds": 4, "exact_match": True},
    ],
)
def test_other_shapes_and_classes(shape: dict[str, object]) -> None:
    engine = Engine(random_checkpoint(labels=("a", "b", "c", "d", "e"), **shape))
    answer = engine.predict([engine.encode("the worst movie", "ever made")])[0]
    assert set(answer.scores) == set("abcde")
    assert answer.num_blocks == shape.get("n_block", 6)


def test_whatever_a_checkpoint_has_the_same_compiled_code_runs_it(engine: Engine) -> None:
    engine.warm()
    before = list(kernels.early_exit_forward.signatures)
    Engine(random_checkpoint(embedding="int4+2", head_thresholds=4, exact_match=True)).warm()
    Engine(random_checkpoint(head="linear")).warm()
    assert kernels.early_exit_forward.signatures == before


def test_without_early_exit_there_is_one_exit() -> None:
    engine = Engine(random_checkpoint(early_exit=False))
    answer = engine.predict([engine.encode("the worst movie", options=ExitOptions(delta=1.0))])[0]
    assert (answer.exit_index, len(answer.entropies), answer.flops_saved) == (6, 1, 0)
    with pytest.raises(InputError, match="only exit after block 6"):
        engine.encode("the worst movie", options=ExitOptions(max_blocks=3))


@pytest.mark.parametrize("version", ["v1", "v2", "v3", "v4"])
def test_a_golden_checkpoint_of_every_version_answers_as_it_did(version: str) -> None:
    """Labels, exits and FLOPs exactly. Scores to 1e-4: a release may change the order of a sum."""
    engine = Engine.load(GOLDEN / version / "checkpoint")
    engine.warm()
    for expected in json.loads((GOLDEN / version / "answers.json").read_text()):
        row = engine.encode(expected["text"], expected.get("text_pair"), ExitOptions(delta=expected["delta"]))
        answer = engine.predict([row])[0]
        for field in ("label", "exit_index", "flops", "tokens"):
            assert getattr(answer, field) == expected[field]
        assert answer.scores == pytest.approx(expected["scores"], abs=1e-4)
        assert answer.entropies == pytest.approx(expected["entropies"], abs=1e-4)


def test_a_model_of_pairs_refuses_single_texts_and_the_other_way_round(checkpoint: Checkpoint) -> None:
    pairs, texts, either = (Engine(replace(checkpoint, input=kind)) for kind in ("pair", "text", None))
    with pytest.raises(InputError, match="'tiny' classifies pairs of texts; send text_pair too"):
        pairs.encode("a film")
    with pytest.raises(InputError, match="'tiny' classifies single texts; send no text_pair"):
        texts.encode("a film", "a movie")
    answers = [
        engine.predict([engine.encode("a film", pair)])[0]
        for engine, pair in ((pairs, "a movie"), (either, "a movie"), (texts, None), (either, None))
    ]
    assert answers[0] == answers[1] != answers[2] == answers[3]


def test_what_is_in_effect_is_kept_until_defaults_change(checkpoint: Checkpoint) -> None:
    engine, asked = Engine(checkpoint), ExitOptions(max_blocks=3)
    first = engine.resolve(asked)
    assert engine.resolve(replace(asked)) is first
    assert math.copysign(1, engine.resolve(ExitOptions(delta=-0.0)).delta) == 1, "asked for first, and equal to 0.0"
    for i in range(2 * RESOLVED):
        assert engine.resolve(ExitOptions(delta=i / 1000)).delta == i / 1000
    assert len(engine._resolved) <= RESOLVED, "deltas without end take no memory without end"
    engine.set_defaults(ExitOptions(delta=0.25))
    assert engine.resolve(asked) == replace(first, delta=0.25)
    with pytest.raises(InputError, match="min_blocks is 99"):
        engine.set_defaults(ExitOptions(min_blocks=99))
    assert engine.resolve(asked) == replace(first, delta=0.25)
