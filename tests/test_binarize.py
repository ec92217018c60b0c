import pytest
import torch

from beexformer.training.binarize import BinaryLinear, g, sign
from beexformer.training.objectives import clamp


def test_sign_is_equation_7_with_zero_as_plus_one() -> None:
    assert sign(torch.tensor([-2.0, -0.0, 0.0, 1e-30, -1e-30])).tolist() == [-1, 1, 1, 1, -1]


def test_g_is_equation_8_by_hand() -> None:
    a = torch.tensor([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0])
    assert g(a).tolist() == [-1, -1, -0.75, 0, 0.75, 1, 1]


def test_the_slope_is_equation_9_for_sign_and_for_g() -> None:
    a = torch.tensor([-1.5, -1.0, -0.75, 0.0, 0.25, 1.5], requires_grad=True)
    for function in (sign, g):
        (slope,) = torch.autograd.grad(function(a).sum(), a)
        assert slope.tolist() == [0, 0, 0.5, 2, 1.5, 0]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_binary_linear_is_equation_6(precision: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = BinaryLinear(128, 5, precision=precision)
    torch.nn.init.normal_(layer.beta)
    x = torch.randn(3, 128)
    x[0, 0] = -layer.beta[0].item()  # x + beta is exactly zero
    signs = torch.where(x + layer.beta < 0, -1.0, 1.0)
    weights = torch.where(layer.weight < 0, -1.0, 1.0)
    torch.testing.assert_close(layer(x), signs @ weights.T * layer.alpha + layer.bias)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_several_thresholds_share_their_weights(precision: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = BinaryLinear(64, 5, precision=precision, thresholds=4)
    assert layer.beta.shape == (4, 64)
    assert (layer.beta.diff(dim=0) > 0).all(), "equal ones would learn the same"
    x = torch.randn(3, 64)
    x[0, 0] = -layer.beta[2, 0].item()
    weights = torch.where(layer.weight < 0, -1.0, 1.0)
    sums = sum(torch.where(x + beta < 0, -1.0, 1.0) @ weights.T for beta in layer.beta)
    torch.testing.assert_close(layer(x), (sums.to(precision).float() * layer.alpha + layer.bias))


def test_the_gradient_reaches_latent_weights_through_their_slope() -> None:
    layer = BinaryLinear(64, 2)
    torch.nn.init.uniform_(layer.weight, -0.9, 0.9)
    x = torch.rand(1, 64) + 0.1
    layer(x).sum().backward()
    expected = layer.alpha[:, None].detach() * 2 * (1 - layer.weight.detach().abs())
    torch.testing.assert_close(layer.weight.grad, expected)


def test_latent_weights_are_kept_where_they_can_move() -> None:
    layer = BinaryLinear(64, 2)
    torch.nn.init.normal_(layer.weight, std=3)
    clamp([layer.weight])
    assert layer.weight.abs().max() <= 1
