"""
Numbers that several processes count and any of them can sum: float64, each process in an array of its own.

Written in place, without a lock: an increment is ten times cheaper than prometheus-client's between processes, and a
histogram's nine times (docs/log.md); still, what a killed process has counted stays. An array is a file that belongs to
a slot, not to a process: a successor goes on counting where a killed worker stopped, so that no count is lost and no
file left over. Numbers that say how things are, and not how often they were, go with their process.
"""

import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from beexformer.app.shared_state import SharedState

PID = 0  # index of the number that says which process counts here


@dataclass(slots=True)
class Processes:
    """Where processes count together, the shared state that says which ones do now, and the slot of this one."""

    folder: Path
    shared: SharedState
    slot: int = 0

    def enter(self, slot: int) -> None:
        """What this process counts from now on is of this slot, which no other living process has."""
        self.slot = slot


@contextmanager
def counting(shared: SharedState) -> Iterator[Processes]:
    """Processes with a folder of their own, gone with the block."""
    folder = Path(tempfile.mkdtemp(prefix="beexformer-metrics-"))
    try:
        yield Processes(folder, shared)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Counters:
    """`size` numbers in `values`, a memoryview of doubles; at first 0, or what the slot had. `layout` names what they
    mean: only arrays of the same layout are summed. Without `processes` there is one, and its array is memory."""

    def __init__(self, size: int, layout: str, processes: Processes | None) -> None:
        self._processes, self._layout = processes, layout
        if processes:
            descriptor = os.open(self._file(processes.slot), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.ftruncate(descriptor, 8 * size)
                memory = mmap.mmap(descriptor, 8 * size)
            finally:
                os.close(descriptor)
        else:
            memory = mmap.mmap(-1, 8 * size)
        self.values = memoryview(memory).cast("d")
        self.values[PID] = os.getpid()

    def read(self) -> tuple[list[list[float]], list[list[float]]]:
        """(the arrays of all slots, of those only whose process lives)."""
        if not self._processes:
            alone = [list[float](self.values)]
            return alone, alone
        files = sorted(self._processes.folder.glob(f"{self._layout}-*.counters"))
        arrays = [list[float](memoryview(file.read_bytes()).cast("d")) for file in files]
        pids = {os.getpid(), *self._processes.shared.pids()}
        return arrays, [array for array in arrays if array[PID] in pids]

    def _file(self, slot: int) -> Path:
        assert self._processes
        return self._processes.folder / f"{self._layout}-{slot}.counters"
