"""
A backbone, distilled once and task-free, in two stages:

- in full precision, block c learns to say of plain text, token by token, what a layer of a pretrained encoder says: of
  MiniLM layer c, of MPNet every second one; and through a linear reader the mean of its states says what the encoder's
  sentence vector does
- in bits, a network that begins as that one's signs follows it in the same three: states, mean states, vectors

A row with a label tells one bit; a sentence read by the encoder tells 384 real numbers a token and layer, or 768. The
backbone has the encoder's width and heads, so that attention can start from the encoder's own. The network has no
feed-forward layer; what the encoder's did, the gates have to learn. What a task reads are the mean states, so they
weigh most where bits follow (docs/log.md).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from rich.console import Console
from torch import Tensor

from beexformer.model.config import BEEConfig
from beexformer.model.tokenizer import Tokenizer
from beexformer.training import (
    backbone,
    bert,
    corpus,
    device,
    full_precision,
    malloc,
    mpnet,
    resumable,
    thresholds,
    vocabulary,
)
from beexformer.training.batches import Batch
from beexformer.training.bert import Bert
from beexformer.training.buckets import Feed
from beexformer.training.encoders import locate
from beexformer.training.loop import Budget, Loop, Objective
from beexformer.training.mixture import Mixture
from beexformer.training.network import BEExformer, Block
from beexformer.training.objectives import FromEncoder, FromFullPrecision, Weights
from beexformer.training.progress import RunProgress
from beexformer.training.recipe import NAME, Section
from beexformer.training.rotation import Rotation

FULL = "-full"  # after the name of a backbone: its full-precision counterpart
CPU_STEP = 1024  # tokens, where a run on a CPU is given minutes


class Stage(Section):
    """How long a network learns and what counts; either tokens or minutes."""

    tokens: int | None = Field(None, ge=1, description="that are read, pads counted")
    minutes: float | None = Field(None, gt=0)
    learning_rate: float = Field(1e-3, gt=0, description="rises over 3 % of the stage and falls linearly to nothing")
    tokens_a_step: int = Field(8192, ge=16)
    clip: float | None = Field(None, gt=0, description="of the gradient's norm")
    states: float = Field(1.0, ge=0, description="weight of the tokens' states in the loss")
    means: float = Field(1.0, ge=0, description="of the mean states")
    vectors: float = Field(1.0, ge=0, description="of the encoder's sentence vectors")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.tokens is None) == (self.minutes is None):
            raise ValueError("give either tokens or minutes")
        return self

    @property
    def weights(self) -> Weights:
        return Weights(self.states, self.means, self.vectors)

    def budget(self, compiled: bool) -> Budget:
        """For the loop."""
        length = {"tokens": self.tokens} if self.tokens else {"seconds": 60 * (self.minutes or 0)}
        return Budget(self.learning_rate, clip=self.clip, compile=compiled, **length)


class HeldOut(Section):
    """Whole paragraphs that nobody reads, for an evaluation on long text."""

    file: str
    paragraphs: int = Field(ge=1)
    seed: int = 2000


class BackboneRecipe(Section):
    """What a backbone is made of, from TOML."""

    name: str = Field(pattern=NAME)
    encoder: Literal["minilm", "mpnet"] = Field("minilm", description="whose width and heads the backbone takes")
    layers_a_block: int = Field(1, ge=1, description="layers of the encoder whose work one block learns")
    max_tokens: int = Field(512, ge=16)
    text: list[str] = Field(min_length=1, description="text files, a paragraph a line; all of them is read")
    keep_out: list[str] = Field([], description="data files of which no text may be among it: dev and test rows")
    held_out: HeldOut | None = None
    full_precision: Stage
    bits: Stage
    compile: bool = Field(False, description="fuse elementwise parts with torch.compile")
    seed: int = Field(1, ge=0)

    def lasting(self, minutes: float, on: str = "auto") -> "BackboneRecipe":
        """The same run in so many minutes, half of them for each stage; on a CPU in small steps, for where tokens are
        few it is steps that count (docs/log.md)."""
        half: dict[str, Any] = {"tokens": None, "minutes": minutes / 2}
        half |= {"tokens_a_step": CPU_STEP} if device.choose(on).type == "cpu" else {}
        stages = {name: getattr(self, name).model_copy(update=half) for name in ("full_precision", "bits")}
        return self.model_copy(update=stages)


@torch.no_grad()
def start(network: BEExformer, encoder: Bert, rotation: Rotation, batches: list[Batch]) -> None:
    """Give a full-precision network the encoder's attention, written for the turned space; its embedding is set."""
    first = torch.cat([network.embed(ids)[mask] for ids, mask in batches]).double()
    seen = torch.cat([encoder.all_states(ids, mask)[0][mask] @ rotation.axes for ids, mask in batches])
    ridge = 1e-3 * len(first) * torch.eye(first.shape[1], dtype=first.dtype, device=first.device)
    # what the first block sees -> what the encoder's first layer sees
    bridge = torch.linalg.solve(first.T @ first + ridge, first.T @ (seen - rotation.mean[0]).double()).float()
    D = len(rotation.axes)
    for c, block in enumerate(network.blocks):
        assert isinstance(block, Block)
        source: Any = encoder.layers[c * encoder.layers_a_block]  # the layer that sees what this block sees
        weight = source.qkv.weight.float() @ rotation.axes  # reads turned states
        block.attention.qkv.weight.copy_(weight @ bridge.T if c == 0 else weight * rotation.spread[c])
        block.attention.qkv.bias.copy_(source.qkv.bias.float() + weight @ rotation.mean[c])
        block.attention.o.weight.copy_(rotation.axes.T @ source.out.weight.float() / rotation.spread[c])
        block.attention.o.bias.copy_(source.out.bias.float() @ rotation.axes / rotation.spread[c])
        block.slfn.gates_h.bias[:D] = 2.0  # Sh open: the stream passes until the gates have learned better
        block.norm_h.weight.fill_(0.6)  # states of spread 1 that aren't predicted yet are best guessed small
        block.norm_x.weight.fill_(0.8)


class Distillation:
    """The two stages on one text; `work` has their progress, and what either has ended with."""

    def __init__(self, recipe: BackboneRecipe, root: Path, work: Path, progress: RunProgress, on: torch.device) -> None:
        self.recipe, self.work, self.progress, self.device = recipe, work, progress, on
        folder = locate(recipe.encoder, work.parent / "encoders")
        words = vocabulary.of(folder)
        self.tokenizer = words.tokenizer
        inner = Tokenizer(self.tokenizer, recipe.max_tokens).inner
        self.specials = words.specials
        inner.no_truncation()
        inner.no_padding()
        progress.say("reading text")
        self.text = corpus.gather(
            [root / name for name in recipe.text],
            [root / name for name in recipe.keep_out],
            (root / recipe.held_out.file, recipe.held_out.paragraphs, recipe.held_out.seed)
            if recipe.held_out
            else None,
            inner,
            work / "corpus.npz",
            f"{recipe.encoder} {recipe.text} {recipe.keep_out} {recipe.held_out}",  # an encoder has words of its own
        )
        self.vocab_size = inner.get_vocab_size()
        continues = np.array([(inner.id_to_token(i) or "").startswith("##") for i in range(self.vocab_size)])
        self.mixture = Mixture(self.text, continues, most=recipe.max_tokens - 2)
        self.counts = np.bincount(self.text.ids, minlength=self.vocab_size)
        encoder = _encoder(recipe, folder, self.specials[1], words.rows)
        self.encoder = encoder.to(on).products(device.products(on))
        self.fingerprint = f"{recipe.model_dump_json()} {len(self.text.ids)} {int(self.text.ids.sum(dtype=np.int64))}"

    @property
    def sources(self) -> list[dict[str, Any]]:
        """What was read, for provenance."""
        counted = zip(self.recipe.text, self.text.files.tolist(), strict=True)
        return [{"file": file, "rows": rows, "form": "sentences"} for file, rows in counted]

    def network(self, binary: bool) -> BEExformer:
        """An untrained one in the encoder's shape."""
        config = BEEConfig(
            vocab_size=self.vocab_size,
            n_class=2,  # of heads that a backbone hasn't
            d_model=self.encoder.shape.width,
            n_head=self.encoder.shape.heads,
            n_block=self.encoder.blocks,
            max_tokens=self.recipe.max_tokens,
            binary=binary,
            embedding="int4+2",
            attention="int8" if binary else "real",
        )
        return BEExformer(config, precision=device.products(self.device)).to(self.device)

    def feed(self, tokens_a_step: int, seed: int) -> Feed:
        return Feed(self.text.ids, self.mixture, tokens_a_step, self.specials, self.device, seed)

    def full_precision(self) -> tuple[BEExformer, Tensor, dict[str, Any]]:
        """The first stage: the network, its readers [C, D, D] and what was done."""
        plan = self.recipe.full_precision
        feed = self.feed(plan.tokens_a_step, self.recipe.seed)
        batches = feed.calibration()
        rotation = Rotation.of(self.encoder, self.counts, batches)
        network = self.network(binary=False)
        with torch.no_grad():
            network.embedding.weight.copy_(rotation.embedding(self.encoder, self.counts))
        start(network, self.encoder, rotation, batches)
        objective = FromEncoder(network, self.encoder, rotation, feed, plan.weights)
        loop = self._trained("full precision", objective, feed, plan)
        return network, objective.readers.weight.detach(), loop.facts()

    def bits(self, counterpart: BEExformer, readers: Tensor) -> tuple[BEExformer, Tensor, dict[str, Any]]:
        """The second stage, likewise."""
        plan = self.recipe.bits
        feed = self.feed(plan.tokens_a_step, self.recipe.seed + 1)
        network = self.network(binary=True)
        full_precision.start(network, counterpart, feed.calibration())
        network.fix_embedding(self.counts + 1.0)
        objective = FromFullPrecision(network, counterpart, self.encoder, feed, plan.weights)
        objective.readers.load(readers)
        loop = self._trained("bits", objective, feed, plan)
        thresholds.settle(network, feed.calibration())
        return network, objective.readers.weight.detach(), loop.facts()

    def _trained(self, name: str, objective: Objective, feed: Feed, plan: Stage) -> Loop:
        loop = Loop(objective, feed, plan.budget(self.recipe.compile), self.device)
        resumable.run(loop, self.work / f"{name.replace(' ', '_')}.pt", self.fingerprint, self.progress, name)
        return loop


def _encoder(recipe: BackboneRecipe, folder: Path, sep: int, rows: np.ndarray) -> Bert:
    """The recipe's, for ids of our vocabulary, whose rows of the encoder's embedding are `rows` [V]."""
    if recipe.encoder == "mpnet":
        return mpnet.load(folder, sep, recipe.layers_a_block, rows)
    return bert.load(folder, sep, recipe.layers_a_block)


def run(
    recipe: BackboneRecipe, root: Path, out: Path, work: Path, console: Console, on: str = "auto"
) -> dict[str, Any]:
    """Distil `recipe` on text under `root` into the 1-bit backbone `out` and its full-precision counterpart beside it,
    `<out>-full`. Answers the provenance of the first.

    `work` keeps the run's progress; a second call with the same arguments goes on where the first one ended.
    """
    malloc.keep_freed()
    full = out.with_name(out.name + FULL)
    for folder in (out, full):
        backbone.ensure_writable(folder)
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    progress = RunProgress(console)
    with progress.bar:
        made = Distillation(recipe, root, work, progress, device.choose(on))
        facts: dict[str, Any] = {"encoder": recipe.encoder, "recipe": recipe.model_dump(), "text": made.sources}
        network, readers, facts["full_precision"] = made.full_precision()
        _write(full, network, readers, made.tokenizer, dict(facts), progress.say)
        bits, readers, facts["bits"] = made.bits(network, readers)
        _write(out, bits, readers, made.tokenizer, facts, progress.say)
    return facts


def _write(
    folder: Path,
    network: BEExformer,
    readers: Tensor,
    tokenizer: str,
    facts: dict[str, Any],
    say: Callable[[str], None],
) -> None:
    backbone.write(folder, network.cpu(), tokenizer, facts, [*readers.cpu()])
    network.to(readers.device)
    say(f"backbone written to {folder}")
