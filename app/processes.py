"""
Several processes that count together: one file a slot and kind of metric, summed at a scrape by prometheus-client.

A file belongs to a slot, not to a process: a successor goes on counting where a killed worker stopped, so that no count
is lost and no file left over. Gauges, which say how things are, go with their process.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client reads it wherever it opens a file


@dataclass(frozen=True)
class Processes(Collector):
    """The files, and `pids()`, the processes that count in them now. Collects process_* of each, told apart by pid,
    because a sum of CPU seconds would fall when a process dies."""

    folder: Path
    pids: Callable[[], list[int]]

    def enter(self, slot: int) -> None:
        """All metrics that this process makes from now on are of this slot, which no other living process has."""
        os.environ[FOLDER] = str(self.folder)
        values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]

    def leave(self, slot: int) -> None:
        """The process of the slot has ended."""
        mark_process_dead(slot, str(self.folder))  # type: ignore[no-untyped-call]

    def registry(self) -> CollectorRegistry:
        """What all of them have counted, as of now."""
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self.folder))  # type: ignore[no-untyped-call]
        registry.register(self)
        return registry

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for pid in sorted(self.pids()):
            for one in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                family = families.setdefault(one.name, Metric(one.name, one.documentation, one.type))
                for sample in one.samples:
                    family.add_sample(sample.name, {"pid": str(pid)}, sample.value)
        return families.values()


@contextmanager
def counting(pids: Callable[[], list[int]]) -> Iterator[Processes]:
    """Processes with a folder of their own, gone with the block."""
    folder = Path(tempfile.mkdtemp(prefix="beexformer-metrics-"))
    try:
        yield Processes(folder, pids)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
