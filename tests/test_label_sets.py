"""Cells of several labels, and folds that have their share of each."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from beexformer.model.errors import TrainingError
from beexformer.training import label_sets
from beexformer.training.data import ONLY_HEADS, Columns, Rows, read_rows, split_rows
from beexformer.training.recipe import Data
from beexformer.training.splits import splits

ROWS = [("late and broken", ["damaged", "late"]), ("fine", []), ("late again", ["late"]), ("too dear", ["price"])]
SEPARATED = Columns(label="tags", label_separator=";")


def written(folder: Path) -> list[Path]:
    """The same rows in each form that several labels come in."""
    (folder / "a.csv").write_text(
        "text,tags\n" + "".join(f"{text},{' ; '.join(tags)}{';' * bool(tags)}\n" for text, tags in ROWS)
    )
    lines = [json.dumps({"text": text, "tags": tags}) for text, tags in ROWS]
    (folder / "b.jsonl").write_text("\n".join(lines) + "\n")
    quoted = (json.dumps(tags).replace('"', '""') for _, tags in ROWS)
    (folder / "c.csv").write_text(
        "text,tags\n" + "".join(f'{text},"{tags}"\n' for (text, _), tags in zip(ROWS, quoted, strict=True))
    )
    table = {"text": [text for text, _ in ROWS], "tags": pa.array([tags for _, tags in ROWS], pa.list_(pa.string()))}
    pa.parquet.write_table(pa.table(table), folder / "d.parquet")
    return [folder / name for name in ("a.csv", "b.jsonl", "c.csv", "d.parquet")]


def test_a_separator_lists_and_json_in_a_cell_say_the_same(tmp_path: Path) -> None:
    for path in written(tmp_path):
        rows, labels = read_rows(path, SEPARATED if path.name == "a.csv" else Columns(label="tags"))
        assert labels == ["damaged", "late", "price"]
        assert rows.labels.tolist() == [[True, True, False], [False] * 3, [False, True, False], [False, False, True]]
        assert (rows.multi_label, rows.counts(3).tolist()) == (True, [1, 2, 1])
        assert rows.take(np.array([2])).labels.tolist() == [[False, True, False]]


def test_rows_that_differ_in_a_label_differ_in_their_digest(tmp_path: Path) -> None:
    rows, _ = read_rows(written(tmp_path)[0], SEPARATED)
    other = rows.labels.copy()
    other[1, 2] = True
    assert Rows(rows.texts, None, other).sha256() != rows.sha256()


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("['late', 'price']", r"row 1 has the labels \['late', 'price'\] and a list of them is JSON"),
        ('["late", null]', "row 1 has the labels"),
        ('[["late"]]', None),  # a label of that name, as nothing says that it is a list
    ],
)
def test_lists_that_are_no_json_are_refused_with_what_would_be(tmp_path: Path, cell: str, words: str | None) -> None:
    quoted = cell.replace('"', '""')
    (tmp_path / "a.csv").write_text(f'text,label\nx,"{quoted}"\ny,other\n')
    if words:
        with pytest.raises(TrainingError, match=words):
            read_rows(tmp_path / "a.csv", Columns())
    else:
        assert not read_rows(tmp_path / "a.csv", Columns())[0].multi_label


def test_labels_of_other_files_are_those_of_training(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "dev.csv").write_text("text,tags\nall of it,late;damaged;price\nnothing,\n")
    data = Data(train="a.csv", dev="dev.csv", label="tags", label_separator=";")
    result = splits(data, tmp_path)
    assert result.dev.labels.tolist() == [[True, True, True], [False] * 3]
    (tmp_path / "dev.csv").write_text("text,tags\nall of it,late;lots\n")
    with pytest.raises(TrainingError, match="row 1 has the label 'lots'; known are damaged, late, price"):
        splits(data, tmp_path)
    with pytest.raises(TrainingError, match=ONLY_HEADS[:30]):
        splits(Data(train="a.csv", label="tags", label_separator=";"), tmp_path)


def test_what_cannot_be_is_refused_with_its_cure(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,tags\nx,\ny,;\n")
    with pytest.raises(TrainingError, match="no row has a label in column 'tags'"):
        read_rows(tmp_path / "a.csv", SEPARATED)
    (tmp_path / "a.csv").write_text("text,tags\nx,Late;price\ny,late\n")
    with pytest.raises(TrainingError, match=r"differ only in case or blanks: 'Late' \(row 1\), 'late' \(row 2\)"):
        read_rows(tmp_path / "a.csv", SEPARATED)
    (tmp_path / "a.csv").write_text("text,tags,p_late,p_price\nx,late;price,0.5,0.5\n")
    with pytest.raises(TrainingError, match=r"soft labels .* go with one label a text"):
        read_rows(tmp_path / "a.csv", SEPARATED)
    (tmp_path / "a.csv").write_text("text,tags,p_value,p_other\nx,late;price,0.5,0.5\n")
    assert read_rows(tmp_path / "a.csv", SEPARATED)[0].soft is None, "columns of another meaning"


def test_integers_are_labels_or_positions_of_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,tags\nx,10;9\ny,9\n")
    rows, labels = read_rows(tmp_path / "a.csv", SEPARATED)
    assert (labels, rows.labels.tolist()) == (["9", "10"], [[True, True], [True, False]])
    (tmp_path / "a.jsonl").write_text('{"text": "x", "tags": [0, 1]}\n{"text": "y", "tags": [1]}\n')
    rows, _ = read_rows(tmp_path / "a.jsonl", Columns(label="tags"), ["low", "high"])
    assert rows.labels.tolist() == [[True, True], [False, True]]


def test_names_that_are_joined_labels_are_seen() -> None:
    assert label_sets.looks_joined(["late", "price", "late;price", "late; damaged", "damaged"]) == ";"
    assert label_sets.looks_joined(["a|b", "b|c", "c|a"]) == "|"
    assert label_sets.looks_joined(["New York, NY", "Boston, MA", "Paris, TX"]) is None
    assert label_sets.looks_joined(["late", "price"]) is None


def test_targets_of_several_labels_are_smoothed_towards_one_half() -> None:
    rows = Rows(["x"], None, np.array([[True, False]]))
    np.testing.assert_allclose(rows.targets(2, 0.7, 0.1), [[0.95, 0.05]])


@pytest.mark.parametrize("count", [2, 5])
def test_every_fold_has_its_share_of_every_label(count: int) -> None:
    rng = np.random.default_rng(0)
    shares = np.array([0.5, 0.2, 0.05, 0.02, 0.01])
    applies = rng.random((1000, 5)) < shares
    folds = label_sets.folds(applies, count)
    assert (np.bincount(folds) >= 1000 / count - 3).all()
    for label in range(5):
        each = np.bincount(folds[applies[:, label]], minlength=count)
        assert each.max() - each.min() <= 3, "a label that comes with others goes where these go"
    assert (label_sets.folds(applies, count) == folds).all()
    assert (label_sets.folds(applies, count, seed=1) != folds).any()


def test_a_held_out_part_of_several_labels_is_not_asked_for() -> None:
    with pytest.raises(TrainingError, match="heads on a frozen backbone alone"):
        split_rows(Rows(["x", "y"], None, np.eye(2, dtype=bool)), 0.1, 1)
