"""
The service under load, beside what one would write instead, on the same sentences in the same run.

    python bench/load.py --data folder [--quick] [--only throughput,open,batches,durations,overload,workers]

`folder` has glue/sst2/dev.tsv.gz (columns sentence, label). Servers run on CPU 0, what asks them on CPU 1; wrk must be
installed, and litserve for that contender. Contenders are asked in turns, and each number is the median of its turns.
Prints tables and ends with one JSON line: rates are ours over theirs, `cpu_us` CPU microseconds a request,
`overhead_vs_echo_us` what a request costs beyond its engine and beyond FastAPI with a constant answer,
`two_engines_cpu_vs_one` what CPU time of a row two processes cost each other that share nothing. Where one request's
latency is what counts, and in the closed loop, which leaves a slow CPU idle between two requests, the CPUs are kept
awake (bench/timing.py). Takes about half an hour on two quiet CPUs, --quick five minutes.
"""

import argparse
import csv
import gzip
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
from beside import beside
from open_loop import alone, ask, connect, requests
from queues import TIMEOUT_MS, checked
from rich.console import Console
from rich.table import Table
from timing import awake, cpu_seconds, machine, processes, today

HERE = Path(__file__).parent
BEEXFORMER = Path(sys.executable).parent / "beexformer"
SERVING, ASKING = "0", "1"  # CPUs
SETTLING = 3.0  # seconds; what a start leaves to do afterwards would take the CPU from the first requests
CONNECTIONS = 16
DEADLINE_MS = 1000  # under overload
PATIENCE = 180  # seconds for a server to be ready: kernels may have to be compiled
SST2 = 'model="sst2"'
CONTENDERS = ("inline", "threadpool", "litserve", "minilm", "echo")
console = Console()


@dataclass(frozen=True)
class Server:
    """A running server, its port and its bodies."""

    process: subprocess.Popen[bytes]
    port: int
    bodies: Path

    def cpu_seconds(self) -> float:
        """Used so far by all of them."""
        return sum(map(cpu_seconds, processes(self.process.pid)))

    def memory(self) -> int:
        """Bytes, each page divided among those who share it; without those of files, which any process may share."""
        total = 0
        for pid in processes(self.process.pid):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += 1024 * int(next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss_Anon:")))
        return total


@contextmanager
def serving(name: str, bodies: Path, port: int, *options: str, cpus: str = SERVING, onnx: str = "") -> Iterator[Server]:
    """A contender, or `ours` with options of `beexformer serve`, ready and warm."""
    command = [sys.executable, str(HERE / "contenders.py"), name, str(port), *([onnx] if name == "minilm" else [])]
    if name == "ours":
        command = [str(BEEXFORMER), "serve", "--port", str(port), *(options or ("--workers", "1"))]
    with (bodies.parent / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(["taskset", "-c", cpus, *command], stdout=log, stderr=log, start_new_session=True)
        try:
            server = Server(process, port, bodies)
            wait_ready(server, log.name)
            time.sleep(SETTLING)
            wrk(server, 1)
            yield server
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_ready(server: Server, log: str) -> None:
    """Until a first body is answered with 200."""
    first = requests(server.bodies.read_bytes().splitlines()[:1], 60_000)[0]
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.process.poll() is None:
        try:
            with connect(server.port) as connection:
                if ask(connection, first)[0] == 200:
                    return
        except OSError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"a server did not get ready:\n{Path(log).read_text()[-2000:]}")


def wrk(server: Server, seconds: float, connections: int = CONNECTIONS, cpus: str = ASKING) -> dict[str, float]:
    """What wrk says after so long, and `cpu_us` of the server a request."""
    before = server.cpu_seconds()
    command = (
        f"wrk -t1 -c{connections} -d{max(1, round(seconds))} -s {HERE / 'load.lua'} http://127.0.0.1:{server.port}"
    )
    environment = {**os.environ, "BODIES": str(server.bodies)}
    ran = subprocess.run(
        ["taskset", "-c", cpus, *command.split()], env=environment, capture_output=True, text=True, check=True
    )
    result: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    answered = result["requests"] - result["not_200"]
    if answered < 0.9 * result["requests"] or result["broken"]:
        raise SystemExit(f"{result} of a server that should have answered everything")
    result["rate"] = answered / result["seconds"]
    result["cpu_us"] = (server.cpu_seconds() - before) / answered * 1e6
    return result


def open_loop(server: Server, rate: float, seconds: float, *more: str) -> dict[str, Any]:
    """What bench/open_loop.py says."""
    command = [sys.executable, HERE / "open_loop.py", server.port, server.bodies, rate, seconds, *more]
    ran = subprocess.run(["taskset", "-c", ASKING, *map(str, command)], capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return result


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def throughput(bodies: Path, seconds: float, turns: int, onnx: str) -> dict[str, Any]:
    """All contenders in turns, closed loop; and what of ours is the engine."""
    rounds: dict[str, list[dict[str, float]]] = {}
    known = bodies.parent / "none.jsonl"
    known.write_text('{"text": "a"}\n')
    for turn in range(turns):
        for i, name in enumerate(("ours", *CONTENDERS)):
            try:
                with serving(name, bodies, 18100 + i, onnx=onnx) as server, awake([SERVING, ASKING]):
                    rounds.setdefault(name, []).append(wrk(server, seconds))
                    if name == "ours" and turn == 0:
                        engine_us = phases(server.port)
            except SystemExit as error:
                if name == "ours" or turn:
                    raise
                console.print(f"[yellow]{name} is left out: {error}")
                rounds.pop(name, None)
    measured = {name: medians(one) for name, one in rounds.items()}
    table = Table(title=f"closed loop, {CONNECTIONS} connections, server on one CPU")
    for column in ("server", "requests/s", "p50 ms", "p99 ms", "CPU us a request", "ours / theirs"):
        table.add_column(column, justify="left" if column == "server" else "right")
    ours = measured["ours"]
    for name, one in measured.items():
        table.add_row(
            name,
            f"{one['rate']:.0f}",
            f"{one['p50_ms']:.2f}",
            f"{one['p99_ms']:.2f}",
            f"{one['cpu_us']:.0f}",
            f"{ours['rate'] / one['rate']:.2f}",
        )
    console.print(table)
    keys = {
        "inline": "vs_fastapi_inline",
        "threadpool": "vs_fastapi_threadpool",
        "litserve": "vs_litserve",
        "minilm": "vs_fastapi_minilm_int8",
    }
    result: dict[str, Any] = {
        key: round(ours["rate"] / measured[name]["rate"], 3) if name in measured else None for name, key in keys.items()
    }
    result["overhead_vs_echo_us"] = round(ours["cpu_us"] - engine_us - measured["echo"]["cpu_us"], 1)
    result["p99_vs_inline"] = round(ours["p99_ms"] / measured["inline"]["p99_ms"], 3)
    result["rate"] = round(ours["rate"])
    result["cpu_us"] = round(ours["cpu_us"], 1)
    result["cpu_vs_inline"] = round(ours["cpu_us"] / measured["inline"]["cpu_us"], 3)
    return result


def counted(port: int, metric: str, *labels: str) -> tuple[float, float]:
    """(sum, count) of a histogram in seconds, over all its series that have these labels."""
    with urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        lines = response.read().decode().splitlines()
    total = {f"{metric}_sum": 0.0, f"{metric}_count": 0.0}
    for line in lines:
        name, _, value = line.rpartition(" ")
        series = name.split("{")[0]
        if series in total and all(label in name for label in labels):
            total[series] += float(value)
    return total[f"{metric}_sum"], total[f"{metric}_count"]


def phases(port: int) -> float:
    """Mean microseconds of tokenize and compute together, as the service counts them."""
    parts = (counted(port, "bee_phase_duration_seconds", SST2, f'phase="{phase}"') for phase in ("tokenize", "compute"))
    return sum(1e6 * seconds / count for seconds, count in parts)


def durations(server: Server, _peak: float, seconds: float) -> dict[str, Any]:
    """The mean duration that the service counts, as a share of the one that clients see, by their number."""
    result = {}
    for connections in (1, 4, 16, 64):
        before = counted(server.port, "bee_request_duration_seconds", SST2)
        seen = wrk(server, seconds, connections)
        after = counted(server.port, "bee_request_duration_seconds", SST2)
        mean_ms = 1000 * (after[0] - before[0]) / (after[1] - before[1])
        result[f"duration_vs_client_{connections}"] = round(mean_ms / seen["mean_ms"], 3)
    console.print(f"durations counted, as a share of what clients saw: {result}")
    return result


def half_load(server: Server, _peak: float, seconds: float) -> dict[str, Any]:
    """Poisson arrivals at half the capacity, beside a FIFO queue of the same sentences (bench/queues.py)."""
    sent = requests(server.bodies.read_bytes().splitlines(), TIMEOUT_MS)
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(ASKING)})
    answers, _ = alone(server.port, sent)
    _, result = checked(server, sent, answers, 0.5, 3 * seconds)  # rounds of a second, with --quick
    os.sched_setaffinity(0, everywhere)
    console.print(
        f"half load: p99 {result['measured_p99_ms']:.2f} ms, of a FIFO queue {result['simulated_p99_ms']:.2f} ms"
    )
    return {"p99_vs_fifo_half_load": round(1 / result["p99_ratio"], 3)}


def beside_batches(server: Server, seconds: float) -> dict[str, Any]:
    """p99 of a lone sentence without and with eight callers whose batches have 256 texts each."""
    lines = server.bodies.read_text().splitlines()
    one = requests([lines[0].encode()], 60_000)[0]
    batch = requests([f'{{"items": [{", ".join(lines[:256])}]}}'.encode()], 60_000)[0]
    batch = batch.replace(b"POST /classify ", b"POST /classify/batch ", 1)
    stop = threading.Event()
    refused: list[bool] = []

    def keep_asking() -> None:
        with connect(server.port) as connection:
            while not stop.is_set():
                status, _ = ask(connection, batch)
                if status != 200:
                    time.sleep(0.1)

    def lone_p99() -> float:
        latencies, end = [], time.perf_counter() + seconds
        with connect(server.port) as connection:
            while time.perf_counter() < end:
                start = time.perf_counter()
                refused.append(ask(connection, one)[0] != 200)
                latencies.append(time.perf_counter() - start)
                time.sleep(0.01)
        return 1000 * float(np.percentile(latencies, 99))

    os.sched_setaffinity(0, {int(ASKING)})
    quiet = lone_p99()
    threads = [threading.Thread(target=keep_asking) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    beside = lone_p99()
    stop.set()
    for thread in threads:
        thread.join()
    console.print(f"a lone sentence: p99 {quiet:.2f} ms alone, {beside:.2f} ms beside batches; {sum(refused)} refused")
    return {"lone_p99_added_beside_batches_ms": round(beside - quiet, 2)}


def overload(server: Server, peak: float, seconds: float) -> dict[str, Any]:
    """More than it can do; and how soon it is itself again."""
    sent = requests(server.bodies.read_bytes().splitlines()[:50], 60_000)
    _, before = alone(server.port, sent, 2)
    usual, memory = 2 * float(np.median(before)), server.memory()
    result: dict[str, Any] = {}
    others, recovery, growth = 0, 0.0, []
    for times in (1.5, 2, 3):
        measured = open_loop(server, times * peak, seconds, "--timeout-ms", str(DEADLINE_MS))
        recovery = max(recovery, itself_again(server, sent, usual))
        others += sum(
            n for status, n in measured.items() if status.isdigit() and status.startswith("5") and status != "504"
        )
        time.sleep(3)  # a rush's memory is given back by what looks around once a second
        growth.append(round(server.memory() / memory - 1, 3))
        result[f"goodput_at_{str(times).replace('.', '_')}x"] = round(measured["ok_per_second"] / peak, 3)
        console.print(f"offered {times} times the capacity: {measured}")
    result["overload_5xx_other_than_503"] = others
    result["recovery_s"] = round(recovery, 2)
    result["memory_growth"] = growth  # after each of them
    return result


def itself_again(server: Server, sent: list[bytes], usual: float) -> float:
    """Seconds until sentences are all answered, half of them within `usual`; 30 where that doesn't come."""
    start = time.perf_counter()
    while time.perf_counter() - start < 30:
        with connect(server.port) as connection:
            times = []
            for request in sent:
                begun = time.perf_counter()
                status, _ = ask(connection, request)
                times.append(time.perf_counter() - begun if status == 200 else float("inf"))
        if statistics.median(times) <= usual and max(times) < float("inf"):
            return time.perf_counter() - start
    return 30.0


def workers(bodies: Path, seconds: float, turns: int) -> dict[str, Any]:
    """Two processes on two CPUs, with what asks them beside them, and one."""
    rounds: dict[str, list[dict[str, float]]] = {"1": [], "2": []}
    both = f"{SERVING},{ASKING}"
    for _ in range(turns):
        for n, one in rounds.items():
            with serving("ours", bodies, 18120 + int(n), "--workers", n, cpus=both) as server:
                one.append(wrk(server, seconds, 2 * CONNECTIONS, both))
    one, two = medians(rounds["1"]), medians(rounds["2"])
    return {
        "two_workers_vs_one": round(two["rate"] / one["rate"], 3),
        "two_workers_cpu_vs_one": round(two["cpu_us"] / one["cpu_us"], 3),
        "two_engines_cpu_vs_one": round(beside(bodies, seconds, (SERVING, ASKING)), 3),  # the machine's part of it
    }


def bodies_of(data: Path, folder: Path) -> Path:
    """The dev sentences of SST-2 as bodies, one a line."""
    with gzip.open(data / "glue/sst2/dev.tsv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        lines = [json.dumps({"text": row["sentence"]}) for row in rows]
    bodies = folder / "bodies.jsonl"
    bodies.write_text("\n".join(lines) + "\n")
    return bodies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with glue/sst2/dev.tsv.gz")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns")
    parser.add_argument(
        "--only", default="throughput,open,batches,durations,overload,workers", help="parts (%(default)s)"
    )
    arguments = parser.parse_args()
    only, seconds, turns = arguments.only.split(","), 3 if arguments.quick else 10, 2 if arguments.quick else 5
    long = 10 if arguments.quick else 60
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="beexformer-load-") as name:
        folder = Path(name)
        bodies = bodies_of(arguments.data, folder)
        if "throughput" in only:
            from peers import export

            result |= throughput(bodies, seconds, turns, str(export("MiniLM-L6", folder)["int8"]))
        parts: Mapping[str, Any] = {"open": half_load, "durations": durations, "overload": overload}
        for part in ("open", "batches", "durations", "overload"):
            if part in only:
                with serving("ours", bodies, 18110) as server:
                    peak = statistics.median(wrk(server, seconds)["rate"] for _ in range(3))
                    with awake([SERVING, ASKING] if part != "overload" else []):
                        result |= parts[part](server, peak, long) if part in parts else beside_batches(server, long)
        if "workers" in only:
            result |= workers(bodies, seconds, turns)
    print(json.dumps({**result, "machine": machine(), "date": today()}))


if __name__ == "__main__":
    main()
