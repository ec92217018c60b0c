"""
Batches of few shapes. A row is a spec (start, length, start, length) into one long array of ids, the second length 0
in a single text; rows of like length share a bucket, padded to its length, and a batch has about the same number of
tokens whatever its bucket. Few shapes are what a captured graph or a compiled step asks for.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from beexformer.training.batches import Batch, calibration_batches

LENGTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
Specials = tuple[int, int]
"""Ids of [CLS] and [SEP]."""


def tokens_of(specs: np.ndarray) -> np.ndarray:
    """Lengths of rows with their special tokens; specs [N, 4 or more]."""
    total: np.ndarray = specs[:, 1] + 2 + np.where(specs[:, 3] > 0, specs[:, 3] + 1, 0)
    return total


def rows_in(length: int, tokens: int) -> int:
    """Rows of a batch whose rows are padded to `length`."""
    return max(1, tokens // length)


@dataclass(frozen=True)
class Plan:
    """An epoch: batches [n, rows, columns] of each length, and the order in which they come, [N, 2] (length, index)."""

    batches: dict[int, np.ndarray]
    order: np.ndarray


def plan(specs: np.ndarray, tokens: int, rng: np.random.Generator, lengths: tuple[int, ...] = LENGTHS) -> Plan:
    """Every row at least once. What is left over of a bucket joins the next longer one; a last batch that is not full
    is filled with rows drawn anew."""
    total = tokens_of(specs)
    if total.max() > lengths[-1]:
        raise ValueError(f"a row has {total.max()} tokens, the longest bucket {lengths[-1]}")
    bucket = np.searchsorted(lengths, total)
    batches: dict[int, np.ndarray] = {}
    order: list[np.ndarray] = []
    left = np.empty(0, np.int64)
    longest = int(bucket.max())
    for b in range(longest + 1):
        length = lengths[b]
        rows = rows_in(length, tokens)
        here = np.concatenate([np.flatnonzero(bucket == b), left])
        here = rng.permutation(here)
        n = len(here) // rows
        here, left = here[: n * rows], here[n * rows :]
        if b == longest and len(left):
            more = rng.integers(0, len(here) or len(left), rows - len(left))
            here = np.concatenate([here, left, (here if len(here) else left)[more]])
            n += 1
        if n:
            batches[length] = specs[here].reshape(n, rows, specs.shape[1]).astype(np.int32)
            order.append(np.stack([np.full(n, length), np.arange(n)], 1))
    return Plan(batches, rng.permutation(np.concatenate(order)))


def assemble(ids: Tensor, spec: Tensor, length: int, specials: Specials) -> tuple[Tensor, Tensor]:
    """Ids [T] and specs [B, 4 or more] -> rows [B, length] int64 (0 pads) and the mask of real tokens, on their
    device."""
    a, la, b, lb = (spec[:, i : i + 1].long() for i in range(4))
    at = torch.arange(length, device=ids.device)[None]
    pair = lb > 0
    in_a = (at >= 1) & (at <= la)
    in_b = pair & (at >= la + 2) & (at < la + 2 + lb)
    source = torch.where(in_b, b + at - la - 2, a + at - 1).clamp(0, len(ids) - 1)
    ends = (at == la + 1) | (pair & (at == la + 2 + lb))
    special = torch.where(at == 0, specials[0], torch.where(ends, specials[1], 0))
    rows = torch.where(in_a | in_b, ids[source].long(), special)
    return rows, rows != 0


class Feed:
    """Batches for ever: (length, spec on the device). Epochs are functions of the seed and their number alone; the next
    one is planned beside the running one."""

    def __init__(
        self, ids: np.ndarray, specs: Callable[[np.random.Generator], np.ndarray], tokens: int, specials: Specials,
        device: torch.device, seed: int,
    ) -> None:  # fmt: skip
        self.ids = torch.from_numpy(ids.astype(np.int32)).to(device)
        self.specs, self.tokens, self.specials = specs, tokens, specials
        self.device, self.seed = device, seed
        self.epoch = self.position = 0  # position: batches of this epoch that were handed out
        self._pool = ThreadPoolExecutor(1)
        self._next: Future[Plan] | None = None
        self._first: Plan | None = None

    def _plan(self, epoch: int) -> Plan:
        rng = np.random.default_rng([self.seed, epoch])
        return plan(self.specs(rng), self.tokens, rng)

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        while True:
            first = self._first if self.epoch == 0 else None
            result = self._next.result() if self._next else first or self._plan(self.epoch)
            self._next = self._pool.submit(self._plan, self.epoch + 1)
            batches = {length: torch.from_numpy(part).to(self.device) for length, part in result.batches.items()}
            for length, index in result.order[self.position :].tolist():
                self.position += 1
                yield length, batches[length][index]
            self.epoch, self.position = self.epoch + 1, 0

    def rows(self, spec: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """`assemble` of this feed's text."""
        return assemble(self.ids, spec, length, self.specials)

    def peek(self) -> Iterator[tuple[int, Tensor]]:
        """The batches of the first epoch, none of them handed out."""
        self._first = self._first or self._plan(0)
        for length, index in self._first.order.tolist():
            yield length, torch.from_numpy(self._first.batches[length][index]).to(self.device)

    def calibration(self) -> list[Batch]:
        """Some rows, for statistics."""
        return calibration_batches(self.rows(spec, length) for length, spec in self.peek())

    @property
    def tokens_of_an_epoch(self) -> int:
        """Pads counted; epochs differ by a batch or two."""
        self._first = self._first or self._plan(0)
        return sum(length * part.shape[0] * part.shape[1] for length, part in self._first.batches.items())

    def samples(self, batches: int = 1) -> dict[int, Tensor]:
        """Up to so many batches, joined, of every length that the first epoch has: what shapes there will be, and text
        for statistics."""
        self._first = self._first or self._plan(0)
        return {
            length: torch.from_numpy(np.concatenate(part[:batches])).to(self.device)
            for length, part in self._first.batches.items()
        }

    def state(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position, "seed": self.seed}

    def restore(self, state: dict[str, int]) -> None:
        self.epoch, self.position, self.seed, self._next = state["epoch"], state["position"], state["seed"], None
        self._first = None
