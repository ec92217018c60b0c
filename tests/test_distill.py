"""Distillation from a tiny random encoder: it starts near, comes nearer, resumes, and keeps test rows out."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from test_teacher import random_encoder
from tiny import random_texts

from beexformer.model.config import BEEConfig
from beexformer.model.errors import TrainingError
from beexformer.model.tokenizer import Tokenizer
from beexformer.training import backbone, distill
from beexformer.training.batches import pad
from beexformer.training.network import BEExformer
from beexformer.training.recipe import read


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


def recipe(tokens: int = 400, **fields: object) -> distill.BackboneRecipe:
    text = [{"file": "text.txt.gz", "rows": 100}, {"file": "text.txt.gz", "rows": 20, "form": "neighbours"}]
    plan = {"name": "tiny", "max_tokens": 24, "tokens": tokens, "learning_rate": 2e-3, "batch_size": 8, "text": text}
    return distill.BackboneRecipe.model_validate({**plan, "keep_out": ["dev.tsv"], **fields})


def run(plan: distill.BackboneRecipe, root: Path, name: str) -> dict[str, list[float]]:
    losses: dict[str, list[float]] = distill.run(plan, root, root / name, root / "work" / name, Console(quiet=True))[
        "losses"
    ]
    return losses


def test_more_text_brings_the_blocks_nearer(root: Path) -> None:
    short, long = run(recipe(200), root, "short"), run(recipe(2000), root, "long")
    for what in ("states", "vector"):
        assert np.mean(long[what]) < np.mean(short[what]), what


def test_a_body_comes_out_that_networks_start_from(root: Path) -> None:
    run(recipe(), root, "tiny")
    found = backbone.read("tiny", root)
    assert {name: found.shape[name] for name in ("n_block", "d_model", "n_head")} == dict(
        n_block=2, d_model=64, n_head=2
    )
    vocab_size = Tokenizer(found.tokenizer, 24).vocab_size
    found.start(BEExformer(BEEConfig(vocab_size=vocab_size, n_class=3, binary=False, d_head=64, **found.shape)))


def test_the_encoder_is_told_which_text_of_a_pair_a_token_is_in(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BERT's segments: 0 up to the first [SEP] and on padding, 1 behind it up to the second."""
    tokenizer = Tokenizer((encoder / "tokenizer.json").read_text(), 24)
    tutor = distill.Encoder(encoder, tokenizer, np.ones(tokenizer.vocab_size, int))
    ids, mask = pad([np.array(tokenizer.inner.encode(*row).ids) for row in (("a warm", "film"), ("ever",))])
    asked = {}
    forward = tutor.model.forward

    def watched(**given: torch.Tensor) -> object:
        asked.update(given)
        return forward(**given)

    monkeypatch.setattr(tutor.model, "forward", watched)
    tutor.states(ids, mask)
    second = tokenizer.inner.encode("a warm", "film").type_ids
    assert asked["token_type_ids"].tolist() == [second, [0] * len(second)]


def test_attention_starts_as_the_encoders_own(root: Path, encoder: Path) -> None:
    """Given the encoder's states, a fresh full-precision block attends as the encoder's layer does."""
    tokenizer = Tokenizer((encoder / "tokenizer.json").read_text(), 24)
    rows = [np.array(tokenizer.inner.encode(text).ids) for text in random_texts(64, longest=12)]
    tutor = distill.Encoder(encoder, tokenizer, np.bincount(np.concatenate(rows), minlength=tokenizer.vocab_size))
    plan = recipe()
    batches = [batch for batch, _ in zip(distill._batches(rows, plan), range(8), strict=False)]
    config = BEEConfig(tokenizer.vocab_size, 2, d_model=64, n_head=2, n_block=2, max_tokens=24, binary=False)
    network = BEExformer(config)
    distill.start(network, tutor, batches)
    ids, mask = batches[0]
    states = tutor.model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
    layer = tutor.model.encoder.layer[1].attention
    extended = torch.where(mask, 0.0, -torch.inf)[:, None, None, :]
    theirs = layer.output.dense(layer.self(states[1], extended)[0])
    turned = (states[1] @ tutor.axes - tutor.mean[1]) / tutor.spread[1]
    ours = network.blocks[1].attention(turned, mask) * tutor.spread[1]
    wanted = theirs @ tutor.axes
    assert torch.allclose(ours[mask], wanted[mask], atol=1e-4)


def test_a_killed_run_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(recipe(), root, "whole")
    monkeypatch.setattr(distill, "SAVE_TOKENS", 100)
    step, steps = distill.Distiller.step, 0

    def killed(*args: object) -> object:
        nonlocal steps
        steps += 1
        if steps == 6:
            raise KeyboardInterrupt
        return step(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(distill.Distiller, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(recipe(), root, "broken")
    monkeypatch.setattr(distill.Distiller, "step", step)
    run(recipe(), root, "broken")
    ours, theirs = (body_file(root / name) for name in ("whole", "broken"))
    assert ours == theirs, "the same bytes as an unbroken run"
    with gzip.open(root / "text.txt.gz", "at") as out:
        out.write("\nThe worst film. A warm film.\n")
    with pytest.raises(TrainingError, match="another recipe"):
        run(recipe(), root, "broken")


def body_file(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_rows_of_other_sets_are_kept_out(root: Path) -> None:
    line = (root / "dev.tsv").read_text().split("\n")[1].split("\t")[0]
    progress, whole = distill.RunProgress(Console(quiet=True)), [{"file": "text.txt.gz", "rows": 10_000}]
    texts = distill._read_text(recipe(text=whole), root, progress)
    everything = distill._read_text(recipe(text=whole, keep_out=[]), root, progress)
    assert set(everything) - set(texts) == {line}


def test_a_wrong_recipe_is_named(root: Path) -> None:
    (root / "backbone.toml").write_text('name = "x"\ntyop = 1\n')
    with pytest.raises(TrainingError, match="tyop"):
        read(root / "backbone.toml", distill.BackboneRecipe)
    with pytest.raises(TrainingError, match="perturbed"):
        run(recipe(text=[{"file": "text.txt.gz", "rows": 10, "form": "perturbed"}]), root, "perturbed")
