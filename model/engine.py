"""
The engine: a checkpoint folder in, answers out. Knows tokens, blocks and exits; nothing of HTTP, queues or torch.

- `encode` is where bad input fails, alone; `predict` takes what `encode` made and fails for no row's sake
- rows of any length and delta share a call; a row that leaves costs nothing further and is handed out at once
- a row's answer is the same, to the bit, whatever its neighbours, the batch, the number of threads, or how often it
  stops on its way: kernels never mix rows, and each has a workspace of its own
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from beexformer.model import bits, cost, flops, kernels, probes, reference, target, tokenizer
from beexformer.model.answer import Answer
from beexformer.model.candidates import CandidateLabels, readers_of
from beexformer.model.checkpoint import Checkpoint, read
from beexformer.model.embedding import SCALES, sinusoid
from beexformer.model.errors import BEEError, CheckpointError, InputError
from beexformer.model.forward import Forward, PairForward, Scratch, ScratchPool
from beexformer.model.options import NOTHING_ASKED, ExitOptions, ExitSettings, resolve
from beexformer.model.tensors import READERS
from beexformer.model.text import check

NO_STATES = np.empty((0, 0), np.float32)
"""Where a row is all there is, see `kernels.early_exit_forward`."""

RESOLVED = 256
"""Different exit options whose settings are kept: to find them out takes 14 microseconds."""


@dataclass(slots=True, eq=False)
class Row:
    """One row ready to run; made by `Engine.encode` only, and changed by nobody. `ids` is [L] int32, special tokens
    included; `pair_ids` are the second text's where the two are read apart."""

    ids: np.ndarray
    truncated: bool
    exit: ExitSettings
    unknown_ratio: float = 0.0
    pair_ids: np.ndarray | None = None

    @property
    def every_id(self) -> np.ndarray:
        """The ids of one text after the other's [L] int32."""
        return self.ids if self.pair_ids is None else np.concatenate([self.ids, self.pair_ids])

    @property
    def lengths(self) -> flops.Tokens:
        """Tokens, of two texts that are read apart of each."""
        return len(self.ids) if self.pair_ids is None else (len(self.ids), len(self.pair_ids))

    @property
    def tokens(self) -> int:
        return len(self.ids) if self.pair_ids is None else len(self.ids) + len(self.pair_ids)


class Engine:
    """Runs one checkpoint; safe to call from several threads at once."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        if target.problem:
            raise BEEError(target.problem)
        self.name = checkpoint.name
        self.config = checkpoint.config
        self.labels = checkpoint.labels
        self.thresholds = checkpoint.thresholds  # of several labels a text, else None
        self.default_delta = checkpoint.default_delta
        self.defaults = checkpoint.exit  # where a request and its profile say nothing
        self.profiles = {name: profile.options for name, profile in checkpoint.profiles.items()}
        self._budgets = {name: each.budget for name, each in checkpoint.profiles.items() if each.budget}
        self.input = checkpoint.input
        self.description: dict[str, Any] = {
            "name": self.name,
            "labels": list(self.labels),
            "default_delta": self.default_delta,
            "format_version": checkpoint.format_version,
            "size_bytes": checkpoint.size_bytes,
            "config": self.config.to_dict(),
            **checkpoint.shown(),
            "evaluation": checkpoint.evaluation,
        }
        try:
            self._tokenizer = tokenizer.shared(checkpoint.tokenizer, self.config.max_tokens, self.config.vocab_size)
        except CheckpointError as error:
            raise CheckpointError(f"checkpoint {self.name!r}: {error}") from None
        self._network = _network(checkpoint)
        self._table = kernels.table(
            self._network, self.config.n_head, self.config.carry == "x", self.config.multi_label
        )
        self.cost = cost.of_level(self.config.d_model, target.level)
        self._resolved: dict[tuple[object, ...], ExitSettings] = {}  # what was asked for, and what is then in effect
        self._flops: dict[flops.Tokens, list[float]] = {}  # by tokens; [c - 1] is what leaving after block c costs
        self._fit_budgets()
        self.exported = self.resolve(NOTHING_ASKED)  # in effect when its evaluation was made
        self.pool = ScratchPool(self.config)
        self._candidates: CandidateLabels | None = None
        if checkpoint.candidate_labels:
            self._candidates = CandidateLabels(self, readers_of(*(checkpoint.tensors[name] for name in READERS)))
        self._probes = checkpoint.probes
        probes.check_ids(self, self._probes)

    @classmethod
    def load(cls, folder: Path, trusted_key: str | None = None) -> "Engine":
        """Read and verify a checkpoint folder, which `trusted_key` (minisign) must have signed where one is given;
        CheckpointError says in one sentence what to do."""
        return cls(read(Path(folder), trusted_key))

    def warm(self) -> Answer:
        """Compile the kernels, or load them from the cache, answer one row through all blocks, and see that the
        checkpoint's probes are answered as when it was exported; where a profile is milliseconds, calibrate too. Raises
        CheckpointError where probes are answered otherwise."""
        options, pair = ExitOptions(min_blocks=self.config.n_block), "ready" if self.input == "pair" else None
        answer = self.predict([self.encode("ready", pair, options)])[0]
        probes.check_logits(self, self._probes)
        if self._budgets:
            self.calibrate()
        return answer

    def calibrate(self) -> None:
        """Time some rows, for a fifth of a second, so that `cost` says at once what others will take on this machine,
        and profiles in milliseconds take what it has the time for."""

        def run(tokens: int, blocks: int) -> None:
            ids = np.arange(tokens, dtype=np.int32) % self.config.vocab_size
            half = len(ids) // 2
            first, second = (ids[:half], ids[half:]) if self.config.pairs == "apart" else (ids, None)
            self.predict([Row(first, False, ExitSettings(0.0, 0.0, blocks, blocks), pair_ids=second)])

        C = self.config.n_block
        self.cost = cost.calibrate(run, self.config.max_tokens, (1, C) if self.config.early_exit else (C,))
        self._fit_budgets()

    def _fit_budgets(self) -> None:
        """Profiles that are milliseconds take the exit options that this machine has the time for."""
        self._resolved.clear()
        for name, budget in self._budgets.items():
            self.profiles[name] = fit = budget.fit(self.cost.milliseconds)
            self.description["profiles"][name]["exit"] = fit.to_dict()

    def set_defaults(self, defaults: ExitOptions) -> None:
        """What is in effect where a request and its profile say nothing; where this says nothing either, what the
        checkpoint says. Raises InputError for what this model can't do."""
        before, self.defaults = self.defaults, defaults.over(self.defaults)
        self._resolved.clear()
        try:
            self.resolve(NOTHING_ASKED)
        except InputError:
            self.defaults = before
            raise

    def resolve(self, asked: ExitOptions) -> ExitSettings:
        """What is in effect where a request asks for that. Raises InputError for what this model can't do."""
        key = asked.delta, asked.entropy_threshold, asked.min_blocks, asked.max_blocks, asked.profile
        if (known := self._resolved.get(key)) is None:
            known = resolve(asked, defaults=self.defaults, profiles=self.profiles, config=self.config, model=self.name)
            if len(self._resolved) >= RESOLVED:
                self._resolved.clear()
            self._resolved[key] = known
        return known

    @property
    def candidates(self) -> CandidateLabels:
        """Labels that requests name, in place of the model's own. Raises InputError where it takes none."""
        if self._candidates is None:
            raise InputError(
                f"model {self.name!r} takes no candidate_labels; one that `beexformer train --labels` wrote does"
            )
        return self._candidates

    def with_heads(self, labels: tuple[str, ...], heads: kernels.LinearHead) -> "Engine":
        """The same network with other linear heads [E, ...] and as many labels; all else is shared."""
        result = copy(self)
        result.labels, result.config = labels, replace(self.config, n_class=len(labels))
        result._network = self._network._replace(heads=self._network.heads._replace(linear=heads))
        result._table = kernels.table(result._network, self.config.n_head, self.config.carry == "x")
        result._flops, result.pool, result._candidates = {}, ScratchPool(result.config, 1), None
        return result

    def encode(
        self, text: str, text_pair: str | None = None, options: ExitOptions = NOTHING_ASKED, *, truncate: bool = True
    ) -> Row:
        """Check and tokenize one row. Raises InputError, one sentence, for whatever can't be answered."""
        if self.input == "pair" and text_pair is None:
            raise InputError(f"model {self.name!r} classifies pairs of texts; send text_pair too")
        if self.input == "text" and text_pair is not None:
            raise InputError(f"model {self.name!r} classifies single texts; send no text_pair")
        settings = self.resolve(options)
        if self.config.pairs == "apart" and text_pair is not None:
            check("text_pair", text_pair)
            texts = [self._tokenizer.encode(each, truncate=truncate) for each in (text, text_pair)]
            unknown = sum(result.unknown_ratio * len(result.ids) for result in texts) / sum(len(f.ids) for f in texts)
            cut = any(result.truncated for result in texts)
            return Row(texts[0].ids, cut, settings, unknown, texts[1].ids)
        tokens = self._tokenizer.encode(text, text_pair, truncate=truncate)
        return Row(tokens.ids, tokens.truncated, settings, tokens.unknown_ratio)

    def predict(self, rows: Sequence[Row], on_exit: Callable[[int, Answer], None] | None = None) -> list[Answer]:
        """Answers in the order of `rows`; `on_exit(i, answer)` is called for row i as soon as it has left."""
        answers = []
        for i, row in enumerate(rows):
            forward = _forward(self, row)
            forward.advance()
            answers.append(answer := forward.answer())
            if on_exit:
                on_exit(i, answer)
        return answers

    def begin(self, row: Row) -> Forward:
        """The forward pass of a row, to be run in slices; its answer is that of `predict`, to the bit."""
        return _forward(self, row)

    def logits(self, rows: Sequence[Row]) -> np.ndarray:
        """Logits of every exit at full depth, whatever the rows' own bounds: [rows, exits, m] float32."""
        C, m = self.config.n_block, self.config.n_class
        out = np.empty((len(rows), len(self.config.exits), m), np.float32)
        for i, row in enumerate(rows):
            forward = _forward(self, replace(row, exit=ExitSettings(0.0, 0.0, C, C)))
            forward.advance()
            out[i] = forward.logits()
        return out

    def reference_logits(self, row: Row) -> np.ndarray:
        """`logits` of one row [exits, m] by the reference implementations of the kernels: slow, to compare with."""
        ids = (row.ids,) if row.pair_ids is None else (row.ids, row.pair_ids)
        return reference.logits(self._network, self.config, *ids)

    def run(
        self,
        ids: np.ndarray,
        exit_: ExitSettings,
        scratch: Scratch,
        blocks: float,
        side: int = 0,
        ready: int = 0,
        states: np.ndarray = NO_STATES,
    ) -> int:
        """Go on with a text: `kernels.early_exit_forward`. For `Forward`."""
        return kernels.early_exit_forward(  # type: ignore[no-any-return]
            ids,
            exit_.delta,
            exit_.entropy_threshold,
            exit_.min_blocks,
            exit_.max_blocks,
            self._table,
            *scratch.arguments,
            blocks,
            side,
            ready,
            states,
            scratch.integers,
        )

    def answer(self, row: Row, exit_index: int, scratch: Scratch) -> Answer:
        """What `run` left in the scratch of a row that has left after block `exit_index`. For `Forward`."""
        C, settings = self.config.n_block, row.exit
        values = scratch.scores.tolist()
        best = values.index(max(values))
        costs = self._costs(row.lengths)
        executed, full = costs[exit_index - 1], costs[-1]
        return Answer(
            label=self.labels[best],
            score=values[best],
            scores=dict(zip(self.labels, values, strict=True)),
            labels=self._applying(values),
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
            tokens=row.tokens,
            truncated=row.truncated,
            unknown_ratio=row.unknown_ratio or None,
        )

    def _applying(self, scores: Sequence[float]) -> tuple[str, ...] | None:
        """The labels that apply; None of a model that gives one."""
        if self.thresholds is None:
            return None
        each = zip(self.labels, scores, self.thresholds, strict=True)
        return tuple(label for label, score, threshold in each if score >= threshold)

    def _costs(self, tokens: flops.Tokens) -> list[float]:
        if tokens not in self._flops:  # two threads that meet here write the same
            C = self.config.n_block
            self._flops[tokens] = [flops.forward(self.config, tokens, c).flops for c in range(1, C + 1)]
        return self._flops[tokens]


def _forward(engine: Engine, row: Row) -> Forward:
    return Forward(engine, row) if row.pair_ids is None else PairForward(engine, row)


def _network(checkpoint: Checkpoint) -> kernels.Network:
    """Tensors as the kernels read them. They are those of the checkpoint, without a copy, but where this level of
    instructions reads weights in other tiles."""
    tensors, config = checkpoint.tensors, checkpoint.config

    def linear(name: str) -> kernels.Linear:
        words, alpha, bias, threshold = (tensors[f"{name}.{part}"] for part in ("words", "alpha", "bias", "threshold"))
        if kernels.arrange is not bits.tile:
            words = np.stack([kernels.arrange(bits.untile(one)) for one in words])
        return kernels.Linear(words, alpha, bias, threshold)

    def norm(name: str) -> kernels.Norm:
        return kernels.Norm(tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    real = np.empty((0, 0), np.float32)
    if config.head == "linear":
        without = kernels.Linear(np.empty((0, 0, 0, 0), np.uint64), real, real, real)
        parts = (tensors[f"heads.{part}"] for part in ("weight", "scale", "bias"))
        heads = kernels.Head(without, without, kernels.LinearHead(*parts))
    else:
        without_linear = kernels.LinearHead(np.empty((0, 0, 0, 0), np.int8), real, real)
        heads = kernels.Head(linear("heads.hidden"), linear("heads.out"), without_linear)
    qkv, values = linear("blocks.qkv"), kernels.Norm(real, real)
    if config.attention == "int8":  # v as sums of signs, halved; alpha and bias for their means
        D = config.d_model
        values = kernels.Norm(2 * qkv.alpha[:, 2 * D :], qkv.bias[:, 2 * D :].copy())
        qkv = qkv._replace(alpha=qkv.alpha.copy(), bias=qkv.bias.copy())
        qkv.alpha[:, 2 * D :], qkv.bias[:, 2 * D :] = 0.5, 0.0
    return kernels.Network(
        kernels.Embedding(
            tensors["embedding.rows"].view(np.int8),
            tensors[SCALES[config.embedding]],
            sinusoid(config),
            tensors.get("exact_match", np.empty((0, config.d_model), np.float32)),
        ),
        kernels.Block(
            qkv=qkv,
            o=linear("blocks.o"),
            gates_h=linear("blocks.gates_h"),
            gates_x=linear("blocks.gates_x"),
            norm_x=norm("blocks.norm_x"),
            norm_h=norm("blocks.norm_h"),
            values=values,
        ),
        heads,
    )
