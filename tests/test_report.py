"""A report of checkpoints and records that the tests make: what is there is measured, what is missing is said."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tiny import random_checkpoint, random_texts

from beexformer.model import flops
from beexformer.model.checkpoint import save
from beexformer.model.config import BEEConfig
from beexformer.model.engine import Engine
from beexformer.model.errors import TrainingError
from beexformer.model.options import ExitOptions, ExitSettings
from beexformer.model.tensors import unstack
from beexformer.report import asked, bootstrap, calibration, depth, gather, results, tables
from beexformer.report.baselines import Answered
from beexformer.report.cited import CITED, COLUMNS, PAPER
from beexformer.report.results import DELTA, Net
from beexformer.report.sizes import packed_bytes, real_bytes
from beexformer.training import calibrate, encoders
from beexformer.training.data import Rows
from beexformer.training.evaluate import evaluate, exits_taken, logits_of
from beexformer.training.export import tensors_of
from beexformer.training.network import BEExformer
from beexformer.training.progress import RunProgress
from beexformer.training.recipe import VARIANTS, Data
from beexformer.training.record import Record, write
from beexformer.training.splits import splits

pytestmark = pytest.mark.slow

SHAPE = {"vocab_size": 50, "d_model": 64, "n_block": 3, "n_head": 2, "d_head": 64}
LABELS = ["no", "yes", "maybe"]
SHIPS = ExitOptions(entropy_threshold=0.9, min_blocks=2)
PLAIN = ExitSettings(DELTA, 0.0, 1, 3)


def without_what_takes_long(patch: pytest.MonkeyPatch) -> None:
    """MiniLM isn't there, and the backbone that ships answers nothing: what they say is tested in test_baselines."""
    patch.setitem(encoders.PACKAGES, "minilm", ["no-such-package-of-weights"])

    def on_backbone(train: Rows, others: list[Rows], *_: Any) -> Answered:
        return Answered([np.zeros(len(rows), int) for rows in others], 3_000_000)

    patch.setattr(asked.baselines, "on_backbone", on_backbone)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks; the label is whether, or in the third which of two, words are there."""
    root = tmp_path_factory.mktemp("data")
    for i, task in enumerate(("sst2", "rte", "trec6")):
        (root / task).mkdir()
        for split, rows in (("train", 120), ("dev", 50), ("test", 40)):
            if (task, split) == ("rte", "test"):
                continue
            texts = random_texts(rows, seed=10 * i + len(split), longest=9)
            labels = [
                ("yes" if "worst" in t.split() else "maybe" if task == "trec6" and "film" in t.split() else "no")
                for t in texts
            ]
            lines = [f"{t},{p},{label}" for t, p, label in zip(texts, reversed(texts), labels, strict=True)]
            (root / task / f"{split}.csv").write_text("\n".join(["text,other,label", *lines]) + "\n")
    return root


def section(task: str, **more: Any) -> dict[str, Any]:
    metric = {"sst2": "accuracy", "rte": "f1", "trec6": "macro_f1"}[task]
    pair = "other" if task == "rte" else None
    return {"train": task, "metric": metric, "labels": LABELS[: 2 + (task == "trec6")], "text_pair": pair, **more}


def shipped(folder: Path) -> Engine:
    made = {"recipe": {"data": section("sst2")}, "seed": 1}
    checkpoint = random_checkpoint(labels=("no", "yes"))
    save(replace(checkpoint, name="sst2", exit=SHIPS, evaluation={"provenance": made}), folder / "sst2")
    return Engine.load(folder / "sst2")


def recorded(root: Path, runs: Path, task: str, variant: str, seed: int, skill: float = 1.0) -> Record:
    """Logits that lean to the label, more with every exit."""
    rows = splits(Data.model_validate(section(task)), root)
    config = BEEConfig(n_class=len(rows.labels), **SHAPE, **VARIANTS[variant])  # type: ignore[arg-type]
    rng = np.random.default_rng([seed, len(variant)])
    steps = (
        rng.normal(0, 1, (len(rows.dev), 3, config.n_class)) + skill * np.eye(config.n_class)[rows.dev.labels][:, None]
    )
    meta = {
        "task": task,
        "variant": variant,
        "seed": seed,
        "metric": section(task)["metric"],
        "config": config.to_dict(),
        "date": "2026-02-01",
    }
    meta |= {"class_names": rows.labels, "dev_sha256": rows.dev.sha256(), "recipe": {"data": section(task)}}
    logits = steps.cumsum(1)[:, -len(config.exits) :]
    record = Record(meta, logits.astype(np.float32), rng.integers(5, 20, len(rows.dev)), rows.dev.labels)
    runs.mkdir(parents=True, exist_ok=True)
    write(record, runs / f"{task}-{variant}-{seed}.npz")
    return record


@pytest.fixture(scope="module")
def written(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Engine]:
    """A report of all there can be, but for the encoder, in `out`, and the shipped network in it."""
    place = tmp_path_factory.mktemp("report")
    engine = shipped(place)
    for task in ("sst2", "rte", "trec6"):
        for variant in VARIANTS:
            for seed in (1, 2):
                recorded(root, place / "runs", task, variant, seed)
    strange = recorded(root, place / "runs" / "strange", "rte", "fp", 9)
    write(replace(strange, meta={**strange.meta, "dev_sha256": "0"}), place / "runs" / "strange" / "rte-fp-9.npz")
    taught = recorded(root, place / "runs" / "strange", "sst2", "fp", 9)  # with nothing to compare it with
    recipe = {**taught.meta["recipe"], "teacher": {"encoder": "mpnet"}}
    write(replace(taught, meta={**taught.meta, "recipe": recipe}), place / "runs" / "strange" / "sst2-fp-9.npz")
    for variant in ("proposed", "wee"):
        older = recorded(root, place / "runs" / "older", "rte", variant, 3)
        recipe = {**older.meta["recipe"], "start": {"backbone": "older"}}
        meta = {**older.meta, "recipe": recipe, "date": "2026-01-01"}
        write(replace(older, meta=meta), place / "runs" / "older" / f"rte-{variant}-3.npz")
    with pytest.MonkeyPatch.context() as patch:
        without_what_takes_long(patch)
        tables.run([engine], root, place / "runs", place / "out", place / "work", Console(quiet=True))
    return place, engine


def cells(text: str, name: str) -> list[str]:
    """The cells after the first of the one row that begins with `name`."""
    [row] = re.findall(rf"^\| {re.escape(name)} \|(.*)\|$", text, re.MULTILINE)
    return [cell.strip() for cell in row.split("|")]


def test_table_2(written: tuple[Path, Engine], root: Path) -> None:
    place, engine = written
    text = (place / "out" / "README.md").read_text()
    dev = splits(Data.model_validate(section("sst2")), root).dev
    result = evaluate(engine, dev, "accuracy")
    size = f"{engine.description['size_bytes'] / 1e6:.2f}"
    assert cells(text, "**BEExformer, shipped**") == ["1-1", size, f"{100 * result['score']:.1f}", *4 * ["-"]]
    assert cells(text, "BEExformer, shipped, at full depth")[2] == f"{100 * result['full_depth_score']:.1f}"
    paper = next(point for point in result["delta_curve"] if point["delta"] == DELTA)
    assert cells(text, "BEExformer, shipped, by the paper's rule")[2] == f"{100 * paper['score']:.1f}"
    assert paper["flops_saved_ratio"] != result["flops_saved_ratio"], "it ships with other exit options"
    assert cells(text, "Majority class")[2] == f"{100 * np.mean(dev.labels == 0):.1f}"
    assert float(cells(text, "TF-IDF + logistic regression")[2]) > 85, "the label is a word"
    assert cells(text, "1-bit backbone, frozen, + heads")[:2] == ["1-1", "3.00"]
    for name in ("Model2Vec of MiniLM + logistic regression", "MiniLM, frozen, + logistic regression"):
        assert cells(text, name)[1:] == ["-"] * 6
    assert cells(text, "MiniLM, fine-tuned")[1:] == ["-"] * 6
    assert "MiniLM, fine-tuned was not measured: encoder 'minilm' is not installed" in text
    assert cells(text, "BEEformer, paper (cited)") == ["1-1", "14.26", "92.32", "60.3", "86.47", "-", "71.11"]
    assert cells(text, "BiBERT (cited)") == ["1-1", "13.4", "88.7", "25.4", "-", "72.5", "57.4"]
    runs = [np.load(place / "runs" / f"sst2-wee-{seed}.npz") for seed in (1, 2)]
    scores = [100 * np.mean(run["logits"][:, -1].argmax(-1) == run["labels"]) for run in runs]
    assert cells(text, "BEExformer, WEE, seeds")[2] == f"{np.mean(scores):.1f} ± {np.std(scores, ddof=1):.1f} (2)"


def test_claims_have_intervals(written: tuple[Path, Engine]) -> None:
    text = (written[0] / "out" / "README.md").read_text()
    *each, mean = cells(text, "at most 4 points below FP")
    assert len(each) == 2, "of SST-2 and RTE; the paper has no trec6"
    for cell in (*each, mean):
        assert re.match(r"[+-][\d.]+ \[[+-][\d.]+, [+-][\d.]+\] (confirmed|refuted|undecided)", cell)
    assert mean.endswith("(2 of 4 tasks)")
    assert cells(text, "as it ships not below full depth, on test rows")[1] == "-", "RTE has none"


def test_published_scores_of_one_bit_are_met(written: tuple[Path, Engine], root: Path) -> None:
    place, engine = written
    text = (place / "out" / "README.md").read_text()
    ours = evaluate(engine, splits(Data.model_validate(section("sst2")), root).dev, "accuracy")["score"]
    result, none, _ = cells(text, "above BiT 1-1, as published")
    assert result.startswith(f"{100 * ours - 89.9:+.1f} [")
    assert none == "-", "nothing of RTE ships"
    assert cells(text, "above BinaryBERT 1-1, as published")[0].startswith(f"{100 * ours - 53.2:+.1f} [")


def test_mrpc_is_compared_by_the_metric_that_is_published() -> None:
    by_accuracy = {f"{c.name} {c.bits}": c.score(COLUMNS[3]) for c in CITED if c.score(COLUMNS[3])}
    assert COLUMNS[3] == ("mrpc", "MRPC", "accuracy")
    assert {name: by_accuracy[name] for name in ("BiT 1-1", "BiBERT 1-1", "BinaryBERT 1-1")} == {
        "BiT 1-1": 79.9,
        "BiBERT 1-1": 72.5,
        "BinaryBERT 1-1": 68.3,
    }
    assert all((c.score(COLUMNS[2]) is None) == (f"{c.name} {c.bits}" in by_accuracy) for c in CITED)


def test_baselines_are_met_on_test_rows_too(written: tuple[Path, Engine], root: Path) -> None:
    place, engine = written
    text = (place / "out" / "README.md").read_text()
    test = splits(Data.model_validate(section("sst2")), root).test
    assert test
    ours = evaluate(engine, test, "accuracy")["score"]
    result, none, mean = cells(text, "above the majority class, on test rows")
    assert result.startswith(f"{100 * (ours - np.mean(test.labels == 0)):+.1f} [")
    assert none == "-", "RTE has no test rows"
    assert mean == f"{result} (1 of 4 tasks)"
    lexical = cells(text, "above TF-IDF + logistic regression, on test rows")[0]
    assert lexical.endswith("refuted"), "the label is a word, and the network is random"


def test_exits_as_it_ships_beside_the_papers_rule_and_full_depth(written: tuple[Path, Engine], root: Path) -> None:
    place, engine = written
    text = (place / "out" / "README.md").read_text()
    rows = splits(Data.model_validate(section("sst2")), root)
    result = evaluate(engine, rows.dev, "accuracy")
    table = text.split("(the paper's Figures 4 to 6)")[1].split("![")[0]
    lines = {cell[1]: cell[2:] for line in table.splitlines() if line.startswith("| SST-2") if (cell := _split(line))}
    ships = lines["as it ships (delta 0.0001, entropy 0.9, blocks 2 to 6)"]
    assert ships[:2] == [f"{100 * result['score']:.1f}", f"{result['flops_saved_ratio']:.1%}"]
    assert ships[5] == " ".join(map(str, result["exits"]))
    paper = next(point for point in result["delta_curve"] if point["delta"] == DELTA)
    assert lines["the paper's rule"][:2] == [f"{100 * paper['score']:.1f}", f"{paper['flops_saved_ratio']:.1%}"]
    assert lines["full depth"][:3] == [f"{100 * result['full_depth_score']:.1f}", "0.0%", "6.00"]
    assert rows.test
    logits, _ = logits_of(engine, rows.test)
    taken = exits_taken(engine.config, logits, engine.resolve(ExitOptions()))
    right = logits[np.arange(len(taken)), taken - 1].argmax(1) == rows.test.labels
    assert ships[3] == f"{100 * right.mean():.1f}"
    above = cells(text, "as it ships above itself by the paper's rule at delta 0.0001")[0]
    assert above.startswith(f"{100 * (result['score'] - paper['score']):+.1f} [")
    assert cells(text, "as it ships not below full depth, on test rows")[1] == "-", "RTE has no test rows"


def test_runs_that_were_made_otherwise_stand_apart(written: tuple[Path, Engine]) -> None:
    text = (written[0] / "out" / "README.md").read_text()
    apart = text.split("## Variants, of earlier networks")[1].split("\n## ")[0]
    made, proposed, wee, *rest = cells(apart, "RTE")
    assert made == "2026-01-01"
    assert (proposed[-3:], wee[-3:], rest[:2]) == ("(1)", "(1)", ["-", "-"])
    assert re.match(r"[+-][\d.]+ \[", rest[2])
    assert "(2)" in cells(text, "BEExformer, WEE, seeds")[6], "its third seed is not among them"


def test_f1_is_not_the_only_metric_of_a_pair_task(written: tuple[Path, Engine], root: Path) -> None:
    text = (written[0] / "out" / "README.md").read_text()
    none, result, mean = cells(text, "above the majority class, by accuracy")
    dev = splits(Data.model_validate(section("rte")), root).dev
    seeds = [np.load(written[0] / "runs" / f"rte-proposed-{seed}.npz") for seed in (1, 2)]
    right = [np.mean(calibrate.served(run["logits"], DELTA).argmax(-1) == dev.labels) for run in seeds]
    assert none == "-", "SST-2 is scored by accuracy as it is"
    assert result.startswith(f"{100 * (np.mean(right) - np.mean(dev.labels == 0)):+.1f} [")
    assert mean == f"{result} (1 of 4 tasks)"
    assert cells(text, "above the majority class")[1] != result, "which is about F1"


def test_every_picture_is_shown_and_small(written: tuple[Path, Engine]) -> None:
    out = written[0] / "out"
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", (out / "README.md").read_text())
    assert sorted(shown) == sorted(path.name for path in out.glob("*.png"))
    assert len(shown) == 7
    for name in shown:
        assert (out / name).read_bytes()[:4] == b"\x89PNG"
        assert (out / name).stat().st_size < 150_000


def test_tasks_outside_the_paper_have_a_table_of_their_own(written: tuple[Path, Engine]) -> None:
    text = (written[0] / "out" / "README.md").read_text()
    table = text.split("## Tasks outside the paper")[1].split("##")[0]
    row = cells(table, "trec6")
    assert row[:2] == ["macro_f1", "3"]
    assert row[4] == "-", "nothing of it ships"
    assert row[5].endswith("(2)"), "two seeds"
    majority, lexical, static, frozen, backbone, above, *_ = row[8:]
    assert float(lexical) > float(majority)
    assert (static, frozen) == ("-", "-"), "MiniLM isn't there"
    assert backbone != "-"
    assert re.match(r"[+-][\d.]+ \[", above)


def test_what_does_not_fit_is_left_out_with_a_reason(written: tuple[Path, Engine]) -> None:
    text = (written[0] / "out" / "README.md").read_text()
    assert "- record rte, fp, seed 9: its development rows are others than those in the data folder" in text
    assert "- record sst2, fp, seed 9: its recipe has another [teacher] than what ships; train it again" in text


def test_it_is_the_same_again(written: tuple[Path, Engine], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, engine = written
    without_what_takes_long(monkeypatch)
    monkeypatch.setattr(asked.baselines, "lexical", lambda *_: pytest.fail("its answers are kept"))
    tables.run([engine], root, place / "runs", place / "again", place / "work", Console(quiet=True))
    for path in (place / "out").iterdir():
        assert path.read_bytes() == (place / "again" / path.name).read_bytes(), path.name


def test_baselines_are_asked_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_what_takes_long(monkeypatch)
    monkeypatch.setattr(
        asked.baselines, "encoder", lambda _, others, *__: Answered([np.ones(len(o), int) for o in others], 12_340_000)
    )
    task = gather.task_of("sst2", Data.model_validate(section("sst2")), root, ["no", "yes"])
    progress = RunProgress(Console(quiet=True))
    asked.Baselines(tmp_path / "kept", tmp_path, progress).ask(task)
    first = task.baselines
    assert first["encoder"].size_bytes == 12_340_000
    assert first["encoder"].predicted is not None
    assert len(first["encoder"].predicted) == 50
    assert first["encoder"].on_test is not None
    assert "not installed" in first["frozen"].note
    for name in ("lexical", "on_backbone", "encoder"):
        monkeypatch.setattr(asked.baselines, name, lambda *_: pytest.fail("its answers are kept"))
    task.baselines = {}
    asked.Baselines(tmp_path / "kept", tmp_path / "other", progress, encoder=False).ask(task)
    for key, again in task.baselines.items():
        assert again.size_bytes == first[key].size_bytes
        assert np.array_equal(again.predicted, first[key].predicted)  # type: ignore[arg-type]
    asked.Baselines(tmp_path / "none", tmp_path, progress, anew=False).ask(task)
    assert task.baselines["lexical"].note == "its answers are not kept, and none was asked anew"
    assert task.baselines["majority"].predicted is not None


def test_a_checkpoint_alone_is_enough(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_what_takes_long(monkeypatch)
    path = tables.run(
        [shipped(tmp_path)], root, tmp_path / "none", tmp_path / "out", tmp_path / "work", Console(quiet=True)
    )
    text = path.read_text()
    assert "BEExformer, FP, seeds" not in text
    assert "at most 4 points below FP" not in text, "there is no record of one"


def test_records_alone_are_enough(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_what_takes_long(monkeypatch)
    recorded(root, tmp_path / "runs", "trec6", "proposed", 1)
    path = tables.run([], root, tmp_path / "runs", tmp_path / "out", tmp_path / "work", Console(quiet=True))
    assert "## Tasks outside the paper" in path.read_text()


def test_nothing_is_an_error(root: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no checkpoint, and no record under"):
        tables.run([], root, tmp_path / "none", tmp_path / "out", tmp_path / "work", Console(quiet=True))
    with pytest.raises(TrainingError, match=r"is .* the data folder"):
        tables.run(
            [shipped(tmp_path)], tmp_path / "data", tmp_path, tmp_path / "out", tmp_path / "work", Console(quiet=True)
        )
    assert not (tmp_path / "out").exists()


def test_it_writes_over_no_readme_but_its_own(root: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# My project\n")
    with pytest.raises(TrainingError, match=r"README\.md is no report of ours"):
        tables.run([], root, tmp_path / "none", tmp_path, tmp_path / "work", Console(quiet=True))
    assert (tmp_path / "README.md").read_text() == "# My project\n"


def test_baselines_learn_from_rows_with_labels(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "dev.csv").write_text("text,label\na,no\nb,yes\n")
    (tmp_path / "task" / "train.csv").write_text("text,label,p_no,p_yes\nc,yes,0.2,0.8\nd,no,0.9,0.1\n")
    with (tmp_path / "task" / "train.csv").open("a") as file:
        file.write("f,,0.5,0.5\n")
    (tmp_path / "more.csv").write_text("text,p_no,p_yes\ne,0.3,0.7\n")
    data = Data(train="task", also=["more.csv"])
    assert len(splits(data, tmp_path).train) == 4
    assert gather.task_of("task", data, tmp_path, ["no", "yes"]).train.texts == ["c", "d"]


def test_training_rows_that_are_scored_on_are_no_baseline(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    dev = ["text,label", "A film,no", "the worst,yes"]
    for split, lines in (("dev", dev), ("train", [*dev, "a  FILM,no", "a movie,no"])):
        (tmp_path / "task" / f"{split}.csv").write_text("\n".join(lines) + "\n")
    assert gather.task_of("task", Data(train="task"), tmp_path, ["no", "yes"]).train.texts == ["a movie"]
    (tmp_path / "task" / "train.csv").write_text("\n".join(dev) + "\n")
    with pytest.raises(TrainingError, match="every training row is also"):
        gather.task_of("task", Data(train="task"), tmp_path, ["no", "yes"])


def test_sizes_are_those_of_the_tensors() -> None:
    config = BEEConfig(n_class=2, **SHAPE)  # type: ignore[arg-type]
    tensors = unstack(tensors_of(BEExformer(config)), config)
    assert packed_bytes(config) == sum(tensor.nbytes for tensor in tensors.values())
    full_precision = BEExformer(replace(config, binary=False))
    assert real_bytes(config) == sum(4 * parameter.numel() for parameter in full_precision.parameters())


def test_policies_meet_at_the_ends(root: Path, tmp_path: Path) -> None:
    """Whatever the policy, at one end every row runs all blocks, at the other it leaves after the first."""
    record = recorded(root, tmp_path, "sst2", "proposed", 1)
    rows = splits(Data.model_validate(section("sst2")), root)
    task = results.Task("sst2", "accuracy", rows.labels, rows.train, rows.dev, None)
    config = BEEConfig(**record.meta["config"])
    net = Net("proposed", 1, config, record.logits, record.tokens, 0, calibrate.recorded({}, config), PLAIN)
    first, last = (np.mean(record.logits[:, c].argmax(-1) == rows.dev.labels) for c in (0, -1))
    for name, curve in results.policies(task, net).items():
        assert max(curve) == (pytest.approx(0.66, abs=0.02), first), name
        if not {"paper", "same", "last"}.intersection(re.findall(r"\w+", name)):
            assert min(curve) == (0, last), name


def test_a_class_bias_that_ships_is_shown_beside_temperatures_alone(root: Path, tmp_path: Path) -> None:
    record = recorded(root, tmp_path, "sst2", "proposed", 1)
    rows = splits(Data.model_validate(section("sst2")), root)
    config = BEEConfig(**record.meta["config"])
    fitted = calibrate.Calibration(np.array([1.5, 1.0, 2.0]), np.array([0.25, -0.25]))
    net = Net("proposed", 1, config, fitted.of(record.logits), record.tokens, 0, fitted, replace(PLAIN, min_blocks=2))
    np.testing.assert_allclose(net.raw, record.logits)
    task = results.Task("sst2", "accuracy", rows.labels, rows.train, rows.dev, None, shipped=net)
    said = "\n".join(calibration.calibration([task], tmp_path, RunProgress(Console(quiet=True))))
    assert "| one for each exit | " in said
    [temperatures] = re.findall(r"\| one for each exit, and a class bias \(ships\) \| (.*?) \|", said)
    anew = calibrate.fit(net.raw, rows.dev.labels, "per_exit", slice(1, 3))
    wanted = "{:.2f} {:.2f} {:.2f}; bias {:+.2f} {:+.2f}".format(*anew.temperatures, *anew.bias)
    assert temperatures == wanted
    assert calibration.BIAS in said
    plain = replace(net, calibration=calibrate.recorded({}, config))
    task = replace(task, shipped=plain)
    said = "\n".join(calibration.calibration([task], tmp_path, RunProgress(Console(quiet=True))))
    assert "one for each exit (ships)" in said
    assert "bias" not in said


def test_what_a_recorded_run_is_compared_with_gets_a_class_bias_where_it_pays(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "FEWEST", 20)
    rows = splits(Data.model_validate(section("sst2")), root)
    task = results.Task("sst2", "accuracy", rows.labels, rows.train, rows.dev, None)
    records = [recorded(root, tmp_path, "sst2", variant, 1) for variant in ("fp", "proposed")]
    records = [replace(record, logits=record.logits + np.float32([-2, 2])) for record in records]
    assert gather.add(task, records) == {}
    [fp], [proposed] = task.runs["fp"], task.runs["proposed"]
    assert fp.calibration.bias[0] > 0.1
    np.testing.assert_allclose(fp.logits, fp.calibration.of(records[0].logits))
    np.testing.assert_allclose(fp.raw, records[0].logits, atol=1e-5)
    assert (proposed.logits == records[1].logits).all(), "it was calibrated when it was exported"


def test_the_mean_of_the_seeds_is_within_each_resample(root: Path, tmp_path: Path) -> None:
    records = [recorded(root, tmp_path, "sst2", "fp", seed) for seed in (1, 2)]
    rows = splits(Data.model_validate(section("sst2")), root)
    task = results.Task("sst2", "accuracy", rows.labels, rows.train, rows.dev, None)
    records.append(recorded(root, tmp_path, "sst2", "proposed", 1))
    assert gather.add(task, records) == {}
    result = task.of(task.runs["fp"])
    assert result
    single = [task.of([net]) for net in task.runs["fp"]]
    assert result.resampled.shape == (bootstrap.RESAMPLES,)
    assert result.resampled == pytest.approx((single[0].resampled + single[1].resampled) / 2)  # type: ignore[union-attr]


def test_a_field_that_recipes_have_since_parts_no_runs(root: Path, tmp_path: Path) -> None:
    records = [recorded(root, tmp_path, "sst2", variant, 1) for variant in ("fp", "proposed")]
    for record in records:
        record.meta["recipe"] = {**record.meta["recipe"], "network": {"n_block": 2}}
    records[1].meta["recipe"]["network"] |= {"pooling": "mean", "attention": "int8"}  # what they had, and no matter
    rows = splits(Data.model_validate(section("sst2")), root)
    task = results.Task("sst2", "accuracy", rows.labels, rows.train, rows.dev, None)
    assert gather.add(task, records) == {}
    assert set(task.runs) >= {"fp", "proposed"}


def test_the_cited_rows_are_the_papers() -> None:
    assert len(CITED) == 20
    assert [c.megabytes for c in CITED if c.name.startswith("BEE")] == [11.05, 102.41, 263, 14.26]
    assert json.dumps([c.scores for c in CITED if c.name == "BiT"]) == "[[89.9, 32.9, 79.9, 62.1]]"
    assert all(len(c.scores) == len(PAPER) for c in CITED)


def test_flops_at_the_exits_are_those_of_where_rows_leave(root: Path, tmp_path: Path) -> None:
    record = recorded(root, tmp_path, "sst2", "proposed", 1)
    config = BEEConfig(**record.meta["config"])
    net = Net("proposed", 1, config, record.logits, record.tokens, 0, calibrate.recorded({}, config), PLAIN)
    one, two, three = net.leaving()
    wanted = sum(rows * flops.forward(config, 11, c).flops for c, rows in ((1, one), (2, two), (3, three))) / 50
    real, binary = depth._at_exits(net, 11)
    assert real + binary / 64 == pytest.approx(wanted)


def test_table_3(written: tuple[Path, Engine]) -> None:
    text = (written[0] / "out" / "README.md").read_text().split("(the paper's Table 3)")[1]
    config = written[1].config
    rows = {cell[1]: cell[2:] for line in text.splitlines() if line.startswith("| SST-2") if (cell := _split(line))}
    tokens, _, real, binary, both, _ = rows["WEE, full depth"]
    counted = flops.forward(replace(config, early_exit=False), int(tokens), config.n_block)
    expected = [f"{n / 1e6:.2f}" for n in (counted.real, 2 * counted.binary_macs, counted.flops)]
    assert [real, binary, both] == expected
    assert float(rows["proposed, at its exits"][4]) < float(rows["proposed, full depth"][4])
    assert rows["FP, at its exits"][3] == "0.00", "no binary operations"


def _split(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]
