"""
The pretrained encoder that a backbone learns from, a BERT, and the space in which the backbone is told what it says.

Written out here rather than taken from a library: products in the device's type, nothing that reads a value back while
a step runs, so that a step can be captured as a CUDA graph.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from beexformer.model.errors import TrainingError
from beexformer.training.batches import Batch
from beexformer.training.network import mean_state


class _Layer(nn.Module):
    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_a = nn.LayerNorm(width, eps=1e-12)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)
        self.norm_b = nn.LayerNorm(width, eps=1e-12)

    def forward(self, h: Tensor, mask: Tensor, dtype: torch.dtype) -> Tensor:
        B, L, D = h.shape

        def linear(x: Tensor, layer: nn.Linear) -> Tensor:
            return F.linear(x.to(dtype), layer.weight.to(dtype), layer.bias.to(dtype))

        q, k, v = linear(h, self.qkv).view(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        h = self.norm_a(h + linear(seen.transpose(1, 2).reshape(B, L, D), self.out))
        return self.norm_b(h + linear(F.gelu(linear(h, self.up)), self.down))


class Bert(nn.Module):
    """ids [B, L] (0 pads), mask [B, L] -> the states after every layer, each [B, L, D] float32."""

    def __init__(self, layers: int, width: int, inner: int, heads: int, vocab: int, positions: int, sep: int) -> None:
        super().__init__()
        self.sep, self.width, self.heads = sep, width, heads
        self.words = nn.Embedding(vocab, width)
        self.positions = nn.Embedding(positions, width)
        self.types = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(_Layer(width, inner, heads) for _ in range(layers))
        self.dtype = torch.float32

    def products(self, dtype: torch.dtype) -> "Bert":
        """Keep the matrices in the type of their products."""
        self.dtype = dtype
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.to(dtype)
        return self

    @torch.no_grad()
    def looks(self) -> Tensor:
        """What every token of the vocabulary looks like to the first layer, at an average position: [V, D]."""
        found: Tensor = self.norm(self.words.weight + self.positions.weight[1:32].mean(0) + self.types.weight[0])
        return found

    def segments(self, ids: Tensor, mask: Tensor) -> Tensor:
        """0 for the tokens of the first text and pads, 1 for those of the second, its [SEP] too: [B, L] int64."""
        ends = ids.eq(self.sep).long()
        return ((ends.cumsum(1) - ends >= 1) & mask).long()

    @torch.no_grad()
    def all_states(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """The states before the first layer and after each."""
        at = torch.arange(ids.shape[1], device=ids.device)
        states = [self.norm(self.words(ids) + self.positions(at) + self.types(self.segments(ids, mask)))]
        for layer in self.layers:
            states.append(layer(states[-1], mask, self.dtype))
        return states

    def forward(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        return self.all_states(ids, mask)[1:]


RARE = 0.75  # exponent of a token's count where it weighs: between running text (1) and the bare vocabulary (0)


def load(folder: Path, sep: int) -> Bert:
    """A BERT from a folder with config.json and model.safetensors, as the library transformers writes them; `sep` is
    the id of [SEP]. Raises TrainingError where it is none."""
    try:
        heads = json.loads((folder / "config.json").read_text())["num_attention_heads"]
        return _bert(load_file(folder / "model.safetensors"), heads, sep)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise TrainingError(
            f"{folder.name} is no BERT with model.safetensors ({error!r}); a backbone is made from one"
        ) from None


def _bert(tensors: Mapping[str, Tensor], heads: int, sep: int) -> Bert:
    """From tensors as that library names them."""
    tensors = {name.removeprefix("bert."): tensor.float() for name, tensor in tensors.items()}
    words, positions = (tensors[f"embeddings.{n}_embeddings.weight"] for n in ("word", "position"))
    layers = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layer."))
    inner = tensors["encoder.layer.0.intermediate.dense.weight"].shape[0]
    found = Bert(layers, words.shape[1], inner, heads, len(words), len(positions), sep)
    state = {
        "words.weight": words,
        "positions.weight": positions,
        "types.weight": tensors["embeddings.token_type_embeddings.weight"],
    }
    for part in ("weight", "bias"):
        state[f"norm.{part}"] = tensors[f"embeddings.LayerNorm.{part}"]
        for c in range(layers):
            theirs = f"encoder.layer.{c}."
            self_ = [tensors[f"{theirs}attention.self.{n}.{part}"] for n in ("query", "key", "value")]
            state[f"layers.{c}.qkv.{part}"] = torch.cat(self_)
            for ours, name in (
                ("out", "attention.output.dense"),
                ("norm_a", "attention.output.LayerNorm"),
                ("up", "intermediate.dense"),
                ("down", "output.dense"),
                ("norm_b", "output.LayerNorm"),
            ):
                state[f"layers.{c}.{ours}.{part}"] = tensors[f"{theirs}{name}.{part}"]
    found.load_state_dict(state)
    return found.eval().requires_grad_(False)


@dataclass(frozen=True)
class Frame:
    """The turned space: states of layer c become (h @ axes - mean[c]) / spread[c], of mean 0 and spread 1. Its first
    D/2 axes hold most of what tells tokens apart in running text, so that the learned half of eq. 2 carries it."""

    axes: Tensor  # [D, D], orthogonal
    mean: Tensor  # [C + 1, D], before the first layer and after each
    spread: Tensor  # [C + 1]

    def turn(self, states: list[Tensor]) -> Tensor:
        """States after every layer, C of [B, L, D] -> [C, B, L, D]."""
        found = torch.stack([h @ self.axes for h in states])
        return (found - self.mean[1:, None, None]) / self.spread[1:, None, None, None]

    @staticmethod
    @torch.no_grad()
    def of(encoder: Bert, counts: np.ndarray, batches: list[Batch]) -> "Frame":
        """`counts` [V] says how often each token occurs in the text; `batches` are some of it, for the statistics.
        Counts weigh, because a vocabulary is mostly words that hardly occur."""
        words, weights = (
            encoder.looks().double(),
            torch.from_numpy((counts + 1.0) ** RARE).to(encoder.words.weight.device),
        )
        center = (words * weights[:, None]).sum(0) / weights.sum()
        spread = (words - center) * weights.sqrt()[:, None]
        axes = torch.linalg.eigh(spread.T @ spread)[1].flip(1).float()  # most telling first
        read = [[h[mask] @ axes for h in encoder.all_states(ids, mask)] for ids, mask in batches]
        layers = [torch.cat(part) for part in zip(*read, strict=True)]
        mean = torch.stack([h.mean(0) for h in layers])
        return Frame(axes, mean, torch.stack([(h - h.mean(0)).std() for h in layers]))

    @torch.no_grad()
    def embedding(self, encoder: Bert, counts: np.ndarray) -> Tensor:
        """The learned half [V, D/2] that says what the encoder's first layer sees of each token, of spread 0.5: inside
        [-1, 1], where eq. 9 lets gradients through."""
        words, weights = encoder.looks().double(), torch.from_numpy((counts + 1.0) ** RARE).to(self.axes.device)
        center = (words * weights[:, None]).sum(0) / weights.sum()
        half = ((words - center) @ self.axes.double())[:, : self.axes.shape[1] // 2]
        size = ((half**2).mean(1) * weights).sum() / weights.sum()
        return (0.5 * half / size.sqrt()).float()


def sentence_vectors(states: list[Tensor], mask: Tensor) -> Tensor:
    """What the encoder makes of whole texts, [B, D]: the mean of its last states."""
    return mean_state(states[-1], mask)
