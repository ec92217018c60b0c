"""One bar over a run of known phases: how far it is, and the time left of the whole."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from beexformer.training.progress import Plan, RunProgress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("beexformer.training.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_the_bar_goes_over_all_phases(clock: list[float]) -> None:
    plan = Plan({"running": 10.0, "learning": 5.0, "checking": 5.0})
    assert (plan.done, plan.left()) == (0, 20)
    plan.begin("running")
    clock[0] = 4.0
    plan.moved(0.5)
    assert plan.done == pytest.approx(0.25)
    assert plan.left() == pytest.approx(4 + 10), "this phase by its own speed, later ones as expected"
    clock[0] = 20.0
    plan.begin("learning")
    assert plan.done == pytest.approx(0.5)
    assert plan.left() == pytest.approx(5 + 2 * 5), "what is finished took twice as long as was expected"
    plan.begin("checking")
    assert plan.done == pytest.approx(0.75)


def test_phases_that_are_left_out_count_as_done(clock: list[float]) -> None:
    plan = Plan({"a": 1.0, "b": 1.0, "c": 2.0})
    plan.begin("c")
    assert plan.done == 0.5


def test_a_terminal_sees_the_phase_and_the_time_left() -> None:
    out = io.StringIO()
    progress = RunProgress(Console(file=out, force_terminal=True, width=100))
    with progress.bar:
        progress.plan({"running the texts": 3600.0, "checking the model": 10.0})
        report = progress.stage("running the texts")
        report(1, 4, "")
        progress.bar.refresh()
    text = out.getvalue()
    assert "running the texts" in text
    assert "25%" in text
    assert "left" in text


def test_without_a_plan_each_stage_has_the_bar() -> None:
    out = io.StringIO()
    progress = RunProgress(Console(file=out, force_terminal=True, width=100))
    with progress.bar:
        progress.stage("training")(3, 4, "loss 0.5")
        progress.bar.refresh()
    assert "3/4 loss 0.5" in out.getvalue()


def test_elsewhere_a_line_says_that_a_stage_is_done() -> None:
    out = io.StringIO()
    report = RunProgress(Console(file=out)).stage("training")
    report(1, 2, "")
    report(2, 2, "loss 0.1")
    assert out.getvalue() == "training: 2/2 loss 0.1\n"
