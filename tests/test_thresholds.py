"""Thresholds on inputs that are the same for every token."""

import pytest
import torch

from beexformer.model.config import BEEConfig
from beexformer.training import thresholds
from beexformer.training.batches import Batch, pad
from beexformer.training.network import BEExformer

CONFIG = BEEConfig(vocab_size=50, n_class=2, d_model=64, n_head=2, n_block=2, d_head=64, max_tokens=32)
AXIS, VALUE = 5, 0.3


@pytest.fixture
def batches() -> list[Batch]:
    torch.manual_seed(0)
    return [pad([torch.randint(1, 50, (n,)).numpy() for n in range(9, 17)]) for _ in range(4)]


def network(beta: float) -> BEExformer:
    """In block 2 heads say VALUE of AXIS, whatever the tokens are, and the threshold is at -beta."""
    torch.manual_seed(1)
    result = BEExformer(CONFIG).eval()
    attention = result.blocks[1].attention
    with torch.no_grad():
        attention.qkv.alpha[2 * CONFIG.d_model + AXIS] = 0.0
        attention.qkv.bias[2 * CONFIG.d_model + AXIS] = VALUE
        attention.o.beta[AXIS] = beta
    return result


@pytest.mark.parametrize("off", [-3e-6, 3e-6], ids=["below", "above"])
def test_a_threshold_on_a_constant_is_moved_to_the_side_of_most(batches: list[Batch], off: float) -> None:
    one = network(off - VALUE)
    others = one.blocks[1].attention.o.beta.detach().clone()
    assert thresholds.settle(one, batches) == 1
    moved = one.blocks[1].attention.o.beta.detach() - others
    assert moved.nonzero().tolist() == [[AXIS]]
    assert abs(VALUE + one.blocks[1].attention.o.beta[AXIS].item()) > 4e-5, "rounding can't reach it any more"
    assert moved[AXIS].sign() == torch.tensor(off).sign()
    assert thresholds.settle(one, batches) == 0


def test_other_thresholds_stay(batches: list[Batch]) -> None:
    one = network(0.1 - VALUE)
    before = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    assert thresholds.settle(one, batches) == 0
    torch.testing.assert_close(one.state_dict(), before, atol=0, rtol=0)
