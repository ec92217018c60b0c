"""A tiny 1-bit backbone, in place of the one that ships."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import WORDS

from beexformer.model.config import BEEConfig
from beexformer.model.tokenizer import Tokenizer, train_wordpiece
from beexformer.training import backbone, export
from beexformer.training.network import BEExformer

JSON = train_wordpiece([" ".join(WORDS)] * 5, 100)
FACTS = {"encoder": "none", "recipe": {"text": []}, "name": "tiny"}


def write_backbone(folder: Path, monkeypatch: pytest.MonkeyPatch, *, readers: bool) -> BEExformer:
    """An untrained one of width 128 and three blocks in `folder / tiny`, with random readers or none."""
    # eighteen words in short rows: a sign that lies near its threshold does so in many rows at once
    monkeypatch.setattr(export, "FLIPPED", 0.2)
    torch.manual_seed(0)
    shape = {"d_model": 128, "n_block": 3, "n_head": 2, "max_tokens": 32, "embedding": "int4+2"}
    network = BEExformer(BEEConfig(vocab_size=Tokenizer(JSON, 32).vocab_size, n_class=2, **shape))
    network.fix_embedding(np.ones(network.config.vocab_size))
    weights = [torch.randn(128, 128) for _ in range(3)] if readers else None
    backbone.write(folder / "tiny", network, JSON, FACTS, readers=weights)
    return network
