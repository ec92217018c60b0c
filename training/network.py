"""
The BEExformer in torch: what is trained, and what the engine must agree with.

Shapes: B rows, L tokens, D = d_model, H heads, m classes. Every equation of the paper has its number beside its line;
what is read differently stands in docs/design.md. Knows nothing of data, optimizers or files.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from beexformer.model import attention
from beexformer.model.config import START_TOKENS, BEEConfig
from beexformer.model.embedding import gaussian_steps, pack, quantize, real, sinusoid, steps
from beexformer.model.kernels import START_DECAY
from beexformer.training.binarize import BinaryLinear, g

MATCH = 0.3
"""Spread of the vector that marks what both texts have when training begins, beside 0.5 of embeddings: from zero it
would stay below 0.05, rates that suit a backbone being low (docs/log.md)."""


def _dropout(ratio: float) -> nn.Module:
    return nn.Dropout(ratio) if ratio else nn.Identity()


def _scale(largest: Tensor, most: int) -> Tensor:
    """`attention.scale` in torch: largest absolute values of any shape -> scales, the same shape, float32."""
    exact = most / (largest.detach() + attention.LEAST)
    return exact.view(torch.int32).bitwise_and(~attention.COARSE).view(torch.float32)


def _rounded(x: Tensor, scale: Tensor) -> Tensor:
    """x to the nearest whole number of 1 / scale; gradients pass as if it were x."""
    return x + ((x.detach() * scale).round() / scale - x.detach())


class Attention(nn.Module):
    """Binarized multi-head attention: h [B, L, D], mask [B, L] -> [B, L, D]. Where the network answers with integers it
    learns with numbers that are rounded as these are, and has the integers themselves when it is not learning."""

    def __init__(self, config: BEEConfig, precision: torch.dtype) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.in_integers = config.binary and config.attention == "int8"
        # a hundredth of the operations; rounded, it would flip signs that the exported network doesn't (docs/log.md)
        self.precision = torch.float32 if config.binary else precision
        D = config.d_model
        self.qkv = BinaryLinear(D, 3 * D, config.binary, precision)  # eq. 16-18, one product: they share their input
        self.o = BinaryLinear(D, D, config.binary, precision)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        B, L, D = h.shape
        if self.in_integers and not self.training:
            return self.o(self._in_integers(h, mask))
        q, k, v = self.qkv(h).to(self.precision).view(B, L, 3, self.n_head, D // self.n_head).permute(2, 0, 3, 1, 4)
        if self.in_integers:
            sizes = k.abs().masked_fill(~mask[:, None, :, None], 0)
            k = _rounded(k, _scale(sizes.amax((-1, -2), keepdim=True), attention.KEY))
            q = _rounded(q, _scale(q.abs().amax(-1, keepdim=True), attention.QUERY))
        scores = (q @ k.transpose(-1, -2)).float() * (D // self.n_head) ** -0.5  # eq. 15, scaled by sqrt(D/H)
        weights = scores.masked_fill(~mask[:, None, None, :], -torch.inf).softmax(-1)
        if self.in_integers:
            weights = _rounded(weights, attention.SHARE / weights.detach().amax(-1, keepdim=True))
            weights = weights / weights.sum(-1, keepdim=True)
        heads = weights.to(self.precision) @ v
        return self.o(heads.transpose(1, 2).reshape(B, L, D).float())  # eq. 19

    @torch.no_grad()
    def _in_integers(self, h: Tensor, mask: Tensor) -> Tensor:
        """Heads [B, L, D] by the engine's own arithmetic, row by row; zeros beyond a row's tokens."""
        B, L, D = h.shape
        sums, alpha, bias = self.qkv.sums(h), self.qkv.alpha, self.qkv.bias
        qk = (sums * alpha + bias)[..., : 2 * D].cpu().numpy()
        q, k = qk.reshape(B, L, 2, self.n_head, -1).transpose(2, 0, 1, 3, 4)
        values = sums[..., 2 * D :].cpu().numpy().reshape(B, L, self.n_head, -1) / 2
        weight, bias_of_v = (x[2 * D :].cpu().numpy() for x in (2 * alpha, bias))
        result = np.zeros((B, L, D), np.float32)
        for i, n in enumerate(mask.sum(1).tolist()):
            result[i, :n] = attention.attend(q[i, :n], k[i, :n], values[i, :n], weight, bias_of_v)
        return torch.from_numpy(result).to(h.device)


class SLFN(nn.Module):
    """Binarized selective learn-forget network in place of the feed-forward layer: x, h [B, L, D] -> [B, L, D].

    depth: h is the block's input, all tokens at once. time: h is the state of the previous token, zero before the
    first, and the tokens are walked one by one.
    """

    def __init__(self, config: BEEConfig, precision: torch.dtype) -> None:
        super().__init__()
        D = config.d_model
        self.carry, self.slfn = config.carry, config.slfn
        self.gates_h = BinaryLinear(D, 3 * D, config.binary, precision)  # U of Sh, Sg, Tg
        self.gates_x = BinaryLinear(D, 2 * D, config.binary, precision)  # W of Sg, Tg

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        sh, sg_h, tg_h = self.gates_h(h).chunk(3, -1)
        sg_x, tg_x = self.gates_x(x).chunk(2, -1)
        Sh = torch.sigmoid(sh)  # eq. 20, with a U of its own
        Sg = torch.sigmoid(sg_x + sg_h)  # eq. 21
        Tg = torch.tanh(tg_x + tg_h)  # eq. 22
        carry = x if self.carry == "x" else h
        return g(Sh) * carry + g(Sg) * g(Tg)  # eq. 23, with Sh in its first term

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        if self.slfn == "depth":
            return self.step(x, h)
        states = [torch.zeros_like(x[:, 0])]
        for i in range(x.shape[1]):
            states.append(self.step(x[:, i], states[-1]))
        return torch.stack(states[1:], 1)


class Block(nn.Module):
    """f_c of eq. 3-5: h_{c-1} [B, L, D], mask [B, L] -> h_c [B, L, D]."""

    def __init__(self, config: BEEConfig, precision: torch.dtype, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(config, precision)
        self.slfn = SLFN(config, precision)
        self.norm_x = nn.LayerNorm(config.d_model)
        self.norm_h = nn.LayerNorm(config.d_model)
        self.dropout = _dropout(dropout)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        x = self.norm_x(h + self.dropout(self.attention(h, mask)))
        return self.norm_h(self.dropout(self.slfn(x, h)))


class Head(nn.Module):
    """Auxiliary block Phi_c of eq. 14: mean over real tokens [B, D] -> logits [B, m] (float32)."""

    def __init__(self, config: BEEConfig, precision: torch.dtype, dropout: float) -> None:
        super().__init__()
        self.hidden = BinaryLinear(config.d_model, config.d_head, config.binary, precision, config.head_thresholds)
        self.out = BinaryLinear(config.d_head, config.n_class, config.binary, precision)
        self.dropout = _dropout(dropout)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.out(self.dropout(F.hardtanh(self.hidden(pooled))))


class LinearHead(nn.Module):
    """Phi_c of one layer: mean over real tokens [B, D], with the start-weighted one beside it or of two texts apart
    their features [B, 2 D] -> logits [B, m] (float32).

    A binary network has its weights as its file will have them, int8 rows with a scale each; their gradient goes to the
    real numbers behind them (straight-through, Bengio et al. 2013). A full-precision one has these themselves."""

    def __init__(self, config: BEEConfig, dropout: float) -> None:
        super().__init__()
        self.quantized = config.binary
        self.out = nn.Linear(config.head_inputs, config.n_class)
        self.dropout = _dropout(dropout)

    def stored_weight(self) -> tuple[np.ndarray, np.ndarray]:
        """int8 rows [m, D] and their scales [m] float32."""
        return quantize(self.out.weight.detach().numpy())

    def forward(self, pooled: Tensor) -> Tensor:
        weight = self.out.weight
        if self.quantized:
            weight = torch.from_numpy(real(*self.stored_weight())) + (weight - weight.detach())
        return F.linear(self.dropout(pooled), weight, self.out.bias)


class BEExformer(nn.Module):
    """ids [B, L] int64 (0 pads), mask of real tokens [B, L] -> logits of every exit [B, exits, m] (float32). Of two
    texts that are read apart it takes those of the second too."""

    positions: Tensor
    embedding_step: Tensor  # of int4+2 alone; training keeps rows and steps as they were set at its start

    def __init__(self, config: BEEConfig, dropout: float = 0.0, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config, self.precision = config, precision
        self.embedding = nn.Embedding(config.vocab_size, config.d_model // 2)
        nn.init.normal_(self.embedding.weight, std=0.5)
        if config.binary and config.embedding == "int4+2":
            start = gaussian_steps(np.full(config.d_model // 2, 0.5))
            self.register_buffer("embedding_step", torch.from_numpy(start))
        if config.exact_match:
            by_type = torch.zeros(5, config.d_model)
            by_type[[2, 4]] = MATCH * torch.randn(config.d_model)
            self.exact_match = nn.Parameter(by_type)
        self.register_buffer("positions", torch.from_numpy(sinusoid(config)), persistent=False)
        self.dropout = _dropout(dropout)
        self.blocks = nn.ModuleList(Block(config, precision, dropout) for _ in range(config.n_block))
        self.heads = nn.ModuleDict(
            {
                str(c): LinearHead(config, dropout) if config.head == "linear" else Head(config, precision, dropout)
                for c in config.exits
            }
        )

    def compile_parts(self) -> None:
        """Fuse what is elementwise in blocks and heads (torch.compile). All blocks are of one form, so that one machine
        code serves them all: a third of the time that the whole network takes to compile, and as fast."""
        for part in (*self.blocks, *self.heads.values()):
            part.forward = torch.compile(part.forward, dynamic=True)

    def uncompile_parts(self) -> None:
        """Back to the code as it is written, for other shapes than those of training and for hooks."""
        for part in (*self.blocks, *self.heads.values()):
            part.__dict__.pop("forward", None)

    def embed(self, ids: Tensor) -> Tensor:
        """[B, L] -> [B, L, D]: learned half beside the sinusoid (eq. 2), and where they count plus the token types."""
        positions = self.positions[: ids.shape[1]].expand(len(ids), -1, -1)
        h = torch.cat([self.dropout(self.embedding(ids)), positions], -1)
        if self.config.exact_match:
            h = h + F.embedding(token_types(ids), self.exact_match, padding_idx=0)
        return h

    def stored_embedding(self) -> tuple[np.ndarray, np.ndarray]:
        """The learned half as a binary network's file has it: rows with scales, or packed rows with the axes' steps."""
        weight = self.embedding.weight.detach().cpu().numpy()
        if self.config.embedding == "int8":
            return quantize(weight)
        step = self.embedding_step.cpu().numpy()
        return pack(weight, step), step.copy()

    @torch.no_grad()
    def fix_embedding(self, weights: np.ndarray) -> None:
        """Put the learned half onto the grid that its file will have, where axes have one; `weights` [V] says how much
        each token counts."""
        if self.config.binary and self.config.embedding == "int4+2":
            self.embedding_step.copy_(torch.from_numpy(steps(self.embedding.weight.detach().cpu().numpy(), weights)))
            self.embedding.weight.copy_(self.exported_embedding())

    def exported_embedding(self) -> Tensor:
        """[V, D/2], the rows as the exported file will have them; of a full-precision counterpart, as they are."""
        if not self.config.binary:
            return self.embedding.weight.detach()
        return torch.from_numpy(real(*self.stored_embedding()))

    def states(self, h: Tensor, mask: Tensor) -> list[Tensor]:
        """h_0 [B, L, D], mask [B, L] -> h_1 .. h_C, each [B, L, D] (eq. 4-5)."""
        states = []
        for block in self.blocks:
            h = block(h, mask)
            states.append(h)
        return states

    def read(self, states: list[Tensor], mask: Tensor) -> Tensor:
        """h_1 .. h_C -> logits of every exit [B, exits, m] (eq. 14)."""
        return torch.stack([self.heads[str(c)](self.pooled(states[c - 1], mask)) for c in self.config.exits], 1)

    def pooled(self, h: Tensor, mask: Tensor) -> Tensor:
        """States [B, L, D], mask [B, L] -> what an exit's head reads of a row, [B, head_inputs]."""
        mean = mean_state(h, mask)
        return mean if self.config.pooling == "mean" else torch.cat([mean, start_state(h, mask)], -1)

    def forward(
        self, ids: Tensor, mask: Tensor, pair_ids: Tensor | None = None, pair_mask: Tensor | None = None
    ) -> Tensor:
        states = self.states(self.embed(ids), mask)  # eq. 3-4
        if pair_ids is None or pair_mask is None:
            return self.read(states, mask)
        second = self.states(self.embed(pair_ids), pair_mask)
        result = []
        for c in self.config.exits:
            a, b = mean_state(states[c - 1], mask), mean_state(second[c - 1], pair_mask)
            result.append(self.heads[str(c)](torch.cat([(a - b).abs(), a * b], -1)))
        return torch.stack(result, 1)

    def binary_layers(self) -> Iterator[tuple[str, BinaryLinear]]:
        return ((name, layer) for name, layer in self.named_modules() if isinstance(layer, BinaryLinear))


def token_types(ids: Tensor) -> Tensor:
    """What `model.embedding.token_types` says of every row: ids [B, L] int64 (0 pads) -> [B, L] int64."""
    L = ids.shape[1]
    at = torch.arange(L, device=ids.device)
    last = (ids != 0).sum(1, keepdim=True) - 1
    between = (ids == ids.gather(1, last)).int().argmax(1, keepdim=True)  # the first of equals
    first = (at > 0) & (at < between) & (between < last)
    second = (at > between) & (at < last)
    same = ids[:, :, None] == ids[:, None, :]
    matched = torch.where(first, (same & second[:, None]).any(-1), (same & first[:, None]).any(-1))
    return torch.where(first, 1 + matched.long(), torch.where(second, 3 + matched.long(), 0))


def mean_state(h: Tensor, mask: Tensor) -> Tensor:
    """States [B, L, D], mask of real tokens [B, L] -> their mean [B, D], what an exit's head reads."""
    return (h * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def start_state(h: Tensor, mask: Tensor) -> Tensor:
    """The same shapes -> the mean that weighs the beginning most, see `kernels.start_state_reference`."""
    h, mask = h[:, :START_TOKENS], mask[:, :START_TOKENS]
    weights = mask * float(START_DECAY) ** torch.arange(h.shape[1], device=h.device)
    return (h * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)


def soft_routing_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits of every exit [B, exits, m], target distributions [B, m] -> the mean over exits (eq. 25) of the mean
    cross-entropy over rows (eq. 24), a scalar in nats."""
    return -(targets[:, None] * F.log_softmax(logits, -1)).sum(-1).mean(0).mean()
