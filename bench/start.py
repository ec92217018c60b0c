"""
The whole service: seconds from start to the first answered probe and to ready, without and with compiled kernels, and
its memory.

    python bench/start.py [--workers 3]

Starts `beexformer serve` with all shipped models, asks each some questions and adds up the proportional set size (PSS)
of the parent and its workers. Linux only. Ends with one JSON line.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from timing import machine, today

PORT = 18650
PATIENCE = 300  # seconds
TEXT = "a warm , funny and moving film that knows its people well "


def started(kernels: str, workers: int) -> tuple[float, float, float]:
    """(seconds until /livez is answered, until /readyz says so, megabytes of all processes after some work)."""
    env = {**os.environ, "NUMBA_CACHE_DIR": kernels, "BEE_PORT": str(PORT), "BEE_WORKERS": str(workers)}
    start = time.perf_counter()
    command = [str(Path(sys.executable).with_name("beexformer")), "serve"]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as service:
        try:
            first = 0.0
            while not _ok("/readyz"):
                first = first or (time.perf_counter() - start if _ok("/livez") else 0.0)
                if service.poll() is not None or time.perf_counter() - start > PATIENCE:
                    sys.exit("the service did not get ready; run `beexformer serve` to see why")
                time.sleep(0.01)
            seconds = time.perf_counter() - start
            for name in json.loads(_get("/models"))["models"]:
                for i in range(50 * workers):  # connections are spread over the workers
                    _classify(name["name"], TEXT * (1 + i % 5))
            return first or seconds, seconds, sum(_pss(pid) for pid in _tree(service.pid))
        finally:
            service.terminate()


def _ok(path: str) -> bool:
    try:
        _get(path)
    except OSError:
        return False
    return True


def _get(path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=5) as answer:
        return answer.read()


def _classify(model: str, text: str) -> None:
    described = json.loads(_get(f"/models/{model}"))
    body = {"model": model, "text": text}
    if described.get("input") == "pair":
        body["text_pair"] = text
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/classify", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()


def _tree(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _tree(int(child)))]


def _pss(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024


def measure(workers: int = 3) -> dict[str, float]:
    """Fields of the JSON line. "rss" is shared memory counted once: PSS."""
    with tempfile.TemporaryDirectory() as kernels:
        _, cold, _ = started(kernels, 1)
        cached = [started(kernels, 1) for _ in range(3)]
        _, _, many = started(kernels, workers)
    one = cached[-1][2]
    return {
        "ready_cold_s": round(cold, 2),
        "ready_cached_s": round(min(seconds for _, seconds, _ in cached), 2),
        "first_probe_s": round(min(first for first, _, _ in cached), 2),
        "rss_mb": round(one, 1),
        "rss_per_worker_mb": round((many - one) / (workers - 1), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=3)
    print(json.dumps({**measure(parser.parse_args().workers), "machine": machine(), "date": today()}))


if __name__ == "__main__":
    main()
