"""
How the benches time: peers in turns, medians, one thread that stays where it is, and the machine named beside.
"""

import datetime
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from beexformer.model import target

Calls = Mapping[str, Callable[[], object]]
TURN = 0.01  # seconds


def pin(threads: int) -> None:
    """Keep this process on the last `threads` of its CPUs, so that nothing moves it in the middle of a run."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(ALLOWED)[-threads:])


ALLOWED = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def interleaved(calls: Calls, seconds: float) -> dict[str, float]:
    """Median seconds of each call. All take turns, for about `seconds` but at least three rounds, so that what slows
    the machine for a while slows them alike; a turn is some milliseconds of calls after one that isn't timed, so that
    none pays for what its neighbour left in the caches."""
    turns = {name: max(1, min(1000, int(TURN / _timed(call, 1)))) for name, call in calls.items()}
    spent: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(spent[next(reversed(calls))]) < 3:
        for name, call in calls.items():
            spent[name].append(_timed(call, turns[name]))
    return {name: statistics.median(times) for name, times in spent.items()}


def _timed(call: Callable[[], object], times: int) -> float:
    call()
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


SPINNING = """
import os
os.sched_setaffinity(0, {%s})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while True: os.sched_yield()
"""


@contextmanager
def awake(cpus: Sequence[str]) -> Iterator[None]:
    """Keep these CPUs from going idle, by processes that run only where nothing else wants to (SCHED_IDLE).

    A CPU that sleeps has to be woken for what comes next. A virtual machine's host does that, and takes up to 0.3 ms:
    as long as a sentence. Where a queue is measured, that time is neither the service's nor the queue's.
    """
    spinning = [subprocess.Popen([sys.executable, "-c", SPINNING % cpu]) for cpu in cpus]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def machine() -> str:
    """CPU, its number here and the level that kernels are compiled for."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} CPUs, {target.level}"


def today() -> str:
    return datetime.date.today().isoformat()


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, to the nanosecond; 0 once it has ended. `/proc` has it in hundredths."""
    try:
        return time.clock_gettime(~pid << 3 | 2)  # its CPU clock, as clock_getcpuclockid of the C library names it
    except OSError:
        return 0.0


def processes(pid: int) -> list[int]:
    """A process and all below it."""
    result = [pid]
    for one in result:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                result += [int(child) for child in children.read_text().split()]
            except OSError:  # it ended meanwhile
                continue
    return result
