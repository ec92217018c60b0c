"""
How a row may leave early: what a request asks (ExitOptions) and what is then in effect (ExitSettings).

Each value is taken from the first that states one: the request, the profile that it names, the defaults of the model
(its checkpoint's, or the service's for it). A delta that is asked for is the rule alone: a default threshold, which
would let rows go whatever delta says, gives way to it. The fields' metadata is what the wire and the documentation say
of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from beexformer.model.config import DEFAULT_DELTA, BEEConfig
from beexformer.model.described import described
from beexformer.model.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitOptions:
    """What a request asks; None leaves it to the profile or the model."""

    delta: float | None = described(
        "leave when a block lowers the entropy by less than this fraction; null takes the model's default",
        ge=-1,
        le=1,
        allow_inf_nan=False,
        strict=True,
        default=None,
    )
    entropy_threshold: float | None = described(
        "leave, whatever delta says, once the entropy is below this share of ln(classes), or of ln(2) for each of "
        "several labels a text; 0: never; null takes the model's default, or 0 where the request states a delta",
        ge=0,
        le=1,
        allow_inf_nan=False,
        strict=True,
        default=None,
    )
    min_blocks: int | None = described("run at least so many blocks", ge=1, strict=True, default=None)
    max_blocks: int | None = described("run at most so many blocks", ge=1, strict=True, default=None)
    profile: str | None = described(
        "name of a profile of the model, which sets the options above; those that are given as well win",
        strict=True,
        default=None,
    )

    def stated(self) -> str:
        """What is set, for people: "delta -1, entropy_threshold 0.4"."""
        return ", ".join(f"{name} {value}" for name, value in self.to_dict().items())

    def to_dict(self) -> dict[str, float | int | str]:
        """What is set, by name."""
        result = {each.name: getattr(self, each.name) for each in fields(ExitOptions)}  # a request has other fields too
        return {name: value for name, value in result.items() if value is not None}

    def over(self, other: "ExitOptions") -> "ExitOptions":
        """These options, and `other`'s where these say nothing."""
        return ExitOptions(**{**other.to_dict(), **self.to_dict()})  # type: ignore[arg-type]


NOTHING_ASKED = ExitOptions()


@dataclass(frozen=True, slots=True)
class ExitSettings:
    """What is in effect for a row. Leave after block c, with min_blocks <= c <= max_blocks (1-based), by
    `exits.should_exit` with `delta` and `entropy_threshold` (a share of ln m, 0 is never)."""

    delta: float
    entropy_threshold: float
    min_blocks: int
    max_blocks: int
    profile: str | None = None


def resolve(
    options: ExitOptions,
    *,
    defaults: ExitOptions,
    profiles: Mapping[str, ExitOptions],
    config: BEEConfig,
    model: str,
) -> ExitSettings:
    """Raises InputError, one sentence, for a value out of its range or a profile that the model hasn't got."""
    if options.delta is not None and options.entropy_threshold is None and options.profile is None:
        options = replace(options, entropy_threshold=0.0)
    profile = defaults.profile if options.profile is None else options.profile
    if profile is not None:
        if profile not in profiles:
            known = f"it has {', '.join(profiles)}" if profiles else "it has none"
            raise InputError(f"model {model!r} has no profile {profile!r}; {known}")
        options = options.over(profiles[profile])
    stated, options, C = options, options.over(defaults), config.n_block
    delta = DEFAULT_DELTA if options.delta is None else float(options.delta) + 0.0  # no -0.0
    if not -1.0 <= delta <= 1.0:  # also refuses NaN
        raise InputError(f"delta is {delta} and must lie in [-1, 1]")
    threshold = 0.0 if options.entropy_threshold is None else float(options.entropy_threshold)
    if not 0.0 <= threshold <= 1.0:
        raise InputError(f"entropy_threshold is {threshold} and must lie in [0, 1], a share of ln(classes)")
    low = 1 if options.min_blocks is None else options.min_blocks
    high = C if options.max_blocks is None else options.max_blocks
    for name, value in (("min_blocks", low), ("max_blocks", high)):
        if not 1 <= value <= C:
            raise InputError(f"{name} is {value} and must lie in 1..{C}, the blocks of model {model!r}")
    if low > high and stated.max_blocks is None:
        high = low  # a default gives way to a bound that was asked for
    if low > high and stated.min_blocks is None:
        low = high
    if low > high:
        raise InputError(f"min_blocks is {low}, above max_blocks, which is {high}")
    if high < config.exits[0]:
        raise InputError(f"max_blocks is {high}, but model {model!r} has its only exit after block {C}")
    return ExitSettings(delta, threshold, low, high, profile)
