"""Heads that read how a text begins beside the mean over all of it: what is read, answered, stored and counted."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import random_checkpoint, random_texts, with_readers

from beexformer.model import flops, probes
from beexformer.model.checkpoint import Checkpoint, read, save
from beexformer.model.config import BEEConfig
from beexformer.model.engine import Engine
from beexformer.model.errors import CheckpointError
from beexformer.model.options import ExitOptions

LABELS = ("who", "where", "when")
BOTH: dict[str, Any] = {"head": "linear", "pooling": "mean_and_start"}


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return random_checkpoint(6, LABELS, **BOTH)


@pytest.fixture(scope="module")
def engine(checkpoint: Checkpoint) -> Engine:
    return Engine(checkpoint)


def test_heads_read_both_means(engine: Engine) -> None:
    """The reference implementation sums in another order, so a sign may flip now and then."""
    rows = [engine.encode(text) for text in random_texts(40, longest=40)]
    assert max(row.tokens for row in rows) > 32
    agree = [np.abs(engine.logits([row])[0] - engine.reference_logits(row)).max() < 1e-3 for row in rows]
    assert np.mean(agree) > 0.8


def test_the_second_half_of_a_head_reads_the_beginning(checkpoint: Checkpoint, engine: Engine) -> None:
    weight = checkpoint.tensors["heads.weight"].copy()
    assert weight.shape == (6, 1, 2 * 128, 16)
    weight[:, :, 128:] = 0
    alone = Engine(replace(checkpoint, tensors={**checkpoint.tensors, "heads.weight": weight}))
    mean = Engine(
        replace(
            checkpoint,
            config=replace(checkpoint.config, pooling="mean"),
            tensors={**checkpoint.tensors, "heads.weight": np.ascontiguousarray(weight[:, :, :128])},
        )
    )
    row = engine.encode("the worst movie ever made")
    assert (alone.logits([row]) == mean.logits([row])).all(), "the first half reads the mean, to the bit"
    assert np.abs(engine.logits([row]) - mean.logits([row])).max() > 0.01


def test_a_row_does_not_feel_its_neighbours_or_its_turns(engine: Engine) -> None:
    rows = [engine.encode(text, options=ExitOptions(min_blocks=6)) for text in random_texts(20, longest=40)]
    alone = [engine.predict([row])[0] for row in rows]
    assert engine.predict(rows[::-1]) == alone[::-1]
    waiting = forwards = [engine.begin(row) for row in rows]
    while waiting:
        waiting = [forward for forward in waiting if not forward.advance(0.0)]
    assert [forward.answer() for forward in forwards] == alone


def test_the_file_comes_back_as_it_was_and_says_so(engine: Engine, checkpoint: Checkpoint, tmp_path: Path) -> None:
    made = replace(checkpoint, probes=probes.make(engine))
    assert made.probes
    save(made, tmp_path / "both")
    stated = json.loads((tmp_path / "both" / "config.json").read_text())
    assert (stated["format_version"], stated["network"]["pooling"]) == (4, "mean_and_start")
    again = Engine.load(tmp_path / "both")
    again.warm()
    rows = [engine.encode(text) for text in random_texts(10)]
    assert (again.logits(rows) == engine.logits(rows)).all()
    assert (read(tmp_path / "both").tensors["heads.weight"] == checkpoint.tensors["heads.weight"]).all()


def test_a_file_whose_heads_read_the_mean_is_as_before(tmp_path: Path) -> None:
    save(random_checkpoint(head="linear"), tmp_path / "mean")
    assert "pooling" not in json.loads((tmp_path / "mean" / "config.json").read_text())["network"]
    assert read(tmp_path / "mean").config.pooling == "mean"


def test_weights_of_one_mean_are_not_read_as_those_of_two(checkpoint: Checkpoint, tmp_path: Path) -> None:
    weight = np.ascontiguousarray(checkpoint.tensors["heads.weight"][:, :, :128])
    half = replace(checkpoint, tensors={**checkpoint.tensors, "heads.weight": weight})
    with pytest.raises(CheckpointError, match=r"heads\.weight.* must be int8 \[6, 1, 256, 16\]"):
        save(half, tmp_path / "half")


@pytest.mark.parametrize(("tokens", "weighed"), [(5, 5), (40, 32)])
def test_flops_of_the_second_mean_are_counted(tokens: int, weighed: int) -> None:
    mean = BEEConfig(vocab_size=9, n_class=5, d_model=64, head="linear")
    both = replace(mean, pooling="mean_and_start")
    pooling, product = 2 * weighed * 64 + 64 + 2 * weighed, 2 * 64 * 5
    assert flops.head(both, tokens).real - flops.head(mean, tokens).real == pooling + product


@pytest.mark.parametrize(
    "fields", [{"head": "binary"}, {"pairs": "apart"}, {"early_exit": False}], ids=lambda fields: next(iter(fields))
)
def test_what_it_does_not_go_with_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match='pooling="mean_and_start" goes with linear heads at every exit'):
        BEEConfig(vocab_size=9, n_class=2, d_model=64, **{**BOTH, **fields})


def test_another_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="pooling='max' must be one of"):
        BEEConfig(vocab_size=9, n_class=2, d_model=64, head="linear", pooling="max")  # type: ignore[arg-type]


def test_readers_of_candidate_labels_read_the_mean_alone() -> None:
    named = with_readers()
    with pytest.raises(ValueError, match=r"network\.pooling must be 'mean'"):
        replace(named, config=replace(named.config, pooling="mean_and_start"))
