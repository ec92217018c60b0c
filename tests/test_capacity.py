"""bench/capacity.py: its simulation against formulas of queueing theory, and a plan from given service times."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench" / "capacity.py"


def run(*arguments: str) -> dict[str, object]:
    ran = subprocess.run([sys.executable, BENCH, *arguments], capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_simulated_waits_are_those_of_pollaczek_and_khinchine() -> None:
    assert run("--self-check")["largest_difference"] < 0.05  # type: ignore[operator]


def test_a_plan_keeps_below_its_load_with_a_zone_lost() -> None:
    found = run("--service-ms", "0.5", "--rate", "100000", "--processes", "2", "--load", "0.7", "--zones", "3")
    [fleet] = found["fleets"]  # type: ignore[misc]
    assert fleet["pods"] % 3 == 0
    assert fleet["cores"] == 2 * fleet["pods"]
    assert fleet["load"] == pytest.approx(100_000 * 0.0005 / fleet["cores"], abs=1e-3)
    assert fleet["load"] * 1.5 == pytest.approx(fleet["load_with_a_zone_lost"], abs=2e-3)
    assert fleet["load_with_a_zone_lost"] <= 0.7
