"""
A whole forward pass by the reference implementations of the kernels: slow, obvious, in another order of summation.
"""

from typing import Any

import numpy as np

from beexformer.model import kernels
from beexformer.model.config import BEEConfig


def logits(network: kernels.Network, config: BEEConfig, ids: np.ndarray) -> np.ndarray:
    """Token ids [L] int32 -> logits of every exit [exits, m] float32."""
    tiles = kernels.tiles(np.empty((len(ids), config.d_model), np.float32))
    kernels.embed(ids, network.embedding, tiles)  # no sums in there, so there is one order
    h = kernels.rows(tiles, len(ids), config.d_model)
    found = []
    for c in range(1, config.n_block + 1):
        h = kernels.block_reference(h, _of(network.blocks, c - 1), config.n_head, config.carry == "x")
        if c in config.exits:
            head = _of(network.heads, config.exits.index(c))
            found.append(kernels.head_reference(h, head)[: config.n_class])
    return np.stack(found)


def _of(stack: Any, i: int) -> Any:
    """Block or head i (from 0) of a stack of them."""
    if isinstance(stack, np.ndarray):
        return stack[i] if len(stack) else stack  # the layers of the head that it hasn't got are empty
    return type(stack)(*(_of(part, i) for part in stack))
