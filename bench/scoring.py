"""
What `beexformer classify rows.csv -o out.csv` does with 100,000 rows: rows/s of one process and of two, in turns, and
that a run which is killed three times ends with every row once, in order. Ratios are medians of turns. On a busy
machine CPU seconds say more than seconds: two processes that spend as many as one are twice as fast on two idle cores,
but for the start (a second).

    python bench/scoring.py --data $BEE_DATA [--rows 100000] [--turns 3]
"""

import argparse
import csv
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from beexformer.model import tables

COMMAND = [sys.executable, "-c", "from beexformer.cli import main; main()", "classify"]


def write(source: Path, data: Path, rows: int) -> list[str]:
    """A file of so many phrases of SST-2 with ids; the ids."""
    phrases = tables.strings(tables.read(data / "glue" / "sst2" / "train.tsv.gz"), ["sentence"])[0]
    ids = [f"{i:07}" for i in range(rows)]
    with source.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "review"])
        writer.writerows([name, phrases[i % len(phrases)]] for i, name in enumerate(ids))
    return ids


def start(source: Path, out: Path, processes: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*COMMAND, str(source), "--text", "review", "-o", str(out), "--threads", str(processes)])


def seconds(source: Path, out: Path, processes: int) -> tuple[float, float]:
    """From start to end, and of a CPU, all processes together."""
    begun = time.perf_counter()
    process = start(source, out, processes)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    return time.perf_counter() - begun, used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ids = write(folder / "rows.csv", asked.data, asked.rows)
        turns: list[dict[int, tuple[float, float]]] = []
        for turn in range(asked.turns):
            turns.append({n: seconds(folder / "rows.csv", folder / f"{turn}of{n}.csv", n) for n in (1, 2)})
            print(f"turn {turn + 1}: {turns[-1]}", flush=True)
        took, cpu = ({n: statistics.median(turn[n][i] for turn in turns) for n in (1, 2)} for i in (0, 1))
        for kill in range(3):
            process = start(folder / "rows.csv", folder / "killed.csv", 2)
            while (parts := len([*(folder / "killed.csv.partial").glob("[0-9]*.csv")])) < (
                kill + 1
            ) * asked.rows / 2000:
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            process.wait()
            print(f"kill {kill + 1}: {parts} parts were there", flush=True)
        assert start(folder / "rows.csv", folder / "killed.csv", 2).wait() == 0
        whole = (folder / "killed.csv").read_bytes() == (folder / "0of1.csv").read_bytes()
        in_order = tables.strings(tables.read(folder / "killed.csv"), ["id"])[0] == ids
    print(f"one process {asked.rows / took[1]:,.0f} rows/s, two {asked.rows / took[2]:,.0f}")
    ratio, cpu_ratio = (statistics.median(turn[1][i] / turn[2][i] for turn in turns) for i in (0, 1))
    said = {"seconds": took, "cpu_seconds": cpu, "ratio": ratio, "cpu_ratio": cpu_ratio}
    print(json.dumps({**said, "same_bytes": whole, "in_order": in_order}))
    assert whole
    assert in_order


if __name__ == "__main__":
    main()
