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
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Used:
    """What a command took: seconds, CPU seconds, and bytes of memory, each of its processes at its highest."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def used_by(command: Sequence[str], log: Path) -> Used:
    """Run a command, whose output goes to `log`. Its memory is looked at every 20 ms: what the system says of a process
    that has ended (`ru_maxrss`) is at least what its parent had when it was started. Raises SystemExit where it
    fails."""
    began, peaks = time.monotonic(), dict[int, int]()
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        while True:
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            for each in processes(process.pid):
                peaks[each] = max(peaks.get(each, 0), _highest(each))
            time.sleep(0.02)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(f"{' '.join(command)} failed: {log.read_text()[-2000:]}")
    return Used(time.monotonic() - began, used.ru_utime + used.ru_stime, sum(peaks.values()))


def _highest(pid: int) -> int:
    """Bytes that a process had at most so far; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


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
