"""The chain BinaryLinear (torch) -> packed product -> whole network -> engine, one hop a test."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import random_checkpoint, random_texts

from beexformer.model import bits, kernels
from beexformer.model.embedding import SCALES
from beexformer.model.engine import Engine
from beexformer.model.errors import TrainingError
from beexformer.training import calibrate
from beexformer.training.binarize import BinaryLinear
from beexformer.training.export import Parity, network_of, tensors_of, verify

FEW = {"embedding": "int4+2", "head_thresholds": 4}
MATCH = {"exact_match": True}
LINEAR = {"head": "linear"}
WHOLE = {"attention": "int8"}
MANY = {"head": "linear", "labels": tuple(f"class {i}" for i in range(1000))}


@pytest.mark.parametrize("k", [64, 320, 512])
def test_binary_linear_is_the_packed_product(k: int) -> None:
    torch.manual_seed(k)
    layer = BinaryLinear(k, 128)  # what needs no padding
    torch.nn.init.normal_(layer.beta)
    x = torch.randn(3, k)
    x[0, 0] = -layer.beta[0].item()
    packed = kernels.Linear(
        kernels.arrange(bits.pack_weights(layer.weight.detach().numpy())),
        layer.alpha.detach().numpy(),
        layer.bias.detach().numpy(),
        -layer.beta.detach().numpy(),
    )
    np.testing.assert_allclose(
        layer(x).detach().numpy(), kernels.linear_reference(x.numpy(), packed), rtol=1e-6, atol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [{}, {"carry": "h"}, {"early_exit": False}, {"d_model": 192, "n_head": 6}, FEW, MATCH, LINEAR, MANY, WHOLE],
    ids=["x", "h", "wee", "192", "few bits", "exact match", "linear head", "1,000 classes", "integers"],
)
def test_network_and_engine_agree_on_the_exported_file(shape: dict[str, object]) -> None:
    """An untrained network is chaotic: a bit that flips by rounding may change a row for good. Most rows must be equal
    to rounding, none may differ elsewhere than by such a flip, which is rare."""
    checkpoint = random_checkpoint(**shape)
    engine = Engine(checkpoint)
    texts = random_texts(40)
    rows = [engine.encode(text, pair) for text, pair in zip(texts, [None, *texts], strict=False)]
    parity = verify(checkpoint, engine, rows)
    assert parity.rows == 40
    assert parity.flipped <= 4, "an untrained network flips more than a trained one"
    assert parity.differ <= parity.flipped


@pytest.mark.parametrize("shape", [{}, {**FEW, **MATCH}, MANY], ids=["int8", "few bits, exact match", "1,000 classes"])
def test_what_goes_out_comes_back(shape: dict[str, object]) -> None:
    checkpoint = random_checkpoint(**shape)
    again = tensors_of(network_of(checkpoint))
    for name, tensor in checkpoint.tensors.items():
        if again[name].dtype == np.int8 or name.endswith("scale"):  # a scale is found again up to rounding
            np.testing.assert_allclose(again[name], tensor, atol=1 if again[name].dtype == np.int8 else 1e-8)
        else:
            assert (again[name] == tensor).all(), name


@pytest.mark.parametrize("form", SCALES)
def test_torch_and_engine_read_the_same_embedding_to_the_bit(form: str) -> None:
    checkpoint = random_checkpoint(embedding=form, exact_match=True)
    network, ids = network_of(checkpoint), np.arange(1, 49, dtype=np.int32)
    ids[30:34], ids[-1] = ids[2:6], ids[20]
    assert (network.exported_embedding() - network.embedding.weight).abs().max() < (1e-6 if form == "int8" else 1e-45)
    h = network.embed(torch.from_numpy(ids)[None])[0].detach().numpy()
    assert (kernels.embed_reference(ids, Engine(checkpoint)._network.embedding) == h).all()


def test_a_head_of_several_thresholds_counts_in_torch_what_its_reference_counts() -> None:
    """With alpha 1 and bias 0 an output of the hidden layer is the integer itself."""
    checkpoint = random_checkpoint(**FEW)
    hidden: Any = network_of(checkpoint).heads["2"].hidden
    pooled = torch.randn(1, 128)
    pooled[0, 0] = -hidden.beta[3, 0].item()
    torch.nn.init.ones_(hidden.alpha)
    torch.nn.init.zeros_(hidden.bias)
    layer = kernels.one_of(Engine(checkpoint)._network.heads, 1).hidden
    layer = layer._replace(alpha=np.ones_like(layer.alpha), bias=np.zeros_like(layer.bias))
    expected = hidden(pooled).detach().numpy()
    assert (kernels.linear_reference(pooled.numpy(), layer) == expected).all()


@pytest.mark.parametrize(
    ("rows", "length", "flipped", "differ", "holds"),
    [
        (872, 24, 19, 3, True),  # SST-2
        (408, 53, 32, 3, True),  # MRPC
        (1500, 41, 90, 14, True),  # agnews
        (300, 128, 68, 2, True),  # MRPC's network on reviews
        (8, 10, 1, 1, True),  # a set so small that one row is many
        (872, 24, 200, 3, False),
        (300, 128, 300, 2, False),
        (872, 24, 19, 60, False),
        (8, 10, 8, 0, False),
    ],
)
def test_parity_holds_where_flips_are_as_rare_as_rounding(
    rows: int, length: int, flipped: int, differ: int, holds: bool
) -> None:
    assert Parity(rows, rows * length, flipped, differ, logits_max=0.7).holds == holds


def test_a_network_of_more_signs_may_flip_more() -> None:
    wide = 6 * 768
    assert not Parity(872, 872 * 24, 140, 3, 0.7).holds
    assert Parity(872, 872 * 24, 140, 3, 0.7, wide).holds
    assert not Parity(872, 872 * 24, 300, 3, 0.7, wide).holds
    assert not Parity(872, 872 * 24, 140, 3, 0.7, 1 * 64).holds, "a bound for small networks is not looser"


def test_parity_is_said_in_words() -> None:
    result = Parity(rows=872, tokens=20000, flipped=19, differ=3, logits_max=0.7)
    assert str(result) == "of 872 rows 19 with a flipped bit, 3 with another label or exit; logits at most 0.70 apart"


def test_verify_notices_an_engine_that_is_wrong() -> None:
    checkpoint = random_checkpoint()
    bias = checkpoint.tensors["heads.out.bias"].copy()
    bias[1] += np.float32(0.6)
    tensors = {**checkpoint.tensors, "heads.out.bias": bias}
    engine = Engine(type(checkpoint)(**{**vars(checkpoint), "tensors": tensors}))
    parity = verify(checkpoint, engine, [engine.encode(text) for text in random_texts(10)])
    assert not parity.holds
    assert parity.logits_max > 0.5


@pytest.mark.parametrize("shape", [{}, LINEAR], ids=["binary head", "linear head"])
@pytest.mark.parametrize(("temperature", "shift"), [(0.2, 0.0), (20.0, 0.0), (20.0, 0.5)])
def test_calibrated_logits_are_compared_as_they_were_trained(
    temperature: float, shift: float, shape: dict[str, object]
) -> None:
    checkpoint = random_checkpoint(**shape)
    rows = [Engine(checkpoint).encode(text) for text in random_texts(20)]
    before = verify(checkpoint, Engine(checkpoint), rows)
    network = network_of(checkpoint)
    fitted = calibrate.Calibration(np.full(6, temperature), np.linspace(-shift, shift, network.config.n_class))
    fitted.fold(network)
    calibrated = replace(checkpoint, tensors=tensors_of(network), evaluation={"calibration": fitted.to_dict()})
    after = verify(calibrated, Engine(calibrated), rows)
    assert after.logits_max == pytest.approx(before.logits_max, rel=0.05, abs=1e-5)
    assert after.flipped == before.flipped


def test_a_full_precision_network_is_not_exported() -> None:
    network = network_of(random_checkpoint())
    object.__setattr__(network, "config", type(network.config)(**{**network.config.to_dict(), "binary": False}))
    with pytest.raises(TrainingError, match="no signs to export"):
        tensors_of(network)
