"""
Brown-out: where requests begin to wait, texts leave earlier, before any is refused.

Between two bounds of waiting, the entropy threshold in effect rises from the model's own to `threshold`. Whoever says
how a text may leave (a delta, an entropy threshold or a profile, which may stand for a promise about errors) gets just
that, and so does a model whose defaults name a profile. The answer says which threshold was used.
"""

from dataclasses import dataclass

from beexformer.model.engine import Engine
from beexformer.model.options import ExitOptions


@dataclass(frozen=True, slots=True)
class Brownout:
    """`begins` and `ends` are seconds of waiting, `threshold` is a share of ln(classes)."""

    begins: float
    ends: float
    threshold: float

    def options(self, asked: ExitOptions, engine: Engine, wait: float) -> ExitOptions:
        """What is to be in effect instead of `asked`, or `asked` itself."""
        if wait <= self.begins or asked.delta is not None or asked.entropy_threshold is not None or asked.profile:
            return asked
        own = engine.resolve(asked)
        if own.profile or own.entropy_threshold >= self.threshold:
            return asked
        share = min(1.0, (wait - self.begins) / max(1e-9, self.ends - self.begins))
        threshold = own.entropy_threshold + share * (self.threshold - own.entropy_threshold)
        return ExitOptions(entropy_threshold=threshold, min_blocks=asked.min_blocks, max_blocks=asked.max_blocks)
