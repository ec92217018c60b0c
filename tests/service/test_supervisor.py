"""Processes: a killed, a stopped and an orphaned worker, the end under load, a reload. Real processes, real signals."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from running import BEEXFORMER, GOLDEN, PATIENCE, Server, problem, samples, server_of, wait_until
from traffic import Traffic

from beexformer.app.supervisor import Child, Supervisor
from beexformer.model.errors import BEEError

HERE = Path(__file__).parent


def serving(folder: Path, *flags: str, workers: int = 2, checkpoint: Path = GOLDEN) -> AbstractContextManager[Server]:
    command = (BEEXFORMER, "serve", "--port", "0", "--workers", str(workers), "--checkpoints", checkpoint)
    return server_of(folder, *command, *flags)


def workers(server: Server) -> set[int]:
    pid = server.process.pid
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def gone(pid: int) -> bool:
    """No such process, or only what its parent hasn't reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def messages(server: Server, level: str) -> list[str]:
    return [line["message"] for line in server.lines() if line["level"] == level]


def settled(server: Server, number: int) -> set[int]:
    """The workers, once the stand-in has left."""
    wait_until(lambda: len(workers(server)) == number)
    return workers(server)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_only_its_own_requests_are_lost(tmp_path: Path) -> None:
    with serving(tmp_path) as server, Traffic(server.url, clients=4) as traffic:
        first = settled(server, 2)
        wait_until(lambda: traffic.seen[200] > 20)
        os.kill(min(first), signal.SIGKILL)
        wait_until(lambda: len(workers(server) - {min(first)}) == 2)
        before = traffic.seen[200]
        wait_until(lambda: traffic.seen[200] > before + 20)
    assert traffic.seen["lost"] <= 4  # those it had
    assert set(traffic.seen) <= {200, "lost"}, traffic.seen
    assert any("SIGKILL" in message for message in messages(server, "error"))


@pytest.mark.slow
def test_the_only_worker_is_replaced_and_clients_wait_for_it(tmp_path: Path) -> None:
    with serving(tmp_path, workers=1) as server:
        [worker] = settled(server, 1)
        os.kill(worker, signal.SIGKILL)
        assert httpx2.get(f"{server.url}/readyz", timeout=PATIENCE).status_code == 200
        assert worker not in workers(server)


@pytest.mark.slow
def test_a_stopped_worker_is_killed_and_replaced(tmp_path: Path) -> None:
    with serving(tmp_path, "--health-seconds", "1") as server:
        stopped = min(settled(server, 2))
        os.kill(stopped, signal.SIGSTOP)
        wait_until(lambda: gone(stopped) and len(workers(server)) == 2)
        assert any("stood still" in message for message in messages(server, "error"))
        for _ in range(4):
            assert httpx2.get(f"{server.url}/readyz", timeout=PATIENCE).status_code == 200
        counted = samples(httpx2.get(f"{server.url}/metrics", timeout=PATIENCE).text)
        assert counted["bee_workers_replaced_total", "reason=hung"] == 1


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        orphans = settled(server, 2)
        server.process.kill()
        wait_until(lambda: all(gone(pid) for pid in orphans))


@pytest.mark.slow
def test_probes_are_answered_while_it_starts(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([sys.executable, HERE / "starting_server.py", GOLDEN], stderr=stderr)
    try:
        wait_until(lambda: "listening on" in log.read_text())
        url = json.loads(log.read_text().splitlines()[0])["message"].split()[2]
        assert httpx2.get(f"{url}/livez", timeout=PATIENCE).status_code == 200
        refused = httpx2.get(f"{url}/readyz", timeout=PATIENCE)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert httpx2.get(f"{url}/v2/health/live", timeout=PATIENCE).status_code == 200
        assert samples(httpx2.get(f"{url}/metrics", timeout=PATIENCE).text) == {("bee_ready",): 0}
        problem(httpx2.post(f"{url}/classify", json={"text": "film"}, timeout=PATIENCE), 503, "starting")
        process.send_signal(signal.SIGUSR2)  # now it may go on
        wait_until(lambda: httpx2.get(f"{url}/readyz", timeout=PATIENCE).status_code == 200)
        for _ in range(20):  # and never back
            assert httpx2.get(f"{url}/readyz", timeout=PATIENCE).status_code == 200
        counted = samples(httpx2.get(f"{url}/metrics", timeout=PATIENCE).text)
        assert counted["bee_requests_total", "code=503", "model="] == 1  # the one that the stand-in refused
    finally:
        process.terminate()
        process.wait(PATIENCE)


def test_sigterm_while_it_starts_ends_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([sys.executable, HERE / "starting_server.py", GOLDEN], stderr=stderr)
    wait_until(lambda: "listening on" in log.read_text())
    process.terminate()
    assert process.wait(PATIENCE) == 0


def end_under_load(folder: Path, number: int, fresh: bool) -> None:
    folder.mkdir(exist_ok=True)
    with (
        serving(folder, "--drain-seconds", "1", workers=number) as server,
        Traffic(server.url, clients=8, fresh=fresh) as traffic,
    ):
        wait_until(lambda: traffic.seen[200] > 50)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
    assert not traffic.losses, (traffic.seen, traffic.losses[:3])
    assert set(traffic.seen) <= {200, "refused"}, traffic.seen  # refused: after the end


@pytest.mark.slow
@pytest.mark.parametrize("fresh", [False, True], ids=["kept", "fresh"])
@pytest.mark.parametrize("number", [1, 3])
def test_sigterm_under_load_loses_nothing(tmp_path: Path, number: int, fresh: bool) -> None:
    end_under_load(tmp_path / "server", number, fresh)


@pytest.mark.soak
@pytest.mark.parametrize("fresh", [False, True], ids=["kept", "fresh"])
@pytest.mark.parametrize("number", [1, 3])
def test_twenty_times_sigterm_under_load_loses_nothing(tmp_path: Path, number: int, fresh: bool) -> None:
    for trial in range(20):
        end_under_load(tmp_path / str(trial), number, fresh)


def renamed(checkpoint: Path, name: str) -> None:
    """The checkpoint under another name, in place, as a deployment would: written beside it and moved."""
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "new.json").write_text(json.dumps({**config, "name": name}))
    (checkpoint / "new.json").rename(checkpoint / "config.json")


@pytest.mark.slow
def test_sighup_loads_checkpoints_anew_and_no_request_fails(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(GOLDEN, checkpoint)
    names: list[str] = []

    def note(answer: dict[str, Any]) -> None:
        names.append(answer["model"])

    with (
        serving(tmp_path, "--drain-seconds", "1", checkpoint=checkpoint) as server,
        Traffic(server.url, clients=4, check=note) as traffic,
    ):
        old = settled(server, 2)
        wait_until(lambda: traffic.seen[200] > 20)
        renamed(checkpoint, "other")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(workers(server)) == 2 and not workers(server) & old)
        before = len(names)
        wait_until(lambda: len(names) > before + 20)
        assert set(names[before + 8 :]) == {"other"}
        (checkpoint / "config.json").write_text("{")
        new = workers(server)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("what was loaded stays" in message for message in messages(server, "error")))
        assert workers(server) == new
    assert set(traffic.seen) == {200}, (traffic.seen, traffic.losses[:3])
    assert set(names) == {"golden", "other"}


@pytest.mark.slow
def test_a_worker_that_asks_is_told_once_all_serve_what_it_asked_for(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(GOLDEN, checkpoint)
    with server_of(tmp_path, sys.executable, HERE / "asking_server.py", checkpoint) as server, server.http() as http:
        old = settled(server, 2)
        renamed(checkpoint, "other")
        assert http.post("/ask").json()["problem"] is None
        for _ in range(10):  # each over a connection of its own
            answer = httpx2.post(f"{server.url}/classify", json={"text": "film"}, timeout=PATIENCE)
            assert answer.json()["model"] == "other"
        wait_until(lambda: not workers(server) & old)
        (checkpoint / "config.json").write_text("{")
        problem = http.post("/ask").json()["problem"]
        assert str(checkpoint) in problem
        assert "Traceback" not in problem
        assert httpx2.post(f"{server.url}/classify", json={"text": "film"}, timeout=PATIENCE).status_code == 200


@pytest.mark.slow
def test_what_is_asked_for_while_workers_are_exchanged_waits_its_turn(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(GOLDEN, checkpoint)
    with server_of(tmp_path, sys.executable, HERE / "asking_server.py", checkpoint) as server, ExitStack() as clients:
        settled(server, 2)
        for client in [clients.enter_context(server.http()) for _ in range(8)]:
            assert client.get("/readyz").status_code == 200  # connections that keep the old workers for a second
        for name in ("second", "third"):
            renamed(checkpoint, name)
            assert httpx2.post(f"{server.url}/ask", timeout=PATIENCE).json()["problem"] is None
            answer = httpx2.post(f"{server.url}/classify", json={"text": "film"}, timeout=PATIENCE)
            assert answer.json()["model"] == name


@pytest.mark.slow
def test_workers_that_cannot_serve_what_is_new_change_nothing(tmp_path: Path) -> None:
    with server_of(tmp_path, sys.executable, HERE / "dying_server.py", GOLDEN, "later") as server:
        old = settled(server, 2)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("what was loaded stays" in message for message in messages(server, "error")))
        wait_until(lambda: workers(server) == old)
        assert httpx2.post(f"{server.url}/classify", json={"text": "film"}, timeout=PATIENCE).status_code == 200


@pytest.mark.slow
def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    with serving(tmp_path, workers=1) as server:
        port = server.url.rpartition(":")[2]
        command = [BEEXFORMER, "serve", "--port", port, "--checkpoints", GOLDEN]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 2
    assert ended.stderr == f"beexformer: can't listen on 127.0.0.1 port {port}: Address already in use\n"


@pytest.mark.slow
def test_workers_that_die_before_they_serve_end_the_service(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([sys.executable, HERE / "dying_server.py", GOLDEN], stderr=stderr)
    assert process.wait(PATIENCE) == 1
    assert "in a row have ended before they served" in log.read_text()


@pytest.mark.slow
def test_beats_of_a_suspended_machine_are_not_missed(tmp_path: Path) -> None:
    with serving(tmp_path, "--health-seconds", "1") as server:
        there = settled(server, 2)
        everyone = [server.process.pid, *there]
        for pid in everyone:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(2.5)
        for pid in everyone:
            os.kill(pid, signal.SIGCONT)
        for _ in range(3):
            assert httpx2.get(f"{server.url}/readyz", timeout=PATIENCE).status_code == 200
            time.sleep(0.5)
        assert workers(server) == there


class Asked:
    """A supervisor whose workers are this test, and what it was asked to load."""

    def __init__(self, listener: socket.socket) -> None:
        self.wanted: list[dict[str, Any]] = []
        self.supervisor = Supervisor(
            listener, 1, health_seconds=1, drain_seconds=0, end_seconds=1, reload=self._reload, put_back=lambda: None
        )
        self.supervisor.work = lambda place: None

    def _reload(self, asked: dict[str, Any]) -> Any:
        self.wanted.append(asked)
        raise BEEError("not today")

    def worker(self, generation: int) -> socket.socket:
        """The other end of a new worker's channel."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.setblocking(False)
        slot = len(self.supervisor._children)
        self.supervisor._children[slot + 1] = Child(slot, generation, ours)
        return theirs


@pytest.fixture
def asked() -> Iterator[Asked]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        result = Asked(listener)
        yield result
        for child in result.supervisor._children.values():
            child.channel.close()


def test_who_has_ended_while_another_asks_ends_nothing(asked: Asked) -> None:
    """A retired worker may be gone, and not yet waited for, when a new one asks for a model."""
    asked.worker(0).close()
    with asked.worker(0) as channel:
        channel.send(b'{"model": "soon"}')
        asked.supervisor._hear()
        assert asked.wanted == [{"model": "soon"}]
        assert json.loads(channel.recv(1000)) == {"problem": "not today"}


def test_who_is_replaced_is_told_to_ask_again_and_its_successor_waits(asked: Asked) -> None:
    with asked.worker(0) as old, asked.worker(1) as new:
        supervisor = asked.supervisor
        assert supervisor.work
        supervisor._before, supervisor._generation = (supervisor.work, 0), 1
        for channel in (old, new):
            channel.send(b'{"model": "soon"}')
        supervisor._hear()
        assert "try again" in json.loads(old.recv(1000))["problem"]
        with pytest.raises(BlockingIOError):
            new.recv(1000)
        assert asked.wanted == []
        supervisor._before = None
        supervisor._grant()
        assert asked.wanted == [{"model": "soon"}]
        assert json.loads(new.recv(1000)) == {"problem": "not today"}
        supervisor._before = supervisor.work, 0
        new.send(b'{"model": "later"}')
        supervisor._hear()
        supervisor._refuse_waiting()  # the service ends
        assert "try again" in json.loads(new.recv(1000))["problem"]
