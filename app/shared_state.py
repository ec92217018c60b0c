"""
A few numbers in memory that the parent and all workers share: who is there, is it alive, how much has it to do, and
what became of those who are not there any more.

Each number is written by one process only and read at a glance; nothing is locked.
"""

import mmap

EMPTY, STARTING, OPENING, SERVING, LEAVING = range(5)
"""States of a slot. OPENING is the stand-in's; who is LEAVING takes no connection any more."""
REFUSED, ENDED, HUNG = 0, 1, 2  # counts: texts that the stand-in refused; workers that were replaced, and why


class SharedState:
    """One column a slot; a slot has one process at a time."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        rows = memoryview(mmap.mmap(-1, (4 * slots + 3) * 8)).cast("q")
        self.pid, self.state, self.beats, self.connections = (rows[i * slots : (i + 1) * slots] for i in range(4))
        self.counts = rows[4 * slots :]
        """By REFUSED, ENDED and HUNG."""

    def clear(self, slot: int) -> None:
        """The process of the slot has ended."""
        self.pid[slot] = self.state[slot] = self.beats[slot] = self.connections[slot] = 0

    def pids(self) -> list[int]:
        """The processes that are there."""
        return [pid for pid in self.pid if pid]

    def superseded(self, slot: int) -> bool:
        """The process of the slot is the stand-in, and a worker serves."""
        return self.state[slot] == OPENING and SERVING in self.state

    def crowded(self, slot: int, more: int = 0) -> bool:
        """Some other serving worker has fewer connections than this one, and `more` that are not counted yet."""
        own = self.connections[slot] + more
        return any(
            self.state[other] == SERVING and self.connections[other] < own
            for other in range(self.slots)
            if other != slot
        )
