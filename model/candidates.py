"""
Labels that a request names: heads made of what they are called, by a checkpoint that has readers.

A reader maps an exit's mean state to a sentence vector. A label's name goes through all blocks and the last reader; the
unit vector v that comes out, read back through each exit's reader R, is a row of that exit's linear head: its logit is
v . R mean_state. So classes cost nothing but their rows, and a text is answered by the same forward pass as any other.
Rows of labels, and engines of sets of labels, are kept for the next requests, those used last.
"""

import math
from collections import OrderedDict
from collections.abc import Generator, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from beexformer.model import bits
from beexformer.model.embedding import quantize, real
from beexformer.model.errors import InputError
from beexformer.model.kernels import LinearHead
from beexformer.model.options import ExitOptions

if TYPE_CHECKING:
    from beexformer.model.engine import Engine

FEWEST, MOST = 2, 64
"""Labels of a request."""
LONGEST = 200  # characters of one
KEPT_LABELS = 1000  # rows of 9 kB each at D = 384 and 6 exits
KEPT_SETS = 16  # engines of 1.2 MB each at most, but for what they share


def check(labels: Sequence[str]) -> tuple[str, ...]:
    """Labels as they are answered with, blanks around them left out. Raises InputError for too few, too many, too long,
    blank or equal ones."""
    result = tuple(label.strip() for label in labels)
    if not FEWEST <= len(result) <= MOST:
        raise InputError(f"candidate_labels has {len(result)} labels and may have {FEWEST} to {MOST}")
    if long := next((label for label in result if len(label) > LONGEST), None):
        raise InputError(f"candidate_labels: {long[:40]!r}... has {len(long)} characters and may have {LONGEST}")
    if len({label.lower() for label in result}) < len(result):
        raise InputError("candidate_labels has a label twice")
    return result


def words(label: str) -> str:
    """What is read of a label: "card_not_working" is "card not working"."""
    return label.replace("_", " ") if " " not in label else label


class CandidateLabels:
    """The labels of requests to one engine, whose `readers` [E, D, D] float32 are scaled so that what they say of a
    text, by a label's vector, is a logit. Safe to call from several threads."""

    def __init__(self, engine: "Engine", readers: np.ndarray) -> None:
        self._engine, self._readers = engine, readers
        self._rows: _Kept[str, Rows] = _Kept(KEPT_LABELS)
        self._sets: _Kept[tuple[str, ...], Engine] = _Kept(KEPT_SETS)

    def steps(self, labels: Sequence[str], milliseconds: float) -> Generator[None, None, tuple["Engine", float]]:
        """An engine that answers with these labels, computed in steps of about so long; and the FLOPs that were spent
        on labels that were not kept. Raises InputError as `check`."""
        labels = check(labels)
        if known := self._sets.get(labels):
            return known, 0.0
        rows, spent = [], 0.0
        for label in labels:
            row = self._rows.get(label)
            if row is None:
                row, cost = yield from self._rows_of(label, milliseconds)
                spent += cost
                yield
            self._rows.put(label, row)
            rows.append(row)
        engine = self._engine.with_heads(labels, head_of(rows))
        self._sets.put(labels, engine)
        return engine, spent

    def engine(self, labels: Sequence[str]) -> tuple["Engine", float]:
        """The same in one go."""
        steps = self.steps(labels, math.inf)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: tuple[Engine, float] = end.value
                return result

    def _rows_of(self, label: str, milliseconds: float) -> Generator[None, None, tuple["Rows", float]]:
        """A label's rows, and the FLOPs that they took."""
        engine, C = self._engine, self._engine.config.n_block
        row = engine.encode(words(label), options=ExitOptions(min_blocks=C, max_blocks=C))
        forward = engine.begin(row)
        while not forward.advance(milliseconds):
            yield
        state, answer = forward.mean_state(), forward.answer()
        E, D, _ = self._readers.shape
        # the last reader, the vector's length, and each reader backwards
        return quantize(rows_of(self._readers, state)), answer.flops + 2 * D * D + 3 * D + E * 2 * D * D


Rows = tuple[np.ndarray, np.ndarray]
"""A label's row in the head of each exit: [E, D] int8, and scales [E] float32."""


def readers_of(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Stored readers, [E, D, D] int8 and scales [E, D], as real numbers: [E, D, D] float32."""
    return np.stack([real(rows, steps) for rows, steps in zip(weight, scale, strict=True)])


def rows_of(readers: np.ndarray, state: np.ndarray) -> np.ndarray:
    """The mean state [D] of a label's name after the last block -> its row in the head of each exit, [E, D] float32."""
    vector = readers[-1].astype(np.float64) @ state
    vector /= max(float(np.linalg.norm(vector)), 1e-9)
    return np.stack([vector @ reader for reader in readers]).astype(np.float32)


def head_of(rows: Sequence[Rows]) -> LinearHead:
    """The rows of m labels as the heads of all exits."""
    m, (E, D) = len(rows), rows[0][0].shape
    width = -(-m // bits.TILE) * bits.TILE
    weight, scale = np.zeros((E, width, D), np.int8), np.zeros((E, width), np.float32)
    for i, (row, steps) in enumerate(rows):
        weight[:, i], scale[:, i] = row, steps
    tiles = weight.reshape(E, -1, bits.TILE, D).transpose(0, 1, 3, 2)
    return LinearHead(np.ascontiguousarray(tiles), scale, np.zeros_like(scale))


K = TypeVar("K")
V = TypeVar("V")


class _Kept(Generic[K, V]):
    """The values that were used last, by key."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, Lock()
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            if len(self._values) > self._most:
                self._values.popitem(last=False)
