"""
A pretrained encoder that a backbone learns from, a BERT.

Written out here rather than taken from a library: products in the device's type, nothing that reads a value back while
a step runs, so that a step can be captured as a CUDA graph.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from beexformer.model.errors import TrainingError
from beexformer.training.network import mean_state

ATTENTION = ("attention.self.query", "attention.self.key", "attention.self.value")
NAMES = {
    "out": "attention.output.dense",
    "norm_a": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm_b": "output.LayerNorm",
}
"""A part of a layer -> what the library transformers calls it."""


@dataclass(frozen=True)
class Shape:
    """Of an encoder: rows of its two embeddings, and `eps` of its layer norms, beside the usual."""

    layers: int
    width: int
    inner: int
    heads: int
    words: int
    positions: int
    eps: float

    @staticmethod
    def of(state: Mapping[str, Tensor], heads: int, eps: float) -> "Shape":
        """What tensors say, by our names; KeyError where there is no layer."""
        words, width = state["words.weight"].shape
        layers = sum(name.endswith("up.weight") for name in state)
        inner = len(state["layers.0.up.weight"])
        return Shape(layers, width, inner, heads, words, len(state["positions.weight"]), eps)


class Layer(nn.Module):
    """States [B, L, D] -> [B, L, D]; `seen` is the mask of attention, as torch takes it: bool, or added to scores."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.out = nn.Linear(shape.width, shape.width)
        self.norm_a = nn.LayerNorm(shape.width, eps=shape.eps)
        self.up = nn.Linear(shape.width, shape.inner)
        self.down = nn.Linear(shape.inner, shape.width)
        self.norm_b = nn.LayerNorm(shape.width, eps=shape.eps)

    def forward(self, h: Tensor, seen: Tensor, dtype: torch.dtype) -> Tensor:
        B, L, D = h.shape

        def linear(x: Tensor, layer: nn.Linear) -> Tensor:
            return F.linear(x.to(dtype), layer.weight.to(dtype), layer.bias.to(dtype))

        q, k, v = linear(h, self.qkv).view(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        h = self.norm_a(h + linear(mixed.transpose(1, 2).reshape(B, L, D), self.out))
        return self.norm_b(h + linear(F.gelu(linear(h, self.up)), self.down))


class Bert(nn.Module):
    """ids [B, L] (0 pads), mask [B, L] -> the states that blocks learn, after every `layers_a_block` layers, each
    [B, L, D] float32."""

    def __init__(self, shape: Shape, sep: int, layers_a_block: int = 1) -> None:
        super().__init__()
        if shape.layers % layers_a_block:
            raise TrainingError(f"{shape.layers} layers can't be shared out, {layers_a_block} to each block")
        self.shape, self.sep, self.layers_a_block = shape, sep, layers_a_block
        self.words = nn.Embedding(shape.words, shape.width)
        self.positions = nn.Embedding(shape.positions, shape.width)
        self.types = nn.Embedding(2, shape.width)
        self.norm = nn.LayerNorm(shape.width, eps=shape.eps)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.dtype = torch.float32

    @property
    def blocks(self) -> int:
        """How many blocks learn from it."""
        return self.shape.layers // self.layers_a_block

    def products(self, dtype: torch.dtype) -> Self:
        """Keep the matrices in the type of their products."""
        self.dtype = dtype
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.to(dtype)
        return self

    @torch.no_grad()
    def looks(self) -> Tensor:
        """What every token of the vocabulary looks like to the first layer, at an average position: [V, D]."""
        result: Tensor = self.norm(self.words.weight + self.positions.weight[1:32].mean(0) + self.types.weight[0])
        return result

    def segments(self, ids: Tensor, mask: Tensor) -> Tensor:
        """0 for the tokens of the first text and pads, 1 for those of the second, its [SEP] too: [B, L] int64."""
        ends = ids.eq(self.sep).long()
        return ((ends.cumsum(1) - ends >= 1) & mask).long()

    def first(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The states before the first layer."""
        at = torch.arange(ids.shape[1], device=ids.device)
        result: Tensor = self.norm(self.words(ids) + self.positions(at) + self.types(self.segments(ids, mask)))
        return result

    def seen(self, mask: Tensor) -> Tensor:
        """The mask of every layer's attention, for [B, H, L, L]."""
        return mask[:, None, None, :]

    @torch.no_grad()
    def all_states(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """The states before the first layer, and those that blocks learn."""
        h, seen = self.first(ids, mask), self.seen(mask)
        states = [h]
        for i, layer in enumerate(self.layers, 1):
            h = layer(h, seen, self.dtype)
            if i % self.layers_a_block == 0:
                states.append(h)
        return states

    def forward(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        return self.all_states(ids, mask)[1:]


def load(folder: Path, sep: int, layers_a_block: int = 1) -> Bert:
    """A BERT from a folder with config.json and model.safetensors, as the library transformers writes them; `sep` is
    the id of [SEP]. Raises TrainingError where it is none."""
    try:
        tensors, heads, eps = read(folder, "bert.")
        state = named(tensors, ATTENTION, NAMES)
        state["types.weight"] = tensors["embeddings.token_type_embeddings.weight"]
        result = Bert(Shape.of(state, heads, eps), sep, layers_a_block)
        result.load_state_dict(state)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise TrainingError(
            f"{folder.name} is no BERT with model.safetensors ({error!r}); a backbone is made from one"
        ) from None
    return result.eval().requires_grad_(False)


def read(folder: Path, prefix: str) -> tuple[dict[str, Tensor], int, float]:
    """The tensors of a folder, float32, without a prefix that their names may have, its heads and the eps of its layer
    norms. Raises OSError, KeyError, ValueError or SafetensorError where there are none."""
    described = json.loads((folder / "config.json").read_text())
    tensors = {name.removeprefix(prefix): x.float() for name, x in load_file(folder / "model.safetensors").items()}
    return tensors, described["num_attention_heads"], described.get("layer_norm_eps", 1e-12)


def named(
    tensors: Mapping[str, Tensor], attention: tuple[str, str, str], names: Mapping[str, str]
) -> dict[str, Tensor]:
    """The library's tensors by our names, but for token types. `attention` are its names of query, key and value,
    `names` those of the other parts of a layer. Raises KeyError for one that is missing."""
    state = {f"{n}s.weight": tensors[f"embeddings.{n}_embeddings.weight"] for n in ("word", "position")}
    layers = 1 + max((int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layer.")), default=-1)
    for part in ("weight", "bias"):
        state[f"norm.{part}"] = tensors[f"embeddings.LayerNorm.{part}"]
        for c in range(layers):
            theirs = f"encoder.layer.{c}."
            state[f"layers.{c}.qkv.{part}"] = torch.cat([tensors[f"{theirs}{name}.{part}"] for name in attention])
            for ours, name in names.items():
                state[f"layers.{c}.{ours}.{part}"] = tensors[f"{theirs}{name}.{part}"]
    return state


def sentence_vectors(states: list[Tensor], mask: Tensor) -> Tensor:
    """What the encoder makes of whole texts, [B, D]: the mean of its last states."""
    return mean_state(states[-1], mask)
