"""What is in effect: a request before its profile before the model's defaults; and what no model can do is refused."""

from typing import Any

import pytest

from beexformer.model.config import BEEConfig
from beexformer.model.errors import InputError
from beexformer.model.options import ExitOptions, ExitSettings, resolve

CONFIG = BEEConfig(vocab_size=100, n_class=2, d_model=128, n_block=6, n_head=4, d_head=64, max_tokens=48)
PROFILES = {"fast": ExitOptions(delta=0.1, entropy_threshold=0.5, max_blocks=4), "deep": ExitOptions(min_blocks=6)}


def settled(defaults: ExitOptions | None = None, **asked: Any) -> ExitSettings:
    return resolve(
        ExitOptions(**asked), defaults=defaults or ExitOptions(), profiles=PROFILES, config=CONFIG, model="tiny"
    )


@pytest.mark.parametrize(
    ("defaults", "asked", "expected"),
    [
        ({}, {}, ExitSettings(1e-4, 0.0, 1, 6)),
        ({"delta": 0.01, "max_blocks": 5}, {}, ExitSettings(0.01, 0.0, 1, 5)),
        ({"delta": 0.01, "max_blocks": 5}, {"delta": 0.0, "max_blocks": 6}, ExitSettings(0.0, 0.0, 1, 6)),
        ({"entropy_threshold": 0.3}, {"entropy_threshold": 0.0}, ExitSettings(1e-4, 0.0, 1, 6)),
        ({"entropy_threshold": 0.9, "min_blocks": 3}, {"delta": -1.0}, ExitSettings(-1.0, 0.0, 3, 6)),
        ({"profile": "fast"}, {"delta": -1.0}, ExitSettings(-1.0, 0.0, 1, 4, "fast")),
        ({"delta": 0.01}, {"profile": "fast"}, ExitSettings(0.1, 0.5, 1, 4, "fast")),
        ({"delta": 0.01}, {"profile": "deep"}, ExitSettings(0.01, 0.0, 6, 6, "deep")),
        ({}, {"profile": "fast", "delta": 1}, ExitSettings(1.0, 0.5, 1, 4, "fast")),
        ({"profile": "fast"}, {"min_blocks": 2}, ExitSettings(0.1, 0.5, 2, 4, "fast")),
        ({"max_blocks": 2}, {"min_blocks": 6}, ExitSettings(1e-4, 0.0, 6, 6)),
        ({"min_blocks": 5}, {"max_blocks": 2}, ExitSettings(1e-4, 0.0, 2, 2)),
        ({"min_blocks": 5}, {"profile": "fast"}, ExitSettings(0.1, 0.5, 4, 4, "fast")),
        ({"profile": "fast"}, {"profile": "deep"}, ExitSettings(1e-4, 0.0, 6, 6, "deep")),
    ],
)
def test_the_first_that_states_a_value_wins(
    defaults: dict[str, Any], asked: dict[str, Any], expected: ExitSettings
) -> None:
    assert settled(ExitOptions(**defaults), **asked) == expected


def test_a_profile_that_the_model_has_not_got_is_named() -> None:
    with pytest.raises(InputError, match="model 'tiny' has no profile 'slow'; it has fast, deep"):
        settled(profile="slow")
    with pytest.raises(InputError, match="has no profile ''"):
        settled(profile="")


def test_options_that_cannot_hold_together_are_refused_wherever_they_come_from() -> None:
    with pytest.raises(InputError, match="min_blocks is 5, above max_blocks, which is 4"):
        settled(profile="fast", min_blocks=5)
    with pytest.raises(InputError, match=r"delta is 2\.0 and must lie in"):
        settled(ExitOptions(delta=2.0))
