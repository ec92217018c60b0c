"""
The answer to one text, under the names that it has everywhere: in Python, on the command line and over HTTP.

What is None is left out of the JSON. The fields' metadata is what the API's documentation says of them.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from beexformer.model.described import described

if TYPE_CHECKING:
    from beexformer.model.cost import CostModel


@dataclass(frozen=True, slots=True)
class Cost:
    """What the engine's cost model predicts for a text, on this machine as busy as it is."""

    predicted_ms: float = described("engine milliseconds of the blocks that were run")
    predicted_ms_full: float = described("engine milliseconds of the same text through all blocks")


@dataclass(slots=True, kw_only=True)
class Answer:
    """The class of one text and what it took to find it. Not to be changed; declared frozen, its 24 fields would take
    four microseconds longer to set, a hundredth of a sentence."""

    label: str = described("the most probable class; of several labels a text whether it applies or not")
    score: float = described("its probability")
    scores: dict[str, float] = described("the probability of each class, in the order of the model's labels")
    labels: tuple[str, ...] | None = described(
        "the labels that apply, those whose score reaches the model's threshold, in the order of the model's labels, "
        "none perhaps; absent where the model gives one label a text",
        default=None,
    )
    exit_index: int = described("block after which the row left, counted from 1")
    num_blocks: int = described("blocks of the model")
    entropies: tuple[float, ...] = described("entropy of the scores after each exit that was reached, in nats")
    flops: float = described("operations executed: real ones plus binary ones / 64")
    flops_full: float = described("operations of the same text through all blocks")
    flops_saved: float = described("flops_full less flops")
    flops_saved_ratio: float = described("flops_saved as a share of flops_full")
    delta: float = described("the delta that was in effect")
    entropy_threshold: float | None = described(
        "the entropy_threshold that was in effect; absent where it was 0", default=None
    )
    min_blocks: int | None = described("the min_blocks that was in effect; absent where it was 1", default=None)
    max_blocks: int | None = described(
        "the max_blocks that was in effect; absent where it was the model's depth", default=None
    )
    profile: str | None = described("the profile that was in effect; absent where there was none", default=None)
    model: str = described("name of the model that answered")
    tokens: int = described("tokens read, special ones included")
    truncated: bool = described("the text was longer than the model's window and was cut")
    unknown_ratio: float | None = described(
        "share of the text's own tokens that the vocabulary doesn't know, as emoji or a foreign script; absent where "
        "it is 0",
        default=None,
    )
    candidate_flops: float | None = described(
        "operations spent on what candidate_labels are called, where that wasn't kept from an earlier request; part of "
        "flops and of flops_full; absent where there were none",
        default=None,
    )
    cost: Cost | None = described("what the cost model predicts; only if it was asked for", default=None)

    @property
    def says(self) -> tuple[str, ...]:
        """What is answered: the label, or the labels that apply."""
        return (self.label,) if self.labels is None else self.labels

    def with_candidates(self, spent: float) -> "Answer":
        """The same answer with the FLOPs of its labels' vectors."""
        if not spent:
            return self
        flops, full = self.flops + spent, self.flops_full + spent
        ratio = self.flops_saved / full
        return replace(self, flops=flops, flops_full=full, flops_saved_ratio=ratio, candidate_flops=spent)

    def priced(self, model: "CostModel") -> "Answer":
        """The same answer with its `cost`."""
        predicted = (model.milliseconds(self.tokens, blocks) for blocks in (self.exit_index, self.num_blocks))
        return replace(self, cost=Cost(*predicted))
