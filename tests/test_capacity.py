"""bench/capacity.py: its simulation against formulas of queueing theory, and a plan from given service times."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parent.parent / "bench" / "capacity.py"


def run(*arguments: str) -> dict[str, object]:
    ran = subprocess.run([sys.executable, BENCH, *arguments], capture_output=True, text=True, check=True)
    result: dict[str, object] = json.loads(ran.stdout.splitlines()[-1])
    return result


@pytest.mark.slow
def test_simulated_waits_are_those_of_pollaczek_and_khinchine() -> None:
    assert run("--self-check")["largest_difference"] < 0.05  # type: ignore[operator]


def test_a_run_is_simulated_at_the_speed_that_the_machine_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH.parent)
    import queues

    monkeypatch.setattr(queues, "TOGETHER", 2)
    looks = [(0, 5.0), (1, 5.1), (2, 5.3), (2, 5.3), (3, 5.4)]
    result = queues.at_its_speed(np.array([0.1, 0.2, 0.2]), [1, 0, 2], looks)
    np.testing.assert_allclose(result, [0.1, 0.2, 0.1])
    np.testing.assert_allclose(queues.waits(np.array([0.0, 0.0, 1.0]), result), [0, 0.1, 0])


def test_a_plan_keeps_below_its_load_with_a_zone_lost() -> None:
    result = run("--service-ms", "0.5", "--rate", "100000", "--processes", "2", "--load", "0.7", "--zones", "3")
    [fleet] = result["fleets"]  # type: ignore[misc]
    assert fleet["pods"] % 3 == 0
    assert fleet["cores"] == 2 * fleet["pods"]
    assert fleet["load"] == pytest.approx(100_000 * 0.0005 / fleet["cores"], abs=1e-3)
    assert fleet["load"] * 1.5 == pytest.approx(fleet["load_with_a_zone_lost"], abs=2e-3)
    assert fleet["load_with_a_zone_lost"] <= 0.7


@pytest.mark.slow
def test_a_fleet_gets_through_what_happens_to_it() -> None:
    result = run("--service-ms", "0.5,0.6,1.9", "--rate", "1000")["events"]
    doubled, lost, requests, connections = result.values()  # type: ignore[attr-defined]
    assert doubled["worst_5s_p99_ms"] < 50, "the promise, with the chart's settings"
    assert doubled["pods_in_the_end"] >= 17, "20 pods' load at 60 % with the tolerance of 10 %"
    assert lost["largest_busy_share"] == pytest.approx(0.47 * 1.5, abs=0.01)
    assert lost["pods_in_the_end"] > 12, "the autoscaler saw it"
    assert requests["busiest"] == 0.47
    assert connections["busiest"] > 0.8, "old pods have the connections of those before them"
    assert connections["p99_ms"] > requests["p99_ms"]


@pytest.mark.slow
def test_tables_go_between_the_marks_of_a_document(tmp_path: Path) -> None:
    document = tmp_path / "scaling.md"
    marks = "<!-- capacity: written by bench/capacity.py --write -->", "<!-- end of capacity -->"
    document.write_text(f"before\n{marks[0]}\nold\n{marks[1]}\nafter\n")
    for _ in range(2):
        run("--service-ms", "0.5", "--rate", "1000000", "--write", str(document))
    text = document.read_text()
    assert text.startswith(f"before\n{marks[0]}\n\nOn 20")
    assert text.endswith(f"\n\n{marks[1]}\nafter\n")
    assert "old" not in text
    [row] = [line for line in text.splitlines() if line.startswith("| 1,000,000 | ")]
    assert row.split(" | ")[1:3] == ["1,074", "1,074"]
