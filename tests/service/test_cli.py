"""The command line: classify and models on the golden checkpoint; serve is in test_settings and test_server."""

import io
import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from running import ANSWERS, BEEXFORMER, GOLDEN, PATIENCE
from starlette.testclient import TestClient

from beexformer import cli
from beexformer.model.checkpoint import SHIPPED, read, save

GOOD = ANSWERS[0]["text"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """`beexformer` with these arguments: (exit code, stdout, stderr)."""

    def run(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["beexformer", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def classify(run: Any, *arguments: str | Path, stdin: bytes = b"") -> tuple[int, list[dict[str, Any]], str]:
    code, out, err = run("classify", "--checkpoint", GOLDEN, *arguments, stdin=stdin)
    return code, [json.loads(line) for line in out.splitlines()], err


def test_help_lists_the_verbs(run: Any) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for verb in ("serve", "classify", "models"):
        assert verb in out


def test_a_sentence_gets_the_answer_that_http_gives(run: Any, client: TestClient) -> None:
    code, [answer], err = classify(run, GOOD)
    assert (code, err) == (0, "")
    assert answer == client.post("/classify", json={"text": GOOD}).json()


def test_options_are_those_of_a_request(run: Any, client: TestClient) -> None:
    options = ("--delta", "-1", "--min-blocks", "2", "--max-blocks", "4", "--model", "golden", "--text-pair", "a film")
    _, [answer], _ = classify(run, GOOD, *options, "--entropy-threshold", "0.01")
    asked = {"text": GOOD, "text_pair": "a film", "delta": -1, "min_blocks": 2, "max_blocks": 4}
    asked |= {"entropy_threshold": 0.01}
    assert answer == client.post("/classify", json=asked).json()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((" ",), "empty or blank"),
        ((GOOD, "--delta", "nan"), "delta"),
        ((GOOD, "--delta", "1.5"), "delta"),
        ((GOOD, "--entropy-threshold", "2"), "entropy_threshold"),
        ((GOOD, "--min-blocks", "3", "--max-blocks", "2"), "above max_blocks"),
        ((GOOD, "--model", "platinum"), "platinum"),
        ((GOOD, "--checkpoint", "/nowhere"), "/nowhere"),
        (("missing.txt",), "missing.txt"),
        ((GOLDEN / "config.json",), "is a file or folder; texts are read from .txt"),
        ((GOLDEN,), "is a file or folder"),
        (("-", "--delta", "7"), "delta"),
        (("-", "--text-pair", "b"), "--text-pair"),
    ],
)
def test_what_can_not_be_done_is_one_sentence_and_exit_code_2(run: Any, arguments: Any, word: str) -> None:
    code, answers, err = classify(run, *arguments)
    assert (code, answers, len(err.splitlines())) == (2, [], 1)
    assert word in err


def test_a_text_file_gives_a_line_for_each_line(run: Any, tmp_path: Path, client: TestClient) -> None:
    texts = [f"{'a warm film ' * (i % 7 + 1)}" for i in range(200)]
    (tmp_path / "texts.txt").write_text("\ufeff" + "\r\n".join(texts))
    code, answers, err = classify(run, tmp_path / "texts.txt", "--threads", "3")
    assert (code, err) == (0, "")
    assert [answer["tokens"] for answer in answers] == [min(32, 3 * (i % 7 + 1) + 2) for i in range(200)]
    assert answers[6] == client.post("/classify", json={"text": texts[6]}).json()


def test_a_bad_line_stands_alone_with_its_number(run: Any, tmp_path: Path) -> None:
    lines = [
        b'{"text": "a warm film", "label": "positive", "id": 7}',
        b'{"text": "a warm film", "text_pair": "the worst movie"}',
        b"not json",
        b'{"txt": "a"}',
        b'{"text": 5}',
        b'["a"]',
        b"",
        b'{"text": " "}',
        b'{"text": "\\ud800"}',
        b'{"text": "\xff"}',
        b'{"text": "film"}',
    ]
    (tmp_path / "lines.jsonl").write_bytes(b"\n".join(lines))
    code, answers, err = classify(run, tmp_path / "lines.jsonl")
    assert code == 1
    assert "could not be answered: 8" in err
    assert [answer.get("status", 200) for answer in answers] == [200, 200, 400, 422, 422, 422, 400, 422, 422, 422, 200]
    assert [answer["line"] for answer in answers if "status" in answer] == [3, 4, 5, 6, 7, 8, 9, 10]
    assert answers[4]["errors"] == [{"pointer": "#/text", "detail": "Input should be a valid string"}]


def test_lines_are_text_or_json_as_asked(run: Any, tmp_path: Path) -> None:
    code, answers, _ = classify(run, "-", stdin=b'{"text": "film"}\n\nfilm\n')
    assert (code, [answer.get("line") for answer in answers]) == (1, [None, 2, None])
    assert answers[0]["tokens"] > answers[2]["tokens"]
    code, answers, _ = classify(run, "-", "--jsonl", stdin=b'{"text": "film"}\n')
    assert (code, [answer["tokens"] for answer in answers]) == (0, [3])
    (tmp_path / "lines.log").write_text('{"text": "film"}\n')
    assert classify(run, tmp_path / "lines.log", "--jsonl")[1] == answers


@pytest.mark.parametrize("text", ["-1 of 5 stars, awful", "--delta of the Nile, a film", "I saved it in notes.txt"])
def test_a_text_may_look_like_an_option_or_end_in_a_name(run: Any, text: str, client: TestClient) -> None:
    code, [answer], _ = classify(run, text, "--min-blocks", "2")
    assert code == 0
    assert answer == client.post("/classify", json={"text": text, "min_blocks": 2}).json()
    code, [answer], _ = classify(run, "a film", "--text-pair", text)
    assert answer == client.post("/classify", json={"text": "a film", "text_pair": text}).json()


def test_rows_of_a_file_are_scored_into_another(run: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,review\n1,a warm film\n2,\n")
    code, _, err = run(
        "classify", tmp_path / "rows.csv", "--text", "review", "-o", tmp_path / "out.csv", "--checkpoint", GOLDEN
    )
    assert (code, "out.csv has 2 rows, 1 of them without an answer" in err) == (1, True)
    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith("1,a warm film,")


def test_an_empty_file_gives_nothing(run: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    assert classify(run, tmp_path / "empty.txt") == (0, [], "")


def test_a_pipe_is_answered_line_by_line() -> None:
    command = [BEEXFORMER, "classify", "-", "--checkpoint", GOLDEN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        for _ in range(2):
            process.stdin.write(b"a warm film\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["tokens"] == 5  # before the next line is sent
        process.stdin.close()
    assert process.returncode == 0


def test_a_reader_who_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("a warm film\n" * 2000)
    command = [BEEXFORMER, "classify", tmp_path / "many.txt", "--checkpoint", GOLDEN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_terminal_sees_progress_and_stdout_stays_clean(tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("a warm film\n" * 100)
    ours, theirs = pty.openpty()
    command = [BEEXFORMER, "classify", tmp_path / "many.txt", "--checkpoint", GOLDEN]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, timeout=PATIENCE, check=True)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "100%" in shown
    assert [json.loads(line)["tokens"] for line in ended.stdout.splitlines()] == [5] * 100


def test_one_of_several_is_loaded_and_no_other(run: Any, tmp_path: Path) -> None:
    for name in ("bronze", "silver"):
        save(replace(read(GOLDEN), name=name), tmp_path / f"of_{name}")
    (tmp_path / "of_bronze" / "model.safetensors").write_bytes(b"")
    for asked, answers in ((("--model", "silver"), "silver"), ((), None), (("--model", "bronze"), None)):
        code, out, err = run("classify", "--checkpoint", tmp_path, GOOD, *asked)
        assert (code, json.loads(out)["model"] if out else None) == (0 if answers else 2, answers), err
    code, _, err = run("classify", "--checkpoint", tmp_path, GOOD, "--model", "gold")
    assert (code, err) == (2, "beexformer: no model is named 'gold'; there are bronze, silver\n")
    save(replace(read(GOLDEN), name="silver"), tmp_path / "silver_again")
    code, _, err = run("classify", "--checkpoint", tmp_path, GOOD, "--model", "silver")
    assert code == 2
    assert "is a second checkpoint named 'silver'" in err
    (tmp_path / "of_bronze" / "config.json").write_text("{")
    code, _, err = run("classify", "--checkpoint", tmp_path, GOOD, "--model", "gold")
    assert code == 2
    assert "config.json" in err


def test_models_are_listed(run: Any, tmp_path: Path) -> None:
    code, out, _ = run("models", "--checkpoint", GOLDEN)
    assert code == 0
    for word in ("golden", "negative, positive", "0.10 MB"):
        assert word in out
    code, out, _ = run("models")
    shipped = sorted(path.name for path in SHIPPED.iterdir())
    assert (code, [name for name in shipped if name in out]) == (0, shipped)
    assert out.count("%") == 2 * len(shipped), "score and FLOPs saved"
    code, out, _ = run("classify", "a warm, funny film")
    assert (code, json.loads(out)["model"]) == (0, "sst2"), "of the shipped ones that one answers where none is named"
    code, out, _ = run("models", "--checkpoint", GOLDEN.parent, "--json")
    assert (code, json.loads(out)[0]["config"]["n_block"]) == (0, 6)
    code, out, err = run("models", "--checkpoint", tmp_path)
    assert (code, out) == (2, "")
    assert "holds no checkpoint" in err


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder as the recipe of `named` wants it."""
    (tmp_path / "data" / "task").mkdir(parents=True)
    for split in ("train", "dev"):
        rows = [f"{'a warm film' if i % 2 else 'the worst film'} of {split} {i},{i % 2}" for i in range(12)]
        (tmp_path / "data" / "task" / f"{split}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return tmp_path / "data"


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """The golden checkpoint, as one that says what it was trained on."""
    checkpoint = read(GOLDEN)
    made = {"recipe": {"data": {"train": "task", "metric": "f1"}}}
    save(replace(checkpoint, evaluation={"provenance": made}), tmp_path / "checkpoints" / "golden")
    return tmp_path / "checkpoints"


@pytest.mark.slow
def test_all_checkpoints_are_evaluated_on_the_rows_that_they_name(run: Any, data: Path, named: Path) -> None:
    pytest.importorskip("beexformer.training.evaluate")
    code, out, _ = run("evaluate", "--all", "--data", data, "--checkpoint", named, "--json")
    [line] = json.loads(out)
    assert code == 0
    assert (line["task"], line["metric"], line["rows"], line["delta"]) == ("golden", "f1", 12, 1e-4)
    assert sum(line["exits"]) == 12
    assert line["size_bytes"] == sum(file.stat().st_size for file in (named / "golden").iterdir())
    assert {"score", "full_depth_score", "flops_saved_ratio"} <= line.keys()
    code, out, _ = run("evaluate", "--all", "--data", data, "--checkpoint", named)
    assert (code, "golden" in out, f"{line['flops_saved_ratio']:.1%}" in out) == (0, True, True)


def test_one_checkpoint_is_evaluated_on_a_file(run: Any, data: Path) -> None:
    pytest.importorskip("beexformer.training.evaluate")
    code, out, _ = run("evaluate", data / "task" / "dev.csv", "--checkpoint", GOLDEN, "--json")
    assert (code, json.loads(out)["rows"]) == (0, 12)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give either a file of rows or --all"),
        (["rows.csv", "--all"], "give either a file of rows or --all"),
        (["--all", "--checkpoint", GOLDEN], "doesn't say in evaluation.json which rows it was trained on"),
        (["--all", "--picture", "a.png", "--checkpoint", GOLDEN], "--picture goes with a file of rows"),
        (["rows.csv", "--picture", "a.foo", "--checkpoint", GOLDEN], "must end in .png, .svg, .pdf"),
        (["rows.csv", "--metric", "luck", "--checkpoint", GOLDEN], "unknown metric 'luck'"),
        (["--all", "--model", "other", "--checkpoint", GOLDEN], "no model is named 'other'"),
    ],
)
def test_what_can_not_be_evaluated_is_one_sentence(run: Any, arguments: list[str | Path], sentence: str) -> None:
    pytest.importorskip("beexformer.training.evaluate")
    code, out, err = run("evaluate", *arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1


def test_data_that_is_not_there_is_one_sentence(run: Any, named: Path, tmp_path: Path) -> None:
    pytest.importorskip("beexformer.training.evaluate")
    for verb in (["evaluate", "--all"], ["report", "--runs", tmp_path / "none", "--out", tmp_path / "out"]):
        code, out, err = run(*verb, "--data", tmp_path, "--checkpoint", named)
        assert (code, out) == (2, "")
        assert "no such file or folder; is" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_report_is_written(run: Any, data: Path, named: Path, tmp_path: Path) -> None:
    pytest.importorskip("beexformer.training.data")
    folders = ("--runs", tmp_path / "none", "--out", tmp_path / "out", "--work", tmp_path / "work")
    code, out, _ = run("report", "--data", data, "--checkpoint", named, *folders)
    assert (code, out) == (0, f"{tmp_path / 'out' / 'README.md'}\n")
    assert "| golden | f1 | 2 |" in (tmp_path / "out" / "README.md").read_text()
