"""
What the process model costs and gains, measured on `beexformer serve`:

    python bench/processes.py [--workers 2]

- seconds from the command to the first probe's answer and to ready
- memory: what all processes have together (shared pages once), and what one more worker has to itself
- how many of 16 and of 64 connections that come at once each worker has
- seconds until a killed worker's successor serves, and until a stopped one's does (less BEE_HEALTH_SECONDS)
- CPU of the server for a request over a fresh connection, beside uvicorn with the same app, in turns

Ends with one line of JSON.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import timing

HEALTH_SECONDS = 2
BEEXFORMER = Path(sys.executable).parent / "beexformer"
PROBE = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"


@contextmanager
def running(*command: str | Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([str(part) for part in command], stderr=log)
        try:
            until(lambda: status(port, "/readyz") == 200)
            yield process
        finally:
            process.terminate()
            process.wait()


def serving(port: int, workers: int) -> Any:
    flags = ("--port", str(port), "--workers", str(workers), "--drain-seconds", "0", "--log-level", "warning")
    return running(BEEXFORMER, "serve", *flags, "--health-seconds", str(HEALTH_SECONDS), port=port)


def status(port: int, path: str) -> int | None:
    try:
        return int(urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1).status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def until(true: Callable[[], object]) -> float:
    """Seconds until it is true."""
    start = time.perf_counter()
    while not true():
        assert time.perf_counter() < start + 120, "waited in vain"
        time.sleep(0.005)
    return time.perf_counter() - start


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def sockets(pid: int) -> int:
    result = 0
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            result += os.readlink(entry).startswith("socket:")
    except OSError:  # it was closed meanwhile, or the process has gone: both show in the sum
        pass
    return result


def memory(pid: int, field: str) -> int:
    """Bytes of that kind: Pss, or Private_Clean and Private_Dirty as "Private"."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(field) and "Pss_" not in line)


def starting(port: int, workers: int) -> dict[str, float]:
    start = time.perf_counter()
    flags = ("--port", str(port), "--workers", str(workers), "--drain-seconds", "0", "--log-level", "warning")
    process = subprocess.Popen([BEEXFORMER, "serve", *flags])
    try:
        until(lambda: status(port, "/livez") == 200)
        probed = time.perf_counter() - start
        until(lambda: status(port, "/readyz") == 200)
        return {"first_probe_s": probed, "ready_s": time.perf_counter() - start}
    finally:
        process.terminate()
        process.wait()


def spread(port: int, pids: list[int], connections: int, settle: float = 0.3) -> list[int]:
    """Connections that each process has, of so many opened at once that have sent a request each; those of before have
    `settle` seconds to go."""
    time.sleep(settle)
    before = [sockets(pid) for pid in pids]
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(connections)]
        for connection in opened:
            connection.sendall(PROBE)
        for connection in opened:
            assert connection.recv(65536)
        return sorted(sockets(pid) - first for pid, first in zip(pids, before, strict=True))


def replaced(process: subprocess.Popen[bytes], port: int, number: signal.Signals) -> float:
    """Seconds until as many other workers serve as before."""
    pids = children(process.pid)
    os.kill(pids[0], number)
    seconds = until(lambda: pids[0] not in children(process.pid) and len(children(process.pid)) == len(pids))
    return seconds + until(lambda: min(spread(port, children(process.pid), 4 * len(pids), 0.0)) > 0)


def cpu(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def fresh_cost(port: int, pids: list[int], requests: int = 3000) -> float:
    """CPU seconds of these processes for a request over a connection of its own."""
    before = cpu(pids)
    for _ in range(requests):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(PROBE.replace(b"Host: a", b"Host: a\r\nConnection: close"))
            while connection.recv(65536):
                pass
    return (cpu(pids) - before) / requests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--port", type=int, default=8321)
    asked = parser.parse_args()
    port, number = asked.port, asked.workers
    result: dict[str, Any] = {"workers": number, **starting(port, number)}
    with serving(port, number) as process:
        until(lambda: len(children(process.pid)) == number)
        pids = children(process.pid)
        result["spread_of_16"] = [spread(port, pids, 16) for _ in range(5)]
        result["spread_of_64"] = [spread(port, pids, 64) for _ in range(5)]
        result["pss_mb"] = round(sum(memory(pid, "Pss") for pid in (process.pid, *pids)) / 1e6, 1)
        result["worker_private_mb"] = round(max(memory(pid, "Private") for pid in pids) / 1e6, 1)
        result["killed_s"] = [round(replaced(process, port, signal.SIGKILL), 3) for _ in range(5)]
        result["stopped_s"] = [round(replaced(process, port, signal.SIGSTOP) - HEALTH_SECONDS, 3) for _ in range(2)]
    uvicorn = (sys.executable, "-m", "uvicorn", "--factory", "beexformer.app.main:create_app", "--no-access-log")
    with serving(port, 1) as ours, running(*uvicorn, "--port", str(port + 1), port=port + 1) as theirs:
        until(lambda: len(children(ours.pid)) == 1)
        turns = [(fresh_cost(port, children(ours.pid)), fresh_cost(port + 1, [theirs.pid])) for _ in range(5)]
        result["fresh_us"], result["fresh_uvicorn_us"] = (
            round(statistics.median(turn) * 1e6) for turn in zip(*turns, strict=True)
        )
    for name, value in result.items():
        print(f"{name:20} {value}")
    print(json.dumps({**result, "machine": timing.machine(), "date": timing.today()}))


if __name__ == "__main__":
    main()
