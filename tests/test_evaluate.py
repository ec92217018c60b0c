import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tiny import random_texts

from beexformer.model import exits
from beexformer.model.checkpoint import Checkpoint
from beexformer.model.config import BEEConfig
from beexformer.model.engine import Engine
from beexformer.model.errors import TrainingError
from beexformer.model.options import ExitSettings
from beexformer.training.data import Rows
from beexformer.training.evaluate import (
    evaluate,
    evaluate_logits,
    evaluate_policy,
    shipped,
)
from beexformer.training.pictures import picture
from beexformer.training.recipe import Data
from beexformer.training.splits import splits
from beexformer.training.terminal_tables import shipped_table, tables

TEXTS = random_texts(30)
ROWS = Rows(TEXTS, None, np.arange(30) % 2)


def test_by_hand() -> None:
    config = BEEConfig(vocab_size=9, n_class=2, d_model=64, n_block=2, n_head=1, d_head=64)
    sure, surer = [0.0, 1.0], [0.0, 2.0]
    logits = np.array([[sure, surer], [sure, sure], [[2.0, 0.0], sure]])
    result = evaluate_logits(
        config, logits, np.array([5, 5, 5]), np.array([1, 0, 0]), "accuracy", ExitSettings(1e-4, 0.0, 1, 2)
    )
    assert result["exits"] == [0, 3]
    assert result["score"] == 1 / 3
    assert [line["score"] for line in result["per_exit"]] == [2 / 3, 1 / 3]
    last = result["delta_curve"][-1]
    assert (last["delta"], last["exits"], last["score"]) == (1.0, [3, 0], 2 / 3)
    assert 0.4 < last["flops_saved_ratio"] < 0.5
    # 1 of two logits is 0.84 of ln 2, 2 is 0.53
    curve = {(point["delta"], point["entropy_threshold"]): point["exits"] for point in result["entropy_curve"]}
    assert [curve[1e-4, share] for share in (0.5, 0.6, 0.8, 0.9)] == [[0, 3], [1, 2], [1, 2], [3, 0]]
    assert {delta for delta, _ in curve} == {1e-4, -1.0}


def test_it_counts_what_the_service_answers(engine: Engine) -> None:
    result = evaluate(engine, ROWS)
    served = engine.predict([engine.encode(text) for text in TEXTS])
    right = [answer.label == engine.labels[label] for answer, label in zip(served, ROWS.labels, strict=True)]
    assert result["score"] == np.mean(right)
    assert result["exits"] == [sum(answer.exit_index == c for answer in served) for c in range(1, 7)]
    assert np.isclose(result["flops_saved_ratio"], np.mean([answer.flops_saved_ratio for answer in served]))


def test_table_and_picture(engine: Engine, tmp_path: Path) -> None:
    result = evaluate(engine, ROWS)
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(tables("tiny", result))
    text = console.export_text()
    assert f"accuracy {result['score']:.4f}" in text
    picture("tiny", result, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_another_exit_may_answer_than_the_one_that_is_left_at() -> None:
    config = BEEConfig(vocab_size=9, n_class=2, d_model=64, n_block=2, n_head=1, d_head=64)
    logits = np.array([[[2.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 2.0]]])
    given = (config, logits, np.array([5, 5]), np.array([0, 1]), "accuracy", exits.entropy_gain(1e-4))
    assert evaluate_policy(*given)["score"] == 0.5
    surest = evaluate_policy(*given, answering=exits.surest)
    assert surest["score"] == 1.0
    assert (surest["exits"], surest["flops_saved_ratio"]) == ([0, 2], 0.0), "the depth is the same"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of splits and a single file, 30 rows each, classes by number."""
    (tmp_path / "task").mkdir()
    lines = "".join(f"{text}\t{i % 2}\n" for i, text in enumerate(TEXTS))
    for name in ("task/train.tsv", "task/dev.tsv", "one.tsv"):
        (tmp_path / name).write_text("sentence\tlabel\n" + lines)
    return tmp_path


def test_splits_are_those_that_training_reads(root: Path) -> None:
    result = splits(Data(train="task", text="sentence"), root, ["bad", "good"])
    assert (result.dev.texts, result.test, result.labels) == (TEXTS, None, ["bad", "good"])
    assert result.dev.labels.tolist() == ROWS.labels.tolist()
    held_out = splits(Data(train="one.tsv", text="sentence"), root)
    assert (len(held_out.train), len(held_out.dev), held_out.labels) == (27, 3, ["0", "1"])
    assert splits(Data(train="task", dev="one.tsv", text="sentence"), root).dev.texts == TEXTS
    with pytest.raises(TrainingError, match=r"no such file or folder; is .* the data folder"):
        splits(Data(train="nowhere"), root)


def engine_of(checkpoint: Checkpoint, **evaluation: Any) -> Engine:
    return Engine(replace(checkpoint, name="one", size_bytes=123_456, evaluation=evaluation))


@pytest.mark.slow
def test_a_checkpoint_is_measured_on_the_rows_that_it_names(checkpoint: Checkpoint, root: Path) -> None:
    data = {"train": "task", "text": "sentence", "metric": "matthews"}
    engine = engine_of(checkpoint, provenance={"recipe": {"data": data}})
    result = shipped(engine, root)
    wanted = evaluate(engine, ROWS, "matthews")
    assert result["task"] == "one"
    assert result["size_bytes"] == 123_456
    for key in ("metric", "rows", "score", "full_depth_score", "flops_saved_ratio", "exits"):
        assert result[key] == wanted[key], key
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(shipped_table([result]))
    assert f"{result['score']:.4f}" in console.export_text()


def test_a_checkpoint_that_names_no_rows_says_so(checkpoint: Checkpoint, root: Path) -> None:
    with pytest.raises(TrainingError, match=r"checkpoint 'one' doesn't say .* which rows"):
        shipped(engine_of(checkpoint), root)
