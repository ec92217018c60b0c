"""Heads on a tiny 1-bit backbone: what they read, what is written, what it is judged by."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny import random_texts
from tiny_backbone import FACTS, JSON, write_backbone

from beexformer.model import checkpoint
from beexformer.model.config import BEEConfig
from beexformer.model.engine import Engine
from beexformer.model.errors import BEEError, TrainingError
from beexformer.model.options import ExitOptions
from beexformer.model.tokenizer import Tokenizer
from beexformer.training import (
    backbone,
    cli,
    evaluate,
    examples,
    export,
    frozen,
    heads,
    mean_states,
    own_rows,
    pooling,
    profiles,
    recipe,
    train,
    warm_start,
)
from beexformer.training.batches import pad
from beexformer.training.data import Columns
from beexformer.training.network import BEExformer, mean_state, start_state
from beexformer.training.tuning import Observed


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_backbone(tmp_path, monkeypatch, readers=False)
    write(tmp_path / "train.csv", random_texts(160, longest=9))
    return tmp_path


def write(path: Path, texts: list[str]) -> None:
    lines = [f"{text},{'bad' if 'worst' in text.split() else 'good'}" for text in texts]
    path.write_text("text,label\n" + "\n".join(lines) + "\n")


def plan(**data: Any) -> recipe.Recipe:
    content: dict[str, Any] = {**own_rows.OWN_TEXTS, "start": {"backbone": "tiny"}}
    return recipe.parse({"name": "toy", "data": {"train": "train.csv", **data}, **content}, "test", recipe.Recipe)


def run(plan: recipe.Recipe, root: Path) -> dict[str, Any]:
    return train.run(plan, root, root / "out", root / "work", Console(quiet=True))


def test_states_are_those_of_the_network(root: Path) -> None:
    result = backbone.read("tiny", root)
    config = recipe.parse(
        {
            "network": result.shape | {"head": "linear"},
            "name": "a",
            "data": {"train": "x"},
            "optim": {"embedding": "frozen"},
        },
        "test",
        recipe.Recipe,
    ).network.config(Tokenizer(JSON, 32).vocab_size, 2)
    network = mean_states.network_of(result, config)
    texts = random_texts(20)
    states = mean_states.of(mean_states.engine_of(network, JSON), [*texts], threads=2)
    both = mean_states.of(mean_states.engine_of(network, JSON, "mean_and_start"), [*texts], threads=2)
    assert (both[..., :128] == states).all()
    ids, mask = pad(Tokenizer(JSON, 32).encode_rows(texts))
    with torch.no_grad():
        all_states = network.states(network.embed(ids), mask)
        ours = torch.stack([torch.cat([mean_state(h, mask), start_state(h, mask)], -1) for h in all_states], 1).numpy()
    assert both.shape == (20, 3, 256)
    assert np.median(np.abs(both - ours)) < 1e-5
    assert (np.abs(both - ours).max((1, 2)) < 1e-3).mean() > 0.8, "a sign that flips moves a row"


def test_all_rows_are_learned_from_and_judged_unseen(root: Path) -> None:
    evaluation = run(plan(), root)
    engine = Engine.load(root / "out")
    assert engine.config.head == "linear"
    assert engine.description["evaluation"] == json.loads(json.dumps(evaluation))
    assert (evaluation["dev"]["rows"], evaluation["provenance"]["train_rows"]) == (160, 160)
    assert evaluation["dev"]["score"] > 0.8
    assert len(evaluation["calibration"]["per_exit"]) == 3
    assert evaluation["calibration"]["dev"]["ece_after"] < 0.2
    assert "cross-validated" in (root / "out" / "README.md").read_text()
    with pytest.raises(TrainingError, match="trained on all of its rows"):
        evaluate.shipped(engine, root)


def write_questions(path: Path, count: int, seed: int = 0) -> None:
    """Texts whose first word is their class, which others say further on too."""
    firsts, texts = ("dull", "warm"), random_texts(count, seed, longest=25)
    lines = [f"{firsts[i % 2]} {text} {firsts[i // 2 % 2]},{firsts[i % 2]}" for i, text in enumerate(texts)]
    path.write_text("text,label\n" + "\n".join(lines) + "\n")


def test_heads_read_the_beginning_where_cross_validation_says_so(root: Path) -> None:
    write_questions(root / "train.csv", 240)
    write_questions(root / "test.csv", 100, seed=7)
    evaluation = run(plan(test="test.csv"), root)
    chosen = evaluation["provenance"]["pooling"]
    assert chosen["chosen"] == "mean_and_start"
    assert chosen["cross_entropy"]["mean_and_start"] < 0.9 * chosen["cross_entropy"]["mean"]
    made = checkpoint.read(root / "out")
    assert (made.config.pooling, made.config.head_inputs) == ("mean_and_start", 256)
    assert "one that weighs its first words most; cross-validation chose that" in made.card
    engine = Engine(made)
    rows = evaluate.read_labelled(engine, root / "test.csv", Columns())
    assert evaluate.evaluate(engine, rows)["score"] == evaluation["test"]["score"] > 0.8
    parity = export.verify(made, engine, evaluate.encode_rows(engine, rows))
    assert parity.holds, parity
    start = warm_start.read("out", root)
    assert start.shape["pooling"] == "mean_and_start"
    again = BEExformer(made.config)
    start.start(again)
    assert torch.equal(again.embedding.weight, export.network_of(made).embedding.weight)


def test_what_heads_read_follows_from_cross_validation(root: Path) -> None:
    write(root / "train.csv", random_texts(240, longest=25))
    evaluation = run(plan(), root)
    chosen, nats = (evaluation["provenance"]["pooling"][key] for key in ("chosen", "cross_entropy"))
    pays = nats["mean_and_start"] < pooling.GAIN * nats["mean"]  # of random bits, which some CPUs draw otherwise
    assert chosen == ("mean_and_start" if pays else "mean")
    assert Engine.load(root / "out").config.pooling == chosen
    assert ("first words" in (root / "out" / "README.md").read_text()) == pays


def test_the_mean_is_chosen_as_if_it_had_been_alone(root: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    states = rng.normal(size=(120, 2, 40)).astype(np.float32)
    states[:, 1, :3] += 3 * np.eye(3, dtype=np.float32)[labels]
    targets = np.eye(3)[labels]
    result, alone = pooling.fit(states, targets, "mean_and_start"), heads.fit(states[..., :20], targets)
    assert result.pooling == "mean"
    assert (result.heads.cross_validated == alone.cross_validated).all()
    states[..., 20:] += 3 * np.eye(20, dtype=np.float32)[labels][:, None]
    both = pooling.fit(states, targets, "mean_and_start")
    assert both.pooling == "mean_and_start"
    assert (both.heads.cross_validated == heads.fit(states, targets).cross_validated).all()
    assert both.nats["mean"] == result.nats["mean"] > both.nats["mean_and_start"]


def test_a_recipe_of_heads_states_no_pooling() -> None:
    content = {**own_rows.OWN_TEXTS, "network": {"head": "linear", "pooling": "mean_and_start"}}
    with pytest.raises(TrainingError, match=r"choose between poolings.*leave network.pooling out"):
        recipe.parse(
            {**content, "start": {"backbone": "tiny"}, "name": "toy", "data": {"train": "a"}}, "test", recipe.Recipe
        )


def test_a_development_file_is_scored_on_and_not_learned_from(root: Path) -> None:
    write(root / "dev.csv", random_texts(30, seed=9, longest=9))
    evaluation = run(plan(dev="dev.csv"), root)
    assert evaluation["dev"]["rows"] == 30
    assert "cross_validated" not in evaluation["provenance"]
    rows = evaluate.splits(plan(dev="dev.csv").data, root).dev
    assert evaluate.evaluate(Engine.load(root / "out"), rows)["score"] == evaluation["dev"]["score"]


def test_a_full_precision_backbone_has_no_states_to_serve(root: Path) -> None:
    config = BEEConfig(
        vocab_size=Tokenizer(JSON, 32).vocab_size,
        n_class=2,
        d_model=128,
        n_block=3,
        n_head=2,
        max_tokens=32,
        binary=False,
    )
    backbone.write(root / "real", BEExformer(config), JSON, FACTS)
    content = {**own_rows.OWN_TEXTS, "start": {"backbone": "real"}, "name": "toy", "data": {"train": "train.csv"}}
    with pytest.raises(TrainingError, match="needs a 1-bit backbone"):
        run(recipe.parse(content, "test", recipe.Recipe), root)


TAGS = {"praise": "charming", "blame": "worst", "cinema": "film"}  # a label for each of these words


def tagged(path: Path, texts: list[str]) -> Path:
    lines = [
        json.dumps({"text": text, "label": [t for t, word in TAGS.items() if word in text.split()]}) for text in texts
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.slow
def test_several_labels_a_text_from_rows_to_answers(root: Path) -> None:
    tagged(root / "train.jsonl", random_texts(300, longest=9))
    tagged(root / "test.jsonl", random_texts(120, seed=3, longest=9))
    evaluation = run(plan(train="train.jsonl", test="test.jsonl"), root)
    dev, test = evaluation["dev"], evaluation["test"]
    assert (dev["metric"], len(dev["by_class"]), len(dev["per_exit"])) == ("micro_f1", 3, 3)
    assert dev["metrics"]["micro_f1"] == dev["score"] > 0.7
    assert test["score"] == pytest.approx(dev["score"], abs=0.12), "judged by thresholds that a row did not choose"
    assert "confusion" not in dev
    assert all(len(each) == 3 for each in evaluation["calibration"]["temperatures"])
    assert evaluation["calibration"]["dev"]["ece_after"] < 0.1
    engine = Engine.load(root / "out")
    assert engine.thresholds is not None
    assert engine.labels == ("blame", "cinema", "praise")
    rows = evaluate.read_labelled(engine, root / "test.jsonl", Columns())
    result = evaluate.evaluate(engine, rows)
    assert result["score"] == pytest.approx(test["score"])
    answers = engine.predict([engine.encode(text) for text in rows.texts])
    said = np.array([[label in answer.says for label in engine.labels] for answer in answers])
    assert evaluate.METRICS["micro_f1"](rows.labels, said) == result["score"], "evaluation is of what is served"
    assert [answer.exit_index for answer in answers].count(2) == result["exits"][1]
    shown = examples.choose(engine, rows)
    assert shown
    assert all(each.title in engine.predict([engine.encode(each.text)])[0].says for each in shown)
    card = (root / "out" / "README.md").read_text()
    assert "Any number of them applies to a text" in card
    assert "| cinema |" in card


@pytest.mark.slow
def test_the_verb_evaluates_several_labels_or_says_what_there_is_not(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, out = tagged(root / "train.jsonl", random_texts(200, longest=9)), root / "out"
    tagged(root / "dev.jsonl", random_texts(40, seed=8, longest=9))
    evaluation = run(plan(train="train.jsonl", dev="dev.jsonl"), root)
    measured = evaluate.shipped(Engine.load(out), root)
    assert (measured["metric"], measured["rows"]) == ("micro_f1", 40)
    assert measured["full_depth_score"] == evaluation["dev"]["full_depth_score"]
    capsys.readouterr()
    cli.evaluate(rows, checkpoint=out, as_json=True)
    result = json.loads(capsys.readouterr().out)
    assert (result["metric"], set(result["metrics"])) == ("micro_f1", {"micro_f1", "macro_f1", "accuracy"})
    cli.evaluate(rows, checkpoint=out, metric="macro_f1")
    said = capsys.readouterr().out
    assert "labels, those with the lowest F1 first" in said
    assert "rows with exactly their labels" in said
    with pytest.raises(BEEError, match="--confusion is for one label a text"):
        cli.evaluate(rows, checkpoint=out, confusion=root / "classes.png")
    with pytest.raises(BEEError, match="metric 'matthews' is for one label a text"):
        cli.evaluate(rows, checkpoint=out, metric="matthews")


@pytest.mark.slow
def test_a_profile_of_several_labels_states_its_loss(root: Path) -> None:
    tagged(root / "train.jsonl", random_texts(300, longest=9))
    unseen = tagged(root / "unseen.jsonl", random_texts(200, seed=4, longest=9))
    run(plan(train="train.jsonl"), root)
    for labelled, words in ((True, "all labels of a text right"), (False, "another set of labels")):
        result = profiles.run(root / "out", unseen, Columns(), "risk", 0.05, labelled=labelled, default=False)
        assert words in result.evidence["loss"]
        assert result.evidence["loss_seen"] <= 0.05
    cheap = profiles.run(root / "out", unseen, Columns(), "flops", 0.8, labelled=True)
    assert cheap.evidence["flops_ratio"] <= 0.8
    assert cheap.evidence["micro_f1"] > 0.6
    engine = Engine.load(root / "out")
    texts = random_texts(20)
    plain, named = (
        engine.predict([engine.encode(text, options=ExitOptions(profile=name)) for text in texts])
        for name in (None, cheap.name)
    )
    assert {answer.profile for answer in named} == {cheap.name}
    assert {answer.profile for answer in plain} == {None}


def write_pairs(path: Path, count: int, seed: int = 0) -> None:
    """Pairs of which half are of the same text."""
    a, b = random_texts(count, seed, longest=8), random_texts(count, seed + 50, longest=8)
    same = np.random.default_rng(seed).random(count) < 0.5
    rows = [f"{x},{x if s else y},{'same' if s else 'other'}" for x, y, s in zip(a, b, same, strict=True)]
    path.write_text("one,two,label\n" + "\n".join(rows) + "\n")


def pair_plan(**data: Any) -> recipe.Recipe:
    content: dict[str, Any] = {**own_rows.OWN_PAIRS, "start": {"backbone": "tiny"}}
    asked = {"train": "pairs.csv", "text": "one", "text_pair": "two", **data}
    return recipe.parse({"name": "toy", "data": asked, **content}, "test", recipe.Recipe)


def test_heads_of_pairs_read_both_texts_apart(root: Path) -> None:
    write_pairs(root / "pairs.csv", 200)
    write_pairs(root / "test.csv", 100, seed=7)
    evaluation = run(pair_plan(test="test.csv"), root)
    assert evaluation["dev"]["score"] > 0.9, "a network that reads a pair as one text has no such heads"
    assert evaluation["test"]["score"] > 0.9
    engine = Engine.load(root / "out")
    assert (engine.config.pairs, engine.input) == ("apart", "pair")
    rows = evaluate.read_labelled(engine, root / "test.csv", Columns("one", "two"))
    result = evaluate.evaluate(engine, rows)
    answers = engine.predict(evaluate.encode_rows(engine, rows))
    right = [engine.labels.index(answer.label) == label for answer, label in zip(answers, rows.labels, strict=True)]
    assert result["score"] == np.mean(right)
    saved = np.mean([answer.flops_saved_ratio for answer in answers])
    assert result["flops_saved_ratio"] == pytest.approx(saved)
    assert evaluation["test"]["flops_saved_ratio"] == pytest.approx(saved, abs=1e-4)
    tuned = profiles.run(root / "out", root / "test.csv", Columns("one", "two"), "flops", 0.7, labelled=True)
    assert tuned.evidence["tokens_mean"] == pytest.approx(np.mean([answer.tokens for answer in answers]), abs=0.1)


def test_features_are_those_that_the_engine_reads(root: Path) -> None:
    write_pairs(root / "pairs.csv", 60)
    run(pair_plan(), root)
    engine = Engine.load(root / "out")
    start = backbone.read("tiny", root)
    network = mean_states.network_of(start, engine.config)
    pairs: list[Any] = [("a warm film", "it is dull"), ("the worst movie ever", "the worst movie")]
    states = mean_states.features(mean_states.engine_of(network, JSON), pairs, True, 1)
    logits = engine.logits([engine.encode(*pair) for pair in pairs])
    own = export.network_of(checkpoint.read(root / "out")).heads
    with torch.no_grad():
        ours = torch.stack([head(torch.from_numpy(states[:, c])) for c, head in enumerate(own.values())], 1).numpy()
    np.testing.assert_allclose(logits, ours, atol=1e-3 * max(1, np.abs(ours).max()))


def test_what_several_labels_do_not_go_with_is_refused_before_training(root: Path) -> None:
    tagged(root / "train.jsonl", random_texts(60, longest=9))
    with pytest.raises(TrainingError, match="--balance is for one label a text"):
        run(plan(train="train.jsonl", balance=True), root)
    with pytest.raises(TrainingError, match="metric matthews is for one label a text"):
        run(plan(train="train.jsonl", metric="matthews"), root)
    content = {"name": "toy", "data": {"train": "train.jsonl", "dev": "train.jsonl"}, "start": {"backbone": "tiny"}}
    network = {"network": {"embedding": "int4+2"}, "optim": {"embedding": "frozen"}}
    with pytest.raises(TrainingError, match="heads on a frozen backbone alone"):
        run(recipe.parse({**content, **network}, "test", recipe.Recipe), root)
    assert not (root / "out").exists()


def test_exits_are_as_early_as_cross_validation_allows() -> None:
    config = BEEConfig(vocab_size=9, n_class=2, d_model=64, n_block=3, n_head=1, d_head=64)
    labels, rows = np.arange(200) % 2, np.arange(200)[:, None]
    right = np.where(labels[:, None] == np.arange(2), 4.0, 0.0)

    def chosen(*logits: np.ndarray) -> tuple[ExitOptions, float]:
        seen = Observed(config, np.stack(logits, 1), np.full(200, 5), labels)
        options = frozen.exit_options(seen, "accuracy")
        last = ExitOptions(min_blocks=2, max_blocks=2)
        assert (seen.answers(options) == labels).mean() >= (seen.answers(last) == labels).mean()
        return options, float(seen.taken(options).mean())

    alone = ExitOptions(delta=1e-4, min_blocks=2, max_blocks=2)
    unsure = 1e-4 * np.where(rows % 4 < 2, right, -right)  # half of them wrong, and nothing gained
    assert chosen(unsure, right, 0.5 * right) == (alone, 2)
    some = np.where(rows % 3 > 0, 1.1 * right, unsure)  # two thirds are sure and right one block earlier
    options, blocks = chosen(some, right, 0.5 * right)
    assert blocks == pytest.approx(1 + 67 / 200)
    assert (options.delta, options.min_blocks, options.max_blocks) == (evaluate.NO_DELTA, 1, 2)
    wrong = np.where(rows % 3 > 0, 1.1 * right, -1.1 * right)  # the last third is sure, and wrong
    assert chosen(wrong, right, 0.5 * right) == (alone, 2)
