"""
What two processes that share nothing cost each other on this machine: CPU time of a row where one engine runs, and
where two do, each on a CPU of its own.

    python bench/beside.py BODIES [SECONDS]

BODIES has one body a line, as bench/load.py writes them. What two workers of the service cost beyond that is the
service's. Ends with one line of JSON.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

TURNS = 3


def run(bodies: Path, seconds: float) -> float:
    """CPU microseconds a row."""
    from contenders import engine_of

    engine = engine_of(None)
    texts = [json.loads(line)["text"] for line in bodies.read_text().splitlines()]
    end, rows, cpu = time.perf_counter() + seconds, 0, time.process_time()
    while time.perf_counter() < end:
        engine.predict([engine.encode(texts[rows % len(texts)])])
        rows += 1
    return (time.process_time() - cpu) / rows * 1e6


def beside(bodies: Path, seconds: float, cpus: tuple[str, str]) -> float:
    """CPU time of a row where there are two, over that where there is one."""

    def measured(n: int) -> float:
        processes = [
            subprocess.Popen(
                ["taskset", "-c", cpu, sys.executable, __file__, str(bodies), str(seconds), "alone"],
                stdout=subprocess.PIPE,
                text=True,
            )
            for cpu in cpus[:n]
        ]
        return statistics.mean(float(process.communicate()[0]) for process in processes)

    turns = [(measured(1), measured(2)) for _ in range(TURNS)]
    return statistics.median(two / one for one, two in turns)


if __name__ == "__main__":
    file, length = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 5.0
    if sys.argv[3:]:
        print(run(file, length))
    else:
        print(json.dumps({"two_engines_cpu_vs_one": round(beside(file, length, ("0", "1")), 3)}))
