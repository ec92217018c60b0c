"""
What a row will cost in milliseconds, on this machine: a model of the engine's time with four coefficients, measured in
half a second.

    ms(n tokens, c blocks) = a + c (p + q n + r pairs(n))

a is what every row pays once; p, q and r are a block's own cost, a token's (products, gates, norms) and a pair of
tokens' (attention, which works on 4 queries and 16 keys at a time, so n counts rounded up). A block's head is in p and
q. Knows no engine: it is given something to time.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

LENGTHS = (4, 9, 16, 25, 36, 49, 64, 96, 128, 192, 256, 384, 512)
SECONDS = 0.5


@dataclass(frozen=True)
class CostModel:
    """Predicts the engine's time for one row. `coefficients` are (a, p, q, r) in milliseconds, `fit_error` is the
    median relative error on what was measured, `calibrated_at` a date and time (UTC, ISO 8601)."""

    coefficients: tuple[float, ...]
    fit_error: float
    calibrated_at: str

    def milliseconds(self, tokens: int, blocks: int) -> float:
        """For a row of `tokens` tokens that runs `blocks` blocks."""
        return float(np.dot(self.coefficients, _features(tokens, blocks)))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def calibrate(run: Callable[[int, int], object], max_tokens: int, depths: Sequence[int]) -> CostModel:
    """Time `run(tokens, blocks)` over lengths up to `max_tokens` and the given numbers of blocks, in turn, for SECONDS
    but at least three times each; fit the medians by least squares of relative errors."""
    points = [(n, c) for n in sorted({*(n for n in LENGTHS if n < max_tokens), max_tokens}) for c in sorted({*depths})]
    found: dict[tuple[int, int], list[float]] = {point: [] for point in points}
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(found[points[-1]]) < 3:
        for point in points:
            start = time.perf_counter()
            run(*point)
            found[point].append(1000 * (time.perf_counter() - start))
    measured = np.array([np.median(found[point]) for point in points])
    features = np.array([_features(*point) for point in points])
    coefficients = np.linalg.lstsq(features / measured[:, None], np.ones(len(points)), rcond=None)[0]
    errors = np.abs(features @ coefficients / measured - 1)
    return CostModel(
        tuple(coefficients.tolist()), float(np.median(errors)), datetime.now(UTC).isoformat("T", "seconds")
    )


def _features(tokens: int, blocks: int) -> tuple[float, ...]:
    pairs = -(-tokens // 4) * 4 * -(-tokens // 16) * 16
    return 1, blocks, blocks * tokens, blocks * pairs
