"""Distillation from a tiny random encoder: it starts near, comes nearer, resumes, and keeps test rows out."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from test_teacher import random_encoder
from tiny import random_texts
from transformers import AutoModel

from beexformer.model.config import BEEConfig
from beexformer.model.errors import TrainingError
from beexformer.model.tokenizer import Tokenizer
from beexformer.training import backbone, bert, corpus, distill, loop, resumable
from beexformer.training.batches import Batch, pad
from beexformer.training.bert import Bert
from beexformer.training.network import BEExformer
from beexformer.training.recipe import read
from beexformer.training.rotation import Rotation


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_encoder(tmp_path_factory.mktemp("encoder"), layers=2)


@pytest.fixture
def root(tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(distill, "locate", lambda name, cache: encoder)
    write_text(tmp_path)
    return tmp_path


def write_text(folder: Path) -> None:
    """text.txt.gz, a paragraph a line, and dev.tsv, whose one row is a sentence of it."""
    lines = [". ".join(random_texts(4, seed, longest=8)) + "." for seed in range(60)]
    with gzip.open(folder / "text.txt.gz", "wt") as out:
        out.write("\n".join(lines))
    (folder / "dev.tsv").write_text("sentence\tlabel\n" + lines[0].split(". ")[0] + ".\t1\n")


def recipe(full_precision: int = 2_000, bits: int = 2_000, **fields: object) -> distill.BackboneRecipe:
    stage = {"learning_rate": 2e-3, "tokens_a_step": 128}
    plan = {
        "name": "tiny",
        "max_tokens": 64,
        "text": ["text.txt.gz"],
        "keep_out": ["dev.tsv"],
        "full_precision": {**stage, "tokens": full_precision},
        "bits": {**stage, "tokens": bits, "states": 0.3, "means": 5.0},
    }
    return distill.BackboneRecipe.model_validate({**plan, **fields})


def run(plan: distill.BackboneRecipe, root: Path, name: str) -> dict[str, dict[str, list[list[float]]]]:
    return distill.run(plan, root, root / name, root / "work" / name, Console(quiet=True), "cpu")


def loaded(encoder: Path) -> tuple[Bert, Tokenizer]:
    tokenizer = Tokenizer((encoder / "tokenizer.json").read_text(), 64)
    return bert.load(encoder, tokenizer.inner.token_to_id("[SEP]")), tokenizer


@pytest.mark.slow
def test_thresholds_of_bits_are_settled_as_they_are_exported(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def settle(network: BEExformer, batches: list[Batch]) -> int:
        assert not network.training
        assert network.config.binary
        assert {layer.precision for _, layer in network.binary_layers()} == {torch.float32}
        assert sum(int(mask.sum()) for _, mask in batches) > 0
        network.blocks[0].attention.o.beta.fill_(0.125)
        return 1

    monkeypatch.setattr(distill.thresholds, "_settled", settle)
    run(recipe(), root, "tiny")
    assert (backbone.read("tiny", root).tensors["blocks.0.attention.o.beta"] == 0.125).all()


@pytest.mark.slow
def test_more_text_brings_the_blocks_nearer(root: Path) -> None:
    short, long = run(recipe(2_000, 2_000), root, "short"), run(recipe(30_000, 30_000), root, "long")
    for stage in ("full_precision", "bits"):
        for what in ("states", "means", "vectors"):
            assert np.mean(long[stage]["losses"][what]) < np.mean(short[stage]["losses"][what]), (stage, what)


@pytest.mark.slow
def test_both_halves_come_out_and_networks_start_from_them(root: Path) -> None:
    run(recipe(), root, "tiny")
    for name, binary in (("tiny", True), ("tiny-full", False)):
        result = backbone.read(name, root)
        shape = {field: result.shape[field] for field in ("n_block", "d_model", "n_head", "max_tokens")}
        assert shape == {"n_block": 2, "d_model": 64, "n_head": 2, "max_tokens": 64}
        assert result.binary is binary
        assert result.readers is not None
        assert result.readers.shape == (2, 64, 64)
        vocab_size = Tokenizer(result.tokenizer, 64).vocab_size
        config = BEEConfig(vocab_size=vocab_size, n_class=3, binary=binary, d_head=64, **result.shape)
        result.start(BEExformer(config))


def test_the_encoder_is_the_librarys(encoder: Path) -> None:
    ours, tokenizer = loaded(encoder)
    ids, mask = pad([np.array(tokenizer.inner.encode(*row).ids) for row in (("a warm", "film"), ("ever",))])
    theirs = AutoModel.from_pretrained(encoder, local_files_only=True).eval()
    segments = ours.segments(ids, mask)
    result = theirs(input_ids=ids, attention_mask=mask.long(), token_type_ids=segments, output_hidden_states=True)
    for a, b in zip(ours.all_states(ids, mask), result.hidden_states, strict=True):
        torch.testing.assert_close(a[mask], b[mask], atol=1e-5, rtol=1e-4)


def test_the_encoder_is_told_which_text_of_a_pair_a_token_is_in(encoder: Path) -> None:
    """BERT's segments: 0 up to the first [SEP] and on padding, 1 behind it up to the second."""
    ours, tokenizer = loaded(encoder)
    ids, mask = pad([np.array(tokenizer.inner.encode(*row).ids) for row in (("a warm", "film"), ("ever",))])
    second = tokenizer.inner.encode("a warm", "film").type_ids
    assert ours.segments(ids, mask).tolist() == [second, [0] * len(second)]
    single = ours(ids.where(mask, 0), mask)[-1][0]
    with torch.no_grad():
        ours.types.weight[1] += 1.0
    assert not torch.allclose(single, ours(ids, mask)[-1][0]), "segments are part of what it reads"


def test_attention_starts_as_the_encoders_own(encoder: Path) -> None:
    """Given the encoder's states, a fresh full-precision block attends as the encoder's layer does."""
    ours, tokenizer = loaded(encoder)
    rows = [np.array(tokenizer.inner.encode(text).ids) for text in random_texts(64, longest=12)]
    batches = [pad(rows[i : i + 8]) for i in range(0, 64, 8)]
    counts = np.bincount(np.concatenate(rows), minlength=tokenizer.vocab_size)
    rotation = Rotation.of(ours, counts, batches)
    network = BEExformer(
        BEEConfig(tokenizer.vocab_size, 2, d_model=64, n_head=2, n_block=2, max_tokens=24, binary=False)
    )
    with torch.no_grad():
        network.embedding.weight.copy_(rotation.embedding(ours, counts))
    distill.start(network, ours, rotation, batches)
    ids, mask = batches[0]
    theirs = AutoModel.from_pretrained(encoder, local_files_only=True, attn_implementation="eager").eval()
    state = ours.all_states(ids, mask)[1]
    layer = theirs.encoder.layer[1].attention
    extended = torch.where(mask, 0.0, -torch.inf)[:, None, None, :]
    wanted = layer.output.dense(layer.self(state, extended)[0]) @ rotation.axes
    turned = (state @ rotation.axes - rotation.mean[1]) / rotation.spread[1]
    result = network.blocks[1].attention(turned, mask) * rotation.spread[1]
    assert torch.allclose(result[mask], wanted[mask], atol=1e-4)


def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save every three steps."""
    budget = distill.Stage.budget
    monkeypatch.setattr(distill.Stage, "budget", lambda *stated: replace(budget(*stated), every=3))


@pytest.mark.slow
def test_a_killed_run_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill in the second stage, the same bytes as those of an unbroken run."""
    monkeypatch.setattr(resumable, "SAVE_SECONDS", 0.0)
    often(monkeypatch)
    plan = recipe()
    step, steps, last = loop.Loop.train_step, 0, 0

    def killed(self: loop.Loop, length: int, spec: torch.Tensor) -> None:
        nonlocal steps
        steps += 1
        if steps == last:
            raise KeyboardInterrupt
        step(self, length, spec)

    monkeypatch.setattr(loop.Loop, "train_step", killed)
    run(plan, root, "whole")
    all_steps, steps, last = steps, 0, 26
    with pytest.raises(KeyboardInterrupt):
        run(plan, root, "broken")
    assert (root / "broken-full").exists(), "the first stage is done"
    steps, last = 0, 0
    run(plan, root, "broken")
    assert steps <= all_steps - 25 + 3, "it goes on from the last of the states that are kept every three steps"
    ours, theirs = ((root / name / "model.safetensors").read_bytes() for name in ("whole", "broken"))
    assert ours == theirs
    with pytest.raises(TrainingError, match="another recipe"):
        run(recipe(seed=2), root, "broken")


def test_texts_of_other_sets_and_held_out_paragraphs_are_not_read(root: Path, encoder: Path) -> None:
    _, tokenizer = loaded(encoder)
    inner = tokenizer.inner
    inner.no_truncation()
    text, dev = root / "text.txt.gz", [root / "dev.tsv"]
    whole = corpus.gather([text], [], None, inner, root / "a.npz", "")
    without = corpus.gather([text], dev, None, inner, root / "b.npz", "")
    assert len(whole) == 240
    assert len(whole) - len(without) == 1
    held = corpus.gather([text], [], (text, 10, 1), inner, root / "c.npz", "")
    assert len(held) <= 240 - 4 * 10
    assert held.files.sum() == len(held.lengths) == len(held.ends)
    assert corpus.read(root / "c.npz", "something else") is None


def test_a_wrong_recipe_is_named(root: Path) -> None:
    (root / "backbone.toml").write_text('name = "x"\ntyop = 1\n')
    with pytest.raises(TrainingError, match="tyop"):
        read(root / "backbone.toml", distill.BackboneRecipe)
    (root / "backbone.toml").write_text('name = "x"\ntext = ["t"]\n[full_precision]\n[bits]\ntokens = 5\n')
    with pytest.raises(TrainingError, match="either tokens or minutes"):
        read(root / "backbone.toml", distill.BackboneRecipe)
    with pytest.raises(TrainingError, match="no such file"):
        run(recipe(text=["nothing.txt"]), root, "nothing")


def test_the_shipped_recipe_is_one() -> None:
    plan = read(Path(__file__).parent.parent / "recipes" / "backbone.toml", distill.BackboneRecipe)
    assert plan.name == "english"
