"""Ten minutes at 70 % of what the service can do: nothing but right answers and honest refusals, and no more memory."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import BEEXFORMER, Server, samples, server_of

OPEN_LOOP = Path(__file__).parent.parent.parent / "bench" / "open_loop.py"
SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
SHARE = 0.7
ALLOWED = {
    "offered",
    "ok",
    "late",
    "refused",
    "504",
    "ok_per_second",
    "generator_busy",
}  # all are honest where the machine is busy
TEXTS = [" ".join(["a warm , funny and moving film that knows its people well"] * n) for n in (1, 1, 1, 2, 3, 8)]


def memory(server: Server) -> int:
    """Bytes of all processes of the service, each page divided among those who share it. Those of files are left out:
    any process of this machine may share a library's, and begin or end meanwhile."""
    pids, total = [server.process.pid], 0
    for pid in pids:
        pids += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += 1024 * int(next(line.split()[1] for line in lines if line.startswith("Pss_Anon:")))
    return total


def offer(server: Server, bodies: Path, rate: float, seconds: float) -> dict[str, float]:
    """What bench/open_loop.py says."""
    port = server.url.rpartition(":")[2]
    command = [sys.executable, OPEN_LOOP, port, bodies, rate, seconds, "--timeout-ms", 5000]
    ran = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return {name: value for name, value in result.items() if value}


@pytest.mark.soak
def test_it_runs_on_and_on(tmp_path: Path) -> None:
    bodies = tmp_path / "bodies.jsonl"
    bodies.write_text("".join(json.dumps({"text": text, "delta": 1e-4}) + "\n" for text in TEXTS))
    with server_of(tmp_path, BEEXFORMER, "serve", "--port", "0", "--workers", "1") as server:
        capacity = offer(server, bodies, 5000, 5)["ok_per_second"]
        time.sleep(5)  # what was too much is refused
        offer(server, bodies, SHARE * capacity, min(60.0, SECONDS / 10))
        before = memory(server)
        result = offer(server, bodies, SHARE * capacity, SECONDS)
        time.sleep(1)
        after = memory(server)
        with server.http() as http:
            counted = samples(http.get("/metrics").text)
    print(f"{capacity:.0f} a second at most; {result}; {before / 1e6:.1f} MB, then {after / 1e6:.1f} MB")
    assert {name for name in result if not name.endswith("_ms")} <= ALLOWED, result
    assert result["ok"] > 0.9 * result["offered"] or "refused" in result
    assert after < 1.05 * before
    assert counted["bee_workers_replaced_total", "reason=ended"] == 0
