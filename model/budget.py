"""
A profile that is a number of milliseconds: exit options with the FLOPs that they took, of which each machine takes
those that it has the time for, by its own cost model.
"""

from collections.abc import Callable
from dataclasses import dataclass

from beexformer.model.options import ExitOptions

MOST = 64  # rungs


@dataclass(frozen=True)
class Rung:
    """Exit options, and what they were seen to do: mean FLOPs of a text, and the share of texts that left after each
    block [C]."""

    options: ExitOptions
    flops: float
    exits: tuple[float, ...]


@dataclass(frozen=True)
class Budget:
    """So many milliseconds a text of `tokens` tokens, which those of the profile's rows had on average. `rungs` come
    with FLOPs and score rising. ValueError for what can't be."""

    milliseconds: float
    tokens: int
    rungs: tuple[Rung, ...]

    def __post_init__(self) -> None:
        if not (0 < self.milliseconds < 1e6 and 0 < self.tokens < 1e6 and 0 < len(self.rungs) <= MOST):
            raise ValueError(f"a budget has milliseconds and tokens above 0, and 1 to {MOST} rungs")
        flops = [rung.flops for rung in self.rungs]
        if flops != sorted(flops):
            raise ValueError("the rungs of a budget come in the order of their FLOPs")

    def predicted(self, rung: Rung, cost: Callable[[int, int], float]) -> float:
        """Mean milliseconds of a text, by a cost model's `milliseconds(tokens, blocks)`."""
        return sum(share * cost(self.tokens, c) for c, share in enumerate(rung.exits, 1) if share)

    def fit(self, cost: Callable[[int, int], float]) -> ExitOptions:
        """The last rung within the milliseconds; where none is, the first."""
        within = [rung for rung in self.rungs if self.predicted(rung, cost) <= self.milliseconds]
        return (within or self.rungs)[-1 if within else 0].options
