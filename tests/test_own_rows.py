"""Recipes of rows that come without one, and the two sizes of what they start from."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from beexformer.model import checkpoint, probes
from beexformer.model.config import BEEConfig
from beexformer.model.engine import Engine
from beexformer.model.errors import TrainingError
from beexformer.model.tensors import spec
from beexformer.training import backbone, export
from beexformer.training.distill import BackboneRecipe
from beexformer.training.network import BEExformer
from beexformer.training.own_rows import SIZES, backbone_of, own_rows
from beexformer.training.recipe import read

ROOT = Path(__file__).parent.parent
BYTES = {"int8": 1, "uint8": 1, "float32": 4, "uint64": 8}
LARGEST = 14.26e6  # bytes of a checkpoint


def test_a_model_is_named_after_its_folder() -> None:
    assert own_rows("my-reviews", {"train": "x"}).name == "my-reviews"
    assert not own_rows("my-reviews", {"train": "x"}).network.exact_match
    pairs = own_rows("my-questions", {"train": "x", "text_pair": "other"})
    assert (pairs.network.pairs, pairs.heads is None) == ("apart", False)
    trained = own_rows("my-questions", {"train": "x", "text_pair": "other"}, trained=True)
    assert (trained.network.exact_match, trained.heads) == (True, None)
    assert own_rows("my-reviews", {"train": "x"}).heads is not None
    further = own_rows("my-reviews", {"train": "x"}, "sst2")
    assert (further.start.checkpoint, further.start.backbone, further.full_precision) == ("sst2", None, None)
    with pytest.raises(TrainingError, match="named after --out, and 'My Reviews' is no name"):
        own_rows("My Reviews", {"train": "x"})


def test_small_ships_and_base_is_looked_for_where_its_command_writes_it(tmp_path: Path) -> None:
    assert (backbone.SHIPPED / backbone_of("small", tmp_path)).is_dir()
    with pytest.raises(TrainingError) as error:
        own_rows("mine", {"train": "x"}, size="base", root=tmp_path)
    said = str(error.value)
    assert f"beexformer distill --recipe recipes/backbone-base.toml --data {tmp_path}" in said
    assert f"--out {tmp_path / SIZES['base']} " in said
    assert "MB" in said
    assert "H200" in said
    (tmp_path / SIZES["base"]).mkdir(parents=True)
    (tmp_path / SIZES["base"] / "config.json").write_text("{}")
    recipe = own_rows("mine", {"train": "x"}, size="base", root=tmp_path)
    assert recipe.start.backbone == SIZES["base"]
    assert own_rows("mine", {"train": "x"}).start.backbone == SIZES["small"]
    with pytest.raises(TrainingError, match="there is no size 'huge'; there are small and base"):
        own_rows("mine", {"train": "x"}, size="huge")


def test_the_recipe_of_base_is_one() -> None:
    plan = read(ROOT / "recipes" / "backbone-base.toml", BackboneRecipe)
    small = read(ROOT / "recipes" / "backbone.toml", BackboneRecipe)
    assert (plan.encoder, plan.layers_a_block) == ("mpnet", 2)
    assert plan.keep_out == small.keep_out
    assert plan.held_out == small.held_out


def bytes_of(config: BEEConfig, *, readers: bool = False) -> int:
    """What a checkpoint's tensors take, and the vocabulary beside them."""
    tokenizer = (backbone.SHIPPED / "english" / "tokenizer.json").stat().st_size
    tensors = spec(config, readers).values()
    return tokenizer + sum(BYTES[dtype] * math.prod(shape) for dtype, shape in tensors)


def test_a_checkpoint_of_size_base_is_within_what_one_may_have() -> None:
    """Of width 768, over the 30,522 words of a BERT: with linear heads, with readers for labels by name, with binary
    heads of four thresholds; embeddings in bytes would be too large."""
    shape = {"vocab_size": 30_522, "d_model": 768, "n_head": 12, "embedding": "int4+2"}
    assert bytes_of(BEEConfig(n_class=77, head="linear", **shape)) < 10e6
    assert bytes_of(BEEConfig(n_class=150, head="linear", **shape), readers=True) < LARGEST
    assert bytes_of(BEEConfig(n_class=150, head="linear", pairs="apart", **shape)) < LARGEST
    assert bytes_of(BEEConfig(n_class=150, head_thresholds=4, exact_match=True, **shape)) < LARGEST
    assert bytes_of(BEEConfig(n_class=2, head="linear", **{**shape, "embedding": "int8"})) > LARGEST


@pytest.mark.slow
def test_a_network_of_size_base_is_served_as_torch_computes_it(tmp_path: Path) -> None:
    """An untrained one, written, read again and small enough. Ten seconds of a core."""
    tokenizer = (backbone.SHIPPED / "english" / "tokenizer.json").read_text()
    torch.manual_seed(1)
    shape = {"d_model": 768, "n_head": 12, "embedding": "int4+2", "max_tokens": 512}
    network = BEExformer(BEEConfig(vocab_size=30_522, n_class=2, head="linear", **shape)).eval()
    network.fix_embedding(np.ones(30_522))
    packed = export.packed(network, "base", ["no", "yes"], tokenizer, False, {})
    checkpoint.save(replace(packed, card="# base\n"), tmp_path / "base")
    assert sum(file.stat().st_size for file in (tmp_path / "base").iterdir()) < LARGEST
    result = checkpoint.read(tmp_path / "base")
    engine = Engine(result)
    parity = export.verify(result, engine, [engine.encode(text) for text, _ in probes.TEXTS])
    assert parity.holds
    assert parity.differ == 0
