"""The chain BinaryLinear (torch) -> packed product -> whole network -> engine, one hop a test."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import random_checkpoint, random_texts

from model import bits, calibrate, kernels
from model.binarize import BinaryLinear
from model.engine import Engine
from model.errors import TrainingError
from model.export import Parity, network_of, tensors_of, verify


@pytest.mark.parametrize("k", [64, 320, 512])
def test_binary_linear_is_the_packed_product(k: int) -> None:
    torch.manual_seed(k)
    layer = BinaryLinear(k, 80)
    torch.nn.init.normal_(layer.beta)
    x = torch.randn(3, k)
    x[0, 0] = -layer.beta[0].item()
    packed = kernels.Linear(
        bits.tile(bits.pack_weights(layer.weight.detach().numpy())),
        layer.alpha.detach().numpy(),
        layer.bias.detach().numpy(),
        -layer.beta.detach().numpy(),
    )
    np.testing.assert_allclose(layer(x).detach().numpy(), kernels.linear_numpy(x.numpy(), packed), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "shape", [{}, {"carry": "h"}, {"early_exit": False}, {"d_model": 192, "n_head": 6}], ids=["x", "h", "wee", "192"]
)
def test_network_and_engine_agree_on_the_exported_file(shape: dict[str, object]) -> None:
    """An untrained network is chaotic: a bit that flips by rounding may change a row for good. Most rows must be equal
    to rounding, none may differ elsewhere than by such a flip, which is rare."""
    checkpoint = random_checkpoint(**shape)
    engine = Engine(checkpoint)
    rows = [engine.encode(text) for text in random_texts(40)]
    parity = verify(checkpoint, engine, rows)
    assert parity.rows == 40
    assert parity.flipped <= 4, "an untrained network flips more than a trained one"
    assert parity.differ <= parity.flipped


def test_what_goes_out_comes_back() -> None:
    checkpoint = random_checkpoint()
    again = tensors_of(network_of(checkpoint))
    for name, tensor in checkpoint.tensors.items():
        if name.startswith("embedding"):
            np.testing.assert_allclose(again[name], tensor, atol=1)  # a scale is found again up to rounding
        else:
            assert (again[name] == tensor).all(), name


def test_parity_does_not_hold_where_many_rows_differ() -> None:
    assert Parity(rows=872, flipped=87, differ=2, logits_max=0.7).holds
    assert not Parity(rows=872, flipped=88, differ=0, logits_max=0.01).holds


def test_verify_notices_an_engine_that_is_wrong() -> None:
    checkpoint = random_checkpoint()
    tensors = {**checkpoint.tensors, "heads.2.out.bias": checkpoint.tensors["heads.2.out.bias"] + np.float32(0.6)}
    engine = Engine(type(checkpoint)(**{**vars(checkpoint), "tensors": tensors}))
    parity = verify(checkpoint, engine, [engine.encode(text) for text in random_texts(10)])
    assert not parity.holds
    assert parity.logits_max > 0.5


@pytest.mark.parametrize("temperature", [0.2, 20.0])
def test_calibrated_logits_are_compared_as_they_were_trained(temperature: float) -> None:
    checkpoint = random_checkpoint()
    rows = [Engine(checkpoint).encode(text) for text in random_texts(20)]
    before = verify(checkpoint, Engine(checkpoint), rows)
    network = network_of(checkpoint)
    calibrate.fold(network, np.full(6, temperature))
    fitted = {"calibration": {"temperatures": [temperature] * 6}}
    divided = replace(checkpoint, tensors=tensors_of(network), evaluation=fitted)
    after = verify(divided, Engine(divided), rows)
    assert after.logits_max == pytest.approx(before.logits_max, rel=0.05, abs=1e-5)
    assert after.flipped == before.flipped


def test_a_full_precision_network_is_not_exported() -> None:
    network = network_of(random_checkpoint())
    object.__setattr__(network, "config", type(network.config)(**{**network.config.to_dict(), "binary": False}))
    with pytest.raises(TrainingError, match="no signs to export"):
        tensors_of(network)
