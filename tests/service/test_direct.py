"""The shortest way to an answer says what the way of all other requests says, and counts what that counts."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
import uvloop
from pydantic import SecretStr
from running import ANSWERS, BEEXFORMER, GOLDEN, Server, client_of, samples, server_of, wait_until

from beexformer.app.admission import Admission
from beexformer.app.connections import Connections, Limits, Reply
from beexformer.app.direct import BATCH, CLASSIFY, DirectWay
from beexformer.app.protocol import Protocol
from beexformer.app.quotas import QuotaExceeded

TEXT = {"text": "a warm , funny and moving film"}
BODIES = [
    TEXT,
    {**TEXT, "delta": -1},
    {**TEXT, "min_blocks": 6, "model": "golden"},
    {"text": "😀 ünknown wörds"},
    {**TEXT, "cost": True},
    {"text": " "},
    {"text": "a pair", "text_pair": "of texts"},
    {"text": "a", "truncate": False, "text_pair": None},
    {**TEXT, "model": "nobody"},
    {**TEXT, "delta": 2},
    {**TEXT, "max_blocks": 7},
    {"text": 1},
    {**TEXT, "more": 1},
    [],
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"BEE_API_KEYS": "first-secret"}
    command = (BEEXFORMER, "serve", "--port", "0", "--workers", "1", "--checkpoints", GOLDEN)
    with server_of(tmp_path_factory.mktemp("direct"), *command, **settings) as running:
        yield running


def ask(
    server: Server, body: bytes, *, whole: bool, headers: str = "", key: str = "first", request_id: str = "find-me"
) -> tuple[Any, ...]:
    """(status, headers, body) of the answer to a request that comes whole or in two pieces."""
    head = (
        f"POST /classify HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}-secret\r\nContent-Type: application/json\r\n"
        f"X-Request-ID: {request_id}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(head + body if whole else head)
        if not whole:
            time.sleep(0.05)
            connection.sendall(body)
        answer = b""
        while b"\r\n\r\n" not in (answer := answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")):
            answer += connection.recv(65536)
        first, _, rest = answer.partition(b"\r\n\r\n")
        status, *lines = first.decode().split("\r\n")
        result = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(rest) < int(result["content-length"]):
            rest += connection.recv(65536)
    return status, result, rest


def counts(server: Server) -> dict[tuple[str, ...], float]:
    """What was counted so far, but for seconds."""
    with server.http() as http:
        result = samples(http.get("/metrics").text)
    return {
        key: value
        for key, value in result.items()
        if key[0].startswith(("bee_request", "bee_exit", "bee_flops", "bee_phase")) and "seconds" not in key[0]
    } | {key: value for key, value in result.items() if key[0].endswith("seconds_count")}


def changes(server: Server, before: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    now = counts(server)
    result = {
        key: round(now[key] - before.get(key, 0.0), 6) for key in now if key[0] != "bee_event_loop_lag_seconds_count"
    }
    return {key: value for key, value in result.items() if value}


@pytest.mark.slow
@pytest.mark.parametrize("body", BODIES, ids=str)
def test_both_ways_say_and_count_the_same(server: Server, body: Any) -> None:
    result = []
    for whole in (True, False):
        before = counts(server)
        status, headers, answer = ask(server, json.dumps(body).encode(), whole=whole)
        ok = status.startswith("HTTP/1.1 200")
        assert ("server-timing" in headers) == ("exit_index" in json.loads(answer)) == ok or not ok
        answer = json.loads(answer)
        answer.pop("cost", None)  # it learns
        changing = ("date", "server-timing", "content-length")
        result.append(
            (status, {k: v for k, v in headers.items() if k not in changing}, answer, changes(server, before))
        )
    assert result[0] == result[1]


@pytest.mark.parametrize(
    "headers", ["Connection: close\r\n", "X-Request-Timeout-Ms: 0\r\n", "Expect: 100-continue\r\n"]
)
def test_unusual_headers_are_obeyed(server: Server, headers: str) -> None:
    whole, pieces = (ask(server, json.dumps(TEXT).encode(), whole=whole, headers=headers) for whole in (True, False))
    assert whole[0] == pieces[0]
    assert whole[1].get("connection") == pieces[1].get("connection")


def test_the_answers_are_the_golden_ones(server: Server) -> None:
    for row in ANSWERS[:6]:
        asked = {"text": row["text"], "delta": row["delta"]}
        status, _, answer = ask(server, json.dumps(asked).encode(), whole=True)
        assert status == "HTTP/1.1 200 OK"
        result = json.loads(answer)
        assert (result["label"], result["exit_index"]) == (row["label"], row["exit_index"])
        assert result["scores"] == pytest.approx(row["scores"])


def test_keys_are_asked_for(server: Server) -> None:
    assert ask(server, json.dumps(TEXT).encode(), whole=True, key="nobody")[0].split()[1] == "401"


def test_a_key_has_one_quota_for_both_ways() -> None:
    headers = [(b"content-type", b"application/json"), (b"x-api-key", b"only-secret")]

    async def ask_twice(way: DirectWay) -> list[Any]:
        return [way.classify(headers, json.dumps(TEXT).encode(), time.monotonic()) for _ in range(2)]

    with client_of() as client:
        admission = Admission(max_body_bytes=1000, keys=[SecretStr("only-secret")], quota_per_minute=1)
        answer, other = asyncio.run(ask_twice(DirectWay(client.app.state.service, admission)))  # type: ignore[attr-defined]
    assert isinstance(answer, Reply)
    assert other == {}, "it is refused where others are"
    with pytest.raises(QuotaExceeded):
        admission.check(CLASSIFY, dict(headers))


def test_each_request_has_its_line_in_the_log(server: Server) -> None:
    for name in ("whole", "pieces"):
        ask(server, json.dumps(TEXT).encode(), whole=name == "whole", request_id=name)

    def lines() -> list[dict[str, Any]]:
        return [line for line in server.lines() if line.get("request_id") in ("whole", "pieces")]

    wait_until(lambda: len(lines()) == 2)  # they are written a few times a second
    whole, pieces = (
        {k: v for k, v in line.items() if k not in ("time", "ms", "exit_index", "request_id")} for line in lines()
    )
    assert whole == pieces
    assert (whole["model"], whole["status"]) == ("golden", 200)


def test_what_is_answered_last_in_a_turn_was_there_when_the_turn_began() -> None:
    received: list[float] = []

    def answer(headers: Any, body: bytes, at: float) -> Reply:
        received.append(at)
        while time.monotonic() == at:
            pass
        return Reply(200, b"", b"")

    async def serve() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError

        loop = asyncio.get_running_loop()
        config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, proxy_headers=False)
        config.load()
        connections = Connections(Limits(10, 10, 10, 0), direct={b"/": answer})
        server = await loop.create_server(lambda: Protocol(config, connections, {}, loop), "127.0.0.1", 0)
        clients = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(3)]
        while len(connections.connections) < len(clients):
            await asyncio.sleep(0.01)
        for client in (clients[:2], clients[2:]):
            for one in client:
                one.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            before = len(received)
            while len(received) < before + len(client):
                await asyncio.sleep(0)
        for one in clients:
            one.close()
        server.close()
        await server.wait_closed()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
    assert received[0] == received[1] < received[2]


def test_what_has_waited_too_long_is_refused_as_the_app_itself_would() -> None:
    async def whole(app: Any, path: str, headers: list[tuple[bytes, bytes]]) -> tuple[int, dict[bytes, bytes], Any]:
        """Status, headers and body of the app's answer to a request that came ten seconds ago."""
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": headers,
            "state": {},
            "bee.received": time.monotonic() - 10,
        }
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)
        body = b"".join(message.get("body", b"") for message in sent)
        return sent[0]["status"], dict(sent[0]["headers"]), json.loads(body)

    headers = [(b"content-type", b"application/json"), (b"content-length", b"2"), (b"x-request-id", b"find-me")]
    with client_of(root_path="/bee") as client:
        service = client.app.state.service  # type: ignore[attr-defined]
        targets = DirectWay(service, Admission(max_body_bytes=1000)).targets()
        for path in (CLASSIFY, BATCH):
            quick = targets[path.encode()](headers, b"{}", time.monotonic() - 10)
            assert isinstance(quick, Reply)
            lines = dict(line.split(b": ", 1) for line in quick.headers.split(b"\r\n") if line)
            status, expected, body = asyncio.run(whole(client.app, path, headers))
            assert (quick.status, json.loads(quick.body)) == (status, body)
            assert {**lines, b"content-length": b"%d" % len(quick.body)} == expected
            assert status == 503
            odd = [*headers, (b"x-forwarded-prefix", b"/other")]
            assert targets[path.encode()](odd, b"{}", time.monotonic() - 10) == {}
        counted = samples(client.get("/metrics").text)
        assert counted["bee_requests_total", "code=503", "model="] == 4
