"""The command's verbs: which are there, what is loaded for them, and what is said where training is not installed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from beexformer import cli
from beexformer.model.errors import BEEError

ROOT = Path(__file__).parent.parent


def test_verbs_of_serving_come_first() -> None:
    group: Any = typer.main.get_group(cli.app)
    names = group.list_commands(None)
    assert names[:3] == ["serve", "classify", "models"]
    assert {"train", "distill", "evaluate", "report"} <= set(names)
    assert group.get_command(None, "nonsense") is None


@pytest.mark.parametrize(
    ("arguments", "loaded"),
    [
        (("models", "--help"), set()),
        (("--help",), {f"beexformer.{name}" for name in ("training.cli", "training.flags", "report.cli")}),
    ],
)
def test_only_a_call_or_the_list_of_all_verbs_loads_those_of_training(
    arguments: tuple[str, ...], loaded: set[str]
) -> None:
    code = (
        "import sys\nfrom beexformer.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(*(n for n in sys.modules if n.startswith(('beexformer.training.', 'beexformer.report.', 'torch'))"
        " or n in ('numpy', 'fastapi')), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert "Usage" in done.stdout
    assert set(done.stderr.split()) == loaded


def test_an_installation_that_only_serves_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    group: Any = typer.main.get_group(cli.app)
    assert group.list_commands(None) == ["serve", "classify", "models"]
    with pytest.raises(BEEError, match="'train' is no verb of this installation, which only serves"):
        group.get_command(None, "train")
