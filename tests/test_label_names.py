"""Labels without rows, and beside few of them: the file, the heads of names, the checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tiny import random_texts
from tiny_backbone import write_backbone

from beexformer.model.engine import Engine
from beexformer.model.errors import TrainingError
from beexformer.training import from_labels, heads, label_names, own_rows, recipe, train


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny backbone that has readers, in place of the shipped one."""
    write_backbone(tmp_path, monkeypatch, readers=True)
    monkeypatch.setitem(own_rows.SIZES, "small", str(tmp_path / "tiny"))
    return tmp_path


def labels_file(root: Path, text: str) -> Path:
    path = root / "labels.txt"
    path.write_text(text)
    return path


def test_lines_are_labels_with_or_without_words(tmp_path: Path) -> None:
    result = label_names.read(
        labels_file(tmp_path, "\ufeffcard_lost: the card is gone\n\nSci/Tech\tscience, computers\nother\n")
    )
    assert result.labels == ["card_lost", "Sci/Tech", "other"]
    assert result.described == {
        "card_lost": "card lost: the card is gone",
        "Sci/Tech": "Sci/Tech: science, computers",
        "other": "other",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one\n", "has 1 labels and may have 2 to 1000"),
        ("a\nb\nA\n", "line 3 has the label 'A' once more"),
        ("a\n: nothing before\n", "line 2 has a description and no label"),
        ("a\n" + "b" * 301, "line 2 has 301 characters"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        label_names.read(labels_file(tmp_path, text))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="can't be read"):
        label_names.read(tmp_path / "none.txt")
    (tmp_path / "odd.txt").write_bytes(b"caf\xe9\nbar\n")
    with pytest.raises(TrainingError, match="no UTF-8"):
        label_names.read(tmp_path / "odd.txt")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(["billing", "delivery"], True), (["0", "1"], False), (["c001", "c002"], False), (["World", "Sci/Tech"], True)],
)
def test_words_tell_and_codes_do_not(labels: list[str], expected: bool) -> None:
    assert label_names.telling(labels) is expected


def test_a_checkpoint_from_labels_alone(root: Path) -> None:
    file, out = labels_file(root, "warm: a warm film\ndull\nfunny movie\n"), root / "models" / "named"
    with Console().capture() as _:
        from_labels.run(file, out, Console(quiet=True))
    engine = Engine.load(out)
    assert engine.labels == ("warm", "dull", "funny movie")
    assert (engine.description["learned_from"], engine.description["candidate_labels"]) == ("labels", True)
    assert "without a single labelled row" in (out / "README.md").read_text()
    named, _ = engine.candidates.engine(["warm: a warm film", "dull", "funny movie"])
    rows = [engine.encode(text) for text in random_texts(20)]
    ours, theirs = engine.logits(rows), named.logits(rows)
    assert np.allclose(ours, theirs, atol=0.02 * np.abs(theirs).max()), "named by a request or by a file: the same"


def test_the_same_labels_again_are_finished(root: Path) -> None:
    file, out = labels_file(root, "warm\ndull\n"), root / "named"
    from_labels.run(file, out, Console(quiet=True))
    stamp = (out / "config.json").stat().st_mtime_ns
    console = Console(record=True, quiet=True)
    from_labels.run(file, out, console)
    assert (out / "config.json").stat().st_mtime_ns == stamp
    file.write_text("warm\ndull\nfunny\n")
    from_labels.run(file, out, Console(quiet=True))
    assert len(Engine.load(out).labels) == 3


def test_nothing_is_written_for_a_bad_file(root: Path) -> None:
    with pytest.raises(TrainingError):
        from_labels.run(labels_file(root, "one\n"), root / "models" / "named", Console(quiet=True))
    assert not (root / "models").exists()
    with pytest.raises(TrainingError, match="is no name"):
        from_labels.run(labels_file(root, "a\nb\n"), root / "models" / "No Name", Console(quiet=True))


def rows_file(root: Path, count: int) -> Path:
    lines = [f"{text},{'warm' if 'warm' in text.split() else 'dull'}" for text in random_texts(count, longest=9)]
    path = root / "rows.csv"
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    return path


def plan(root: Path, **data: Any) -> recipe.Recipe:
    return own_rows.own_rows("toy", {"train": "rows.csv", **data})


def test_described_classes_are_learned_from_both(root: Path) -> None:
    rows_file(root, 40)
    described = {"warm": "warm", "dull": "dull", "funny": "a funny movie"}
    asked = plan(root, labels=["warm", "dull", "funny"], described=described)
    train.run(asked, root, root / "toy", root / "work", Console(quiet=True))
    engine = Engine.load(root / "toy")
    assert engine.labels == ("warm", "dull", "funny"), "a class without a row is there, and can be answered"
    assert engine.description["candidate_labels"]
    shares = {choice["names"] for choice in engine.description["evaluation"]["provenance"]["heads"]}
    assert engine.description["learned_from"] == ("labels and rows" if shares != {0.0} else "rows")


def test_names_are_weighed_by_cross_validation() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    means = rng.normal(size=(3, 16))
    states, targets = means[labels] + 2 * rng.normal(size=(30, 16)), np.eye(3)[labels]
    test = means[np.arange(3000) % 3] + 2 * rng.normal(size=(3000, 16))
    right, wrong = means - means.mean(0), rng.normal(size=(3, 16))
    result = {
        name: heads.fit(states[:, None], targets, names=None if rows is None else rows[None])
        for name, rows in {"none": None, "right": right, "wrong": wrong}.items()
    }
    score = {
        name: float((each.heads[0](test).argmax(1) == np.arange(3000) % 3).mean()) for name, each in result.items()
    }
    assert result["right"].choices[0].names > 0
    assert score["right"] > score["none"] + 0.02
    assert score["wrong"] > score["none"] - 0.05, "names that say nothing get little weight"


def test_a_class_without_rows_is_answered_by_its_name() -> None:
    rng = np.random.default_rng(1)
    means = 3 * np.eye(3, 12)
    labels = np.arange(20) % 2
    states = means[labels] + 0.3 * rng.normal(size=(20, 12))
    result = heads.fit(states[:, None], np.eye(3)[labels], names=means[None])
    assert result.heads[0](means).argmax(1).tolist()[2] == 2
    even = heads.balanced(result, np.eye(3)[labels])
    assert even.heads[0](means).argmax(1).tolist() == [0, 1, 2], "nor does it take all where classes are balanced"
