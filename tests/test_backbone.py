"""A backbone on disk: what is written is what training starts from."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import WORDS

from beexformer.model.config import BEEConfig
from beexformer.model.errors import TrainingError
from beexformer.model.tokenizer import Tokenizer, train_wordpiece
from beexformer.training import backbone
from beexformer.training.network import BEExformer

JSON = train_wordpiece([" ".join(WORDS)] * 5, 100)
CONFIG = BEEConfig(
    vocab_size=Tokenizer(JSON, 16).vocab_size,
    n_class=2,
    d_model=64,
    n_block=2,
    n_head=2,
    d_head=64,
    max_tokens=16,
    binary=False,
)


@pytest.fixture
def written(tmp_path: Path) -> tuple[BEExformer, Path]:
    torch.manual_seed(0)
    network = BEExformer(CONFIG)
    text = [{"file": "news.txt", "rows": 1234, "form": "sentences"}]
    backbone.write(tmp_path / "tiny", network, JSON, {"encoder": "none", "recipe": {"text": text}})
    return network, tmp_path


def test_another_network_starts_from_it(written: tuple[BEExformer, Path]) -> None:
    network, root = written
    result = backbone.read("tiny", root)
    assert "1,234 rows (sentences) of news.txt" in (root / "tiny" / "README.md").read_text()
    assert result.shape == {"d_model": 64, "n_block": 2, "n_head": 2, "max_tokens": 16, "carry": "x"}
    torch.manual_seed(1)
    other = BEExformer(CONFIG)
    heads = [p.clone() for p in other.heads.parameters()]
    result.start(other)
    for (name, ours), theirs in zip(network.named_parameters(), other.parameters(), strict=True):
        if name.startswith("heads."):
            continue
        step = ours.abs().max(-1, keepdim=True).values / 254 if ours.ndim == 2 else torch.tensor(0.0)
        assert ((ours - theirs).abs() <= step + 1e-7).all(), "int8 rows: half a step away at most"
    assert all((a == b).all() for a, b in zip(heads, other.heads.parameters(), strict=True)), "heads are the task's own"


def test_a_1_bit_one_keeps_its_signs_its_grid_and_its_readers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = BEEConfig(**{**CONFIG.to_dict(), "binary": True, "embedding": "int4+2"})
    network = BEExformer(config)
    network.fix_embedding(np.ones(config.vocab_size))
    with torch.no_grad():
        for _, layer in network.binary_layers():
            layer.weight[:, :3] = -1e-9  # would round to zero, which counts as +1
    readers = [torch.randn(64, 64) for _ in range(2)]
    backbone.write(tmp_path / "bits", network, JSON, {"encoder": "none", "recipe": {"text": []}}, readers)
    result = backbone.read("bits", tmp_path)
    assert result.binary
    assert result.shape["embedding"] == "int4+2"
    other = BEExformer(config)
    result.start(other)
    assert torch.equal(other.embedding.weight, network.embedding.weight), "on the grid already"
    assert torch.equal(other.exported_embedding(), network.exported_embedding())
    for (name, ours), (_, theirs) in zip(network.binary_layers(), other.binary_layers(), strict=True):
        if not name.startswith("heads."):
            assert torch.equal(ours.weight < 0, theirs.weight < 0), name
            assert torch.equal(ours.beta, theirs.beta)
    assert result.readers is not None
    np.testing.assert_allclose(result.readers[1], readers[1].numpy(), atol=0.02)
    with pytest.raises(TrainingError, match="is 1-bit, the network full precision"):
        result.start(BEExformer(CONFIG))


def test_writing_costs_nobody_a_file(written: tuple[BEExformer, Path]) -> None:
    network, root = written
    (root / "mine").mkdir()
    (root / "mine" / "README.md").write_text("mine")
    with pytest.raises(TrainingError, match=r"holds 'README\.md', which is not ours"):
        backbone.write(root / "mine", network, "{}", {})
    assert (root / "mine" / "README.md").read_text() == "mine"


def test_what_does_not_fit_is_one_sentence(written: tuple[BEExformer, Path]) -> None:
    _, root = written
    result = backbone.read("tiny", root)
    with pytest.raises(TrainingError, match="another shape"):
        result.start(BEExformer(BEEConfig(**{**CONFIG.to_dict(), "d_model": 128})))
    with pytest.raises(TrainingError, match="is no backbone"):
        backbone.read("nothing", root)
    spoiled = backbone.read("tiny", root)
    (root / "tiny" / "config.json").write_text(json.dumps({"d_model": 64}))
    with pytest.raises(TrainingError, match="doesn't describe a backbone"):
        backbone.read("tiny", root)
    (root / "tiny" / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match="can't be read"):
        spoiled.start(BEExformer(CONFIG))
