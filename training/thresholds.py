"""
Thresholds that rounding would decide about.

What heads of attention say of an axis may be the same for every token. A threshold can end exactly there: from either
side its gradient leads back. Then the last digit says what the sign is, and that differs from torch to the engine.
Training in bfloat16 blurs it; in float32 half of a task's rows had such a sign (docs/log.md).
"""

import torch

from beexformer.training import export
from beexformer.training.batches import Batch
from beexformer.training.network import BEExformer

NEAR = 1e-5  # of an input to its threshold, in units of the input: a hundred times what sums are rounded by
MOVE = 5e-5  # likewise; next to spreads of a tenth and more it changes nothing else
SHARE = 0.01  # of the tokens that near, from which on a threshold is moved


@torch.no_grad()
def settle(network: BEExformer, batches: list[Batch]) -> int:
    """Move such thresholds of a 1-bit network, beta [D] of each block's attention, a little, to the side on which most
    of the near inputs are; the number moved. `batches`: ids and masks [B, L], some thousands of tokens. Inputs are
    those of the network as it is exported."""
    with export.as_exported(network):
        return _settled(network, [(ids.cpu(), mask.cpu()) for ids, mask in batches])


def _settled(network: BEExformer, batches: list[Batch]) -> int:
    """Blocks one after another: what is moved in one changes what the next one sees."""
    states = [(network.embed(ids), mask) for ids, mask in batches]
    layers, moved = dict(network.binary_layers()), 0
    for c, block in enumerate(network.blocks):
        layer = layers[f"blocks.{c}.attention.o"]  # the inputs of others have no sums over tokens in them
        seen: list[torch.Tensor] = []
        hook = layer.register_forward_hook(lambda _, inputs, output, seen=seen: seen.append(inputs[0]))
        for h, mask in states:
            block(h, mask)
        hook.remove()
        above = torch.cat([x[mask] for x, (_, mask) in zip(seen, states, strict=True)]) + layer.beta
        near = above.abs() < NEAR
        mostly = torch.where((torch.where(above < 0, -1.0, 1.0) * near).sum(0) < 0, -MOVE, MOVE)
        at = near.float().mean(0) > SHARE
        layer.beta.add_(torch.where(at, mostly, 0.0))
        moved += int(at.sum())
        states = [(block(h, mask), mask) for h, mask in states]
    return moved
