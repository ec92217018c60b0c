from typing import Any

import pytest

from beexformer.model.config import BEEConfig


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"d_model": 100}, "multiple of 64"),
        ({"d_model": 64, "n_head": 8, "attention": "int8"}, "multiple of 16"),
        ({"attention": "int4"}, "must be one of"),
        ({"d_model": 0}, "d_model=0 must lie in 1..4096"),
        ({"n_block": 10**9}, "n_block=1000000000 must lie in 1..64"),
        ({"max_tokens": 513}, "max_tokens=513 must lie in 3..512"),
        ({"n_class": 2.0}, "n_class=2.0 must be an integer"),
        ({"n_head": True}, "n_head=True must be an integer"),
        ({"exact_match": 1}, "exact_match=1 must be true or false"),
        ({"head": "cubic"}, "head='cubic' must be one of"),
        ({"n_head": 3}, "not divisible"),
        ({"n_class": 1}, "n_class=1"),
        ({"n_block": 0}, "n_block=0"),
        ({"max_tokens": 2}, "max_tokens=2"),
        ({"carry": "y"}, "carry='y'"),
        ({"head_thresholds": 0}, "head_thresholds=0"),
        ({"head_thresholds": 128}, "d_model . head_thresholds=65536 must be at most 65535"),
        ({"embedding": "int2"}, "embedding='int2'"),
    ],
)
def test_nonsense_is_refused_at_birth(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BEEConfig(**{"vocab_size": 10, "n_class": 2, **fields})


def test_exits_of_the_variants() -> None:
    assert BEEConfig(10, 2, n_block=3).exits == (1, 2, 3)
    assert BEEConfig(10, 2, n_block=3, early_exit=False).exits == (3,)
