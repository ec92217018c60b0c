"""Files of rows scored into files: all columns stay, what can't be answered says why, and kills cost nothing."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from running import GOLDEN, PATIENCE

from beexformer.app import score_files
from beexformer.app.chunked_output import ANSWER_COLUMNS, Output
from beexformer.app.score_files import ROWS, Scoring, score
from beexformer.model import tables
from beexformer.model.engine import Engine
from beexformer.model.errors import BEEError
from beexformer.model.options import ExitOptions

QUIET = Console(stderr=True)


@pytest.fixture(scope="module")
def golden() -> Engine:
    return Engine.load(GOLDEN)


def scored(source: Path, out: Path, engine: Engine, processes: int = 1, **options: Any) -> Any:
    return score(Scoring(source, out, paths=(GOLDEN,), model=engine.name, **options), engine, processes, QUIET)


def write(path: Path, rows: int) -> list[str]:
    ids = [f"{i:05}" for i in range(rows)]
    with path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "text", "note"])
        writer.writerows([name, "a warm film " * (i % 5 + 1), f'"{i}",\nand "more"'] for i, name in enumerate(ids))
    return ids


def test_all_columns_stay_and_bad_rows_say_why(golden: Engine, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('id;text;label\n007;"a warm; film";pos\n008; ;neg\n009;-1 of 5;neg\n')
    result = scored(tmp_path / "rows.csv", tmp_path / "out.csv", golden)
    assert (result.rows, result.bad) == (3, 1)
    table = tables.read(tmp_path / "out.csv")
    assert table.columns == ("id", "text", "label", *ANSWER_COLUMNS)
    rows = list(table.rows)
    assert [row["id"] for row in rows] == ["007", "008", "009"]
    [answer] = golden.predict([golden.encode("a warm; film")])
    assert (rows[0]["text"], rows[0]["predicted_label"]) == ("a warm; film", answer.label)
    assert float(rows[0]["predicted_score"]) == pytest.approx(answer.score, abs=1e-6)
    assert "empty or blank" in rows[1]["error"]
    assert rows[1]["predicted_label"] == ""
    assert not (tmp_path / "out.csv.partial").exists()


def test_json_lines_keep_their_values_and_late_fields(golden: Engine, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [{"text": f"film {i}", "n": i, "meta": {"tags": ["a"]}} for i in range(150)]
    lines += [{"text": None}, {"text": "late", "late": 1.5}, {"text": ["x"]}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert scored(tmp_path / "rows.jsonl", tmp_path / "out.jsonl", golden).bad == 2
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [answer.get("n") for answer in answers] == [*range(150), None, None, None]
    assert (answers[0]["meta"], answers[151]["late"]) == ({"tags": ["a"]}, 1.5)
    assert "holds a list, not text" in answers[152]["error"]


def test_parquet_keeps_its_types(golden: Engine, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    count = ROWS + 10
    columns = {
        "text": [f"film {i}" for i in range(count)],
        "id": pa.array(range(count), pa.int32()),
        "day": pa.array(range(count), pa.date32()),
        "nothing": pa.nulls(count),
    }
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    scored(tmp_path / "rows.parquet", tmp_path / "out.parquet", golden)
    out = pq.read_table(tmp_path / "out.parquet")
    assert out.column("id").to_pylist() == [*range(count)]
    assert out.schema.field("id").type == pa.int32()
    assert out.schema.field("day").type == pa.date32()
    assert set(out.column("predicted_label").to_pylist()) <= set(golden.labels)


def test_pairs_options_and_encodings_are_those_asked_for(golden: Engine, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes("a,b\nfilm,très bon\n".encode("cp1252"))
    options = ExitOptions(min_blocks=6)
    scored(
        tmp_path / "rows.csv",
        tmp_path / "out.tsv",
        golden,
        text="a",
        text_pair="b",
        encoding="cp1252",
        options=options,
    )
    [row] = tables.read(tmp_path / "out.tsv").rows
    [answer] = golden.predict([golden.encode("film", "très bon", options)])
    assert (row["b"], row["exit_index"]) == ("très bon", "6")
    assert float(row["predicted_score"]) == pytest.approx(answer.score, abs=1e-6)


def test_columns_of_the_same_name_are_not_overwritten(golden: Engine, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,predicted_label\nfilm,mine\n")
    scored(tmp_path / "rows.csv", tmp_path / "out.csv", golden)
    [row] = tables.read(tmp_path / "out.csv").rows
    assert row["predicted_label"] == "mine"
    assert row["predicted_label.1"] in golden.labels


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("out.xlsx", "text\nfilm\n", "--output .*: the name must end in .csv"),
        ("there.csv", "text\nfilm\n", "exists; name another file"),
        ("out.csv", "review\nfilm\n", "no column 'text'; it has review"),
        ("out.csv", "text,n\n" + "film,1\n" * 700 + '"film,1\n', r"row 701 .* never closes"),
        ("out.csv", "text\n", "no rows"),
    ],
)
def test_what_can_not_be_scored_is_said_before_a_row_is_answered(
    golden: Engine, tmp_path: Path, name: str, content: str, words: str
) -> None:
    (tmp_path / "rows.csv").write_text(content)
    (tmp_path / "there.csv").touch()
    with pytest.raises(BEEError, match=words):
        scored(tmp_path / "rows.csv", tmp_path / name, golden)
    assert not (tmp_path / f"{name}.partial").exists()


def test_what_another_run_left_is_not_gone_on_with(
    golden: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "rows.csv", 2 * ROWS)
    written = 0

    def killed(*arguments: Any) -> Any:
        nonlocal written
        written += 1
        if written == 2:
            raise KeyboardInterrupt
        return answer(*arguments)

    answer = score_files.answer
    monkeypatch.setattr(score_files, "answer", killed)
    with pytest.raises(KeyboardInterrupt):
        scored(tmp_path / "rows.csv", tmp_path / "out.csv", golden)
    with pytest.raises(BEEError, match="has answers of another file, model or option; remove it to begin anew"):
        scored(tmp_path / "rows.csv", tmp_path / "out.csv", golden, options=ExitOptions(delta=0.5))
    written = 7
    assert scored(tmp_path / "rows.csv", tmp_path / "out.csv", golden).rows == 2 * ROWS
    assert written == 8, "the part that was there is left out"


def test_a_part_that_a_power_failure_left_empty_is_written_again(golden: Engine, tmp_path: Path) -> None:
    write(tmp_path / "rows.csv", 2 * ROWS)
    output = Output(tmp_path / "out.csv", tmp_path / "rows.csv", ("id", "text"))
    output.folder.mkdir()
    rows = [{"id": str(i), "text": "a film"} for i in range(ROWS)]
    for number in (0, 1):
        output.write(number, rows, ["why"] * ROWS)
    assert [*output.parts()] == [0, 1]
    output.parts()[1].write_bytes(b"")
    assert [*output.parts()] == [0]
    output.write(1, rows, ["why"] * ROWS)
    assert output.join() == 2 * ROWS
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 2 * ROWS + 1


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_loses_nothing(golden: Engine, tmp_path: Path) -> None:
    ids = write(tmp_path / "rows.csv", 12 * ROWS + 7)
    code = "from beexformer.cli import main; main()"
    command = [sys.executable, "-c", code, "classify", tmp_path / "rows.csv", "-o", tmp_path / "out.csv"]
    command += ["--checkpoint", GOLDEN, "--threads", "2"]
    partial = tmp_path / "out.csv.partial"
    for parts in (1, 4, 7):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            end = time.monotonic() + PATIENCE
            while len([*partial.glob("[0-9]*.csv")]) < parts and process.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
    assert len([*partial.glob("[0-9]*.csv")]) >= 4
    subprocess.run(command, check=True, timeout=PATIENCE)
    scored(tmp_path / "rows.csv", tmp_path / "whole.csv", golden)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert tables.strings(tables.read(tmp_path / "out.csv"), ["id"]) == [ids]
