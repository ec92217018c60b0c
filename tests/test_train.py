"""A run from files to a served checkpoint: resumed runs equal unbroken ones, every kind of data and variant trains."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny import random_texts

from model import export, recipe, train
from model.engine import Engine
from model.errors import TrainingError

NETWORK = {"d_model": 64, "n_block": 2, "n_head": 2, "d_head": 64, "max_tokens": 32}
OPTIM = {"epochs": 2, "batch_size": 16, "learning_rate": 0.005, "dropout": 0.1, "evaluations": 2, "log_steps": 2}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """120 rows whose label is whether the text holds the word `worst`."""
    texts = random_texts(120, longest=9)
    lines = [f"{text},{'bad' if 'worst' in text.split() else 'good'}" for text in texts]
    (tmp_path / "train.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    return tmp_path


def plan(**sections: Any) -> recipe.Recipe:
    start = {"start": {"vocab_size": 100}, "network": NETWORK, "optim": OPTIM}
    return recipe.parse({"name": "toy", "data": {"train": "train.csv"}, **start, **sections}, "test")


def run(recipe: recipe.Recipe, root: Path, name: str = "run") -> dict[str, Any]:
    return train.run(recipe, root, root / "out" / name, root / "work" / name, Console(quiet=True))


def weights(root: Path, name: str) -> dict[str, torch.Tensor]:
    return torch.load(root / "work" / name / "best.pt", weights_only=True)


def test_a_run_ends_with_a_checkpoint_the_engine_serves(root: Path) -> None:
    evaluation = run(plan(), root)
    engine = Engine.load(root / "out" / "run")
    assert engine.labels == ("bad", "good")
    assert engine.predict([engine.encode("the worst film")])[0].label in engine.labels
    assert engine.description["evaluation"] == json.loads(json.dumps(evaluation))
    assert evaluation["dev"]["rows"] == 12
    assert evaluation["provenance"]["recipe"]["name"] == "toy"
    log = [json.loads(line) for line in (root / "work" / "run" / "log.jsonl").read_text().splitlines()]
    assert {"step", "epoch", "loss", "learning_rate", "tokens_per_second"} <= log[0].keys()
    assert [line["step"] for line in log if "dev" in line] == [4, 7, 11, 14]


@pytest.mark.parametrize("schedule", ["plateau", "linear"])
def test_a_killed_run_goes_on_to_the_same_weights(root: Path, monkeypatch: pytest.MonkeyPatch, schedule: str) -> None:
    recipe = plan(optim={**OPTIM, "schedule": schedule, "warmup": 0.2, "average_from": 0.2})
    (root / "work" / "run").mkdir(parents=True)
    (root / "work" / "killed").mkdir()
    run(recipe, root)
    # the vocabulary is learned once a run and is not reproducible, so both runs get the same
    (root / "work" / "killed" / "tokenizer.json").write_text((root / "work" / "run" / "tokenizer.json").read_text())
    step = train.Trainer.train_step

    def killed(self: train.Trainer, batch: np.ndarray) -> float:
        if self.step == 6:  # between the evaluation at step 4 and the one at 7
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(train.Trainer, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, root, "killed")
    assert not (root / "out" / "killed").exists()
    monkeypatch.setattr(train.Trainer, "train_step", step)
    run(recipe, root, "killed")
    whole, resumed = (torch.load(root / "work" / name / "state.pt", weights_only=True) for name in ("run", "killed"))
    for name, tensor in whole["network"].items():
        assert torch.equal(tensor, resumed["network"][name]), name
    assert all(torch.equal(tensor, weights(root, "killed")[name]) for name, tensor in weights(root, "run").items())


def test_a_run_of_another_recipe_is_not_resumed(root: Path) -> None:
    run(plan(), root)
    with pytest.raises(TrainingError, match="another recipe"):
        run(plan(optim={**OPTIM, "seed": 2}), root)


def test_training_stops_after_patience_evaluations_without_a_better_score(root: Path) -> None:
    run(plan(optim={**OPTIM, "epochs": 50, "patience": 2}), root)
    log = (root / "work" / "run" / "log.jsonl").read_text().splitlines()
    scores = [line["dev"]["score"] for line in map(json.loads, log) if "dev" in line]
    assert len(scores) < 100
    assert scores.index(max(scores)) == len(scores) - 3


def test_the_second_phase_sees_the_labelled_rows(root: Path) -> None:
    evaluation = run(plan(finish={"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "evaluations": 1}), root)
    first, second = (
        torch.load(root / "work" / "run" / part / "state.pt", weights_only=True)["position"] for part in ("", "finish")
    )
    assert second["tokens"] == evaluation["provenance"]["tokens"] == first["tokens"] * 3 // 2


@pytest.mark.parametrize("variant", [{"binary": False}, {"slfn": "time"}, {"binary": False, "early_exit": False}])
def test_variants_to_compare_with_are_trained_and_not_packed(root: Path, variant: dict[str, Any]) -> None:
    evaluation = run(plan(network={**NETWORK, **variant}), root)
    assert 0 <= evaluation["dev"]["score"] <= 1
    assert not (root / "out").exists()


def test_wee_is_packed_with_its_one_exit(root: Path) -> None:
    run(plan(network={**NETWORK, "early_exit": False}), root)
    assert Engine.load(root / "out" / "run").config.exits == (2,)


def test_pairs_of_three_classes_in_jsonl_with_their_own_dev_and_test(root: Path) -> None:
    (root / "pairs").mkdir()
    for name in ("train", "dev", "test"):
        rows = [{"a": text, "b": text[::-1], "mark": i % 3} for i, text in enumerate(random_texts(30, longest=5))]
        (root / "pairs" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = {"train": "pairs", "text": "a", "text_pair": "b", "label": "mark", "metric": "macro_f1"}
    evaluation = run(plan(data=data, network={**NETWORK, "d_model": 128}), root)
    assert (evaluation["dev"]["rows"], evaluation["test"]["rows"], evaluation["dev"]["metric"]) == (30, 30, "macro_f1")
    assert Engine.load(root / "out" / "run").labels == ("0", "1", "2")


def test_the_candidate_is_the_mean_of_the_evaluated_weights(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    candidate = train.Trainer.candidate

    def watched(self: train.Trainer) -> Any:
        seen.append(self.network.blocks[0].slfn.gates_x.weight.detach().clone())
        return candidate(self)

    monkeypatch.setattr(train.Trainer, "candidate", watched)
    run(plan(optim={**OPTIM, "average_from": 0.4}), root)
    state = torch.load(root / "work" / "run" / "state.pt", weights_only=True)
    assert len(seen) == 4
    assert state["position"]["averaged"] == 3, "the evaluations at steps 7, 11 and 14 of 14"
    torch.testing.assert_close(state["average"]["blocks.0.slfn.gates_x.weight"], torch.stack(seen[1:]).mean(0))


def test_one_class_is_refused(root: Path) -> None:
    (root / "train.csv").write_text("text,label\nx,1\ny,1\n")
    with pytest.raises(TrainingError, match="only one class"):
        run(plan(), root)


def test_disagreement_of_torch_and_engine_writes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(TrainingError, match="nothing was written"):
        run(plan(), root)
    assert not (root / "out").exists()


def test_training_needs_no_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert train._commit() == "unknown"  # no repository
    monkeypatch.setenv("PATH", str(tmp_path))
    assert train._commit() == "unknown"  # no git
