"""
Quotas of API keys: so many texts a minute for each, counted by each process for itself.

A bucket that refills steadily and holds a minute's worth. A request is let in while there is a text's worth in it and
pays for all its texts afterwards, so a batch may take it below 0; the next request waits for that.
"""

import math
import time


class QuotaExceeded(Exception):
    """`retry_after` seconds is when a text may come again."""

    def __init__(self, per_minute: int, retry_after: int) -> None:
        super().__init__(f"this key has used up its {per_minute} texts a minute; try again in {retry_after} s")
        self.retry_after = retry_after


class Quotas:
    """Buckets of `keys` keys, told apart by their index."""

    def __init__(self, keys: int, per_minute: int) -> None:
        self.per_minute = per_minute
        self._full_at = [0.0] * keys  # when each bucket is full again, on the clock of time.monotonic()

    def admit(self, key: int) -> None:
        """Raise QuotaExceeded where less than a text's worth is left for this key."""
        empty_for = self._full_at[key] - time.monotonic() - 60.0 + 60.0 / self.per_minute  # for one text, it is
        if empty_for > 0:
            raise QuotaExceeded(self.per_minute, max(1, math.ceil(empty_for)))

    def pay(self, key: int, texts: int) -> None:
        """A request of this key was let in and had so many texts."""
        self._full_at[key] = max(self._full_at[key], time.monotonic()) + texts * 60.0 / self.per_minute
