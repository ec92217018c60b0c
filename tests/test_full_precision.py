"""Bits from real numbers: what they start from, and what following measures."""

from dataclasses import replace

import pytest
import torch

from beexformer.model.config import BEEConfig
from beexformer.training import full_precision
from beexformer.training.batches import Batch
from beexformer.training.network import BEExformer, mean_state
from beexformer.training.objectives import apart

CONFIG = BEEConfig(vocab_size=50, n_class=3, d_model=64, n_head=2, n_block=2, d_head=64, max_tokens=16)


@pytest.fixture
def batches() -> list[Batch]:
    torch.manual_seed(1)
    ids = torch.randint(5, CONFIG.vocab_size, (4, 16, 12))
    mask = torch.arange(12) < torch.randint(3, 13, (4, 16, 1))
    return list(zip(ids * mask, mask, strict=True))


def pair(thresholds: int = 1) -> tuple[BEExformer, BEExformer]:
    """An untrained full-precision network and a binary one of its shape."""
    torch.manual_seed(0)
    config = replace(CONFIG, head_thresholds=thresholds)
    return BEExformer(replace(config, binary=False)), BEExformer(config)


@pytest.mark.parametrize("thresholds", [1, 3])
def test_bits_start_nearer_than_by_chance(batches: list[Batch], thresholds: int) -> None:
    real, bits = pair(thresholds)
    by_chance = BEExformer(bits.config)
    by_chance.embedding.load_state_dict(real.embedding.state_dict())
    full_precision.start(bits, real, batches)
    for ids, mask in batches:
        wanted, ours, theirs = (torch.stack(n.states(n.embed(ids), mask)) for n in (real, bits, by_chance))
        assert apart(ours, wanted, mask).mean() < 0.8 * apart(theirs, wanted, mask).mean()
    for (name, layer), (_, source) in zip(bits.binary_layers(), real.binary_layers(), strict=True):
        assert ((layer.weight < 0) == (source.weight < 0)).all(), name


def test_thresholds_part_what_an_input_sees_into_equal_shares(batches: list[Batch]) -> None:
    real, bits = pair(3)
    full_precision.start(bits, real, batches)
    hidden = dict(bits.binary_layers())["heads.1.hidden"]
    means = torch.cat([mean_state(real.states(real.embed(ids), mask)[0], mask) for ids, mask in batches])  # [64, D]
    above = (means[:, None] + hidden.beta >= 0).float().mean((0, 2))
    torch.testing.assert_close(above, torch.tensor([0.75, 0.5, 0.25]), atol=0.02, rtol=0)


def test_distance_is_0_of_itself_and_the_variance_of_a_constant(batches: list[Batch]) -> None:
    real, _ = pair()
    ids, mask = (torch.cat(parts) for parts in zip(*batches, strict=True))
    wanted = torch.stack(real.states(real.embed(ids), mask)).detach()
    assert (apart(wanted, wanted, mask) == 0).all()
    read = wanted[:, mask]  # [C, tokens, D]
    constants = read.mean((1, 2)).view(-1, 1, 1, 1).expand_as(wanted)
    torch.testing.assert_close(apart(constants, wanted, mask), read.var((1, 2), correction=0))
    padded = torch.where(mask[..., None], wanted, torch.tensor(9.0))
    assert (apart(padded, wanted, mask) == 0).all(), "what stands in pads doesn't count"
