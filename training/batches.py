"""
Rows of token ids to padded batches of like length.

Shapes: B rows, L tokens of the longest row in the batch.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]
"""Token ids [B, L] int64 (0 pads, Alg. 1) and the mask of real tokens [B, L] bool."""

CALIBRATION_TOKENS = 8_000  # about as many tokens as statistics of a start are taken over


def padding_mask(lengths: Tensor, length: int) -> Tensor:
    """Lengths of rows [B] -> [B, length] bool, True where a token is real."""
    return torch.arange(length, device=lengths.device) < lengths[:, None]


def pad(rows: Sequence[Sequence[int] | np.ndarray]) -> Batch:
    """Ragged rows of token ids as a batch."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = np.zeros((len(rows), int(lengths.max())), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return torch.from_numpy(ids), padding_mask(lengths, ids.shape[1])


def length_batches(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Every row index once, in batches of like length, in random order.

    Rows are shuffled, sorted by length within groups of 64 batches, cut, and the batches shuffled: padding stays a few
    per cent, and two epochs never see the same batches.
    """
    order = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), 64 * batch_size):
        group = order[start : start + 64 * batch_size]
        group = group[np.argsort(lengths[group], kind="stable")]
        batches += [group[i : i + batch_size] for i in range(0, len(group), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def sorted_batches(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Every row index once, shortest rows first; for passes whose order does not matter."""
    order = np.argsort(lengths, kind="stable")
    return (order[i : i + batch_size] for i in range(0, len(order), batch_size))


def calibration_batches(batches: Iterable[Batch]) -> list[Batch]:
    """The first batches, until they have more than `CALIBRATION_TOKENS` real tokens."""
    taken, tokens = [], 0
    for ids, mask in batches:
        taken.append((ids, mask))
        tokens += int(mask.sum())
        if tokens > CALIBRATION_TOKENS:
            break
    return taken
