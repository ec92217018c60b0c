"""The learning rates that optimizers are given, step by step: warm-up and decay of all that is trained."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from test_distill import recipe as backbone_recipe
from test_distill import write_text
from test_teacher import ROWS, random_encoder
from test_train import OPTIM, plan, root  # noqa: F401  (a fixture)

from beexformer.training import distill, teacher, train

Rates = list[float]


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> Rates:
    """The rate of the first group of parameters at every step of Adam or AdamW."""
    seen: Rates = []

    def watched(step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)  # torch looks at marks on it, and would wrap it for good
        def recording(self: torch.optim.Optimizer, *arguments: Any, **options: Any) -> Any:
            seen.append(float(self.param_groups[0]["lr"]))
            return step(self, *arguments, **options)

        return recording

    for kind in (torch.optim.Adam, torch.optim.AdamW):  # once one was made, torch gives AdamW a step of its own
        if "step" in vars(kind):
            monkeypatch.setattr(kind, "step", watched(kind.step))
    return seen


def assert_rises_then_falls(seen: Rates, most: float, warmup: float) -> None:
    top = int(np.argmax(seen))
    assert seen[top] == pytest.approx(most, rel=0.25), "the warm-up ends at the rate that was asked for"
    assert 0 < top <= 2 * warmup * len(seen) + 1
    assert (np.diff(seen[: top + 1]) > 0).all(), "warm-up"
    assert (np.diff(seen[top:]) <= 0).all(), "decay"
    assert seen[0] < 0.6 * most
    assert seen[-1] < 0.15 * most


def test_a_task_warms_up_and_decays(root: Path, rates: Rates) -> None:  # noqa: F811
    optim = {**OPTIM, "epochs": 4, "warmup": 0.2}
    train.run(plan(optim=optim), root, root / "out", root / "work", Console(quiet=True))
    assert len(rates) > 20
    assert_rises_then_falls(rates, OPTIM["learning_rate"], 0.2)


def test_a_teacher_warms_up_and_decays(tmp_path: Path, rates: Rates) -> None:
    teacher.finetune(
        random_encoder(tmp_path),
        ROWS,
        2,
        tmp_path / "run",
        epochs=6,
        learning_rate=0.01,
        batch_size=4,
        dtype=torch.float32,
        seed=1,
        report=lambda done, total, postfix: None,
    )
    assert len(rates) == 96
    assert_rises_then_falls([rate for rate in rates if rate], 0.01, 0.06)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["full_precision", "bits"])
def test_distillation_warms_up_and_decays(
    stage: str, tmp_path: Path, rates: Rates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill, "locate", lambda name, cache: random_encoder(tmp_path, layers=2))
    write_text(tmp_path)
    other = "bits" if stage == "full_precision" else "full_precision"
    plan = backbone_recipe(**{stage: 20_000, other: 128})
    distill.run(plan, tmp_path, tmp_path / "out", tmp_path / "work" / "run", Console(quiet=True), "cpu")
    assert_rises_then_falls(rates[:-1] if stage == "full_precision" else rates[1:], 2e-3, 0.03)
