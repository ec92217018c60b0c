import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from beexformer.model.config import BEEConfig
from beexformer.model.embedding import token_types
from beexformer.training.batches import pad, padding_mask
from beexformer.training.network import BEExformer, soft_routing_loss
from beexformer.training.network import token_types as token_types_of_batch
from beexformer.training.objectives import clamp, latents

SMALL = {"vocab_size": 30, "n_class": 3, "d_model": 64, "n_block": 3, "n_head": 2, "d_head": 64, "max_tokens": 16}


def network(**fields: object) -> BEExformer:
    torch.manual_seed(0)
    made = BEExformer(BEEConfig(**{**SMALL, **fields}))  # type: ignore[arg-type]
    for name, parameter in made.named_parameters():
        if name.endswith(("beta", "bias")):
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def _inputs_of(layer: torch.nn.Module, run: Callable[[], object]) -> list[tuple[torch.Tensor, ...]]:
    """What a layer is given meanwhile."""
    seen: list[tuple[torch.Tensor, ...]] = []
    hook = layer.register_forward_hook(lambda _, inputs, output: seen.append(inputs))
    run()
    hook.remove()
    return seen


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([[2, 5, 7, 3, 0], [2, 9, 3, 0, 0], [2, 4, 3, 8, 3]]), padding_mask(torch.tensor([4, 3, 5]), 5)


VARIANTS = {
    "proposed": {},
    "carry h": {"carry": "h"},
    "time": {"slfn": "time"},
    "four thresholds": {"head_thresholds": 4},
    "exact match": {"exact_match": True},
    "linear head": {"head": "linear"},
    "linear head, start": {"head": "linear", "pooling": "mean_and_start"},
    "FP, linear head": {"binary": False, "head": "linear"},
    "FP": {"binary": False},
    "FP of few bits": {"binary": False, "head_thresholds": 4, "embedding": "int4+2"},
    "WEE": {"early_exit": False},
    "WEE-FP": {"binary": False, "early_exit": False},
    "attention on integers": {"attention": "int8"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns_a_batch_by_heart_and_every_parameter_takes_part(variant: str) -> None:
    made = network(**VARIANTS[variant])
    ids, mask = batch()
    targets = torch.eye(3)
    assert made(ids, mask).shape == (3, len(made.config.exits), 3)
    first = soft_routing_loss(made(ids, mask), targets)
    first.backward()
    still = [name for name, parameter in made.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert not still
    optimizer = torch.optim.Adam(made.parameters(), lr=0.01)
    for _ in range(300):
        logits = made(ids, mask)
        loss = soft_routing_loss(logits, targets)
        if loss < first / 2 and (logits[:, -1].argmax(-1) == torch.arange(3)).all():
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        clamp(latents(made))
    pytest.fail(f"300 steps on three rows left the loss at {loss:.3f}, from {first:.3f}")


@pytest.mark.parametrize("variant", VARIANTS)
def test_pads_change_nothing(variant: str) -> None:
    made = network(**VARIANTS[variant]).eval()
    ids, mask = batch()
    together = made(ids, mask)
    alone = torch.cat([made(row[None, real], real[None, real]) for row, real in zip(ids, mask, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_token_types_of_a_batch_are_those_of_its_rows() -> None:
    rng = np.random.default_rng(0)
    rows = [
        np.array([2, *rng.integers(4, 9, n), 3, *([*rng.integers(4, 9, n // 2), 3] * (n % 3 > 0))]) for n in range(12)
    ]
    result = token_types_of_batch(pad(rows)[0]).numpy()
    for row, its in zip(rows, result, strict=True):
        assert (its[: len(row)] == token_types(row)).all()
        assert not its[len(row) :].any()


def test_time_reads_the_past_only_where_depth_reads_the_block_input() -> None:
    time, depth = network(slfn="time").blocks[0].slfn, network().blocks[0].slfn
    x, h = torch.randn(1, 6, 64), torch.randn(1, 6, 64)
    changed = x.clone()
    changed[:, 3] += 1
    assert (time(x, h)[:, :3] == time(changed, h)[:, :3]).all()
    assert (time(x, h)[:, 4] != time(changed, h)[:, 4]).any(), "the next token feels it"
    same = depth(x, h) == depth(changed, h)
    assert same[:, [0, 1, 2, 4, 5]].all(), "tokens of one block don't meet in the depth reading"
    assert (time(x, h) == time(x, -h)).all()


def test_slfn_is_equations_20_to_23() -> None:
    slfn = network().blocks[0].slfn
    x, h = torch.randn(1, 2, 64), torch.randn(1, 2, 64)
    sh, sg_h, tg_h = slfn.gates_h(h).split(64, -1)
    sg_x, tg_x = slfn.gates_x(x).split(64, -1)
    Sh, Sg, Tg = 1 / (1 + (-sh).exp()), 1 / (1 + (-sg_x - sg_h).exp()), (tg_x + tg_h).tanh()
    expected = (2 * Sh - Sh**2) * x + (2 * Sg - Sg**2) * torch.where(Tg < 0, 2 * Tg + Tg**2, 2 * Tg - Tg**2)
    torch.testing.assert_close(slfn(x, h), expected)


def test_soft_routing_loss_by_hand() -> None:
    even, sure = [0.0, 0.0], [0.0, math.log(3)]
    logits = torch.tensor([[even, sure]])  # one row, two exits
    expected = (math.log(2) + math.log(4 / 3)) / 2
    assert soft_routing_loss(logits, torch.tensor([[0.0, 1.0]])).item() == pytest.approx(expected)


def test_bfloat16_products_of_signs_are_exact() -> None:
    layer = network().blocks[0].slfn.gates_x
    x = torch.randn(5, 64)
    expected = layer(x)
    layer.precision = torch.bfloat16
    assert (layer(x) == expected).all(), "sums of 64 signs fit into bfloat16's eight bits"


def test_the_exported_embedding_is_the_nearest_that_a_file_can_hold() -> None:
    made = network(embedding="int4+2")
    assert "embedding_step" in made.state_dict()
    exported = made.exported_embedding()
    assert 0 < (exported - made.embedding.weight).abs().mean() < 0.15
    off, weights = (exported - made.embedding.weight).square().sum(), np.ones(30)
    made.fix_embedding(weights)
    fixed = made.embedding.weight.detach().clone()
    assert (made.exported_embedding() == fixed).all(), "what is on the grid stays there"
    assert (fixed - network(embedding="int4+2").embedding.weight).square().sum() <= off, "with steps of its own"
    full_precision = network(binary=False, embedding="int4+2")
    assert "embedding_step" not in full_precision.state_dict()
    assert (full_precision.exported_embedding() == full_precision.embedding.weight).all()


def test_attention_on_integers_says_nearly_what_it_learned_with_and_nothing_of_padding() -> None:
    made = network(attention="int8", d_model=64, n_head=2).eval()
    attention = made.blocks[0].attention
    _, mask = batch()
    h = torch.randn(3, 5, 64)
    heads = _inputs_of(attention.o, lambda: attention(h, mask))[0][0]
    attention.train()
    learned = _inputs_of(attention.o, lambda: attention(h, mask))[0][0]
    apart = (heads - learned)[mask].abs() / learned.abs().max()
    assert apart.median() < 1e-6
    assert apart.max() < 1e-2, "a share is the next whole number"
    attention.eval()
    h[~mask] = 9.0
    again = _inputs_of(attention.o, lambda: attention(h, mask))[0][0]
    assert (again == heads).all()
