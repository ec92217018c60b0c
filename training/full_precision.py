"""
Binarizing in steps: a full-precision counterpart learns first, then 1-bit weights and activations start from it and
follow it.

Bits move slowly. What a task asks for is found quickly in real numbers, and a network of the same shape can then say of
every token and after every block where the bits should be, as in BiT (Liu et al. 2022).
"""

import torch
from torch import Tensor

from beexformer.training.batches import Batch
from beexformer.training.binarize import BinaryLinear
from beexformer.training.network import BEExformer

LATENT = 0.05
"""Spread of latent weights when bits begin: inside [-1, 1], and near enough to 0 to cross it."""


@torch.no_grad()
def start(network: BEExformer, real: BEExformer, batches: list[Batch]) -> None:
    """Bits from real numbers: signs of the weights, thresholds at quantiles of the inputs (one: the median), and the
    scale and bias that bring each output nearest to what it was (least squares over some text)."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {}
    hooks = [
        layer.register_forward_hook(
            lambda _, inputs, output, name=name: seen.setdefault(name, []).append((inputs[0], output))
        )
        for name, layer in real.binary_layers()
    ]
    for ids, mask in batches:
        real.read(real.states(real.embed(ids), mask), mask)
    for hook in hooks:
        hook.remove()
    masks = [mask for _, mask in batches]
    network.load_state_dict(real.state_dict(), strict=False)
    for name, layer in network.binary_layers():
        # layers of blocks see tokens, those of heads one mean a row
        x, y = (
            torch.cat([part[mask] if part.ndim == 3 else part for part, mask in zip(parts, masks, strict=True)])
            for parts in zip(*seen[name], strict=True)
        )
        _fit(layer, x, y)


def _fit(layer: BinaryLinear, x: Tensor, y: Tensor) -> None:
    """Bring `layer` on inputs x [N, k] as near as it can to y [N, n]; latent weights get the spread `LATENT`."""
    layer.weight.mul_(LATENT / layer.weight.std(1, keepdim=True)).clamp_(-1, 1)
    count = layer.beta.numel() // x.shape[1]
    levels = torch.arange(1, count + 1, device=x.device) / (count + 1)
    layer.beta.copy_(-torch.quantile(x.float(), levels, dim=0).view_as(layer.beta))
    layer.alpha.fill_(1.0)
    layer.bias.zero_()
    products = layer(x)
    centered, wanted = products - products.mean(0), y - y.mean(0)
    layer.alpha.copy_((centered * wanted).sum(0) / (centered**2).sum(0).clamp_min(1e-6))
    layer.bias.copy_(y.mean(0) - layer.alpha * products.mean(0))
