"""
What is learned, in three forms of one kind: to say what somebody else says.

- `FromEncoder`: a full-precision backbone says what an encoder says, token by token and in the mean, and through a
  linear reader for each block what the encoder's sentence vector says.
- `FromFullPrecision`: a 1-bit backbone says what a full-precision one says, and the same sentence vectors.
- `Task`: a network with heads says at every exit what labels and teachers say, and after every block what its
  full-precision counterpart says, where it has one.

Errors are in units of variance: 1 is what a constant would do. Those of means are measured for each length of rows:
means over many tokens vary less.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from beexformer.training.bert import Bert, sentence_vectors
from beexformer.training.buckets import Feed
from beexformer.training.network import BEExformer, soft_routing_loss
from beexformer.training.rotation import Rotation

FIRST_ROWS = {"cpu": 5_000, "cuda": 20_000}
"""Kind of device -> rows that readers begin with by least squares: on a CPU a wide encoder reads them in a minute."""


def apart(states: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """[C, B, L, D] each -> mean squared error of real tokens, [C]."""
    real = mask[None, :, :, None]
    return ((states - wanted).square() * real).sum((1, 2, 3)) / (mask.sum() * states.shape[-1])


def means(states: Tensor, mask: Tensor) -> Tensor:
    """[C, B, L, D] -> the mean over real tokens, [C, B, D]."""
    real = mask[None, :, :, None]
    return (states * real).sum(2) / real.sum(2)


class Readers(nn.Module):
    """A linear map for each block from its mean state to the encoder's sentence vector: [C, B, D] -> [C, B, D]."""

    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([nn.init.orthogonal_(torch.empty(width, width)) for _ in range(blocks)]))

    def forward(self, pooled: Tensor) -> Tensor:
        return pooled @ self.weight.transpose(1, 2)

    def away(self, pooled: Tensor, vectors: Tensor) -> Tensor:
        """1 - cosine of what is read and the vectors [B, D], the mean over rows, [C]."""
        return 1 - F.cosine_similarity(self(pooled), vectors[None], dim=-1).mean(1)

    @torch.no_grad()
    def fit(self, pooled: Tensor, vectors: Tensor, ridge: float = 0.01) -> None:
        """Begin where least squares over some rows [C, N, D] and [N, D] ends."""
        for c, x in enumerate(pooled.double()):
            inner = x.T @ x
            inner += ridge * inner.diagonal().mean() * torch.eye(len(inner), dtype=x.dtype, device=x.device)
            self.weight[c] = torch.linalg.solve(inner, x.T @ vectors.double()).T.float()

    def load(self, weights: Tensor) -> None:
        """Begin where other readers [C, D, D] ended."""
        with torch.no_grad():
            self.weight.copy_(weights)


@dataclass(frozen=True)
class Weights:
    """What each error, [C] by block, counts in the loss: tokens' states, mean states, sentence vectors."""

    states: float
    means: float
    vectors: float

    def of(self, states: Tensor, means: Tensor, vectors: Tensor) -> Tensor:
        """The loss, a scalar."""
        return self.states * states.mean() + self.means * means.mean() + self.vectors * vectors.mean()


class _Networks:
    """An objective whose moving parts are some modules."""

    modules: dict[str, nn.Module]
    networks: list[BEExformer]
    """All that are run in a step, those that don't move too."""

    def compile(self) -> None:
        for network in self.networks:
            network.compile_parts()

    def uncompile(self) -> None:
        for network in self.networks:
            network.uncompile_parts()

    def state(self) -> dict[str, Any]:
        return {name: module.state_dict() for name, module in self.modules.items()}

    def restore(self, state: dict[str, Any]) -> None:
        for name, module in self.modules.items():
            module.load_state_dict(state[name])


def _nearest(by_length: Mapping[int, Tensor], length: int) -> Tensor:
    """What was measured of rows of this length, or of the length next to it."""
    return by_length[min(by_length, key=lambda known: abs(known - length))]


@torch.no_grad()
def token_spread(leader: BEExformer, feed: Feed) -> Tensor:
    """Variance of a network's states after every block, [C], over the real tokens of some rows."""
    result = []
    for length, spec in feed.samples(4).items():
        ids, mask = feed.rows(spec, length)
        result.append(torch.stack(leader.states(leader.embed(ids), mask))[:, mask].var((1, 2)))
    return torch.stack(result).mean(0)


def latents(network: BEExformer) -> list[Tensor]:
    return [layer.weight for _, layer in network.binary_layers() if layer.binary]


@torch.no_grad()
def clamp(weights: list[Tensor]) -> None:
    """Keep latent weights where eq. 9 has a slope: outside [-1, 1] they would never move again."""
    if weights:
        torch._foreach_clamp_min_(weights, -1.0)
        torch._foreach_clamp_max_(weights, 1.0)


class FromEncoder(_Networks):
    """A full-precision backbone that learns from an encoder."""

    parts: tuple[str, ...] = ("states", "means", "vectors")

    def __init__(self, network: BEExformer, encoder: Bert, rotation: Rotation, feed: Feed, weights: Weights) -> None:
        self.network, self.encoder, self.rotation, self.weights = network, encoder, rotation, weights
        self.readers = Readers(len(network.blocks), network.config.d_model).to(feed.ids.device)
        self.modules = {"network": network, "readers": self.readers}
        self.networks = [network]
        network.embedding.requires_grad_(False)
        self._fit_readers(feed)
        self.spread = {}
        with torch.no_grad():
            for length, spec in feed.samples(4).items():
                ids, mask = feed.rows(spec, length)
                self.spread[length] = (
                    means(rotation.turn(encoder(ids, mask)), mask).var(1, correction=0).mean(-1).clamp_min(1e-4)
                )

    @torch.no_grad()
    def _fit_readers(self, feed: Feed) -> None:
        pooled, vectors, count = [], [], 0
        rows = FIRST_ROWS.get(feed.ids.device.type, FIRST_ROWS["cuda"])
        for length, spec in feed.peek():
            ids, mask = feed.rows(spec, length)
            pooled.append(means(torch.stack(self.network.states(self.network.embed(ids), mask)), mask))
            vectors.append(sentence_vectors(self.encoder(ids, mask), mask))
            count += len(spec)
            if count > rows:
                break
        self.readers.fit(torch.cat(pooled, 1), torch.cat(vectors))

    def parameters(self) -> list[Tensor]:
        blocks = [p for name, p in self.network.named_parameters() if name.startswith("blocks.")]
        return [*blocks, *self.readers.parameters()]

    def losses(self, ids: Tensor, mask: Tensor, spec: Tensor) -> tuple[Tensor, Tensor]:
        said = self.encoder(ids, mask)
        wanted, vectors = self.rotation.turn(said), sentence_vectors(said, mask)
        states = torch.stack(self.network.states(self.network.embed(ids), mask))
        pooled = means(states, mask)
        a = apart(states, wanted, mask)
        b = (pooled - means(wanted, mask)).square().mean((1, 2)) / _nearest(self.spread, ids.shape[1])
        c = self.readers.away(pooled, vectors)
        loss = self.weights.of(a, b, c)
        return loss, torch.stack([a, b, c]).detach()

    def constrain(self) -> None:
        pass


class FromFullPrecision(_Networks):
    """A 1-bit backbone that follows a full-precision one."""

    parts: tuple[str, ...] = ("states", "means", "vectors")

    def __init__(self, network: BEExformer, leader: BEExformer, encoder: Bert, feed: Feed, weights: Weights) -> None:
        self.network, self.leader, self.encoder = network, leader.eval().requires_grad_(False), encoder
        self.weights = weights
        self.readers = Readers(len(network.blocks), network.config.d_model).to(feed.ids.device)
        self.modules = {"network": network, "readers": self.readers}
        self.networks = [network, leader]
        network.embedding.requires_grad_(False)
        self.latent = [w for w in latents(network)]
        self.token_spread, self.spread = token_spread(leader, feed), {}
        with torch.no_grad():
            for length, spec in feed.samples(4).items():
                ids, mask = feed.rows(spec, length)
                states = torch.stack(leader.states(leader.embed(ids), mask))
                self.spread[length] = means(states, mask).var(1, correction=0).mean(-1).clamp_min(1e-4)

    def parameters(self) -> list[Tensor]:
        blocks = [p for name, p in self.network.named_parameters() if name.startswith("blocks.")]
        return [*blocks, *self.readers.parameters()]

    def losses(self, ids: Tensor, mask: Tensor, spec: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            wanted = torch.stack(self.leader.states(self.leader.embed(ids), mask))
            goal = means(wanted, mask)
            vectors = sentence_vectors(self.encoder(ids, mask), mask)
        states = torch.stack(self.network.states(self.network.embed(ids), mask))
        pooled = means(states, mask)
        a = apart(states, wanted, mask) / self.token_spread
        b = (pooled - goal).square().mean((1, 2)) / _nearest(self.spread, ids.shape[1])
        c = self.readers.away(pooled, vectors)
        loss = self.weights.of(a, b, c)
        return loss, torch.stack([a, b, c]).detach()

    def constrain(self) -> None:
        clamp(self.latent)


class Task(_Networks):
    """A network that learns a task: the soft-routing loss (eq. 24 and 25, nats) against `targets` [N, m] float32, of
    which the fifth column of a spec names the row. Of a network with a `counterpart`, `states` times the mean over
    blocks of how far tokens' states are from those of the counterpart, in units of its variance, is added (BiT, Liu et
    al. 2022)."""

    parts: tuple[str, ...]

    def __init__(
        self, network: BEExformer, targets: Tensor, feed: Feed, counterpart: BEExformer | None, states: float
    ) -> None:
        self.network, self.targets, self.counterpart, self.states = network, targets, counterpart, states
        self.modules = {"network": network}
        self.networks = [network] + ([counterpart] if counterpart else [])
        self.latent = latents(network)
        self.parts = ("nats", "states") if counterpart else ("nats",)
        if counterpart is None:
            return
        self.spread = token_spread(counterpart.eval().requires_grad_(False), feed)

    def parameters(self) -> list[Tensor]:
        return [p for p in self.network.parameters() if p.requires_grad]

    def losses(self, ids: Tensor, mask: Tensor, spec: Tensor) -> tuple[Tensor, Tensor]:
        targets = self.targets[spec[:, 4].long()]
        states = self.network.states(self.network.embed(ids), mask)
        logits = self.network.read(states, mask)
        loss = soft_routing_loss(logits, targets)
        if self.counterpart is None:
            return loss, loss.detach().view(1, 1)
        with torch.no_grad():
            wanted = torch.stack(self.counterpart.states(self.counterpart.embed(ids), mask))
        away = apart(torch.stack(states), wanted, mask) / self.spread
        away = away.mean()
        return loss + self.states * away, torch.stack([loss.detach(), away.detach()])[:, None]

    def constrain(self) -> None:
        clamp(self.latent)
