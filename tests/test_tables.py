"""Files of rows as people have them. `data/awkward` holds what was met or is to be feared, with what becomes of it."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from beexformer.model import tables
from beexformer.model.errors import BEEError, DataError

AWKWARD = Path(__file__).parent / "data" / "awkward"
EXPECTED: dict[str, dict[str, Any]] = tomllib.loads((AWKWARD / "expected.toml").read_text())


def read(name: str, expected: dict[str, Any]) -> tuple[list[str], list[str] | None, list[str]]:
    """(texts, second texts, labels of the rows) of an awkward file."""
    names = [expected.get("text", "text"), expected.get("label", "label")]
    names += [expected["text_pair"]] if "text_pair" in expected else []
    texts, labels, *pairs = tables.strings(tables.read(AWKWARD / name, names, expected.get("encoding")), names)
    return texts, pairs[0] if pairs else None, labels


def skip_without_library(name: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    if name.endswith(".xlsx"):
        pytest.importorskip("python_calamine")


def test_every_file_has_its_expectation() -> None:
    assert {path.name for path in AWKWARD.iterdir()} - {"expected.toml"} == set(EXPECTED)
    assert len(EXPECTED) >= 40


@pytest.mark.parametrize("name", EXPECTED)
def test_an_awkward_file_trains_or_is_refused_in_one_sentence(name: str) -> None:
    data = pytest.importorskip("beexformer.training.data")
    skip_without_library(name)
    expected = EXPECTED[name]
    columns = data.Columns(
        **{
            key: expected[key]
            for key in ("text", "text_pair", "label", "encoding", "label_separator")
            if key in expected
        }
    )
    if "refused" in expected:
        with pytest.raises(BEEError, match=expected["refused"]) as refusal:
            data.read_rows(AWKWARD / name, columns)
        assert "\n" not in str(refusal.value)
        assert name in str(refusal.value) or "--encoding" in str(refusal.value)
        return
    rows, labels = data.read_rows(AWKWARD / name, columns)
    assert (len(rows), labels) == (expected["rows"], expected["labels"])
    assert "first" not in expected or rows.texts[0] == expected["first"]
    assert rows.labels.tolist() == expected["several"] if "several" in expected else not rows.multi_label


@pytest.mark.parametrize(
    "name", [name for name, expected in EXPECTED.items() if "rows" in expected and "several" not in expected]
)
def test_what_trains_is_read_without_the_training_half(name: str) -> None:
    skip_without_library(name)
    texts, _, labels = read(name, EXPECTED[name])
    assert (len(texts), sorted({label.strip() for label in labels})) == (
        EXPECTED[name]["rows"],
        sorted(EXPECTED[name]["labels"]),
    )


def test_rows_come_one_after_another(tmp_path: Path) -> None:
    """What is wrong further down is met when it is reached, so files of any size can be read."""
    (tmp_path / "a.csv").write_text("text,label\nfine,pos\ndull,neg,more\n")
    with tables.read(tmp_path / "a.csv") as table:
        assert next(table.rows) == {"text": "fine", "label": "pos"}
        with pytest.raises(DataError, match="row 2"):
            next(table.rows)


def test_all_columns_stay_and_doubled_ones_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text,id\n1,fine,2\n")
    table = tables.read(tmp_path / "a.csv", ["text"])
    assert (table.columns, list(table.rows)) == (("id", "text", "id.1"), [{"id": "1", "text": "fine", "id.1": "2"}])
    (tmp_path / "a.jsonl").write_text('{"text": "fine", "n": 1.50, "tags": ["a"]}\n{"text": "dull", "late": null}\n')
    table = tables.read(tmp_path / "a.jsonl")
    assert table.columns == ("text", "n", "tags", "late")
    assert list(table.rows) == [{"text": "fine", "n": 1.5, "tags": ["a"]}, {"text": "dull", "late": None}]


@pytest.mark.parametrize("rows", [[['he said "no"', "a\tb"]], [["two\nlines", "x"]], [['"', '""'], ["plain", "x"]]])
def test_what_pandas_writes_with_tabs_comes_back(tmp_path: Path, rows: list[list[str]]) -> None:
    quote = re.compile('[\t\n"]')
    folded = [['"{}"'.format(f.replace('"', '""')) if quote.search(f) else f for f in row] for row in rows]
    (tmp_path / "a.tsv").write_text("\n".join("\t".join(row) for row in [["text", "other"], *folded]) + "\n")
    assert [[*row.values()] for row in tables.read(tmp_path / "a.tsv").rows] == rows


def test_what_holds_no_text_names_row_and_column(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": {"de": "gut"}}) + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl: row 1: column 'text' holds an object, not text"):
        tables.strings(tables.read(tmp_path / "a.jsonl", ["text"]), ["text"])
    assert [tables.text_of(value) for value in (None, float("nan"), True, 3, 0.5)] == ["", "", "true", "3", "0.5"]


def test_a_folder_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        tables.read(tmp_path / "folder.csv")
    with pytest.raises(DataError, match="no such file"):
        tables.read(tmp_path / "none.csv")
