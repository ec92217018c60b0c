"""
deploy/ray/score.py beside `beexformer classify` with as many processes, on the same rows on this machine:

    python bench/ray_scoring.py --data folder [--rows 1000000] [--only killed]
    taskset -c 0 python bench/ray_scoring.py --data folder --rows 100000 --processes 1   # where others use the machine

- rows/s of each, in turns, start and end included, and CPU seconds, which say more on a busy machine; of Ray by kind of
  process. The command line runs as nice as Ray's workers do (15)
- a run in which an actor is killed, and later the driver with its cluster, and which the same command finishes:
  its rows are those of the command line, every column equal to the bit, none lost, none twice
- memory of the cluster: the most that all its processes had together, pages that they share counted once

`folder` has glue/sst2/train.tsv.gz. Needs the extras [ray] and [train]. Ends with one line of JSON.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from timing import cpu_seconds, machine, processes, today

from beexformer.model import tables

SCORE = Path(__file__).parent.parent / "deploy/ray/score.py"
NICE = int(os.environ.get("RAY_worker_niceness", "15"))  # noqa: SIM112  # Ray's name, of its workers
CLASSIFY = [sys.executable, "-c", "from beexformer.cli import main; main()", "classify"]


def write(source: Path, data: Path, rows: int) -> None:
    """A file of so many phrases of SST-2 with ids."""
    phrases = tables.strings(tables.read(data / "glue/sst2/train.tsv.gz"), ["sentence"])[0]
    texts = [phrases[i % len(phrases)] for i in range(rows)]
    pq.write_table(pa.table({"id": [f"{i:09}" for i in range(rows)], "review": texts}), source)


def memory(pids: list[int]) -> int:
    """Bytes, each page divided among those who share it."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def kind(pid: int, driver: int) -> str:
    """What a process of Ray is there for, as short as its title allows."""
    said = title(pid)
    if "::" in said:  # a worker, whose title is what it is at
        return "engines" if "Scorer" in said else "tasks"
    if pid == driver:
        return "driver"
    names = (
        "raylet",
        "gcs_server",
        "dashboard/agent.py",
        "runtime_env/agent",
        "log_monitor",
        "monitor.py",
        "dashboard",
    )
    return next((name for name in names if name in said), "other")


def command_line(source: Path, out: Path, workers: int) -> tuple[float, float]:
    """(seconds, CPU seconds) of so many processes."""
    begun = time.perf_counter()
    command = [*CLASSIFY, source, "--text", "review", "-o", out, "--threads", workers]
    run = subprocess.Popen([*map(str, command)], preexec_fn=lambda: os.nice(max(0, NICE - os.nice(0))))
    _, status, used = os.wait4(run.pid, 0)
    assert status == 0
    return time.perf_counter() - begun, used.ru_utime + used.ru_stime


def start(source: Path, out: Path, block: int, workers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, SCORE, "--input", source, "--text", "review", "--id", "id", "--out", out]
    command += ["--actors", workers, "--rows", block]
    return subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def on_ray(source: Path, out: Path, block: int, workers: int) -> tuple[float, int, dict[str, float]]:
    """(seconds, bytes, CPU seconds by kind of process) of one run."""
    begun, most, looked = time.perf_counter(), 0, 0.0
    used: dict[int, float] = {}
    kinds: dict[int, str] = {}
    run = start(source, out, block, workers)
    while run.poll() is None:
        pids = processes(run.pid)
        for pid in pids:
            used[pid] = max(used.get(pid, 0), cpu_seconds(pid))
            if kinds.get(pid) != "engines":
                kinds[pid] = kind(pid, run.pid)
        if time.perf_counter() - looked > 15:
            most, looked = max(most, memory(pids)), time.perf_counter()
        time.sleep(2)  # oftener, looking at a thousand threads would cost what it looks for
    assert run.returncode == 0
    took: dict[str, float] = {}
    for pid, seconds in used.items():
        took[kinds[pid]] = took.get(kinds[pid], 0) + seconds
    return time.perf_counter() - begun, most, took


def parts(out: Path) -> int:
    return len([*out.glob("*.parquet")])


def killed_on_ray(source: Path, out: Path, block: int, blocks: int, workers: int) -> dict[str, Any]:
    """Kill an actor after a quarter of the blocks and everything after half; go on."""
    run = start(source, out, block, workers)
    while parts(out) < blocks // 4:
        assert run.poll() is None, "it ended before it was killed"
        time.sleep(0.2)
    actors = [pid for pid in processes(run.pid) if "MapWorker(MapBatches(Scorer))" in title(pid)]
    os.kill(actors[0], signal.SIGKILL)
    at_first = parts(out)
    while parts(out) < blocks // 2:
        assert run.poll() is None, "it ended of the actor's death"
        time.sleep(0.2)
    for pid in processes(run.pid):  # a cluster that a driver started goes with it; what it left would go on writing
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    run.wait()
    at_second = parts(out)
    again = start(source, out, block, workers)
    printed, _ = again.communicate()
    assert again.returncode == 0
    return {"actor_killed_at": at_first, "driver_killed_at": at_second, **json.loads(printed.splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--block", type=int, default=20_000, help="rows of a block; there have to be eight or more")
    parser.add_argument("--processes", type=int, default=2, help="of the command line, and actors of Ray (%(default)s)")
    parser.add_argument("--turns", type=int, default=1, help="of each; the killed run is one")
    parser.add_argument("--only", choices=("killed",), help="no run of Ray that nobody kills")
    asked = parser.parse_args()
    took: dict[str, list[float]] = {"command_line": [], "ray": []}
    cpu: dict[str, list[float]] = {"command_line": [], "ray": []}
    kinds: dict[str, float] = {}
    most = 0
    with tempfile.TemporaryDirectory(prefix="beexformer-ray-") as name:
        folder = Path(name)
        source = folder / "rows.parquet"
        write(source, asked.data, asked.rows)
        for turn in range(asked.turns):
            seconds, used = command_line(source, folder / f"whole{turn}.parquet", asked.processes)
            took["command_line"].append(seconds)
            cpu["command_line"].append(used)
            print(f"command line: {asked.rows / seconds:,.0f} rows/s, {used:.1f} CPU s", flush=True)
            if not asked.only:
                seconds, bytes_, kinds = on_ray(source, folder / f"ray{turn}", asked.block, asked.processes)
                took["ray"].append(seconds)
                cpu["ray"].append(sum(kinds.values()))
                most = max(most, bytes_)
                print(f"Ray: {asked.rows / seconds:,.0f} rows/s, {cpu['ray'][-1]:.1f} CPU s", flush=True)
        killed = killed_on_ray(source, folder / "killed", asked.block, asked.rows // asked.block, asked.processes)
        print(f"killed: {killed}", flush=True)
        whole, of_ray = pq.read_table(folder / "whole0.parquet"), pq.read_table(folder / "killed").sort_by("id")
        equal = whole.equals(of_ray.cast(whole.schema))
    result: dict[str, Any] = {"rows": asked.rows, "rows_of_killed": killed["rows"], "equal_to_the_bit": equal}
    result |= {f"{name}_rows_per_s": round(asked.rows / min(times)) for name, times in took.items() if times}
    if took["ray"]:
        result["ratio"] = round(min(took["command_line"]) / min(took["ray"]), 3)
        result["cpu_ratio"] = round(min(cpu["command_line"]) / min(cpu["ray"]), 3)
        result["cpu_seconds"] = {name: round(min(seconds), 1) for name, seconds in cpu.items()}
        result["cpu_seconds_of_ray"] = {name: round(seconds, 1) for name, seconds in sorted(kinds.items())}
        result["cluster_mb"] = round(most / 1e6)
    print(json.dumps({**result, "machine": machine(), "date": today()}))
    assert equal


if __name__ == "__main__":
    main()
