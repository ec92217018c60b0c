"""Several labels a text: what the file says, what the engine answers, what cannot be."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_checkpoint import redescribe
from tiny import random_checkpoint, random_texts, with_median_thresholds

from beexformer.app.schemas import to_json
from beexformer.model import exits
from beexformer.model.checkpoint import Checkpoint, read, save
from beexformer.model.engine import Engine
from beexformer.model.errors import CheckpointError
from beexformer.model.options import ExitOptions

LABELS = ("praise", "price", "delivery", "damage", "other")


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    made = random_checkpoint(3, LABELS, input="text", head="linear", multi_label=True)
    return with_median_thresholds(made, random_texts(40))


@pytest.fixture(scope="module")
def engine(checkpoint: Checkpoint) -> Engine:
    return Engine(checkpoint)


def test_scores_are_sigmoids_and_labels_those_that_reach_their_thresholds(engine: Engine) -> None:
    counts = set()
    for text in random_texts(40):
        row = engine.encode(text)
        [answer], [logits] = engine.predict([row]), engine.logits([row])
        scores = exits.sigmoid(logits[answer.exit_index - 1])
        assert list(answer.scores) == list(LABELS)
        np.testing.assert_allclose(list(answer.scores.values()), scores, rtol=1e-12)
        assert engine.thresholds is not None
        reached = [name for name, p, least in zip(LABELS, scores, engine.thresholds, strict=True) if p >= least]
        assert answer.labels == tuple(reached) == answer.says
        assert answer.label == LABELS[int(scores.argmax())], "the most probable one, whether it applies or not"
        counts.add(len(reached))
    assert len(counts) > 1, "some texts have more labels than others"


def test_rows_leave_by_the_entropy_of_label_sets(engine: Engine) -> None:
    left = set()
    for delta, threshold in ((1e-4, 0.0), (-0.1, 0.0), (-1.0, 0.7)):
        policy = exits.entropy_gain(delta, threshold, multi_label=True)
        for i, text in enumerate(random_texts(30)):
            low = i % 6 + 1
            options = ExitOptions(delta=delta, entropy_threshold=threshold, min_blocks=low)
            row = engine.encode(text, options=options)
            [answer], [logits] = engine.predict([row]), engine.logits([row])
            assert answer.exit_index == exits.exit_layer(logits, policy, low)
            entropies = exits.entropy_of_label_sets(logits[: answer.exit_index])
            np.testing.assert_allclose(answer.entropies, entropies, rtol=1e-12)
            left.add(answer.exit_index)
    assert len(left) > 3


def test_a_row_does_not_feel_its_neighbours_or_its_turns(engine: Engine) -> None:
    rows = [engine.encode(text) for text in random_texts(30)]
    alone = [engine.predict([row])[0] for row in rows]
    assert engine.predict(rows) == alone
    forward = engine.begin(rows[0])
    while not forward.advance(0.0):
        pass
    assert forward.answer() == alone[0]


def test_the_engine_is_its_reference_implementation(engine: Engine) -> None:
    agree = 0
    for text in random_texts(20, longest=8):
        row = engine.encode(text)
        agree += np.allclose(engine.logits([row])[0], engine.reference_logits(row), atol=1e-3)
    assert agree >= 10, "a sign that lies near its threshold may flip in another order of summation"


def test_the_file_says_it_and_comes_back_as_it_was(checkpoint: Checkpoint, engine: Engine, tmp_path: Path) -> None:
    save(checkpoint, tmp_path / "tags")
    described = json.loads((tmp_path / "tags" / "config.json").read_text())
    assert described["network"]["multi_label"] is True
    assert described["thresholds"] == list(checkpoint.thresholds or ())
    again = Engine.load(tmp_path / "tags")
    assert again.description["thresholds"] == described["thresholds"]
    rows = [engine.encode(text) for text in random_texts(5)]
    assert again.predict(rows) == engine.predict(rows)


def test_a_file_of_one_label_a_text_says_nothing_of_it(tmp_path: Path) -> None:
    """Releases that know nothing of several labels read what says nothing of them."""
    save(random_checkpoint(), tmp_path / "one")
    described = json.loads((tmp_path / "one" / "config.json").read_text())
    assert "thresholds" not in described
    assert "multi_label" not in described["network"]
    assert Engine.load(tmp_path / "one").description.get("thresholds") is None


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [
        ([0.5] * 4, "5 numbers between 0 and 1"),
        ([0.5] * 4 + [1.0], "5 numbers between 0 and 1"),
        ([0.5] * 4 + [float(0)], "5 numbers between 0 and 1"),
        ([0.5] * 4 + ["0.5"], "5 numbers between 0 and 1"),
        ("0.5", "thresholds must be a list"),
    ],
)
def test_thresholds_that_cannot_be_are_refused(
    checkpoint: Checkpoint, tmp_path: Path, thresholds: object, words: str
) -> None:
    save(checkpoint, tmp_path / "tags")
    redescribe(tmp_path / "tags", thresholds=thresholds)
    with pytest.raises(CheckpointError, match=words):
        read(tmp_path / "tags")


def test_thresholds_and_sigmoids_go_together(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="thresholds go with"):
        replace(checkpoint, thresholds=None)
    with pytest.raises(ValueError, match="thresholds go with"):
        replace(random_checkpoint(), thresholds=(0.5, 0.5))
    save(checkpoint, tmp_path / "tags")
    described = json.loads((tmp_path / "tags" / "config.json").read_text())
    redescribe(tmp_path / "tags", network={**described["network"], "multi_label": 1})
    with pytest.raises(CheckpointError, match="multi_label=1 must be true or false"):
        read(tmp_path / "tags")


def test_on_the_wire_labels_are_there_only_where_there_may_be_several(engine: Engine) -> None:
    low = replace(engine.predict([engine.encode("a warm film")])[0], labels=())
    assert json.loads(to_json(low))["labels"] == [], "no label is said too"
    one = Engine(random_checkpoint())
    assert "labels" not in json.loads(to_json(one.predict([one.encode("a warm film")])[0]))
