"""
The engine: a checkpoint folder in, answers out. Knows tokens, blocks and exits; nothing of HTTP, queues or torch.

- `encode` is where bad input fails, alone; `predict` takes what `encode` made and fails for no row's sake
- rows of any length and delta share a call; a row that leaves costs nothing further and is handed out at once
- a row's answer is the same, to the bit, whatever its neighbours, the batch or the number of threads: kernels never mix
  rows, and each calling thread has a workspace of its own
"""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model import exits, flops, kernels
from model.checkpoint import Checkpoint, read
from model.embedding import embed, sinusoid
from model.errors import CheckpointError, InputError
from model.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One row ready to run; made by `Engine.encode` only. `ids` is [L] int32, special tokens included."""

    ids: np.ndarray
    truncated: bool
    delta: float
    min_blocks: int
    max_blocks: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one row. `scores` by label in the labels' order; `entropies` in nats, one per exit walked."""

    label: str
    score: float
    scores: dict[str, float]
    logits: tuple[float, ...]
    exit_index: int
    num_blocks: int
    entropies: tuple[float, ...]
    flops: float
    flops_full: float
    delta: float
    tokens: int
    truncated: bool

    @property
    def flops_saved(self) -> float:
        return self.flops_full - self.flops

    @property
    def flops_saved_ratio(self) -> float:
        return self.flops_saved / self.flops_full


class Engine:
    """Runs one checkpoint; safe to call from several threads at once."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.name = checkpoint.name
        self.config = checkpoint.config
        self.labels = checkpoint.labels
        self.default_delta = checkpoint.default_delta
        self.description: dict[str, Any] = {
            "name": self.name,
            "labels": list(self.labels),
            "default_delta": self.default_delta,
            "format_version": checkpoint.format_version,
            "size_bytes": checkpoint.size_bytes,
            "config": self.config.to_dict(),
            "evaluation": checkpoint.evaluation,
        }
        try:
            self._tokenizer = Tokenizer(checkpoint.tokenizer, self.config.max_tokens)
        except CheckpointError as error:
            raise CheckpointError(f"checkpoint {self.name!r}: {error}") from None
        if self._tokenizer.vocab_size > self.config.vocab_size:
            raise CheckpointError(
                f"checkpoint {self.name!r} has {self.config.vocab_size} embedding rows for a vocabulary of "
                f"{self._tokenizer.vocab_size}; export it anew with `beexformer train`"
            )
        tensors = checkpoint.tensors
        self._rows, self._scale = tensors["embedding.rows"], tensors["embedding.scale"]
        self._positions = sinusoid(self.config)
        self._blocks = [_block(tensors, f"blocks.{c}") for c in range(1, self.config.n_block + 1)]
        self._heads = {
            c: kernels.Head(_linear(tensors, f"heads.{c}.hidden"), _linear(tensors, f"heads.{c}.out"))
            for c in self.config.exits
        }
        self._of_thread = threading.local()

    @classmethod
    def load(cls, folder: Path) -> "Engine":
        """Read and verify a checkpoint folder; CheckpointError says in one sentence what to do."""
        return cls(read(Path(folder)))

    def warm(self) -> Prediction:
        """Compile the kernels, or load them from the cache, and answer one row through all blocks."""
        return self.predict([self.encode("ready", min_blocks=self.config.n_block)])[0]

    def encode(
        self,
        text: str,
        text_pair: str | None = None,
        *,
        delta: float | None = None,
        min_blocks: int | None = None,
        max_blocks: int | None = None,
        truncate: bool = True,
    ) -> Row:
        """Check and tokenize one row. Raises InputError, one sentence, for whatever can't be answered."""
        C = self.config.n_block
        delta = self.default_delta if delta is None else float(delta)
        if not -1.0 <= delta <= 1.0:  # also refuses NaN
            raise InputError(f"delta is {delta} and must lie in [-1, 1]")
        low, high = 1 if min_blocks is None else min_blocks, C if max_blocks is None else max_blocks
        for name, value in (("min_blocks", low), ("max_blocks", high)):
            if not 1 <= value <= C:
                raise InputError(f"{name} is {value} and must lie in 1..{C}, the blocks of model {self.name!r}")
        if low > high:
            raise InputError(f"min_blocks is {low}, above max_blocks, which is {high}")
        if high < self.config.exits[0]:
            raise InputError(f"max_blocks is {high}, but model {self.name!r} has its only exit after block {C}")
        tokens = self._tokenizer.encode(text, text_pair, truncate=truncate)
        return Row(tokens.ids, tokens.truncated, delta, low, high)

    def predict(
        self, rows: Sequence[Row], on_exit: Callable[[int, Prediction], None] | None = None
    ) -> list[Prediction]:
        """Answers in the order of `rows`; `on_exit(i, answer)` is called for row i as soon as it has left."""
        answers: list[Prediction | None] = [None] * len(rows)
        if not rows:
            return []
        work = self._workspace()
        lengths = np.array([len(row.ids) for row in rows])
        stops = np.cumsum(lengths)
        starts = stops - lengths
        h = np.concatenate([embed(self._rows, self._scale, self._positions, row.ids) for row in rows])
        entropies: list[list[float]] = [[] for _ in rows]
        active = np.arange(len(rows))
        for c, layers in enumerate(self._blocks, start=1):
            kernels.block(h, starts[active], stops[active], layers, self.config.n_head, self.config.carry == "x", work)
            if c not in self._heads:
                continue
            logits = np.empty((len(active), self.config.n_class), np.float32)
            kernels.head(h, starts[active], stops[active], self._heads[c], work, logits)
            staying = []
            for i, z, entropy in zip(active.tolist(), logits, exits.entropy(logits), strict=True):
                row, trace = rows[i], entropies[i]
                previous = trace[-1] if trace else math.log(self.config.n_class)
                trace.append(float(entropy))
                stops_here = c >= row.min_blocks and exits.leaves(previous, trace[-1], row.delta)
                if c >= row.max_blocks or stops_here:
                    answers[i] = answer = self._answer(row, z, c, trace)
                    if on_exit:
                        on_exit(i, answer)
                else:
                    staying.append(i)
            if not staying:
                break
            active = np.array(staying)
        return [answer for answer in answers if answer is not None]

    def logits(self, rows: Sequence[Row]) -> np.ndarray:
        """Logits of every exit at full depth, whatever the rows' own bounds: [rows, exits, m] float32."""
        work = self._workspace()
        out = np.empty((len(rows), len(self.config.exits), self.config.n_class), np.float32)
        for i, row in enumerate(rows):
            h = embed(self._rows, self._scale, self._positions, row.ids)
            start, stop = np.array([0]), np.array([len(row.ids)])
            for c, layers in enumerate(self._blocks, start=1):
                kernels.block(h, start, stop, layers, self.config.n_head, self.config.carry == "x", work)
                if c in self._heads:
                    kernels.head(h, start, stop, self._heads[c], work, out[i, self.config.exits.index(c)][None])
        return out

    def _answer(self, row: Row, logits: np.ndarray, exit_index: int, trace: list[float]) -> Prediction:
        scores = [float(p) for p in exits.softmax(logits)]
        best = int(np.argmax(logits))
        return Prediction(
            label=self.labels[best],
            score=scores[best],
            scores=dict(zip(self.labels, scores, strict=True)),
            logits=tuple(float(z) for z in logits),
            exit_index=exit_index,
            num_blocks=self.config.n_block,
            entropies=tuple(trace),
            flops=flops.walk(self.config, len(row.ids), exit_index).flops,
            flops_full=flops.walk(self.config, len(row.ids), self.config.n_block).flops,
            delta=row.delta,
            tokens=len(row.ids),
            truncated=row.truncated,
        )

    def _workspace(self) -> kernels.Workspace:
        if not hasattr(self._of_thread, "workspace"):
            config = self.config
            self._of_thread.workspace = kernels.workspace(config.max_tokens, config.d_model, config.d_head)
        work: kernels.Workspace = self._of_thread.workspace
        return work


def _linear(tensors: dict[str, np.ndarray], name: str) -> kernels.Linear:
    return kernels.Linear(
        words=tensors[f"{name}.words"],
        alpha=tensors[f"{name}.alpha"],
        bias=tensors[f"{name}.bias"],
        threshold=-tensors[f"{name}.beta"],  # x + beta < 0 exactly where x < -beta
    )


def _block(tensors: dict[str, np.ndarray], name: str) -> kernels.Block:
    def norm(part: str) -> kernels.Norm:
        return kernels.Norm(tensors[f"{name}.{part}.weight"], tensors[f"{name}.{part}.bias"])

    return kernels.Block(
        qkv=_linear(tensors, f"{name}.qkv"),
        o=_linear(tensors, f"{name}.o"),
        gates_h=_linear(tensors, f"{name}.gates_h"),
        gates_x=_linear(tensors, f"{name}.gates_x"),
        norm_x=norm("norm_x"),
        norm_h=norm("norm_h"),
    )
