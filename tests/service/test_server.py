"""The server as a process: start, refusal to start, hard knocks, several workers, an orderly end."""

import hashlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from running import ANSWERS, BEEXFORMER, GOLDEN, PATIENCE, Server, problem, samples, server_of, wait_until
from safetensors.numpy import load, save
from traffic import request

from beexformer import cli

HERE = Path(__file__).parent
ONE = {"text": "a warm film"}
HEAD = b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_it_serves_the_golden_answers(server: Server) -> None:
    with server.http() as http:
        for expected in ANSWERS:
            asked = {name: expected[name] for name in ("text", "text_pair", "delta") if name in expected}
            answer = http.post("/classify", json=asked)
            assert answer.status_code == 200
            assert (answer.json()["label"], answer.json()["exit_index"]) == (expected["label"], expected["exit_index"])


def test_it_is_small_and_has_no_torch(server: Server) -> None:
    pid = server.process.pid
    assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert int(status["VmRSS"].split()[0]) <= 350 * 1024


def test_a_body_without_a_length_is_cut_off_at_the_limit(server: Server) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'{"text": "'
        while sent < 200_000_000:
            sent += 65536
            yield b"a" * 65536

    with server.http() as http:
        problem(
            http.post("/classify", content=endless(), headers={"content-type": "application/json"}), 413, "too-large"
        )
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
        )
        assert int(status["VmRSS"].split()[0]) <= 350 * 1024  # it was not kept
        assert http.post("/classify", json=ONE).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        HEAD + b"Content-Length: 24\r\n\r\n",
        HEAD + b'Content-Length: 24\r\n\r\n{"text": ',
        HEAD + b'Content-Length: 16\r\n\r\n{"text": "film"}',
        b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["nothing", "no body", "half a body", "whole and gone", "negative length", "no number", "tls", "long line"],
)
def test_a_broken_client_hurts_nobody(server: Server, sent: bytes) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(sent)
    with server.http() as http:
        assert http.post("/classify", json=ONE).status_code == 200
    assert server.process.poll() is None
    assert not [line for line in server.lines() if "traceback" in line]


def spoil(folder: Path, name: str, change: Any) -> None:
    """Change a file of a checkpoint and put its new digest into config.json, as a careless exporter would."""
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    config = json.loads((folder / "config.json").read_text())
    config["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))


def flip_a_byte(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 5000)


def lose_a_tensor(folder: Path) -> None:
    spoil(folder, "model.safetensors", lambda b: save({k: v for k, v in load(b).items() if k != "heads.1.out.bias"}))


def plant_a_nan(folder: Path) -> None:
    def change(content: bytes) -> bytes:
        tensors = {name: tensor.copy() for name, tensor in load(content).items()}
        tensors["heads.1.out.bias"][0] = np.nan
        return save(tensors)

    spoil(folder, "model.safetensors", change)


def come_from_the_future(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "format_version": 99}))


def lose_the_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def break_the_tokenizer(folder: Path) -> None:
    spoil(folder, "tokenizer.json", lambda content: content[:100])


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (flip_a_byte, "damaged"),
        (cut_short, "damaged"),
        (lose_a_tensor, "heads.1.out.bias"),
        (plant_a_nan, "NaN"),
        (come_from_the_future, "format 99"),
        (lose_the_config, "config.json"),
        (break_the_tokenizer, "tokenizer"),
        (shutil.rmtree, "no folder"),
    ],
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_damaged_checkpoint_ends_the_start_with_one_sentence(
    damage: Any,
    word: str,
    workers: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(GOLDEN, folder)
    damage(folder)
    flags = ["--checkpoints", str(folder), "--port", "0", "--workers", workers]
    monkeypatch.setattr(sys, "argv", ["beexformer", "serve", *flags])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    [sentence] = err.splitlines()
    assert out == ""
    assert word in sentence
    assert str(folder) in sentence or "checkpoint 'golden'" in sentence


@pytest.mark.slow
def test_a_damaged_checkpoint_ends_the_process(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "checkpoint")
    flip_a_byte(tmp_path / "checkpoint")
    ended = subprocess.run(
        [BEEXFORMER, "serve", "--checkpoints", tmp_path / "checkpoint", "--port", "0"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (2, "", 1)


def test_an_unknown_default_model_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--port", "0", "--checkpoints", str(GOLDEN), "--default-model", "platinum"]
    monkeypatch.setattr(sys, "argv", ["beexformer", "serve", *flags])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "beexformer: no model is named 'platinum'; loaded: golden\n"


@pytest.mark.slow
def test_sigterm_turns_readiness_off_and_goes_on_answering(tmp_path: Path) -> None:
    script = Path(__file__).parent / "slow_server.py"
    with server_of(tmp_path, sys.executable, script, GOLDEN) as server, ThreadPoolExecutor(4) as pool:

        def ask() -> httpx2.Response:
            return httpx2.post(f"{server.url}/classify", json=ONE, timeout=PATIENCE)

        asked = [pool.submit(ask) for _ in range(3)]
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in server.log.read_text())
        problem(httpx2.get(f"{server.url}/readyz"), 503, "draining")
        assert httpx2.get(f"{server.url}/livez").status_code == 200
        late = ask()  # over a new connection: the socket still listens
        assert (late.status_code, late.headers["connection"]) == (200, "close")
        assert [one.result().status_code for one in asked] == [200] * 3
        assert server.process.wait(PATIENCE) == 0


@pytest.mark.slow
def test_a_second_sigterm_ends_at_once(tmp_path: Path) -> None:
    command = (BEEXFORMER, "serve", "--port", "0", "--drain-seconds", "3600")
    with server_of(tmp_path, *command, BEE_CHECKPOINTS=str(GOLDEN)) as server:
        workers = children(server.process.pid)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in server.log.read_text())
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
        assert workers
        assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
def test_sigterm_ends_an_idle_server_with_exit_code_0(tmp_path: Path) -> None:
    with server_of(tmp_path, BEEXFORMER, "serve", "--port", "0", BEE_CHECKPOINTS=str(GOLDEN)) as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
    assert not [line for line in server.lines() if line["level"] in ("warning", "error") or "traceback" in line]


@pytest.mark.slow
def test_workers_count_together_even_past_the_death_of_one(tmp_path: Path) -> None:
    metrics = tmp_path / "tmp"
    metrics.mkdir()
    command = (BEEXFORMER, "serve", "--port", "0", "--workers", "2", "--checkpoints", GOLDEN)
    with server_of(tmp_path, *command, TMPDIR=str(metrics)) as server:

        def workers() -> set[int]:
            return set(children(server.process.pid))

        def counted() -> dict[tuple[str, ...], float]:
            with httpx2.Client(base_url=server.url, timeout=PATIENCE) as http:
                return samples(http.get("/metrics").text)

        wait_until(lambda: len(workers()) == 2)  # the stand-in has left
        for _ in range(20):
            assert httpx2.post(f"{server.url}/classify", json=ONE, timeout=PATIENCE).status_code == 200
        requests = ("bee_requests_total", "code=200", "model=golden")
        for _ in range(6):
            assert counted()[requests] == 20
        killed = min(workers())
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: len(workers() - {killed}) == 2)
        assert httpx2.post(f"{server.url}/classify", json=ONE, timeout=PATIENCE).status_code == 200
        for _ in range(6):
            now = counted()
            assert now[requests] == 21
            assert now[("bee_exit_index_count", "model=golden")] == 21
            assert now[("bee_backlog_seconds",)] == 0
            assert now[("bee_wait_limit_seconds",)] == 60
            assert now[("bee_workers",)] == 2
            assert now["bee_workers_replaced_total", "reason=ended"] == 1
            assert now["bee_workers_replaced_total", "reason=hung"] == 0
            assert now[("bee_ready",)] == 1
            pids = {int(key[1].removeprefix("pid=")) for key in now if key[0] == "process_resident_memory_bytes"}
            assert pids == workers()
            assert now[("bee_model_info", "blocks=6", "classes=2", "format_version=1", "model=golden")] == 1
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
    assert list(metrics.iterdir()) == []


@pytest.mark.slow
def test_what_a_request_waits_before_anybody_looks_at_it_counts(tmp_path: Path) -> None:
    command = (BEEXFORMER, "serve", "--port", "0", "--workers", "1", "--checkpoints", GOLDEN)
    with server_of(tmp_path, *command, BEE_MAX_WAIT_MS="1500") as server:
        wait_until(lambda: len(children(server.process.pid)) == 1)  # the stand-in is gone
        [worker] = children(server.process.pid)

        def ask_stopped(http: httpx2.Client, seconds: float) -> httpx2.Response:
            """The answer to a request that was sent while the worker was stopped."""
            os.kill(worker, signal.SIGSTOP)
            try:
                asked = pool.submit(http.post, "/classify", json=ONE)
                time.sleep(seconds)
            finally:
                os.kill(worker, signal.SIGCONT)
            return asked.result()

        with ThreadPoolExecutor(1) as pool, server.http() as known:
            assert known.post("/classify", json=ONE).status_code == 200
            with server.http() as fresh:  # waits in the queue of the socket, the other one in that of its connection
                for http in (known, fresh):
                    answer = ask_stopped(http, 0.2)
                    queue = re.search(r"queue;dur=([\d.]+)", answer.headers["server-timing"])
                    assert queue
                    assert float(queue[1]) > 150
            with server.http() as fresh:
                for http in (known, fresh):
                    refused = ask_stopped(http, 2)
                    problem(refused, 503, "overloaded")
                    assert int(refused.headers["retry-after"]) >= 1
            counted = samples(known.get("/metrics").text)
        assert counted["bee_request_duration_seconds_sum", "model=golden"] > 0.3


@pytest.mark.slow
def test_an_answer_is_sent_before_the_next_text_has_its_turn(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with server_of(tmp_path, sys.executable, HERE / "second_server.py", GOLDEN, flag) as server:
        wait_until(lambda: len(children(server.process.pid)) == 1)
        [worker] = children(server.process.pid)
        port = int(server.url.rpartition(":")[2])
        with (
            socket.create_connection(("127.0.0.1", port), PATIENCE) as one,
            socket.create_connection(("127.0.0.1", port), PATIENCE) as other,
        ):
            for connection in (one, other):  # both are taken
                connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
                assert connection.recv(4096).startswith(b"HTTP/1.1 200")
            os.kill(worker, signal.SIGSTOP)
            try:
                for connection in (one, other):  # they meet in one turn of the event loop
                    connection.sendall(request())
            finally:
                os.kill(worker, signal.SIGCONT)
            [first] = select.select([one, other], [], [], PATIENCE)[0]  # the other's text waits for the file
            assert first.recv(65536).startswith(b"HTTP/1.1 200")
            flag.touch()
            [second] = {one, other} - {first}
            assert second.recv(65536).startswith(b"HTTP/1.1 200")
