"""
The engine: a checkpoint folder in, answers out. Knows tokens, blocks and exits; nothing of HTTP, queues or torch.

- `encode` is where bad input fails, alone; `predict` takes what `encode` made and fails for no row's sake
- rows of any length and delta share a call; a row that leaves costs nothing further and is handed out at once
- a row's answer is the same, to the bit, whatever its neighbours, the batch, the number of threads, or how often it
  stops on its way: kernels never mix rows, and each has a workspace of its own
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from beexformer.model import bits, cost, flops, kernels, target
from beexformer.model.answer import Answer
from beexformer.model.checkpoint import Checkpoint, read
from beexformer.model.embedding import SCALES, sinusoid
from beexformer.model.errors import BEEError, CheckpointError
from beexformer.model.forward import Forward, Scratch, ScratchPool
from beexformer.model.options import NOTHING_ASKED, ExitOptions, ExitSettings, resolve
from beexformer.model.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One row ready to run; made by `Engine.encode` only. `ids` is [L] int32, special tokens included."""

    ids: np.ndarray
    truncated: bool
    exit: ExitSettings


class Engine:
    """Runs one checkpoint; safe to call from several threads at once."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        if target.problem:
            raise BEEError(target.problem)
        self.name = checkpoint.name
        self.config = checkpoint.config
        self.labels = checkpoint.labels
        self.default_delta = checkpoint.default_delta
        self.defaults = ExitOptions(delta=checkpoint.default_delta)  # where a request and its profile say nothing
        self.profiles: dict[str, ExitOptions] = {}
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
        self._network = _network(checkpoint)
        self._arrays = kernels.flat(self._network)
        self.cost: cost.CostModel | None = None  # until `calibrate`
        self._flops: dict[int, list[float]] = {}  # by tokens; [c - 1] is what leaving after block c costs
        self.pool = ScratchPool(self.config)

    @classmethod
    def load(cls, folder: Path) -> "Engine":
        """Read and verify a checkpoint folder; CheckpointError says in one sentence what to do."""
        return cls(read(Path(folder)))

    def warm(self) -> Answer:
        """Compile the kernels, or load them from the cache, and answer one row through all blocks."""
        return self.predict([self.encode("ready", options=ExitOptions(min_blocks=self.config.n_block))])[0]

    def calibrate(self) -> None:
        """Time some rows, for a second, so that `cost` can say what others will take on this machine."""

        def run(tokens: int, blocks: int) -> None:
            ids = np.arange(tokens, dtype=np.int32) % self.config.vocab_size
            self.predict([Row(ids, False, ExitSettings(0.0, 0.0, blocks, blocks))])

        C = self.config.n_block
        self.cost = None
        self.cost = cost.calibrate(
            run, self.config.max_tokens, (1, (1 + C) // 2, C) if self.config.early_exit else (C,)
        )

    def resolve(self, asked: ExitOptions) -> ExitSettings:
        """What is in effect where a request asks for that. Raises InputError for what this model can't do."""
        return resolve(asked, defaults=self.defaults, profiles=self.profiles, config=self.config, model=self.name)

    def encode(
        self, text: str, text_pair: str | None = None, options: ExitOptions = NOTHING_ASKED, *, truncate: bool = True
    ) -> Row:
        """Check and tokenize one row. Raises InputError, one sentence, for whatever can't be answered."""
        settings = self.resolve(options)
        tokens = self._tokenizer.encode(text, text_pair, truncate=truncate)
        return Row(tokens.ids, tokens.truncated, settings)

    def predict(self, rows: Sequence[Row], on_exit: Callable[[int, Answer], None] | None = None) -> list[Answer]:
        """Answers in the order of `rows`; `on_exit(i, answer)` is called for row i as soon as it has left."""
        answers = []
        for i, row in enumerate(rows):
            forward = Forward(self, row)
            forward.advance()
            answers.append(answer := forward.answer())
            if on_exit:
                on_exit(i, answer)
        return answers

    def begin(self, row: Row) -> Forward:
        """The forward pass of a row, to be run in slices; its answer is that of `predict`, to the bit."""
        return Forward(self, row)

    def logits(self, rows: Sequence[Row]) -> np.ndarray:
        """Logits of every exit at full depth, whatever the rows' own bounds: [rows, exits, m] float32."""
        C, m = self.config.n_block, self.config.n_class
        out = np.empty((len(rows), len(self.config.exits), m), np.float32)
        for i, row in enumerate(rows):
            scratch = self.pool.take(len(row.ids))
            self.run(Row(row.ids, False, ExitSettings(0.0, 0.0, C, C)), scratch, C)
            out[i] = scratch.logits[:, :m]
            self.pool.give_back(scratch, len(row.ids))
        return out

    def run(self, row: Row, scratch: Scratch, slices: int) -> int:
        """Go on with a row: `kernels.early_exit_forward`. For `Forward`."""
        return kernels.early_exit_forward(  # type: ignore[no-any-return]
            row.ids,
            row.exit.delta,
            row.exit.entropy_threshold,
            row.exit.min_blocks,
            row.exit.max_blocks,
            self.config.n_head,
            self.config.carry == "x",
            self._arrays,
            *scratch,
            slices,
        )

    def answer(self, row: Row, exit_index: int, scratch: Scratch) -> Answer:
        """What `run` left in the scratch of a row that has left after block `exit_index`. For `Forward`."""
        C, settings = self.config.n_block, row.exit
        values = scratch.scores.tolist()
        best = values.index(max(values))
        costs = self._costs(len(row.ids))
        executed, full = costs[exit_index - 1], costs[-1]
        return Answer(
            label=self.labels[best],
            score=values[best],
            scores=dict(zip(self.labels, values, strict=True)),
            exit_index=exit_index,
            num_blocks=C,
            entropies=tuple(scratch.entropies[: self.config.exits.index(exit_index) + 1].tolist()),
            flops=executed,
            flops_full=full,
            flops_saved=full - executed,
            flops_saved_ratio=(full - executed) / full,
            delta=settings.delta,
            entropy_threshold=settings.entropy_threshold or None,
            min_blocks=settings.min_blocks if settings.min_blocks > 1 else None,
            max_blocks=settings.max_blocks if settings.max_blocks < C else None,
            profile=settings.profile,
            model=self.name,
            tokens=len(row.ids),
            truncated=row.truncated,
        )

    def _costs(self, tokens: int) -> list[float]:
        if tokens not in self._flops:  # two threads that meet here write the same
            C = self.config.n_block
            self._flops[tokens] = [flops.forward(self.config, tokens, c).flops for c in range(1, C + 1)]
        return self._flops[tokens]


def _network(checkpoint: Checkpoint) -> kernels.Network:
    """Tensors as the kernels read them: weights in tiles, blocks and heads stacked."""
    tensors, config = checkpoint.tensors, checkpoint.config

    def linear(name: str, of: Sequence[int]) -> kernels.Linear:
        def stack(part: str) -> np.ndarray:
            return np.stack([tensors[name.format(c) + part] for c in of])

        beta = stack(".beta").reshape(len(of), -1)
        packed = stack(".words")  # [layers, W, n]
        # several thresholds share their weights: what reads an input T times is a layer T times as wide
        packed = np.tile(packed, (1, beta.shape[1] // (packed.shape[1] * bits.WORD), 1))
        words = np.stack([kernels.arrange(one) for one in packed])
        alpha, bias = stack(".alpha"), stack(".bias")
        padding = ((0, 0), (0, -alpha.shape[1] % bits.GROUP))
        # x + beta < 0 exactly where x < -beta
        return kernels.Linear(words, np.pad(alpha, padding), np.pad(bias, padding), -beta)

    def norm(name: str) -> kernels.Norm:
        return kernels.Norm(
            *(np.stack([tensors[name.format(c) + part] for c in blocks]) for part in (".weight", ".bias"))
        )

    blocks, heads = range(1, config.n_block + 1), config.exits
    return kernels.Network(
        kernels.Embedding(
            tensors["embedding.rows"].view(np.int8),
            tensors[SCALES[config.embedding]],
            sinusoid(config),
            tensors.get("exact_match", np.empty((0, config.d_model), np.float32)),
        ),
        kernels.Block(
            qkv=linear("blocks.{}.qkv", blocks),
            o=linear("blocks.{}.o", blocks),
            gates_h=linear("blocks.{}.gates_h", blocks),
            gates_x=linear("blocks.{}.gates_x", blocks),
            norm_x=norm("blocks.{}.norm_x"),
            norm_h=norm("blocks.{}.norm_h"),
        ),
        kernels.Head(linear("heads.{}.hidden", heads), linear("heads.{}.out", heads)),
    )
