"""When a request came, as well as that can be known."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from beexformer.app import connections
from beexformer.app.connections import Connections, Limits


def test_what_a_busy_loop_hands_over_came_while_it_was_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(connections, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    ends: list[Callable[[], object]] = []
    loop: Any = SimpleNamespace(call_soon=ends.append)
    known = Connections(Limits(1, 1, 1, 0))

    def came(at: float, waited: float) -> float:
        clock[0] = at
        return known.came(loop, waited)

    def turned(at: float) -> None:
        clock[0] = at
        ends.pop()()
        assert not ends

    assert came(100.0, 0.0) == 100.0
    assert came(100.005, 0.0) == 100.0, "it was there when the turn began"
    assert came(100.006, 0.2) == pytest.approx(99.806), "so long, that the system knows better"
    turned(100.008)
    assert came(100.00805, 0.004) == pytest.approx(100.00405), "while the loop was busy"
    assert came(100.009, 0.0095) == 100.0, "not before the loop last looked"
    assert came(100.010, 0.0) == 100.00805
    turned(100.011)
    assert came(101.0, 0.004) == 101.0, "the loop slept, and was woken at once"
    assert came(101.0, 0.5) == 100.5, "but for the system, which did not let it"


class Open:
    deadline = float("inf")


def test_memory_is_given_back_after_a_rush_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    known = Connections(Limits(1, 1, 1, 0))
    monkeypatch.setattr(connections, "give_back_heap", lambda: given.append(len(known.connections)))
    for count in (0, 900, 500, 200, 100, 0, 600, 1, 0):
        known.connections = {Open() for _ in range(count)}  # type: ignore[misc]
        known.sweep()
    assert given == [200, 1]
