"""
A whole forward pass by the reference implementations of the kernels: slow, obvious, in another order of summation.
"""

import numpy as np

from beexformer.model import kernels
from beexformer.model.config import BEEConfig


def logits(network: kernels.Network, config: BEEConfig, *ids: np.ndarray) -> np.ndarray:
    """Token ids [L] int32, or those of two texts that are read apart -> logits of every exit [exits, m] float32."""
    texts = [kernels.embed_reference(each, network.embedding) for each in ids]
    result = []
    for c in range(1, config.n_block + 1):
        block = kernels.one_of(network.blocks, c - 1)
        texts = [kernels.block_reference(h, block, config.n_head, config.carry == "x") for h in texts]
        if c in config.exits:
            head = kernels.one_of(network.heads, config.exits.index(c))
            result.append(_head(texts, head)[: config.n_class])
    return np.stack(result)


def _head(texts: list[np.ndarray], head: kernels.Head) -> np.ndarray:
    if len(texts) == 1:
        return kernels.head_reference(texts[0], head)
    a, b = (h.mean(0) for h in texts)
    return kernels.linear_head_reference(kernels.pair_features_reference(a, b), head.linear)
