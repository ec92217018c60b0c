"""
Pods behind a real proxy while they are killed, rolled and added: bench/fleet.py, and what has to come out of it.

Skips where HAProxy isn't installed: apt-get install haproxy.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FLEET = Path(__file__).parent.parent.parent / "bench/fleet.py"
CONNECTIONS = 16


@pytest.fixture(scope="module")
def fleet() -> dict[str, Any]:
    command = [sys.executable, FLEET, "--seconds", "3", "--rate", "60", "--connections", str(CONNECTIONS)]
    ran = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return result


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed; apt-get install haproxy"),
]


def test_nothing_is_lost_but_what_a_killed_pod_was_at(fleet: dict[str, Any]) -> None:
    stages = fleet["requests"]
    for stage in ("two pods", "one rolled", "one added"):
        assert set(stages[stage]) == {"right", "slowest_ms"}, stage
    assert set(stages["one killed"]) <= {"right", "slowest_ms", "lost"}
    assert stages["one killed"].get("lost", 0) <= CONNECTIONS
    assert stages["lost_that_were_sent_after_the_kill"] == 0
    assert stages["one killed"]["right"] > 60


def test_a_pod_that_is_added_has_its_share(fleet: dict[str, Any]) -> None:
    assert fleet["requests"]["share_of_added"] > 0.2, "of requests, of three pods"
    for stage in ("until_renewed", "after"):
        assert set(fleet["connections"][stage]) == {"right", "slowest_ms"}
    assert min(fleet["connections"]["shares"]) > 0.15, "of connections, once all are renewed"
