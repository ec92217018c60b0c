"""Labels that a request names: what they are answered with, what is kept of them, what it costs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import random_checkpoint, random_texts, with_readers

from beexformer.model import candidates, checkpoint, flops
from beexformer.model.engine import Engine
from beexformer.model.errors import CheckpointError, InputError
from beexformer.model.options import ExitOptions
from beexformer.model.tensors import READERS

DEEP = ExitOptions(min_blocks=6)


@pytest.fixture
def engine() -> Engine:
    return Engine(with_readers())


def states(engine: Engine, text: str) -> np.ndarray:
    """Mean state after the last block."""
    forward = engine.begin(engine.encode(text, options=DEEP))
    assert forward.advance()
    result = forward.mean_state()
    forward.answer()
    return result


def test_logits_are_the_texts_and_labels_vectors_product() -> None:
    result = with_readers()
    engine = Engine(result)
    readers = result.tensors[READERS[0]] * result.tensors[READERS[1]][:, :, None]
    labels = ("warm film", "dull_journey", "the worst")
    answering, _ = engine.candidates.engine(labels)
    text = "a charming movie"
    logits = answering.logits([answering.encode(text)])[0, -1]
    vectors = np.stack([readers[-1] @ states(engine, name.replace("_", " ")) for name in labels])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = vectors @ readers[-1] @ states(engine, text)
    assert np.abs(logits - expected).max() < 0.02 * np.abs(expected).max(), "rows of 8 bits are all that is lost"


def test_the_answer_is_one_of_the_labels_and_the_models_own_stay(engine: Engine) -> None:
    answering, _ = engine.candidates.engine(["warm film", "the worst", "funny"])
    before = engine.predict([engine.encode("a dull film")])
    answer = answering.predict([answering.encode("a dull film", options=DEEP)])[0]
    assert list(answer.scores) == ["warm film", "the worst", "funny"]
    assert answer.label in answer.scores
    assert sum(answer.scores.values()) == pytest.approx(1)
    assert engine.predict([engine.encode("a dull film")]) == before
    assert answer.flops == flops.forward(answering.config, answer.tokens, 6).flops
    assert answering.config.n_class == 3


def test_labels_cost_once(engine: Engine) -> None:
    first, spent = engine.candidates.engine(["warm film", "the worst"])
    again, nothing = engine.candidates.engine(["warm film", "the worst"])
    turned, kept = engine.candidates.engine(["the worst", "warm film"])
    _, one = engine.candidates.engine(["the worst", "warm film", "dull"])
    read = engine.predict([engine.encode(name, options=DEEP) for name in ("warm film", "the worst")])
    readers = 2 * 128 * 128 + 3 * 128 + 6 * 2 * 128 * 128
    assert spent == sum(answer.flops for answer in read) + 2 * readers
    assert (again is first, nothing, kept) == (True, 0, 0)
    assert 0 < one < spent
    row = first.encode("a film", options=DEEP)
    scores = [each.predict([row])[0].scores for each in (first, turned)]
    assert scores[0] == scores[1], "their order changes nothing"
    answer = first.predict([row])[0]
    priced = answer.with_candidates(spent)
    assert priced.candidate_flops == spent == priced.flops - answer.flops == priced.flops_full - answer.flops_full
    assert priced.flops_saved == answer.flops_saved
    assert answer.with_candidates(0) == answer


def test_what_was_used_last_is_kept(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "KEPT_LABELS", 3)
    monkeypatch.setattr(candidates, "KEPT_SETS", 1)
    few = candidates.CandidateLabels(engine, np.ones((6, 128, 128), np.float32))
    few.engine(["a", "warm"])
    few.engine(["warm", "film"])
    assert few.engine(["warm", "film"])[1] == 0
    few.engine(["film", "dull"])
    assert few.engine(["warm", "film"])[1] == 0, "its rows are kept"
    assert few.engine(["a", "warm"])[1] > 0, "a was used longest ago"


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["one"], "has 1 labels and may have 2 to 64"),
        ([f"class {i}" for i in range(65)], "has 65 labels and may have 2 to 64"),
        (["warm", " Warm "], "a label twice"),
        (["warm", "x" * 201], "201 characters and may have 200"),
        (["warm", " "], "visible"),
    ],
)
def test_bad_labels_are_refused(engine: Engine, labels: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        engine.candidates.engine(labels)


def test_other_models_take_none() -> None:
    with pytest.raises(InputError, match="takes no candidate_labels"):
        _ = Engine(random_checkpoint()).candidates
    answering, _ = Engine(with_readers()).candidates.engine(["warm", "dull"])
    with pytest.raises(InputError, match="takes no candidate_labels"):
        _ = answering.candidates


def test_steps_lead_to_the_same() -> None:
    result = with_readers()
    engine, other = Engine(result), Engine(result)  # its tokenizer is learned, and another one each time
    steps, taken = other.candidates.steps(["warm film", "the worst"], 0.0), 0
    while True:
        try:
            next(steps)
            taken += 1
        except StopIteration as end:
            sliced, spent = end.value
            break
    whole, at_once = engine.candidates.engine(["warm film", "the worst"])
    assert taken > 4
    assert spent == at_once
    rows = [whole.encode(text) for text in random_texts(8)]
    assert np.array_equal(sliced.logits(rows), whole.logits(rows))


def test_a_folder_keeps_readers_and_says_what_it_learned_from(tmp_path: Path) -> None:
    result = with_readers()
    checkpoint.save(result, tmp_path / "tiny")
    read = checkpoint.read(tmp_path / "tiny")
    assert (read.learned_from, read.candidate_labels) == ("labels", True)
    assert all(np.array_equal(read.tensors[name], result.tensors[name]) for name in READERS)
    assert read.shown()["learned_from"] == "labels"
    plain = random_checkpoint()
    checkpoint.save(plain, tmp_path / "plain")
    stated = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert not {"learned_from", "candidate_labels"} & set(stated), "what says nothing new is absent"
    assert checkpoint.read(tmp_path / "plain").learned_from == "rows"


@pytest.mark.parametrize("changes", [{"learned_from": "hearsay"}, {"candidate_labels": 1}, {"input": "pair"}])
def test_nonsense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be|it is|need"):
        replace(with_readers(), **changes)  # type: ignore[arg-type]


def test_readers_without_the_field_are_foreign(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="foreign tensor 'readers"):
        checkpoint.save(replace(with_readers(), candidate_labels=False), tmp_path / "tiny")
