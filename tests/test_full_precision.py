"""Bits from real numbers: what they start from, and what following measures."""

from dataclasses import replace

import pytest
import torch

from beexformer.model.config import BEEConfig
from beexformer.training import full_precision
from beexformer.training.full_precision import Batch, FullPrecision
from beexformer.training.network import BEExformer, mean_state

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
    follower = FullPrecision(real, batches)
    for ids, mask in batches:
        wanted = follower(ids, mask)
        ours, theirs = (
            follower.distance(network.states(network.embed(ids), mask), wanted, mask) for network in (bits, by_chance)
        )
        assert ours < 0.8 * theirs
    for (name, layer), (_, source) in zip(bits.binary_layers(), real.binary_layers(), strict=True):
        assert ((layer.weight < 0) == (source.weight < 0)).all(), name


def test_thresholds_part_what_an_input_sees_into_equal_shares(batches: list[Batch]) -> None:
    real, bits = pair(3)
    full_precision.start(bits, real, batches)
    hidden = dict(bits.binary_layers())["heads.1.hidden"]
    means = torch.cat([mean_state(real.states(real.embed(ids), mask)[0], mask) for ids, mask in batches])  # [64, D]
    above = (means[:, None] + hidden.beta >= 0).float().mean((0, 2))
    torch.testing.assert_close(above, torch.tensor([0.75, 0.5, 0.25]), atol=0.02, rtol=0)


def test_distance_is_0_of_itself_and_1_of_a_constant(batches: list[Batch]) -> None:
    real, _ = pair()
    follower = FullPrecision(real, batches)
    ids, mask = (torch.cat(parts) for parts in zip(*batches, strict=True))
    wanted = follower(ids, mask)
    assert follower.distance(wanted, wanted, mask) == 0
    constants = [h[mask].mean().expand_as(h) for h in wanted]
    torch.testing.assert_close(follower.distance(constants, wanted, mask), torch.tensor(1.0), atol=0.01, rtol=0)
    padded = [torch.where(mask[..., None], h, torch.tensor(9.0)) for h in wanted]
    assert follower.distance(padded, wanted, mask) == 0, "what stands in pads doesn't count"
