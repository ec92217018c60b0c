"""
deploy/ray/score.py beside `beexformer classify` with two processes, on the same rows on this machine:

    python bench/ray_scoring.py --data folder [--rows 1000000] [--only killed]

- rows/s of each, in turns, start and end of Ray included
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
from timing import machine, processes, today

from beexformer.model import tables

SCORE = Path(__file__).parent.parent / "deploy/ray/score.py"
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


def command_line(source: Path, out: Path) -> float:
    """Seconds of two processes."""
    begun = time.perf_counter()
    subprocess.run([*CLASSIFY, source, "--text", "review", "-o", out, "--threads", "2"], check=True)
    return time.perf_counter() - begun


def start(source: Path, out: Path, block: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, SCORE, "--input", source, "--text", "review", "--id", "id", "--out", out]
    command += ["--actors", 2, "--rows", block]
    return subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def on_ray(source: Path, out: Path, block: int) -> tuple[float, int]:
    """(seconds, bytes) of one run."""
    begun, most = time.perf_counter(), 0
    run = start(source, out, block)
    while run.poll() is None:
        most = max(most, memory(processes(run.pid)))
        time.sleep(1)
    assert run.returncode == 0
    return time.perf_counter() - begun, most


def parts(out: Path) -> int:
    return len([*out.glob("*.parquet")])


def killed_on_ray(source: Path, out: Path, block: int, blocks: int) -> dict[str, Any]:
    """Kill an actor after a quarter of the blocks and everything after half; go on."""
    run = start(source, out, block)
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
    again = start(source, out, block)
    printed, _ = again.communicate()
    assert again.returncode == 0
    return {"actor_killed_at": at_first, "driver_killed_at": at_second, **json.loads(printed.splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--block", type=int, default=10_000, help="rows of a block; there have to be eight or more")
    parser.add_argument("--turns", type=int, default=1, help="of each; the killed run is one")
    parser.add_argument("--only", choices=("killed",), help="no run of Ray that nobody kills")
    asked = parser.parse_args()
    took: dict[str, list[float]] = {"command_line": [], "ray": []}
    most = 0
    with tempfile.TemporaryDirectory(prefix="beexformer-ray-") as name:
        folder = Path(name)
        source = folder / "rows.parquet"
        write(source, asked.data, asked.rows)
        for turn in range(asked.turns):
            took["command_line"].append(command_line(source, folder / f"whole{turn}.parquet"))
            print(f"command line, two processes: {asked.rows / took['command_line'][-1]:,.0f} rows/s", flush=True)
            if not asked.only:
                seconds, bytes_ = on_ray(source, folder / f"ray{turn}", asked.block)
                took["ray"].append(seconds)
                most = max(most, bytes_)
                print(f"Ray, two actors: {asked.rows / seconds:,.0f} rows/s", flush=True)
        killed = killed_on_ray(source, folder / "killed", asked.block, asked.rows // asked.block)
        print(f"killed: {killed}", flush=True)
        whole, of_ray = pq.read_table(folder / "whole0.parquet"), pq.read_table(folder / "killed").sort_by("id")
        equal = whole.equals(of_ray.cast(whole.schema))
    result: dict[str, Any] = {"rows": asked.rows, "rows_of_killed": killed["rows"], "equal_to_the_bit": equal}
    result |= {f"{name}_rows_per_s": round(asked.rows / min(times)) for name, times in took.items() if times}
    if took["ray"]:
        result["ratio"] = round(min(took["command_line"]) / min(took["ray"]), 3)
        result["cluster_mb"] = round(most / 1e6)
    print(json.dumps({**result, "machine": machine(), "date": today()}))
    assert equal


if __name__ == "__main__":
    main()
