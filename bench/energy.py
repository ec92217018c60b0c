"""
What answers take: CPU seconds, and joules where this machine's RAPL counters can be read.

    python bench/energy.py --data folder [--seconds 20]

`folder` has glue/sst2/dev.tsv.gz. One thread answers its sentences at the model's own delta; the package's joules at
rest are measured before, for as long, and taken away. Nothing else should run. Ends with one JSON line; joules are null
where there are no counters.
"""

import argparse
import csv
import gzip
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from timing import machine, pin, today

from beexformer.model.checkpoint import SHIPPED
from beexformer.model.engine import Engine

COUNTERS = Path("/sys/class/powercap")


def joules() -> float | None:
    """Of all CPU packages since some time, or None. A counter starts anew after some 262 kJ: hours, at 20 W."""
    try:
        packages = [zone for zone in COUNTERS.glob("intel-rapl:*") if zone.name.count(":") == 1]
        return sum(int((zone / "energy_uj").read_text()) for zone in packages) / 1e6 if packages else None
    except OSError:
        return None


def spent(work: Callable[[], None]) -> tuple[float, float, float | None]:
    """(seconds, CPU seconds, joules) of a piece of work."""
    before, start, cpu = joules(), time.perf_counter(), time.process_time()
    work()
    after = joules()
    used = None if before is None or after is None else after - before
    return time.perf_counter() - start, time.process_time() - cpu, used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    pin(1)
    engine = Engine.load(SHIPPED / "sst2")
    engine.warm()
    with gzip.open(arguments.data / "glue" / "sst2" / "dev.tsv.gz", "rt", encoding="utf-8") as file:
        texts = [row["sentence"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    answered = 0

    def answer() -> None:
        nonlocal answered
        end = time.perf_counter() + arguments.seconds
        while time.perf_counter() < end:
            for text in texts:
                engine.predict([engine.encode(text)])
            answered += len(texts)

    at_rest, _, idle = spent(lambda: time.sleep(arguments.seconds))
    seconds, cpu, busy = spent(answer)
    result = {"answers": answered, "cpu_ms_per_answer": round(1000 * cpu / answered, 4)}
    watts = None if idle is None or busy is None else busy / seconds - idle / at_rest
    result["watts_of_a_busy_cpu"] = None if watts is None else round(watts, 2)
    result["joules_per_answer"] = None if watts is None else round(watts * seconds / answered, 6)
    print(json.dumps({**result, "cpus": os.cpu_count(), "machine": machine(), "date": today()}))


if __name__ == "__main__":
    main()
