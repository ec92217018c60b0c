import io
from pathlib import Path

import numpy as np
from rich.console import Console
from tiny import random_texts

from model.config import BEEConfig
from model.data import Rows
from model.engine import Engine
from model.evaluate import evaluate, evaluate_logits, picture, tables

TEXTS = random_texts(30)
ROWS = Rows(TEXTS, None, np.arange(30) % 2)


def test_by_hand() -> None:
    config = BEEConfig(vocab_size=9, n_class=2, d_model=64, n_block=2, n_head=1, d_head=64)
    sure, surer = [0.0, 1.0], [0.0, 2.0]
    logits = np.array([[sure, surer], [sure, sure], [[2.0, 0.0], sure]])
    found = evaluate_logits(config, logits, np.array([5, 5, 5]), np.array([1, 0, 0]), "accuracy", 1e-4)
    assert found["exits"] == [0, 3]
    assert found["score"] == 1 / 3
    assert [line["score"] for line in found["per_exit"]] == [2 / 3, 1 / 3]
    last = found["delta_curve"][-1]
    assert (last["delta"], last["exits"], last["score"]) == (1.0, [3, 0], 2 / 3)
    assert 0.4 < last["flops_saved_ratio"] < 0.5


def test_it_counts_what_the_service_answers(engine: Engine) -> None:
    found = evaluate(engine, ROWS)
    served = engine.predict([engine.encode(text) for text in TEXTS])
    right = [answer.label == engine.labels[label] for answer, label in zip(served, ROWS.labels, strict=True)]
    assert found["score"] == np.mean(right)
    assert found["exits"] == [sum(answer.exit_index == c for answer in served) for c in range(1, 7)]
    assert np.isclose(found["flops_saved_ratio"], np.mean([answer.flops_saved_ratio for answer in served]))


def test_table_and_picture(engine: Engine, tmp_path: Path) -> None:
    found = evaluate(engine, ROWS)
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(tables("tiny", found))
    text = console.export_text()
    assert f"accuracy {found['score']:.4f}" in text
    picture("tiny", found, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
