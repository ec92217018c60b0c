"""A run from files to a served checkpoint: resumed runs equal unbroken ones, every kind of data and variant trains."""

import copy
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny import WORDS, random_checkpoint, random_texts

from beexformer.model import checkpoint
from beexformer.model.checkpoint import save
from beexformer.model.config import BEEConfig
from beexformer.model.engine import Engine
from beexformer.model.errors import TrainingError
from beexformer.model.tokenizer import Tokenizer, train_wordpiece
from beexformer.training import (
    backbone,
    calibrate,
    export,
    loop,
    prepare,
    provenance,
    recipe,
    record,
    resumable,
    train,
    trainer,
    warm_start,
)
from beexformer.training.batches import Batch
from beexformer.training.network import BEExformer
from beexformer.training.objectives import apart
from beexformer.training.progress import RunProgress

NETWORK = {"d_model": 64, "n_block": 2, "n_head": 2, "d_head": 64, "max_tokens": 32}
OPTIM = {"epochs": 2, "tokens_a_step": 192, "learning_rate": 0.005, "dropout": 0.1}


MADE = {"encoder": "none", "recipe": {"text": []}}  # of a backbone


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """120 rows whose label is whether the text holds the word `worst`."""
    texts = random_texts(120, longest=9)
    lines = [f"{text},{'bad' if 'worst' in text.split() else 'good'}" for text in texts]
    (tmp_path / "train.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    return tmp_path


def plan(**sections: Any) -> recipe.Recipe:
    start = {"start": {"vocab_size": 100}, "network": NETWORK, "optim": OPTIM}
    return recipe.parse({"name": "toy", "data": {"train": "train.csv"}, **start, **sections}, "test", recipe.Recipe)


def run(recipe: recipe.Recipe, root: Path, name: str = "run", variant: str = "proposed") -> dict[str, Any]:
    return train.run(recipe, root, root / "out" / name, root / "work" / name, Console(quiet=True), variant)


def own(root: Path, name: str = "run") -> Path:
    return root / "work" / name / "proposed-1"


def weights(root: Path, name: str, folder: str = "proposed-1") -> dict[str, torch.Tensor]:
    state = torch.load(root / "work" / name / folder / "state.pt", weights_only=True)
    return state["objective"]["network"]


def test_a_run_ends_with_a_checkpoint_the_engine_serves(root: Path) -> None:
    evaluation = run(plan(), root)
    engine = Engine.load(root / "out" / "run")
    assert engine.labels == ("bad", "good")
    assert engine.predict([engine.encode("the worst film")])[0].label in engine.labels
    assert engine.description["evaluation"] == json.loads(json.dumps(evaluation))
    assert evaluation["dev"]["rows"] == 12
    assert evaluation["provenance"]["recipe"]["name"] == "toy"
    [line] = map(json.loads, (own(root) / "state.jsonl").read_text().splitlines())
    assert {"step", "tokens", "rate", "tokens_per_second", "parts"} <= line.keys()
    assert line["tokens"] == evaluation["provenance"]["tokens"]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(trainer, "Budget", partial(loop.Budget, every=4))
    (root / "work" / "run").mkdir(parents=True)
    (root / "work" / "killed").mkdir()
    run(plan(), root)
    # the vocabulary is learned once a run and is not reproducible, so both runs get the same
    (root / "work" / "killed" / "tokenizer.json").write_text((root / "work" / "run" / "tokenizer.json").read_text())
    step = loop.Loop.train_step

    def killed(self: loop.Loop, length: int, spec: torch.Tensor) -> None:
        if self.step == 6:  # between what is kept at step 4 and at 8
            raise KeyboardInterrupt
        step(self, length, spec)

    monkeypatch.setattr(loop.Loop, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(plan(), root, "killed")
    assert not (root / "out" / "killed").exists()
    monkeypatch.setattr(loop.Loop, "train_step", step)
    run(plan(), root, "killed")
    resumed = weights(root, "killed")
    for name, tensor in weights(root, "run").items():
        assert torch.equal(tensor, resumed[name]), name


def test_a_run_of_another_recipe_is_not_resumed(root: Path) -> None:
    run(plan(), root)
    with pytest.raises(TrainingError, match="another recipe"):
        run(plan(optim={**OPTIM, "dropout": 0.0}), root)


def test_a_run_of_other_labels_is_not_resumed(root: Path) -> None:
    run(plan(), root)
    file = root / "train.csv"
    file.write_text(file.read_text().replace(",bad\n", ",good\n", 1))
    with pytest.raises(TrainingError, match="teacher or data; remove it"):
        run(plan(), root)


@pytest.mark.slow
def test_a_second_stage_reads_the_labelled_rows_and_keeps_the_first(root: Path) -> None:
    stage = {"epochs": 1, "tokens_a_step": 96, "learning_rate": 1e-3}
    evaluation = run(plan(second_stage=stage), root)
    first, second = (torch.load(own(root) / f"{name}.pt", weights_only=True) for name in ("state", "second_stage"))
    assert evaluation["provenance"]["tokens"] == first["tokens"] + second["tokens"]
    assert any((second["objective"]["network"][name] != w).any() for name, w in first["objective"]["network"].items())
    when = (own(root) / "state.pt").stat().st_mtime_ns
    with pytest.raises(TrainingError, match="another recipe"):
        run(plan(second_stage={**stage, "epochs": 2}), root)
    (own(root) / "second_stage.pt").unlink()
    run(plan(second_stage={**stage, "epochs": 2}), root)
    assert (own(root) / "state.pt").stat().st_mtime_ns == when


@pytest.mark.parametrize("variant", ["wee", "wee-fp", "fp"])
def test_variants_to_compare_with_leave_a_record_and_no_checkpoint(root: Path, variant: str) -> None:
    evaluation = train.run(plan(), root, None, root / "work", Console(quiet=True), variant)
    assert not (root / "out").exists()
    [result] = record.find(root / "work")
    assert (result.meta["task"], result.meta["variant"], result.meta["seed"]) == ("toy", variant, 1)
    config = BEEConfig(**result.meta["config"])
    assert (config.binary, config.early_exit) == (variant == "wee", variant == "fp")
    assert result.logits.shape == (12, 2 if variant == "fp" else 1, 2)
    assert evaluation["dev"]["full_depth_score"] == (result.logits[:, -1].argmax(-1) == result.labels).mean()


def test_the_record_of_a_packed_run_is_what_the_engine_says(root: Path) -> None:
    evaluation = run(plan(), root)
    result = record.read(own(root) / record.FILE)
    engine = Engine.load(root / "out" / "run")
    dev = prepare.prepare(plan(), root, root / "work" / "run", RunProgress(Console(quiet=True))).dev
    rows = [engine.encode(text) for text in dev.texts]
    assert (engine.logits(rows) == result.logits).all()
    assert result.tokens.tolist() == [len(row.ids) for row in rows]
    assert (result.labels == dev.labels).all()
    assert result.meta["class_names"] == ["bad", "good"]
    assert result.meta["dev_sha256"] == dev.sha256()
    assert result.meta["recipe"] == evaluation["provenance"]["recipe"]


def test_seeds_of_a_recipe_are_runs_beside_each_other_on_the_same_dev_rows(root: Path) -> None:
    run(plan(), root)
    run(plan().seeded(2), root)
    one, two = record.find(root / "work")
    assert (one.meta["seed"], two.meta["seed"]) == (1, 2)
    assert one.meta["dev_sha256"] == two.meta["dev_sha256"]
    assert (one.logits != two.logits).any()


@pytest.mark.slow
def test_the_time_reading_is_trained_and_not_packed(root: Path) -> None:
    assert 0 <= run(plan(network={**NETWORK, "slfn": "time"}), root)["dev"]["score"] <= 1
    assert not (root / "out").exists()


def test_what_cannot_be_run_is_said_before_anything_is_read(root: Path) -> None:
    with pytest.raises(TrainingError, match="unknown variant 'bert'; known are proposed, wee, wee-fp, fp"):
        run(plan(), root, variant="bert")
    with pytest.raises(TrainingError, match="--out"):
        train.run(plan(), root, None, root / "work", Console(quiet=True))
    (root / "mine").mkdir()
    (root / "mine" / "reviews.csv").touch()
    with pytest.raises(TrainingError, match="give --out a folder of its own"):
        train.run(plan(), root, root / "mine", root / "work", Console(quiet=True))
    assert not (root / "work").exists()


@pytest.fixture
def distilled(root: Path) -> BEExformer:
    """The network of an untrained backbone, `root / backbone`."""
    tokenizer = train_wordpiece([" ".join(WORDS)] * 5, 100)
    shape = {key: value for key, value in NETWORK.items() if key != "d_head"}
    torch.manual_seed(7)
    network = BEExformer(BEEConfig(Tokenizer(tokenizer, 32).vocab_size, 2, binary=False, **shape))
    backbone.write(root / "backbone", network, tokenizer, MADE)
    return network


@pytest.mark.parametrize("embedding", ["learned", "frozen"])
def test_a_run_starts_from_a_backbone_in_its_shape(root: Path, distilled: BEExformer, embedding: str) -> None:
    frozen = {**OPTIM, "epochs": 1, "learning_rate": 1e-12, "embedding": embedding}
    started = plan(start={"backbone": "backbone"}, network={"d_head": 64}, optim=frozen)
    evaluation = run(started, root)
    assert evaluation["provenance"]["backbone"] == {"name": "backbone", **MADE}
    config = Engine.load(root / "out" / "run").config
    assert {key: getattr(config, key) for key in NETWORK} == NETWORK
    ours, theirs = weights(root, "run"), distilled.state_dict()
    for name in ("embedding.weight", "blocks.0.norm_h.weight"):
        torch.testing.assert_close(ours[name], theirs[name], atol=0.02, rtol=0)  # rows of int8
    bits, real = (state["blocks.1.slfn.gates_x.weight"] for state in (ours, theirs))
    assert ((bits < 0) == (real < 0))[real.abs() > 0.01].all()


@pytest.mark.slow
def test_bits_start_from_the_counterpart_and_follow_it(root: Path, distilled: BEExformer) -> None:
    """The counterpart is what --variant fp trains, once; with a weight of its states the bits come nearer to it."""
    start = {"start": {"backbone": "backbone"}, "network": {"d_head": 64, "head_thresholds": 3, "embedding": "int4+2"}}
    optim = {**OPTIM, "epochs": 6, "dropout": 0.0, "embedding": "frozen"}
    full_precision = {"epochs": 2, "learning_rate": 0.002, "states": 5.0}
    steps = plan(**start, optim=optim, full_precision=full_precision)
    run(steps, root)
    first = (root / "work" / "run" / "fp-1" / "state.pt").stat().st_mtime_ns
    assert record.read(root / "work" / "run" / "fp-1" / record.FILE).meta["variant"] == "fp"
    run(steps, root, variant="fp")
    assert (root / "work" / "run" / "fp-1" / "state.pt").stat().st_mtime_ns == first
    run(plan(**start, optim=optim, full_precision={**full_precision, "states": 0.0}), root, "alone")

    def away(name: str) -> float:
        config = Engine.load(root / "out" / name).config
        real, bits = BEExformer(replace(config, binary=False)), BEExformer(config)
        real.load_state_dict(weights(root, name, "fp-1"))
        bits.load_state_dict(weights(root, name))
        ids = torch.randint(5, config.vocab_size, (16, 12), generator=torch.manual_seed(3))
        mask = torch.ones_like(ids, dtype=torch.bool)
        with torch.no_grad():
            ours, theirs = (torch.stack(n.states(n.embed(ids), mask)) for n in (bits, real))
        return float((apart(ours, theirs, mask) / theirs.var((1, 2, 3))).mean())

    assert away("run") < 0.7 * away("alone")


def test_a_run_from_another_backbone_is_not_resumed(root: Path, distilled: BEExformer) -> None:
    start = {"start": {"backbone": "backbone"}, "optim": {**OPTIM, "epochs": 1}, "network": {"d_head": 64}}
    run(plan(**start), root)
    backbone.write(
        root / "backbone", distilled, (root / "backbone" / "tokenizer.json").read_text(), {**MADE, "encoder": "another"}
    )
    with pytest.raises(TrainingError, match="another recipe, start"):
        run(plan(**start), root)


def test_a_recipe_may_repeat_the_shape_of_a_backbone_and_not_contradict_it(root: Path, distilled: BEExformer) -> None:
    start = {"start": {"backbone": "backbone"}, "optim": {**OPTIM, "epochs": 1}}
    run(plan(**start), root)
    with pytest.raises(TrainingError, match=r"network\.d_model is 128, but that of its start, 'backbone', is 64"):
        run(plan(**start, network={**NETWORK, "d_model": 128}), root)


@pytest.mark.slow
def test_pairs_of_three_classes_in_jsonl_with_their_own_dev_and_test(root: Path) -> None:
    (root / "pairs").mkdir()
    for seed, name in enumerate(("train", "dev", "test")):
        texts = random_texts(30, seed, longest=5)
        rows = [{"a": f"{text} {seed}", "b": text[::-1], "mark": i % 3} for i, text in enumerate(texts)]
        (root / "pairs" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = {"train": "pairs", "text": "a", "text_pair": "b", "label": "mark", "metric": "macro_f1"}
    evaluation = run(plan(data=data, network={**NETWORK, "d_model": 128}), root)
    assert (evaluation["dev"]["rows"], evaluation["test"]["rows"], evaluation["dev"]["metric"]) == (30, 30, "macro_f1")
    assert Engine.load(root / "out" / "run").labels == ("0", "1", "2")


def test_one_class_is_refused(root: Path) -> None:
    (root / "train.csv").write_text("text,label\nx,1\ny,1\n")
    with pytest.raises(TrainingError, match="only one class"):
        run(plan(), root)


def test_disagreement_of_torch_and_engine_writes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.Parity, "holds", False)
    with pytest.raises(TrainingError, match="nothing was written"):
        run(plan(), root)
    assert not (root / "out").exists()


def test_training_needs_no_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert provenance.commit() == "unknown"  # no repository
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.commit() == "unknown"  # no git


def test_a_run_goes_on_from_a_checkpoint(root: Path) -> None:
    before = run(plan(network={**NETWORK, "head_thresholds": 2}), root, "before")
    optim = {**OPTIM, "epochs": 1, "learning_rate": 1e-9, "dropout": 0.0}
    more = plan(start={"checkpoint": "out/before"}, network={}, optim=optim)
    after = run(more, root, "after")
    was, now = (checkpoint.read(root / "out" / name) for name in ("before", "after"))
    assert now.config == was.config
    assert after["provenance"]["checkpoint"]["provenance"] == before["provenance"]
    assert "start: checkpoint toy of" in now.card
    assert f"its data: train.csv ({before['provenance']['train_rows']} rows), licence: not stated" in now.card
    for name, array in was.tensors.items():
        if array.dtype == np.uint64:
            assert (now.tensors[name] == array).all(), "at this rate no sign changes"
        else:
            np.testing.assert_allclose(now.tensors[name], array, rtol=1e-4, atol=1e-6)
    assert after["dev"]["exits"] == before["dev"]["exits"]


def test_a_warm_start_takes_the_calibration_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temperatures and class bias that are folded into the heads are taken out: they are fitted anew when the run
    ends."""
    temperatures, bias = np.array([1.5, 0.8]), np.array([-0.75, 0.75])  # a run so short may ask for 1 and 0
    with monkeypatch.context() as fitted:
        fitted.setattr(calibrate, "temperatures", lambda logits, labels, kind="per_exit": temperatures)
        fitted.setattr(calibrate, "class_bias", lambda logits, labels: bias)
        fitted.setattr(calibrate, "bias_pays", lambda *_: True)
        before = run(plan(), root, "before")
    assert before["calibration"]["temperatures"] == temperatures.tolist()
    assert before["calibration"]["bias"] == bias.tolist()
    start = warm_start.read("out/before", root)
    network = BEExformer(start.checkpoint.config).eval()
    start.start(network)
    engine = Engine.load(root / "out" / "before")
    rows = [engine.encode(text) for text in random_texts(20, 9, longest=9)]
    ours = export.network_logits(network, [row.ids for row in rows])
    np.testing.assert_allclose(ours / temperatures[:, None] + bias, engine.logits(rows), atol=1e-4)


def test_dev_is_evaluated_on_the_rows_of_the_embedding_that_are_exported(root: Path) -> None:
    """Training moves real rows; the file has them rounded, and the score has to be that of the file."""
    recipe = plan(network={**NETWORK, "embedding": "int4+2"}, optim={**OPTIM, "embedding": "frozen"})
    (root / "work").mkdir()
    data = prepare.prepare(recipe, root, root / "work", RunProgress(Console(quiet=True)))
    own = trainer.Trainer(recipe, data, None, torch.device("cpu"))
    network = own.network.eval()
    with torch.no_grad():
        network.embedding.weight.normal_()  # off the grid
        exported = copy.deepcopy(network)
        exported.embedding.weight.copy_(network.exported_embedding())
    assert (own.logits() == export.network_logits(exported.eval(), own.data.dev_ids)).all()
    assert (own.logits() != export.network_logits(network.eval(), own.data.dev_ids)).any()


def test_a_checkpoint_of_another_shape_other_classes_or_no_bits_is_no_start(root: Path) -> None:
    frozen = {**OPTIM, "embedding": "frozen"}
    run(plan(network={**NETWORK, "embedding": "int4+2"}, optim=frozen), root, "packed")
    with pytest.raises(TrainingError, match="its embedding can't leave their grid"):
        run(plan(start={"checkpoint": "out/packed"}, network={}), root, "after")
    run(plan(), root, "before")
    start = {"start": {"checkpoint": "out/before"}}
    with pytest.raises(TrainingError, match=r"network\.n_block is 3, but that of its start, 'toy', is 2"):
        run(plan(**start, network={"n_block": 3}), root, "after")
    with pytest.raises(TrainingError, match="of 'wee' there is none to go on from"):
        run(plan(**start), root, "after", variant="wee")
    with pytest.raises(TrainingError, match="a checkpoint has its bits already"):
        plan(**start, full_precision={})
    with pytest.raises(TrainingError, match=r"nowhere is neither a folder nor a checkpoint that ships \(cola, "):
        run(plan(start={"checkpoint": "nowhere"}), root, "after")
    save(random_checkpoint(), root / "out" / "foreign")
    with pytest.raises(TrainingError, match="foreign doesn't say what it was trained on"):
        run(plan(start={"checkpoint": "out/foreign"}), root, "after")
    with pytest.raises(TrainingError, match=r"data\.labels are not those of the checkpoint, bad, good"):
        run(plan(**start, data={"train": "train.csv", "labels": ["good", "bad"]}), root, "after")
    (root / "train.csv").write_text((root / "train.csv").read_text().replace(",bad", ",awful"))
    with pytest.raises(TrainingError, match="awful"):
        run(plan(**start), root, "after")


def test_bits_go_on_from_a_1_bit_backbone(root: Path) -> None:
    """Its signs are those that the first step sees; pairs of owners begin so."""
    torch.manual_seed(0)
    json_text = train_wordpiece([" ".join(WORDS)] * 5, 100)
    shape = {**NETWORK, "d_model": 128, "embedding": "int4+2"}
    network = BEExformer(BEEConfig(vocab_size=Tokenizer(json_text, 32).vocab_size, n_class=2, **shape))
    network.fix_embedding(np.ones(network.config.vocab_size))
    backbone.write(root / "bits", network, json_text, MADE)
    recipe = plan(start={"backbone": "bits"}, network={"d_head": 64}, optim={**OPTIM, "embedding": "frozen"})
    data = prepare.prepare(recipe, root, root / "work", RunProgress(Console(quiet=True)))
    ours = dict(trainer.Trainer(recipe, data, None, torch.device("cpu")).network.binary_layers())
    for name, layer in network.binary_layers():
        if not name.startswith("heads."):
            assert torch.equal(layer.weight < 0, ours[name].weight < 0), name
    assert run(recipe, root)["dev"]["rows"] == 12


def test_labelled_rows_are_repeated_beside_more_numerous_others(root: Path) -> None:
    texts = random_texts(400, 5, longest=9)
    soft = "".join(f"{text},0.5,0.25\n" for text in texts)
    (root / "others.csv").write_text("text,logit_bad,logit_good\n" + soft)
    lines = (root / "train.csv").read_text().splitlines()[1:41]
    own = "".join(f"{line.rsplit(',', 1)[0]},0,1,{line.rsplit(',', 1)[1]}\n" for line in lines)
    (root / "own.csv").write_text("text,logit_bad,logit_good,label\n" + own)
    data = {"train": "own.csv", "also": ["others.csv"], "dev": "train.csv"}

    def rows_of_an_epoch(share: float | None) -> np.ndarray:
        asked = plan(data={**data, "labelled_share": share})
        result = prepare.prepare(asked, root, root / "work", RunProgress(Console(quiet=True)))
        feed = trainer.Trainer(asked, result, None, torch.device("cpu")).feed
        return np.bincount(feed.specs(np.random.default_rng(0))[:, 4], minlength=len(result.ids))

    (root / "train.csv").write_text("text,label\nnever seen a,bad\nnever seen b,good\n")
    once, often = rows_of_an_epoch(None), rows_of_an_epoch(0.5)
    assert (once == 1).all()
    count = int((often > 1).sum())
    assert 30 < count <= 40, "the labelled ones"
    assert set(often[often > 1]) == {round(0.5 * (len(often) - count) / count)}


def test_scores_suppose_the_labelled_rows_shares_where_that_is_asked_for(root: Path) -> None:
    """Rows made beside them have shares of their own: by Bayes' rule logits move by the log of the ratio."""
    soft = "".join(f"{text},2.0,-2.0\n" for text in random_texts(300, 5, longest=9))  # nearly all of them bad
    (root / "others.csv").write_text("text,logit_bad,logit_good\n" + soft)
    lines = (root / "train.csv").read_text().splitlines()[1:41]
    own = "".join(f"{line.rsplit(',', 1)[0]},0,0,{line.rsplit(',', 1)[1]}\n" for line in lines)
    (root / "own.csv").write_text("text,logit_bad,logit_good,label\n" + own)
    (root / "train.csv").write_text("text,label\nnever seen a,bad\nnever seen b,good\n")
    data = {"train": "own.csv", "also": ["others.csv"], "dev": "train.csv", "labelled_share": 0.5}

    def trained(shares: str) -> trainer.Trainer:
        asked = plan(data={**data, "class_shares": shares}, optim={**OPTIM, "epochs": 0.1})
        result = prepare.prepare(asked, root, root / "work", RunProgress(Console(quiet=True)))
        made = trainer.Trainer(asked, result, None, torch.device("cpu"))
        (root / shares).mkdir()
        made.fit(root / shares, RunProgress(Console(quiet=True)))
        return made

    as_learned, as_labelled = trained("learned"), trained("labelled")
    targets, count = as_labelled.data.targets, len(lines)
    times = round(0.5 * 300 / count)
    assert times > 1
    learned = (times * targets[:count].sum(0) + targets[count:].sum(0)) / (times * count + len(targets) - count)
    shift = np.log(targets[:count].mean(0) / learned)
    assert shift[1] > 0.5 > 0 > shift[0], "good ones are more often met than learned from"
    np.testing.assert_allclose(as_labelled.logits() - as_learned.logits(), np.tile(shift, (2, 2, 1)), atol=1e-4)


def test_a_class_without_a_labelled_row_is_said_before_training(root: Path) -> None:
    """By the labelled rows' shares it would never be answered."""
    (root / "own.csv").write_text("text,p_bad,p_good,label\n" + "a poor film,1,0,bad\n" * 9)
    (root / "others.csv").write_text("text,p_bad,p_good\n" + "a fine film,0,1\n" * 9)
    asked = plan(data={"train": "own.csv", "also": ["others.csv"], "dev": "train.csv", "class_shares": "labelled"})
    data = prepare.prepare(asked, root, root / "work", RunProgress(Console(quiet=True)))
    with pytest.raises(TrainingError, match="no labelled row has class 'good'"):
        trainer.Trainer(asked, data, None, torch.device("cpu"))


@pytest.mark.parametrize("section", [{"second_stage": {"epochs": 1}}, {"data": {"balance": True}}])
def test_labelled_shares_go_with_training_on_other_rows_too(section: dict[str, Any]) -> None:
    data = {"train": "train.csv", "class_shares": "labelled", **section.get("data", {})}
    with pytest.raises(TrainingError, match="class_shares"):
        plan(**{**section, "data": data})


def test_thresholds_of_bits_are_settled_as_they_are_exported(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, set[torch.dtype], int]] = []

    def settle(network: BEExformer, batches: list[Batch]) -> int:
        products = {layer.precision for _, layer in network.binary_layers()}
        seen.append((network.config.binary, products, sum(int(mask.sum()) for _, mask in batches)))
        return 0

    monkeypatch.setattr(trainer.thresholds, "_settled", settle)
    recipe = plan(optim={**OPTIM, "precision": "bfloat16"}, full_precision={"epochs": 1})
    train.run(recipe, root, root / "out", root / "work", Console(quiet=True))
    [(binary, products, tokens)] = seen
    assert (binary, products) == (True, {torch.float32})
    assert tokens > 0
