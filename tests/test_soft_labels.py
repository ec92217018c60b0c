"""Soft labels: which columns they are, what they become, and what is no soft label."""

from pathlib import Path

import numpy as np
import pytest

from beexformer.model.errors import TrainingError
from beexformer.training.data import Columns, Rows, read_rows
from beexformer.training.recipe import Data
from beexformer.training.splits import splits


def written(tmp_path: Path, text: str, name: str = "rows.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_logits_and_probabilities_become_distributions_in_the_order_of_the_classes(tmp_path: Path) -> None:
    logits = written(tmp_path, "text,logit_b,logit_a,label\nx,1,0,a\ny,-2,2,b\n")
    rows, labels = read_rows(logits, Columns())
    assert labels == ["b", "a"], "as the columns stand"
    assert rows.labels.tolist() == [1, 0]
    assert rows.soft is not None
    np.testing.assert_allclose(rows.soft[0], [np.e / (1 + np.e), 1 / (1 + np.e)], rtol=1e-6)
    again, _ = read_rows(logits, Columns(), ["a", "b"])
    assert again.soft is not None
    assert (again.soft[:, ::-1] == rows.soft).all()
    shares, _ = read_rows(written(tmp_path, "text,p_no,p_yes\nx,0.25,0.75\ny,0.99,0.02\n", "p.csv"), Columns())
    assert shares.soft is not None
    np.testing.assert_allclose(shares.soft, [[0.25, 0.75], [0.99 / 1.01, 0.02 / 1.01]], rtol=1e-6)
    assert shares.labels.tolist() == [1, 0], "the likeliest class, where none is stated"


def test_labels_may_be_indices_of_the_columns(tmp_path: Path) -> None:
    path = written(tmp_path, "text,logit_bad,logit_good,label\nx,1,0,1\ny,-2,2,0\n")
    rows, labels = read_rows(path, Columns())
    assert (labels, rows.labels.tolist()) == (["bad", "good"], [1, 0])


def test_a_target_mixes_label_and_soft_label_and_a_row_without_one_has_the_other(tmp_path: Path) -> None:
    path = written(tmp_path, "text,p_no,p_yes,label\nx,0.4,0.6,no\ny,0.1,0.9,\n")
    rows, _ = read_rows(path, Columns())
    np.testing.assert_allclose(rows.targets(2, 0.5), [[0.7, 0.3], [0.1, 0.9]], rtol=1e-6)
    np.testing.assert_allclose(rows.take(np.array([1])).targets(2, 0.5), [[0.1, 0.9]], rtol=1e-6)
    plain = Rows(["x"], None, np.array([1]))
    np.testing.assert_allclose(plain.targets(2, 0.5, smoothing=0.1), [[0.05, 0.95]], rtol=1e-6)


def test_further_files_follow_the_training_rows(tmp_path: Path) -> None:
    written(tmp_path, "text,p_no,p_yes,label\n" + "x,0.4,0.6,no\n" * 20, "train.csv")
    written(tmp_path, "text,p_no,p_yes\nz,0.1,0.9\n", "more.csv")
    written(tmp_path, "text,label\nz,no\n", "hard.csv")
    written(tmp_path, "text,label\nq,yes\n", "dev.csv")
    data = {"train": "train.csv", "dev": "dev.csv"}
    result = splits(Data.model_validate({**data, "also": ["more.csv"]}), tmp_path)
    assert result.train.texts[-2:] == ["x", "z"]
    np.testing.assert_allclose(result.train.targets(2, 0.0)[-2:], [[1, 0], [0.1, 0.9]], rtol=1e-6)
    with pytest.raises(TrainingError, match="some training files have soft labels and some have none"):
        splits(Data.model_validate({**data, "also": ["hard.csv"]}), tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("text,p_no,p_yes\nx,0.5,0.5\ny,0.5,0.7\n", r"row 2 has .* in place of probabilities that sum to 1"),
        ("text,p_no,p_yes\nx,1.5,-0.5\n", "row 1 has .* in place of probabilities"),
        ("text,logit_no,logit_yes\nx,1,much\n", "row 1 has .* in place of logits"),
        ("text,logit_no,p_yes\nx,1,1\n", "beside each other; keep one kind"),
        ("text,p_no,p_yes,label\nx,0.5,0.5,maybe\ny,0.5,0.5,no\n", "row 1 has the label 'maybe'"),
        ("text,other\nx,y\n", "no column 'label'"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(Exception, match=words) as caught:
        read_rows(written(tmp_path, text), Columns())
    assert "\n" not in str(caught.value)


def test_classes_that_are_known_are_those_of_the_columns(tmp_path: Path) -> None:
    path = written(tmp_path, "text,p_no,p_yes\nx,0.5,0.5\n")
    with pytest.raises(TrainingError, match=r"of no, yes, and the classes are yes, never; give a column p_"):
        read_rows(path, Columns(), ["yes", "never"])


def test_columns_of_another_meaning_are_left_alone(tmp_path: Path) -> None:
    path = written(tmp_path, "text,label,p_value,p_id\nx,good,7,8\ny,bad,9,10\n")
    rows, labels = read_rows(path, Columns())
    assert (labels, rows.soft) == (["bad", "good"], None)


def test_a_temperature_divides_the_logits_of_soft_labels() -> None:
    soft = np.array([[0.9, 0.1]], np.float32)
    rows = Rows(["x"], None, np.array([0]), soft, np.array([False]))
    logits = np.log(soft) / 2
    np.testing.assert_allclose(rows.targets(2, 0.7, 0.0, 2.0), np.exp(logits) / np.exp(logits).sum(), rtol=1e-5)
