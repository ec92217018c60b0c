import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from beexformer.model.errors import BEEError, DataError, TrainingError
from beexformer.training.data import (
    Columns,
    Rows,
    find_split,
    key,
    paragraphs,
    read_rows,
    sentences,
    split_rows,
    without,
)
from beexformer.training.recipe import Data
from beexformer.training.splits import splits

CSV = 'text,label\n"good, really",pos\n"two\nlines",neg\n'


def test_csv_tsv_jsonl_and_parquet_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"he said ""no""",neg\nfine,pos\n')
    (tmp_path / "a.tsv").write_text('text\tlabel\nhe said "no"\tneg\nfine\tpos\n')
    (tmp_path / "a.jsonl").write_text(
        '{"text": "he said \\"no\\"", "label": "neg"}\n{"text": "fine", "label": "pos"}\n'
    )
    with gzip.open(tmp_path / "b.tsv.gz", "wt") as out:
        out.write((tmp_path / "a.tsv").read_text())
    pa.parquet.write_table(
        pa.table({"text": ['he said "no"', "fine"], "label": ["neg", "pos"]}), tmp_path / "a.parquet"
    )
    for name in ("a.csv", "a.tsv", "a.jsonl", "a.parquet", "b.tsv.gz"):
        rows, labels = read_rows(tmp_path / name, Columns())
        assert (rows.texts, rows.labels.tolist(), labels) == (['he said "no"', "fine"], [0, 1], ["neg", "pos"])


def test_integer_labels_are_indices_of_given_names_or_names_themselves(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("s1\ts2\tlabel\na\tb\t1\nc\td\t0\ne\tf\t2\n")
    columns = Columns("s1", "s2", "label")
    rows, labels = read_rows(tmp_path / "a.tsv", columns, ["x", "y", "z"])
    assert (rows.labels.tolist(), labels, rows.pairs) == ([1, 0, 2], ["x", "y", "z"], ["b", "d", "f"])
    assert read_rows(tmp_path / "a.tsv", columns)[1] == ["0", "1", "2"]
    assert read_rows(tmp_path / "a.tsv", columns, ["2", "1", "0"])[0].labels.tolist() == [1, 2, 0]


def test_text_and_labels_are_spelled_as_in_the_file(tmp_path: Path) -> None:
    """What looks like a number, a date, a truth value or a null is none."""
    (tmp_path / "a.csv").write_text("text,label\n007,true\n2026-01-02,false\nNA,NA\n")
    rows, labels = read_rows(tmp_path / "a.csv", Columns())
    assert (rows.texts, labels) == (["007", "2026-01-02", "NA"], ["NA", "false", "true"])
    (tmp_path / "a.jsonl").write_text('{"text": "x", "label": true}\n{"text": "y", "label": false}\n')
    assert read_rows(tmp_path / "a.jsonl", Columns())[1] == ["false", "true"]
    (tmp_path / "a.csv").write_text("text,label\nx,10\ny,9\nz,-1\n")
    assert read_rows(tmp_path / "a.csv", Columns())[1] == ["-1", "9", "10"], "integers by value"


def test_labels_that_training_does_not_know_are_refused(tmp_path: Path) -> None:
    """Integers are positions only where the classes have names: '2' of dev isn't the third of the labels 1, 2, 4, 5."""
    (tmp_path / "stars.csv").write_text("text,label\na,1\nb,2\nc,4\nd,5\n")
    (tmp_path / "dev.csv").write_text("text,label\na,1\nb,3\n")
    _, labels = read_rows(tmp_path / "stars.csv", Columns())
    with pytest.raises(TrainingError, match="row 2 has the label '3'; known are 1, 2, 4, 5; take such rows out"):
        read_rows(tmp_path / "dev.csv", Columns(), labels)
    (tmp_path / "dev.csv").write_text("text,label\na,pos\nb,Neg\nc,what\n")
    with pytest.raises(TrainingError, match=r"'Neg' and 1 labels more that are unknown.*did you mean 'neg'"):
        read_rows(tmp_path / "dev.csv", Columns(), ["neg", "pos"])


def test_integers_are_no_positions_of_names_that_training_rows_spell(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\n" + "a film,pos\nanother film,neg\n" * 3)
    (tmp_path / "dev.csv").write_text("text,label\nc,1\nd,0\n")
    with pytest.raises(
        TrainingError, match="row 1 has the label '1' and 1 labels more that are unknown; known are neg, pos"
    ):
        splits(Data(train="train.csv", dev="dev.csv"), tmp_path)
    named = splits(Data(train="dev.csv", dev="dev.csv", labels=["neg", "pos"]), tmp_path)
    assert named.dev.labels.tolist() == [1, 0], "where a recipe names the integers, they are"


def test_quotes_and_nulls_of_glue_are_plain_text(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\tlabel\n"half a quote\t0\nnull\t1\n')
    assert read_rows(tmp_path / "a.tsv", Columns())[0].texts == ['"half a quote', "null"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "text,mark\nx,1\n", "no column 'label'; it has text, mark"),
        ("a.csv", "text,label\n", "no rows"),
        ("a.jsonl", '{"text": "x", "label": "a"}\n{"text": "y"}\n', "row 2 has no label"),
        ("a.csv", "text,label\nx,0.5\n", "holds real numbers"),
        ("a.csv", "text,label\nx,maybe\n", "row 1 has the label 'maybe'"),
        ("a.csv", "text,label\nx,pos\ny, \n", "row 2 has no label"),
        ("a.csv", "text,label\nx,pos\n ,neg\n", "row 2 has no text; take such rows out"),
        ("a.jsonl", '{"label": "pos"}\n{"text": null, "label": "pos"}\n{"text": "x"}', "row 1 has no text, and 1 more"),
        ("a.csv", "text,label,text\nx,neg,y\n", "2 columns 'text'"),
    ],
)
def test_a_file_that_does_not_fit_says_why(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(BEEError, match=words):
        read_rows(tmp_path / name, Columns(), ["pos", "neg"])


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_rows(tmp_path / "a.csv", Columns())
    assert find_split(tmp_path, "train") is None


def test_a_held_out_tenth_shares_no_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"row {i},{i % 2}\n" for i in range(50)))
    rows, _ = read_rows(tmp_path / "a.csv", Columns())
    rest, held = split_rows(rows, 0.1, seed=3)
    assert (len(rest), len(held)) == (45, 5)
    assert not set(rest.texts) & set(held.texts)


@pytest.mark.parametrize(
    ("counts", "held"),
    [
        ((50, 50), (5, 5)),
        ((380, 20), (38, 2)),
        ((60, 3, 2, 1), (6, 1, 0, 0)),
        ((2, 1), (1, 0)),
        ((7,) * 77, (1,) * 77),
        ((1, 90, 9), (0, 9, 1)),
    ],
)
def test_what_is_held_out_has_every_class_that_can_spare_a_row(counts: tuple[int, ...], held: tuple[int, ...]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    rows = Rows([f"row {i}" for i in range(len(labels))], None, labels)
    rest, dev = split_rows(rows, 0.1, seed=1)
    assert np.bincount(dev.labels, minlength=len(counts)).tolist() == [*held]
    assert len(rest) + len(dev) == len(rows)
    assert not set(rest.texts) & set(dev.texts)
    assert split_rows(rows, 0.1, seed=1)[1].texts == dev.texts


def test_rows_of_which_none_can_be_held_out_are_refused() -> None:
    with pytest.raises(TrainingError, match="2 rows, and no class with two: none can be held out"):
        split_rows(Rows(["a", "b"], None, np.array([0, 1])), 0.1, seed=1)


def test_sentences_are_distinct_and_the_same_for_a_seed(tmp_path: Path) -> None:
    path = tmp_path / "free.txt"
    path.write_text("One two three. Four five six! Too short.\nOne two three. " + "word " * 50 + ".\n")
    assert sorted(sentences(path, 9, seed=1)) == ["Four five six!", "One two three."]
    assert sentences(path, 1, seed=1) == sentences(path, 2, seed=1)[:1]
    assert sentences(path, 1, seed=1, without={key(sentences(path, 1, seed=1)[0])}) == sentences(path, 2, seed=1)[1:]
    assert sentences(path, 9, seed=1, lengths=(2, 2)) == ["Too short."]


def test_text_is_read_packed_or_plain_and_says_what_is_wrong(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.txt.gz", "wt") as out:
        out.write("One.\n\n  Two. Three.\n")
    assert paragraphs(tmp_path / "a.txt.gz") == ["One.", "Two. Three."]
    with pytest.raises(TrainingError, match="no such file"):
        paragraphs(tmp_path / "b.txt")
    (tmp_path / "c.txt.gz").write_text("not packed")
    with pytest.raises(TrainingError, match="is no text file"):
        paragraphs(tmp_path / "c.txt.gz")


def test_keys_are_without_case_and_blanks() -> None:
    assert key(" A  b\tC .") == "abc."
    assert key(("A ", " B")) == ("a", "b")


def test_rows_without_those_of_other_sets() -> None:
    rows = Rows(["A b", "c", "d", "c"], ["x", "y", "z", "y z"], np.array([0, 1, 0, 1]))
    left = without(rows, Rows(["a B", "d"], ["X", "other"], np.array([1, 0])), None, Rows(["c"], ["y"], np.array([1])))
    assert (left.inputs(), left.labels.tolist()) == ([("d", "z"), ("c", "y z")], [0, 1])


def test_the_hash_of_rows_is_of_texts_pairs_and_labels() -> None:
    rows = [Rows(["a"], pairs, np.array([label])) for pairs in (None, ["b"], ["c"]) for label in (0, 1)]
    assert len({one.sha256() for one in rows}) == 6
    assert rows[0].sha256() == Rows(["a"], None, np.array([0])).sha256()


def test_the_longest_rows_stay_in_order() -> None:
    rows = Rows(["a b", "a", "a b c", "b"], ["x", "y z w", "x", "y"], np.array([0, 1, 0, 1]))
    assert rows.longest(2).inputs() == [("a", "y z w"), ("a b c", "x")], "both sides count, ties go to the first"
    assert len(rows.longest(9)) == 4
