"""Profiles that are milliseconds: what they keep, and what machines of different speed make of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import random_checkpoint, random_texts

from beexformer.model import checkpoint
from beexformer.model.budget import Budget, Rung
from beexformer.model.cost import CostModel
from beexformer.model.engine import Engine
from beexformer.model.manifest import Profile
from beexformer.model.options import ExitOptions
from beexformer.training import profiles
from beexformer.training.data import Columns

FIRST, HALF, DEEP = ExitOptions(max_blocks=1), ExitOptions(delta=0.1), ExitOptions(min_blocks=6)
RUNGS = (
    Rung(FIRST, 1e5, (1.0, 0, 0, 0, 0, 0)),
    Rung(HALF, 3e5, (0, 0.5, 0.5, 0, 0, 0)),
    Rung(DEEP, 6e5, (0, 0, 0, 0, 0, 1.0)),
)


def milliseconds(a_block: float) -> CostModel:
    """A machine that takes so long for a block, however long the text is."""
    return CostModel((0.0, a_block, 0.0, 0.0))


@pytest.mark.parametrize(("a_block", "expected"), [(0.05, DEEP), (0.1, HALF), (0.3, FIRST), (9.0, FIRST)])
def test_a_machine_takes_what_it_has_the_time_for(a_block: float, expected: ExitOptions) -> None:
    assert Budget(0.5, 20, RUNGS).fit(milliseconds(a_block).milliseconds) == expected


def test_predictions_weigh_blocks_by_their_texts() -> None:
    budget = Budget(0.5, 20, RUNGS)
    predicted = [budget.predicted(rung, milliseconds(0.1).milliseconds) for rung in RUNGS]
    assert predicted == pytest.approx([0.1, 0.25, 0.6])


def test_an_engine_converts_when_it_is_loaded_and_again_when_it_is_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    result = replace(random_checkpoint(), profiles={"ms-500": Profile(HALF, {}, Budget(0.5, 20, RUNGS))})
    monkeypatch.setattr("beexformer.model.cost.of_level", lambda *_: milliseconds(9.0))
    engine = Engine(result)
    assert engine.profiles["ms-500"] == FIRST
    monkeypatch.setattr("beexformer.model.cost.calibrate", lambda *_: milliseconds(0.05))
    engine.warm()
    assert engine.profiles["ms-500"] == DEEP
    assert engine.description["profiles"]["ms-500"]["exit"] == {"min_blocks": 6}
    answer = engine.predict([engine.encode("a film", options=ExitOptions(profile="ms-500"))])[0]
    assert (answer.exit_index, answer.profile) == (6, "ms-500")


def test_a_folder_keeps_it(tmp_path: Path) -> None:
    profile = Profile(HALF, {"rows": 7}, Budget(0.5, 20, RUNGS))
    checkpoint.save(replace(random_checkpoint(), profiles={"ms-500": profile}), tmp_path / "tiny")
    assert checkpoint.read(tmp_path / "tiny").profiles == {"ms-500": profile}
    plain = replace(random_checkpoint(), profiles={"fast": Profile(FIRST, {})})
    checkpoint.save(plain, tmp_path / "plain")
    assert "budget" not in json.loads((tmp_path / "plain" / "config.json").read_text())["profiles"]["fast"]


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (lambda: Budget(0, 20, RUNGS), "above 0"),
        (lambda: Budget(0.5, 20, ()), "1 to 64 rungs"),
        (lambda: Budget(0.5, 20, RUNGS[::-1]), "order of their FLOPs"),
        (lambda: Budget(0.5, 20, (Rung(FIRST, 1.0, (1.0,)),)), "for each of 6 blocks"),
        (lambda: Budget(0.5, 20, (replace(RUNGS[0], options=ExitOptions(max_blocks=9)),)), "max_blocks is 9"),
        (lambda: Budget(0.5, 20, (replace(RUNGS[0], options=ExitOptions(profile="x")),)), "names another profile"),
    ],
)
def test_nonsense_is_refused(budget: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(random_checkpoint(), profiles={"ms-500": Profile(HALF, {}, budget())})  # type: ignore[operator]


def test_tune_writes_rungs_that_rise(tmp_path: Path) -> None:
    checkpoint.save(random_checkpoint(), tmp_path / "tiny")
    lines = [f"{text},{'negative' if i % 2 else 'positive'}" for i, text in enumerate(random_texts(120, seed=5))]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    result = profiles.run(tmp_path / "tiny", tmp_path / "rows.csv", Columns(), "ms", 50.0, labelled=True)
    budget = checkpoint.read(tmp_path / "tiny").profiles["ms-50000"].budget
    assert budget is not None
    assert budget.milliseconds == 50
    flops = [rung.flops for rung in budget.rungs]
    assert flops == sorted(set(flops))
    assert all(sum(rung.exits) == pytest.approx(1) for rung in budget.rungs)
    assert budget.fit(milliseconds(0.001).milliseconds) == budget.rungs[-1].options == result.options
