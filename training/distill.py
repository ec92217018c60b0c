"""
A backbone, distilled once and task-free: block c learns to say of plain text, token by token, what layer c of a
pretrained encoder says, and the mean of its states what the encoder's sentence vector says.

A row with a label tells one bit; a sentence read by the encoder tells 384 real numbers a token and layer. The
backbone has the encoder's width, heads and depth, so that attention can start from the encoder's own. The network has
no feed-forward layer; what the encoder's did, the gates have to learn. It learns in real numbers: bits begin with a
task.

Tokens enter as in eq. 2, half sinusoid, so the encoder's space is turned: its first D/2 axes carry most of what tells
tokens apart in running text. Token counts weigh, because a vocabulary is mostly words that hardly occur.
"""

import hashlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel

from beexformer.model import tables
from beexformer.model.config import BEEConfig
from beexformer.model.errors import TrainingError
from beexformer.model.tokenizer import Tokenizer
from beexformer.training import backbone, memory, precision, state
from beexformer.training.augment import distinct, neighbours
from beexformer.training.batches import Batch, calibration_batches, length_batches, pad
from beexformer.training.data import Input, key, paragraphs, sentences
from beexformer.training.encoders import locate
from beexformer.training.network import BEExformer, Block, mean_state
from beexformer.training.progress import RunProgress
from beexformer.training.recipe import NAME, Section, Text

LOSSES = ("states", "vector")
SAVE_TOKENS = 200_000  # what a kill can lose
RARE = 0.75  # exponent of a token's count in the weighted axes: between running text (1) and the bare vocabulary (0)


class BackboneRecipe(Section):
    """What a backbone is made of, from TOML."""

    name: str = Field(pattern=NAME)
    encoder: Literal["minilm"] = Field("minilm", description="a BERT, whose width, heads and layers the backbone takes")
    max_tokens: int = Field(128, ge=3)
    text: list[Text] = Field(min_length=1, description="what is read: forms sentences and neighbours")
    keep_out: list[str] = Field([], description="data files of which no text may be among it: dev and test rows")
    tokens: int = Field(ge=1)
    learning_rate: float = Field(1e-3, gt=0, description="rises over a fiftieth of the tokens and falls linearly")
    batch_size: int = Field(64, ge=1)
    pooled: float = Field(1.0, ge=0, description="weight of the sentence vector beside the tokens' states")
    compile: bool = False
    seed: int = Field(1, ge=0)


class Encoder:
    """The pretrained encoder in a turned space: states of every layer with mean 0 and spread 1.

    `counts` [V] says how often each token occurs in the text that will be read.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, counts: np.ndarray) -> None:
        separator = tokenizer.inner.token_to_id("[SEP]")
        if separator is None:
            raise TrainingError(f"the tokenizer of {folder.name} has no [SEP]; a backbone is made from a BERT")
        self.separator = separator
        self.model = AutoModel.from_pretrained(folder, local_files_only=True, attn_implementation="eager").eval()
        shape = self.model.config
        self.d_model, self.n_head, self.n_layer = shape.hidden_size, shape.num_attention_heads, shape.num_hidden_layers
        words = self.words()
        weights = torch.from_numpy((counts + 1.0) ** RARE)
        center = (words * weights[:, None]).sum(0) / weights.sum()
        spread = (words - center) * weights.sqrt()[:, None]
        self.axes = torch.linalg.eigh(spread.T @ spread)[1].flip(1).float()  # [D, D], most telling first
        half = ((words - center) @ self.axes.double())[:, : self.d_model // 2]
        size = ((half**2).mean(1) * weights).sum() / weights.sum()
        self.embedding = (0.5 * half / size.sqrt()).float()  # inside [-1, 1], where eq. 9 lets gradients through
        self.mean: list[Tensor] = []
        self.spread: list[Tensor] = []

    def words(self) -> Tensor:
        """What every token of the vocabulary looks like to the first layer, at an average position: [V, D] float64."""
        parts = self.model.embeddings
        mean_position = parts.position_embeddings.weight[1:32].mean(0)
        words = parts.word_embeddings.weight + mean_position + parts.token_type_embeddings.weight[0]
        return parts.LayerNorm(words).detach().double()

    @torch.no_grad()
    def states(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """ids [B, L], mask [B, L] -> states before and after every layer, each [B, L, D] float32, as the encoder has
        them."""
        ends = ids.eq(self.separator).long()
        after = ends.cumsum(1) - ends >= 1  # the second text of a pair
        with torch.autocast("cpu", torch.bfloat16, enabled=precision.faster() == torch.bfloat16):
            found = self.model(
                input_ids=ids,
                attention_mask=mask.long(),
                token_type_ids=(after & mask).long(),
                output_hidden_states=True,
            )
        return [h.float() for h in found.hidden_states]

    def measure(self, batches: list[Batch]) -> list[Tensor]:
        """Learn mean and spread of every layer from some text; answers its states, turned, each [tokens, D]."""
        read = [[h[mask] @ self.axes for h in self.states(ids, mask)] for ids, mask in batches]
        layers = [torch.cat(part) for part in zip(*read, strict=True)]
        self.mean = [h.mean(0) for h in layers]
        self.spread = [(h - h.mean(0)).std() for h in layers]
        return layers

    def targets(self, ids: Tensor, mask: Tensor) -> tuple[list[Tensor], Tensor]:
        """-> what blocks 1 .. C are to say, each [B, L, D], and the sentence vectors [B, D]."""
        states = self.states(ids, mask)
        turned = [
            (h @ self.axes - mean) / spread
            for h, mean, spread in zip(states[1:], self.mean[1:], self.spread[1:], strict=True)
        ]
        return turned, mean_state(states[-1], mask)


@torch.no_grad()
def start(network: BEExformer, encoder: Encoder, batches: list[Batch]) -> None:
    """Give a full-precision network the encoder's attention, written for the turned space."""
    layers = encoder.measure(batches)
    network.embedding.weight.copy_(encoder.embedding)
    first = torch.cat([network.embed(ids)[mask] for ids, mask in batches]).double()
    ridge = 1e-3 * len(first) * torch.eye(first.shape[1], dtype=torch.float64)
    # what the first block sees -> what the encoder's first layer sees
    bridge = torch.linalg.solve(first.T @ first + ridge, first.T @ (layers[0] - encoder.mean[0]).double()).float()
    D = encoder.d_model
    for c, block in enumerate(network.blocks):
        assert isinstance(block, Block)
        source = encoder.model.encoder.layer[c].attention
        parts = [getattr(source.self, name) for name in ("query", "key", "value")]
        weight = torch.cat([part.weight for part in parts]) @ encoder.axes  # reads turned states
        block.attention.qkv.weight.copy_(weight @ bridge.T if c == 0 else weight * encoder.spread[c])
        bias = torch.cat([part.bias for part in parts]) + weight @ encoder.mean[c]
        block.attention.qkv.bias.copy_(bias)
        block.attention.o.weight.copy_(encoder.axes.T @ source.output.dense.weight / encoder.spread[c])
        block.attention.o.bias.copy_(source.output.dense.bias @ encoder.axes / encoder.spread[c])
        block.slfn.gates_h.bias[:D] = 2.0  # Sh open: the stream passes until the gates have learned better
        block.norm_h.weight.fill_(0.6)  # states of spread 1 that aren't predicted yet are best guessed small
        block.norm_x.weight.fill_(0.8)


class Distiller:
    """A network that learns from an encoder, and where it is."""

    def __init__(self, recipe: BackboneRecipe, rows: list[np.ndarray], network: BEExformer, encoder: Encoder) -> None:
        self.recipe, self.rows, self.network, self.encoder = recipe, rows, network, encoder
        text = hashlib.sha256(np.concatenate(rows).tobytes()).hexdigest()
        self.fingerprint = f"{recipe.model_dump_json()}\n{text}"
        D = encoder.d_model
        self.readers = nn.ModuleList(nn.Linear(D, D, bias=False) for _ in network.blocks)  # mean state -> vector
        for weight in self.readers.parameters():
            nn.init.orthogonal_(weight)
        network.embedding.requires_grad_(False)
        moving = [p for name, p in network.named_parameters() if name.startswith("blocks.")]
        self.optimizer = torch.optim.Adam([*moving, *self.readers.parameters()], lr=recipe.learning_rate, fused=True)
        self.losses = torch.compile(self._losses, dynamic=True) if recipe.compile else self._losses
        self.batch = self.tokens = 0
        self.running = torch.zeros(2, len(network.blocks))  # losses, averaged over some fifty batches

    def _losses(self, h: Tensor, mask: Tensor, targets: list[Tensor], vectors: Tensor) -> tuple[Tensor, Tensor]:
        """-> squared errors of the tokens' states and cosine distances of the sentence vectors, each [C]."""
        real = mask[..., None].float()
        count = real.sum() * h.shape[-1]
        states = self.network.states(h, mask)
        apart = [(((h - t) ** 2) * real).sum() / count for h, t in zip(states, targets, strict=True)]
        away = [
            1 - F.cosine_similarity(reader(mean_state(h, mask)), vectors, dim=-1).mean()
            for reader, h in zip(self.readers, states, strict=True)
        ]
        return torch.stack(apart), torch.stack(away)

    def step(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """One batch; answers its losses, block by block."""
        progress = self.tokens / self.recipe.tokens
        rate = self.recipe.learning_rate * min(1.0, (progress + 1e-3) / 0.02) * max(1 - progress, 0.01)
        self.optimizer.param_groups[0]["lr"] = rate
        targets, vectors = self.encoder.targets(ids, mask)
        apart, away = self.losses(self.network.embed(ids), mask, targets, vectors)
        loss = apart.mean() + self.recipe.pooled * away.mean()
        if not math.isfinite(loss.item()):
            raise TrainingError(f"the loss is {loss.item()} at batch {self.batch}; lower learning_rate")
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.batch += 1
        self.tokens += int(mask.sum())
        return apart.detach(), away.detach()

    def state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "readers": self.readers.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "batch": self.batch,
            "tokens": self.tokens,
            "running": self.running,
        }

    def restore(self, path: Path) -> None:
        found = state.load(path, self.fingerprint)
        self.network.load_state_dict(found["network"])
        self.readers.load_state_dict(found["readers"])
        self.optimizer.load_state_dict(found["optimizer"])
        self.batch, self.tokens, self.running = found["batch"], found["tokens"], found["running"]

    def run(self, path: Path, progress: RunProgress) -> dict[str, list[float]]:
        """Go on until the recipe's tokens are read; answers the running losses by block."""
        if path.exists():
            self.restore(path)
        report = progress.stage("distillation")
        kept, began, before = self.tokens, time.monotonic(), self.tokens
        for ids, mask in _batches(self.rows, self.recipe, skip=self.batch):
            if self.tokens >= self.recipe.tokens:
                break
            found = torch.stack(self.step(ids, mask))
            self.running += max(0.02, 1 / self.batch) * (found - self.running)
            speed = (self.tokens - before) / (time.monotonic() - began)
            losses = ", ".join(
                f"{n} {' '.join(f'{x:.2f}' for x in p)}" for n, p in zip(LOSSES, self.running, strict=True)
            )
            report(self.tokens, self.recipe.tokens, f"{losses}, {speed:.0f} tokens/s")
            if self.tokens - kept >= SAVE_TOKENS:
                kept = self.tokens
                state.save(self.state(), path, self.fingerprint)
        state.save(self.state(), path, self.fingerprint)
        return {name: [round(float(x), 3) for x in part] for name, part in zip(LOSSES, self.running, strict=True)}


def _batches(rows: list[np.ndarray], recipe: BackboneRecipe, skip: int = 0) -> Iterator[Batch]:
    """Batches of the text for ever, in an order that is a function of the seed alone: ids and mask, each [B, L]."""
    lengths = np.array([len(row) for row in rows])
    epoch = 0
    while True:
        batches = length_batches(lengths, recipe.batch_size, np.random.default_rng([recipe.seed, epoch]))
        for index in batches[skip:]:
            yield pad([rows[i] for i in index])
        skip, epoch = max(0, skip - len(batches)), epoch + 1


def _kept_out(files: list[str], root: Path) -> set[Input]:
    """Keys of every text of some data files."""
    found: set[Input] = set()
    for name in files:
        with tables.read(root / name) as table:
            names = [column for column in table.columns if column != "label"]
            found |= {key(text) for row in tables.texts(table, names) for text in row}
    return found


def _read_text(recipe: BackboneRecipe, root: Path, progress: RunProgress) -> list[Input]:
    without = _kept_out(recipe.keep_out, root)
    rows: list[Input] = []
    for table in recipe.text:
        path = root / table.file
        if table.form == "sentences":
            rows += sentences(path, table.rows, recipe.seed, without=without)
        elif table.form == "neighbours":
            rng = np.random.default_rng(recipe.seed)
            words = rng.integers(8, 25, (1000, 2))  # of a side
            rows += distinct(neighbours(paragraphs(path), words, rng), table.rows, without)
        else:
            raise TrainingError(f"a backbone reads text as it stands: form {table.form!r} is for teachers of tasks")
        progress.say(f"{table.name}: {len(rows)} rows so far")
    return rows


def run(recipe: BackboneRecipe, root: Path, out: Path, work: Path, console: Console) -> dict[str, Any]:
    """Distil `recipe` on text under `root` into the backbone folder `out`. Answers its provenance.

    `work` keeps the run's progress; a second call with the same arguments goes on where the first one ended.
    """
    memory.keep_freed()
    backbone.ensure_writable(out)
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    progress = RunProgress(console)
    with progress.bar:
        folder = locate(recipe.encoder, work.parent / "encoders")
        json_text = (folder / "tokenizer.json").read_text()
        tokenizer = Tokenizer(json_text, recipe.max_tokens)
        text = _read_text(recipe, root, progress)
        rows = tokenizer.encode_rows(text)
        encoder = Encoder(folder, tokenizer, np.bincount(np.concatenate(rows), minlength=tokenizer.vocab_size))
        config = BEEConfig(
            vocab_size=tokenizer.vocab_size,
            n_class=2,  # of heads that a backbone hasn't
            d_model=encoder.d_model,
            n_head=encoder.n_head,
            n_block=encoder.n_layer,
            max_tokens=recipe.max_tokens,
            binary=False,
        )
        network = BEExformer(config, precision=precision.faster())
        start(network, encoder, calibration_batches(_batches(rows, recipe)))
        losses = Distiller(recipe, rows, network, encoder).run(work / "state.pt", progress)
        facts = {"encoder": recipe.encoder, "recipe": recipe.model_dump(), "rows": len(rows), "losses": losses}
        backbone.write(out, network, json_text, facts)
        progress.say(f"backbone written to {out}: {losses}")
    return facts
