"""Texts that a checkpoint shows: the owner's, only where they asked for it."""

from pathlib import Path

import numpy as np
from tiny import random_checkpoint, random_texts

from beexformer.model import checkpoint
from beexformer.model.engine import Engine
from beexformer.training import examples
from beexformer.training.data import Rows


def test_a_text_of_each_class_that_is_answered_right(tmp_path: Path) -> None:
    checkpoint.save(random_checkpoint(input="text"), tmp_path / "tiny")
    engine = Engine.load(tmp_path / "tiny")
    texts = [*random_texts(60), "x" * 500]
    answers = [answer.label for answer in engine.predict([engine.encode(text) for text in texts])]
    rows = Rows(texts, None, np.array([engine.labels.index(label) for label in answers], dtype=np.int64))
    assert examples.store(tmp_path / "tiny", rows) == len(set(answers))
    kept = checkpoint.read(tmp_path / "tiny").examples
    assert all(example.consent and example.text in texts and len(example.text) <= 160 for example in kept)
    assert {example.title for example in kept} == set(answers)


def test_what_is_answered_wrong_is_not_shown(tmp_path: Path) -> None:
    engine = Engine(random_checkpoint(input="text"))
    texts = random_texts(30)
    answers = [engine.labels.index(answer.label) for answer in engine.predict([engine.encode(text) for text in texts])]
    assert examples.choose(engine, Rows(texts, None, 1 - np.array(answers, dtype=np.int64))) == ()
