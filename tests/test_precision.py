"""Which type products have in training."""

from collections.abc import Iterator

import pytest
import torch

from beexformer.training import precision


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What was measured is kept for the life of a process."""
    precision.faster.cache_clear()
    yield
    precision.faster.cache_clear()


@pytest.mark.parametrize(("bfloat16", "taken"), [(0.5, torch.bfloat16), (2.0, torch.float32), (1.0, torch.float32)])
def test_auto_is_what_multiplies_faster(bfloat16: float, taken: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    spent = {torch.float32: 1.0, torch.bfloat16: bfloat16}
    monkeypatch.setattr(precision, "_seconds", spent.__getitem__)
    assert precision.of("auto") == taken


def test_a_type_that_is_named_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(precision, "_seconds")
    assert (precision.of("float32"), precision.of("bfloat16")) == (torch.float32, torch.bfloat16)
