"""
What a row will cost in milliseconds, on this machine and as busy as it is: a model of the engine's time.

    ms(n tokens, c blocks) = ratio (a + c (p + q n + r pairs(n)))

a is what every row pays once; p, q and r are a block's own cost, a token's (products, gates, norms) and a pair of
tokens' (attention, which works on 16 queries and 4 keys at a time, so n counts rounded up). A block's head is in p and
q. The four coefficients begin as those of a level of instructions, and follow the rows that are run, so that nothing is
timed before the first; `ratio` follows them twice as fast, because how busy a machine is changes, and what machine
it is does not. Who can't wait for rows has the coefficients timed, for a fifth of a second (`calibrate`). Knows no
engine: it is given something to time.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

LENGTHS = (4, 8, 12, 16, 20, 24, 28, 32, 48, 64, 96, 128, 256, 512)  # denser where sentences are
SECONDS = 0.05  # and two or three times as much for the longest, of which each is run three times
ROUNDS, NEAR = 10, 0.01  # of weighted least squares; errors below that are equal
# by level of instructions, at D = 384, measured on a server of 2023 (Sapphire Rapids) with attention on real numbers;
# p and r times what integers make of them on one of 2022 (Zen 4)
COEFFICIENTS = {
    "x86-64-v4-vpopcntdq": (0.015, 0.0078, 0.0024, 7.4e-6),
    "x86-64-v3": (0.0125, 0.013, 0.0046, 1.4e-5),
    "x86-64-v2": (0.061, 0.045, 0.032, 9.2e-5),
}
STEP = 1.01  # of the ratio, up or down with every row: a running median, deaf to how far off a single row was
PART_STEP = 1.005  # of a coefficient whose part is all of a row, to the power of its part where that is less

Terms = tuple[float, float, float, float]
"""A number for each of a, p, q and r."""


class CostModel:
    """Predicts the engine's time for one row. `coefficients` are (a, p, q, r) in milliseconds, `fit_error` the median
    relative error on what they were fitted to, `calibrated_at` a date and time (UTC, ISO 8601); both are None where
    nothing was timed."""

    def __init__(
        self, coefficients: Sequence[float], fit_error: float | None = None, calibrated_at: str | None = None
    ) -> None:
        a, p, q, r = coefficients
        self.coefficients: Terms = (a, p, q, r)
        self.fit_error, self.calibrated_at = fit_error, calibrated_at
        self.ratio = 1.0
        self._first = self.coefficients
        # by tokens and blocks, two megabytes at most
        self._stepped: dict[tuple[int, int], tuple[Terms, Terms, Terms]] = {}

    def milliseconds(self, tokens: int, blocks: int) -> float:
        """For a row of `tokens` tokens that runs `blocks` blocks."""
        return self.ratio * self.coefficients[0] + blocks * self.of_block(tokens)

    def of_block(self, tokens: int) -> float:
        """Milliseconds for one block of such a row."""
        _, p, q, r = self.coefficients
        return self.ratio * (p + q * tokens + r * _pairs(tokens))

    def observe(self, tokens: int, blocks: int, milliseconds: float) -> None:
        """A row has been run. Threads may call this at once: a step that is lost is one of many.

        A coefficient's part is that of the first coefficients, so that a step up and one down cancel, whatever came
        between: by the present ones all would shrink by 1e-5 or so with every row."""
        known = self._stepped.get((tokens, blocks))
        if known is None:
            known = self._stepped[tokens, blocks] = self._steps(tokens, blocks)
        (one, c, cn, pairs), up, down = known
        a, p, q, r = self.coefficients
        if milliseconds > self.ratio * (a * one + p * c + q * cn + r * pairs):
            self.ratio *= STEP
            step = up
        else:
            self.ratio /= STEP
            step = down
        self.coefficients = (a * step[0], p * step[1], q * step[2], r * step[3])

    def _steps(self, tokens: int, blocks: int) -> tuple[Terms, Terms, Terms]:
        """(features of such a row, what its coefficients are multiplied by for a step up, and down)."""
        features = _features(tokens, blocks)
        parts = [c * f for c, f in zip(self._first, features, strict=True)]
        up = [PART_STEP ** (part / sum(parts)) for part in parts]
        return features, (up[0], up[1], up[2], up[3]), (1 / up[0], 1 / up[1], 1 / up[2], 1 / up[3])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for users."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


def of_level(d_model: int, level: str) -> CostModel:
    """For a network that nobody has timed, on this level of instructions (`target.level`); others begin as AVX2."""
    a, p, q, r = COEFFICIENTS.get(level, COEFFICIENTS["x86-64-v3"])
    wide = d_model / 384
    return CostModel((a, p, q * wide**2, r * wide))


def calibrate(run: Callable[[int, int], object], max_tokens: int, depths: Sequence[int]) -> CostModel:
    """Time `run(tokens, blocks)` over lengths up to `max_tokens` and the given numbers of blocks, in turn: each until
    it has had its part of SECONDS, but at least three times. Of each the quickest counts, because whatever else the
    machine does only adds; these are fitted by least relative errors (least squares of which each is weighted by the
    inverse of its last error), so that a length that was held up every time counts little."""
    points = [(n, c) for n in sorted({*(n for n in LENGTHS if n < max_tokens), max_tokens}) for c in sorted({*depths})]
    result: dict[tuple[int, int], list[float]] = {point: [] for point in points}
    share = 1000 * SECONDS / len(points)
    while waiting := [point for point, times in result.items() if len(times) < 3 or sum(times) < share]:
        for point in waiting:
            start = time.perf_counter()
            run(*point)
            result[point].append(1000 * (time.perf_counter() - start))
    measured = np.array([min(result[point]) for point in points])
    features = np.array([_features(*point) for point in points])
    relative = features / measured[:, None]
    weights = np.ones(len(points))
    for _ in range(ROUNDS):
        coefficients = _fit(relative, weights)
        errors = np.abs(relative @ coefficients - 1)
        weights = 1 / np.maximum(errors, NEAR)
    return CostModel(coefficients.tolist(), float(np.median(errors)), datetime.now(UTC).isoformat("T", "seconds"))


def _fit(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted least squares of features @ x - 1, x not negative: what would be is 0, and the rest is fitted anew."""
    result, kept, root = np.zeros(features.shape[1]), np.arange(features.shape[1]), np.sqrt(weights)
    while len(kept):
        some = np.linalg.lstsq(root[:, None] * features[:, kept], root, rcond=None)[0]
        if (some >= 0).all():
            result[kept] = some
            break
        kept = np.delete(kept, some.argmin())
    return result


def _features(tokens: int, blocks: int) -> Terms:
    return 1.0, float(blocks), float(blocks * tokens), float(blocks * _pairs(tokens))


def _pairs(tokens: int) -> int:
    return -(-tokens // 4) * 4 * -(-tokens // 16) * 16
