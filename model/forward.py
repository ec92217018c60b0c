"""
One row on its way through the blocks, which can stop between slices of work and go on later.

What a row computes in is a `Scratch` of its own until it has its answer, so that rows of one thread may take turns.
Scratches of ordinary texts are kept for the next rows. Of long texts one workspace is kept in a process, whatever its
models; the others are given back to the system.
"""

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from beexformer.model import bits, kernels
from beexformer.model.answer import Answer
from beexformer.model.config import BEEConfig

if TYPE_CHECKING:
    from beexformer.model.engine import Engine, Row

ORDINARY = 128  # tokens
KEPT = 4  # scratches that wait for a row

Sizes = tuple[int, int, int, bool]
"""Of a workspace, but for its tokens: `kernels.workspace`."""
_spare: list[tuple[int, Sizes, kernels.Workspace]] = []
"""That workspace, if it waits, with its tokens and sizes: at most 4.1 MB at D = 384."""


def _workspace(tokens: int, sizes: Sizes) -> tuple[int, kernels.Workspace]:
    """For a long text of so many tokens: the tokens that it has room for, and a workspace. Memory fresh from the system
    takes as long as a tenth of a text of 130 tokens, and a fortieth of one of 512."""
    try:
        room, of_spare, work = _spare.pop()  # one step for all threads, as append is
    except IndexError:
        return tokens, kernels.workspace(tokens, *sizes)
    return (room, work) if room >= tokens and of_spare == sizes else (tokens, kernels.workspace(tokens, *sizes))


class Scratch:
    """Where one row computes, and what is known of it afterwards: logits [exits, m padded], scores [m], entropies
    [exits]. `arguments` are in the order of `kernels.early_exit_forward`."""

    __slots__ = ("arguments", "done", "entropies", "integers", "logits", "room", "scores", "sizes", "work")

    def __init__(self, tokens: int, config: BEEConfig) -> None:
        E, m = len(config.exits), config.n_class
        self.sizes = config.d_model, config.d_head, config.head_thresholds, config.attention == "int8"
        self.room, self.work = (
            _workspace(tokens, self.sizes) if tokens > ORDINARY else (tokens, kernels.workspace(tokens, *self.sizes))
        )
        self.logits = np.empty((E, -(-m // bits.GROUP) * bits.GROUP), np.float32)
        self.scores, self.entropies, self.done = np.empty(m), np.empty(E), np.zeros(2, np.int64)
        *parts, integers = self.work
        self.arguments = (kernels.addresses(parts), self.logits, self.scores, self.entropies, self.done)
        self.integers = None if integers is None else kernels.addresses(integers)

    def progress(self, tokens: int) -> float:
        """Blocks that a row of so many tokens is through, the last perhaps in part."""
        return float(self.done[0] + self.done[1] / (2 * kernels.count_groups(tokens)))


class ScratchPool:
    """Scratches of one network. Any thread may take and give back; no two have the same one at a time."""

    def __init__(self, config: BEEConfig, kept: int = KEPT) -> None:
        self._config, self._most = config, kept
        self._ordinary = min(ORDINARY, config.max_tokens)
        self._kept: list[Scratch] = []

    def take(self, tokens: int) -> Scratch:
        """One for a row of so many tokens, at its beginning."""
        if tokens > self._ordinary:
            return Scratch(tokens, self._config)
        try:
            scratch = self._kept.pop()  # one step for all threads, as append is
        except IndexError:
            return Scratch(self._ordinary, self._config)
        scratch.done[:] = 0
        return scratch

    def give_back(self, scratch: Scratch, tokens: int) -> None:
        """The row has its answer, and nobody reads the scratch any more."""
        if tokens > self._ordinary:
            if not _spare:
                _spare.append((scratch.room, scratch.sizes, scratch.work))
        elif len(self._kept) < self._most:
            self._kept.append(scratch)


class Forward:
    """The forward pass of one row; made by `Engine.begin`. Not to be called from two threads at once."""

    def __init__(self, engine: "Engine", row: "Row") -> None:
        self._engine, self._row = engine, row
        self._scratch: Scratch | None = engine.pool.take(len(row.ids))
        self._exit_index = 0
        self._seconds = 0.0
        self._answer: Answer | None = None

    def advance(self, milliseconds: float = math.inf) -> bool:
        """Go on until the row has left, or for about so long, but at least for one slice of work, a
        group of rows through a part of a block. Returns
        whether the row has left. How much work that is the cost model says beforehand; nothing looks at a clock."""
        if not self._exit_index:
            assert self._scratch, "a row that has not left has no answer yet"
            start = time.perf_counter()
            row = self._row
            self._exit_index = self._engine.run(row.ids, row.exit, self._scratch, self._blocks(milliseconds))
            self._seconds += time.perf_counter() - start
        return self._exit_index > 0

    def mean_state(self) -> np.ndarray:
        """The mean of the row's states after the block that it left after: [D] float32. For whoever wants it after
        `advance` has returned True, and before `answer`."""
        assert self._scratch
        L, D = len(self._row.ids), self._engine.config.d_model
        states = kernels.rows(kernels.Tiles(self._scratch.work.h, 0, L | 1), L, D)
        mean: np.ndarray = states.mean(0)
        return mean

    def answer(self) -> Answer:
        """The row's answer. Raises RuntimeError until `advance` has returned True."""
        if not self._answer:
            if not self._exit_index:
                raise RuntimeError("the row has not left yet; call advance until it returns True")
            assert self._scratch
            self._answer = self._engine.answer(self._row, self._exit_index, self._scratch)
            self._give_back()
            self._engine.cost.observe(self._row.tokens, self._exit_index, 1000 * self._seconds)
        return self._answer

    def logits(self) -> np.ndarray:
        """Of every exit that was passed [exits, m] float32, in place of an answer; nothing comes after it."""
        assert self._scratch
        result = self._scratch.logits[:, : self._engine.config.n_class].copy()
        self._give_back()
        return result

    def _give_back(self) -> None:
        assert self._scratch
        self._engine.pool.give_back(self._scratch, len(self._row.ids))
        self._scratch = None

    def _blocks(self, milliseconds: float) -> float:
        """How many blocks that is enough for, as a fraction."""
        if milliseconds == math.inf:
            return math.inf
        return milliseconds / self._of_block(len(self._row.ids))

    def _of_block(self, tokens: int) -> float:
        """Milliseconds that so many tokens take for a block."""
        return max(self._engine.cost.of_block(tokens), 1e-6)


class PairForward(Forward):
    """The same of two texts that are read apart: the first goes through a block, then the second, whose exits read both
    texts' mean states; until the pair has left."""

    def __init__(self, engine: "Engine", row: "Row") -> None:
        assert row.pair_ids is not None
        self._engine, self._row, self._second = engine, row, row.pair_ids
        self._first_scratch = engine.pool.take(len(row.ids))
        self._scratch = engine.pool.take(len(row.pair_ids))
        self._states = np.empty((len(engine.config.exits), engine.config.d_model), np.float32)
        self._exit_index = 0
        self._seconds = 0.0
        self._answer: Answer | None = None

    def advance(self, milliseconds: float = math.inf) -> bool:
        start = time.perf_counter()
        while not self._exit_index:
            milliseconds -= self._step(milliseconds)
            if milliseconds <= 0:
                break
        self._seconds += time.perf_counter() - start
        return self._exit_index > 0

    def _step(self, milliseconds: float) -> float:
        """One of the texts through a block, or as far as that is enough for, but at least for one slice of work; the
        milliseconds that it takes by the cost model."""
        assert self._scratch
        first, second = self._first_scratch, self._scratch
        ready, settings = int(first.done[0]), self._row.exit
        if ready == second.done[0]:
            ids, scratch, side = self._row.ids, first, 1
            settings = replace(settings, max_blocks=ready + 1)
        else:
            ids, scratch, side = self._second, second, 2
        before, of_block = scratch.progress(len(ids)), self._of_block(len(ids))
        left = self._engine.run(ids, settings, scratch, milliseconds / of_block, side, ready, self._states)
        if side == 2:
            self._exit_index = left
        return of_block * (scratch.progress(len(ids)) - before)

    def _give_back(self) -> None:
        assert self._scratch
        self._engine.pool.give_back(self._scratch, len(self._second))
        self._engine.pool.give_back(self._first_scratch, len(self._row.ids))
        self._scratch = None
