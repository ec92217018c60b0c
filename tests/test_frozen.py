"""Heads on a tiny 1-bit backbone: what they read, what is written, what it is judged by."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny import WORDS, random_texts

from beexformer.model.config import BEEConfig
from beexformer.model.engine import Engine
from beexformer.model.errors import TrainingError
from beexformer.model.options import ExitOptions
from beexformer.model.tokenizer import Tokenizer, train_wordpiece
from beexformer.training import backbone, evaluate, export, frozen, mean_states, recipe, train
from beexformer.training.batches import pad
from beexformer.training.network import BEExformer, mean_state
from beexformer.training.tuning import Observed

JSON = train_wordpiece([" ".join(WORDS)] * 5, 100)
FACTS = {"encoder": "none", "recipe": {"text": []}}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # eighteen words in short rows: a sign that lies near its threshold does so in many rows at once
    monkeypatch.setattr(export, "FLIPPED", 0.2)
    torch.manual_seed(0)
    shape = {"d_model": 128, "n_block": 3, "n_head": 2, "max_tokens": 32, "embedding": "int4+2"}
    network = BEExformer(BEEConfig(vocab_size=Tokenizer(JSON, 32).vocab_size, n_class=2, **shape))
    network.fix_embedding(np.ones(network.config.vocab_size))
    backbone.write(tmp_path / "tiny", network, JSON, FACTS)
    write(tmp_path / "train.csv", random_texts(160, longest=9))
    return tmp_path


def write(path: Path, texts: list[str]) -> None:
    lines = [f"{text},{'bad' if 'worst' in text.split() else 'good'}" for text in texts]
    path.write_text("text,label\n" + "\n".join(lines) + "\n")


def plan(**data: str) -> recipe.Recipe:
    content: dict[str, Any] = {**recipe.OWN_TEXTS, "start": {"backbone": "tiny"}}
    return recipe.parse({"name": "toy", "data": {"train": "train.csv", **data}, **content}, "test", recipe.Recipe)


def run(plan: recipe.Recipe, root: Path) -> dict[str, Any]:
    return train.run(plan, root, root / "out", root / "work", Console(quiet=True))


def test_states_are_those_of_the_network(root: Path) -> None:
    found = backbone.read("tiny", root)
    config = recipe.parse(
        {
            "network": found.shape | {"head": "linear"},
            "name": "a",
            "data": {"train": "x"},
            "optim": {"embedding": "frozen"},
        },
        "test",
        recipe.Recipe,
    ).network.config(Tokenizer(JSON, 32).vocab_size, 2)
    network = mean_states.network_of(found, config)
    texts = random_texts(20)
    states = mean_states.of(mean_states.engine_of(network, JSON), [*texts], threads=2)
    ids, mask = pad(Tokenizer(JSON, 32).encode_rows(texts))
    with torch.no_grad():
        ours = torch.stack([mean_state(h, mask) for h in network.states(network.embed(ids), mask)], 1).numpy()
    assert states.shape == (20, 3, 128)
    assert np.median(np.abs(states - ours)) < 1e-5
    assert (np.abs(states - ours).max((1, 2)) < 1e-3).mean() > 0.8, "a sign that flips moves a row"


def test_all_rows_are_learned_from_and_judged_unseen(root: Path) -> None:
    evaluation = run(plan(), root)
    engine = Engine.load(root / "out")
    assert engine.config.head == "linear"
    assert engine.predict([engine.encode("the worst film")])[0].label == "bad"
    assert engine.description["evaluation"] == json.loads(json.dumps(evaluation))
    assert (evaluation["dev"]["rows"], evaluation["provenance"]["train_rows"]) == (160, 160)
    assert evaluation["dev"]["score"] > 0.8
    assert len(evaluation["calibration"]["per_exit"]) == 3
    assert evaluation["calibration"]["dev"]["ece_after"] < 0.2
    assert "cross-validated" in (root / "out" / "README.md").read_text()
    with pytest.raises(TrainingError, match="trained on all of its rows"):
        evaluate.shipped(engine, root)


def test_a_development_file_is_scored_on_and_not_learned_from(root: Path) -> None:
    write(root / "dev.csv", random_texts(30, seed=9, longest=9))
    evaluation = run(plan(dev="dev.csv"), root)
    assert evaluation["dev"]["rows"] == 30
    assert "cross_validated" not in evaluation["provenance"]
    rows = evaluate.splits(plan(dev="dev.csv").data, root).dev
    assert evaluate.evaluate(Engine.load(root / "out"), rows)["score"] == evaluation["dev"]["score"]


def test_a_full_precision_backbone_has_no_states_to_serve(root: Path) -> None:
    config = BEEConfig(
        vocab_size=Tokenizer(JSON, 32).vocab_size,
        n_class=2,
        d_model=128,
        n_block=3,
        n_head=2,
        max_tokens=32,
        binary=False,
    )
    backbone.write(root / "real", BEExformer(config), JSON, FACTS)
    content = {**recipe.OWN_TEXTS, "start": {"backbone": "real"}, "name": "toy", "data": {"train": "train.csv"}}
    with pytest.raises(TrainingError, match="needs a 1-bit backbone"):
        run(recipe.parse(content, "test", recipe.Recipe), root)


def test_exits_begin_as_early_as_the_score_allows() -> None:
    config = BEEConfig(vocab_size=9, n_class=2, d_model=64, n_block=3, n_head=1, d_head=64)
    labels = np.arange(200) % 2
    right = np.where(labels[:, None] == np.arange(2), 2.0, 0.0)
    guess = 1e-4 * np.where(np.arange(200)[:, None] % 4 < 2, right, -right)  # half of them wrong, and nothing gained
    seen = Observed(config, np.stack([guess, right, 0.5 * right], 1), np.full(200, 5), labels)
    assert frozen.exit_options(seen, "accuracy") == ExitOptions(delta=1e-4, min_blocks=2, max_blocks=2)
    early = Observed(config, np.stack([right, 1.1 * right, right], 1), np.full(200, 5), labels)
    assert frozen.exit_options(early, "accuracy") == ExitOptions(delta=1e-4, min_blocks=1, max_blocks=2)
