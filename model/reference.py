"""
A whole forward pass by the reference implementations of the kernels: slow, obvious, in another order of summation.
"""

import numpy as np

from beexformer.model import kernels
from beexformer.model.config import BEEConfig


def logits(network: kernels.Network, config: BEEConfig, ids: np.ndarray) -> np.ndarray:
    """Token ids [L] int32 -> logits of every exit [exits, m] float32."""
    h = kernels.embed_reference(ids, network.embedding)
    found = []
    for c in range(1, config.n_block + 1):
        h = kernels.block_reference(h, kernels.one_of(network.blocks, c - 1), config.n_head, config.carry == "x")
        if c in config.exits:
            head = kernels.one_of(network.heads, config.exits.index(c))
            found.append(kernels.head_reference(h, head)[: config.n_class])
    return np.stack(found)
