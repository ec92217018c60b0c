"""
The turned space in which a backbone is told what an encoder says.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from beexformer.training.batches import Batch
from beexformer.training.bert import Bert

RARE = 0.75  # exponent of a token's count where it weighs: between running text (1) and the bare vocabulary (0)


@dataclass(frozen=True)
class Rotation:
    """The turned space: states of layer c become (h @ axes - mean[c]) / spread[c], of mean 0 and spread 1. Its first
    D/2 axes hold most of what tells tokens apart in running text, so that the learned half of eq. 2 carries it."""

    axes: Tensor  # [D, D], orthogonal
    mean: Tensor  # [C + 1, D], before the first layer and after those that blocks learn
    spread: Tensor  # [C + 1]

    def turn(self, states: list[Tensor]) -> Tensor:
        """The states that blocks learn, C of [B, L, D] -> [C, B, L, D]."""
        result = torch.stack([h @ self.axes for h in states])
        return (result - self.mean[1:, None, None]) / self.spread[1:, None, None, None]

    @staticmethod
    @torch.no_grad()
    def of(encoder: Bert, counts: np.ndarray, batches: list[Batch]) -> "Rotation":
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
        return Rotation(axes, mean, torch.stack([(h - h.mean(0)).std() for h in layers]))

    @torch.no_grad()
    def embedding(self, encoder: Bert, counts: np.ndarray) -> Tensor:
        """The learned half [V, D/2] that says what the encoder's first layer sees of each token, of spread 0.5: inside
        [-1, 1], where eq. 9 lets gradients through."""
        words, weights = encoder.looks().double(), torch.from_numpy((counts + 1.0) ** RARE).to(self.axes.device)
        center = (words * weights[:, None]).sum(0) / weights.sum()
        half = ((words - center) @ self.axes.double())[:, : self.axes.shape[1] // 2]
        size = ((half**2).mean(1) * weights).sum() / weights.sum()
        return (0.5 * half / size.sqrt()).float()
