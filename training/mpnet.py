"""
The other encoder that a backbone can learn from: MPNet (Song et al. 2020), a BERT without token types whose attention
also knows how far apart two tokens are.

It takes the ids of our vocabulary (`training.vocabulary`): its embedding is put into their order. A pair is
`<s> a </s> b </s>`, with one </s> fewer in between than MPNet's own, so that its states and a network's belong to the
same tokens.
"""

import math
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from beexformer.model.errors import TrainingError
from beexformer.training import bert
from beexformer.training.bert import Bert, Shape

BUCKETS = 32
FARTHEST = 128  # from this distance on all are in one bucket
PADS = 2  # rows of the position embedding before that of the first token
ATTENTION = ("attention.attn.q", "attention.attn.k", "attention.attn.v")
NAMES = {**bert.NAMES, "out": "attention.attn.o", "norm_a": "attention.LayerNorm"}


def buckets(length: int) -> Tensor:
    """Bucket of the distance between any two tokens, [L, L] int64. Half of them are for tokens further on. In either
    half the first eight are for one distance each, the others grow by logarithms (Raffel et al. 2020)."""
    at = torch.arange(length)
    distance = at[None, :] - at[:, None]
    half, exact = BUCKETS // 2, BUCKETS // 4
    size = distance.abs()
    grown = torch.log(size.clamp(min=exact).float() / exact) / math.log(FARTHEST / exact) * (half - exact)
    return half * (distance > 0) + torch.where(size < exact, size, (exact + grown.long()).clamp(max=half - 1))


class MPNet(Bert):
    """As `Bert`; its token types are zeros."""

    buckets: Tensor

    def __init__(self, shape: Shape, sep: int, layers_a_block: int = 1) -> None:
        super().__init__(shape, sep, layers_a_block)
        self.bias = nn.Embedding(BUCKETS, shape.heads)
        self.register_buffer("buckets", buckets(shape.positions), persistent=False)

    def seen(self, mask: Tensor) -> Tensor:
        """What is added to every layer's scores, [B, H, L, L]: the bias of each distance, -inf for pads."""
        L = mask.shape[1]
        bias = self.bias(self.buckets[:L, :L]).permute(2, 0, 1).to(self.dtype)
        result: Tensor = bias[None].masked_fill(~mask[:, None, None, :], -torch.inf)
        return result


def load(folder: Path, sep: int, layers_a_block: int, rows: np.ndarray) -> MPNet:
    """An MPNet from a folder as `bert.load` takes it; `rows` [V] are those of its embedding in the order of our ids,
    `sep` is the id of our [SEP]. Raises TrainingError where it is none."""
    try:
        tensors, heads, eps = bert.read(folder, "mpnet.")
        state = bert.named(tensors, ATTENTION, NAMES)
        state["words.weight"] = state["words.weight"][torch.from_numpy(rows)]
        state["positions.weight"] = state["positions.weight"][PADS:]
        state["types.weight"] = torch.zeros(2, state["words.weight"].shape[1])
        state["bias.weight"] = tensors["encoder.relative_attention_bias.weight"]
        result = MPNet(Shape.of(state, heads, eps), sep, layers_a_block)
        result.load_state_dict(state)
    except (OSError, KeyError, ValueError, IndexError, SafetensorError) as error:
        raise TrainingError(f"{folder.name} is no MPNet with model.safetensors ({error!r})") from None
    return result.eval().requires_grad_(False)
