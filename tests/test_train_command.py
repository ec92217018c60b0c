"""`beexformer train` as it is called: what is refused before anything is made, and what flags leave in a checkpoint."""

from pathlib import Path
from typing import Any

import pytest
from tiny import random_texts
from tiny_backbone import write_backbone
from typer.testing import CliRunner

from beexformer.model import checkpoint
from beexformer.model.errors import BEEError
from beexformer.training import cli, own_rows


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: rows, labels, and a tiny backbone in place of the shipped one."""
    write_backbone(tmp_path, monkeypatch, readers=True)
    monkeypatch.setitem(own_rows.SIZES, "small", str(tmp_path / "tiny"))
    lines = [f"{text},{'bad' if 'worst' in text.split() else 'good'}" for text in random_texts(80, longest=9)]
    (tmp_path / "rows.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    (tmp_path / "labels.txt").write_text("good: a charming film\nbad: the worst movie\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BEE_DATA", raising=False)
    return tmp_path


def train(*arguments: str) -> Any:
    result = CliRunner().invoke(cli.app, ["train", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give --train"),
        (("--train", "rows.csv", "--recipe", "x.toml"), "give --train"),
        (("--recipe", "x.toml", "--folds", "3"), "a recipe says itself"),
        (("--recipe", "x.toml", "--size", "base"), "a recipe says itself"),
        (("--train", "rows.csv", "--size", "base", "--out", "m"), "backbone-base.toml"),
        (("--train", "rows.csv", "--size", "small", "--start", "sst2", "--out", "m"), "leave --size out"),
        (("--labels", "labels.txt", "--size", "huge", "--out", "m"), "there are small and base"),
        (("--labels", "labels.txt"), "named after --out"),
        (("--labels", "labels.txt", "--out", "m", "--balance"), "reads no rows"),
        (("--train", "none.csv", "--out", "m"), "no such file"),
        (("--train", "rows.csv", "--labels", "none.txt", "--out", "m"), "none.txt can't be read"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_made(root: Path, arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(BEEError, match=said):
        train(*arguments)
    assert not (root / "m").exists()
    assert not (root / "runs").exists()


def test_flags_reach_the_checkpoint(root: Path) -> None:
    done = train("--train", "rows.csv", "--labels", "labels.txt", "--out", "m", "--folds", "3", "--examples", "--take")
    assert "comparing" not in done.stdout.splitlines()[-1]
    result = checkpoint.read(root / "m")
    assert result.candidate_labels
    assert result.evaluation["provenance"]["recipe"]["heads"]["folds"] == 3
    assert 1 <= len(result.examples) <= 2
    assert all(example.consent for example in result.examples)
    assert ("recommended" in result.profiles) == ("taken:" in done.output)
    assert not (root / "runs").exists(), "heads keep no progress"
    again = train("--train", "rows.csv", "--labels", "labels.txt", "--out", "m", "--folds", "3", "--examples")
    assert "is finished" in again.stdout


def test_size_chooses_the_backbone(root: Path) -> None:
    (root / "data" / "backbones").mkdir(parents=True)
    (root / "tiny").rename(root / "data" / "backbones" / "english-base")
    (root / "rows.csv").rename(root / "data" / "rows.csv")
    train("--train", "rows.csv", "--size", "base", "--data", "data", "--out", "m")
    train("--labels", "labels.txt", "--size", "base", "--data", "data", "--out", "n")
    for name in ("m", "n"):
        made = checkpoint.read(root / name).evaluation["provenance"]
        assert made["backbone"]["name"] == "tiny"


def test_labels_alone_are_enough(root: Path) -> None:
    assert "nothing was measured" in train("--labels", "labels.txt", "--out", "m").stdout
    assert checkpoint.read(root / "m").learned_from == "labels"
    with pytest.raises(BEEError, match="has learned nothing yet"):
        train("--train", "rows.csv", "--start", "m", "--out", "n")
    assert not (root / "n").exists()
