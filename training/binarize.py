"""
Binarization-aware training: sign forward, the slope of a polynomial backward (eq. 6-11).

The latent weights stay real and are what the optimizer moves (eq. 10: through eq. 11's chain rule, which autograd
applies); their signs are what the forward pass and the exported file have. Zero counts as +1, as in model.bits.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def g(a: Tensor) -> Tensor:
    """Eq. 8, the piecewise polynomial whose derivative is eq. 9; any shape, same dtype."""
    a = a.clamp(-1.0, 1.0)  # the outer branches: g(-1) = -1 and g(1) = 1
    return a * (2.0 - a.abs())


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        ctx.save_for_backward(a)
        # eq. 7; torch.sign(0) would be 0, a bit can't be. Without `to`, which may answer what it is given: torch 2.11
        # compiled this function to one without a gradient then
        return torch.where(a < 0, a.new_full((), -1.0), a.new_full((), 1.0))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (a,) = ctx.saved_tensors
        return grads[0] * torch.relu(2.0 - 2.0 * a.abs())  # eq. 9: zero from |a| = 1 on


def sign(a: Tensor) -> Tensor:
    """Eq. 7 forward (-1.0 or +1.0, zero to +1), eq. 9 backward; any shape, same dtype."""
    return _Sign.apply(a)


class BinaryLinear(nn.Module):
    """BL(x) = alpha * (sum_t sign(x + beta_t) . sign(W)) + b (eq. 6): [..., k] -> [..., n] (float32).

    alpha and b per output, beta per input, all learned in real numbers. T thresholds share W, so that an input has
    T + 1 levels instead of two; beta is [k] of one, [T, k] of several. `binary=False` is the full-precision
    counterpart: an ordinary linear layer with W and b. Products run in `precision`, where signs and their sums are
    exact.
    """

    def __init__(
        self, k: int, n: int, binary: bool = True, precision: torch.dtype = torch.float32, thresholds: int = 1
    ) -> None:
        super().__init__()
        self.binary = binary
        self.precision = precision
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n, k)))  # latent W^r of eq. 10
        self.bias = nn.Parameter(torch.zeros(n))
        if binary:
            T = thresholds
            self.alpha = nn.Parameter(torch.full((n,), (k * T) ** -0.5))  # k signs sum to a spread of sqrt(k)
            apart = torch.linspace(-0.3, 0.3, T)[:, None].repeat(1, k)  # equal ones would learn the same
            self.beta = nn.Parameter(apart if T > 1 else torch.zeros(k))

    def forward(self, x: Tensor) -> Tensor:
        if not self.binary:
            return F.linear(x.to(self.precision), self.weight.to(self.precision)).float() + self.bias
        return self.sums(x) * self.alpha + self.bias

    def sums(self, x: Tensor) -> Tensor:
        """Those of products of signs, before alpha and b: whole numbers, [..., n] (float32)."""
        signs = sign(x + self.beta) if self.beta.dim() == 1 else sign(x[..., None, :] + self.beta).sum(-2)
        return F.linear(signs.to(self.precision), sign(self.weight).to(self.precision)).float()
