"""HTTP as hostile, broken and merely unusual clients send it, byte by byte to a real server."""

import asyncio
import contextlib
import http.client
import json
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
import uvloop
from running import BEEXFORMER, GOLDEN, MEDIA_TYPE, PATIENCE, Server, samples, server_of, wait_until
from traffic import BODY, HEAD, request

from beexformer.app.connections import Connections, Limits
from beexformer.app.protocol import Protocol

PROBE = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One worker that waits a second for a head, for a body and between requests."""
    flags = [f"--{name}-seconds=1" for name in ("head", "body", "keep-alive")]
    command = (BEEXFORMER, "serve", "--port", "0", "--workers", "1", "--checkpoints", GOLDEN, *flags)
    with server_of(tmp_path_factory.mktemp("strict"), *command) as server:
        yield server


def connect(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def answers(data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """(status, headers, body) of each answer in it."""
    result = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        body, data = data[:length], data[length:]
        if int(first.split()[1]) >= 200:
            result.append((int(first.split()[1]), headers, body))
    return result


def until_closed(connection: socket.socket) -> bytes:
    data = b""
    while piece := connection.recv(65536):
        data += piece
    return data


def talk(server: Server, *pieces: bytes, half_close: bool = False) -> list[tuple[int, dict[str, str], bytes]]:
    """Send the pieces one by one, and return all answers until the server closes."""
    with connect(server) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.01 * (len(pieces) > 1))
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        return answers(until_closed(connection))


def refusal(server: Server, status: int, *pieces: bytes) -> dict[str, Any]:
    """The one problem that the pieces get before the server closes."""
    [(given, headers, body)] = talk(server, *pieces)
    assert (given, headers["content-type"], headers["connection"]) == (status, MEDIA_TYPE, "close"), body
    problem: dict[str, Any] = json.loads(body)
    assert problem["status"] == status
    assert problem["request_id"] == headers["x-request-id"]
    return problem


@pytest.mark.slow
@pytest.mark.parametrize(
    "upgrade",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
        b"connection: keep-alive, upgrade\r\nUpgrade: websocket\r\n",
        b"Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n",
    ],
    ids=["h2c", "websocket", "tls"],
)
@pytest.mark.parametrize("split", [False, True])
def test_an_upgrade_is_declined_and_the_body_is_read(server: Server, upgrade: bytes, split: bool) -> None:
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n" + upgrade + b"\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    sent = request(extra=upgrade) + chunked + request(extra=b"Connection: close\r\n")
    pieces = [sent[i : i + 7] for i in range(0, len(sent), 7)] if split else [sent]
    got = talk(server, *pieces)
    assert [status for status, _, _ in got] == [200] * 3
    assert len({json.loads(body)["label"] for _, _, body in got}) == 1


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed; apt-get install curl")
def test_curl_may_ask_for_http2(server: Server) -> None:
    command = ["curl", "-sS", "--http2", "--json", BODY.decode(), f"{server.url}/classify"]
    assert json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["label"]


def test_heads_are_bounded(server: Server) -> None:
    start = b"GET /livez HTTP/1.1\r\n"
    problem = refusal(server, 431, start + b"".join(b"X-%d: a\r\n" % i for i in range(101)) + b"\r\n")
    assert "100 headers" in problem["detail"]
    assert refusal(server, 431, start + b"X: " + b"a" * 40_000 + b"\r\n\r\n")
    assert refusal(server, 414, b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n\r\n")
    within = start + b"".join(b"X-%d: %s\r\n" % (i, b"a" * 250) for i in range(98)) + b"Connection: close\r\n\r\n"
    assert [status for status, _, _ in talk(server, within)] == [200]


def test_a_head_without_end_is_cut_off(server: Server) -> None:
    def endless(piece: bytes) -> int:
        with connect(server) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nX: ")
            sent = 0
            try:
                while sent < 200_000_000:
                    connection.sendall(piece)
                    sent += len(piece)
            except OSError:  # it discards for a while, then it cuts the connection
                pass
            return sent

    for piece in (b"a" * 65536, b"a: b\r\n" * 8192):
        assert endless(piece) < 100_000_000
    assert httpx2.get(f"{server.url}/livez").status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /classify HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nContent-Length: " + b"0" * 4999 + b"5\r\nConnection: close\r\n\r\n12345",
        b"POST /classify HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nContent-Length: 5, 6\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET http:// HTTP/1.1\r\n\r\n",
        b"GET a:1 HTTP/1.1\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ],
)
def test_nonsense_is_refused_and_never_a_500(server: Server, sent: bytes) -> None:
    [(status, headers, body)] = talk(server, sent)
    assert status in (400, 405, 413, 415), body
    assert headers["content-type"] == MEDIA_TYPE
    assert json.loads(body)["status"] == status


@pytest.mark.slow
def test_a_slow_head_and_a_slow_body_get_408(strict: Server) -> None:
    assert "head" in refusal(strict, 408, PROBE[:20])["detail"]
    slow = refusal(strict, 408, request()[:-5])
    assert "body" in slow["detail"]
    wait_until(lambda: slow["request_id"] in strict.log.read_text())
    [line] = [line for line in strict.lines() if line.get("request_id") == slow["request_id"]]
    assert (line["status"], line["path"]) == (408, "/classify")


@pytest.mark.slow
def test_a_slow_client_stops_nobody_and_is_gone_within_its_bound(strict: Server) -> None:
    slow = [connect(strict) for _ in range(50)]
    try:
        for i, connection in enumerate(slow):
            connection.sendall(request()[: 1 + i])
        before = samples(httpx2.get(f"{strict.url}/metrics").text)["bee_requests_total", "code=200", "model=golden"]
        for _ in range(5):
            assert httpx2.post(f"{strict.url}/classify", json={"text": "film"}).status_code == 200
        after = samples(httpx2.get(f"{strict.url}/metrics").text)["bee_requests_total", "code=200", "model=golden"]
        assert after - before == 5
        ends = [answers(until_closed(connection)) for connection in slow]
    finally:
        for connection in slow:
            connection.close()
    assert {status for end in ends for status, _, _ in end} == {408}


def test_refusals_before_the_app_are_counted_and_logged(strict: Server) -> None:
    def refused() -> float:
        return samples(httpx2.get(f"{strict.url}/metrics").text).get(("bee_requests_total", "code=431", "model="), 0.0)

    before = refused()
    problem = refusal(strict, 431, HEAD + b"X: " + b"a" * 40_000 + b"\r\n\r\n")
    assert refused() == before + 1
    end = time.monotonic() + PATIENCE
    while problem["request_id"] not in strict.log.read_text():  # lines are written a few times a second
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_silence_ends_without_a_word(strict: Server) -> None:
    assert talk(strict) == []
    [(status, headers, _)] = talk(strict, PROBE)  # kept, idle, closed
    assert (status, headers.get("connection")) == (200, None)


@pytest.mark.parametrize("path", ["/classify", "/nowhere", "/livez"])
@pytest.mark.parametrize("size", [2_000_000, 20_000_000])
def test_a_refused_upload_can_be_read(server: Server, path: str, size: int) -> None:
    """urllib sends everything, with Connection: close, before it reads."""
    upload = urllib.request.Request(server.url + path, b"a" * size, {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(upload, timeout=PATIENCE)
    assert refused.value.code == 413
    assert json.loads(refused.value.read())["status"] == 413


def test_a_refused_upload_without_a_length_can_be_read(server: Server) -> None:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=PATIENCE)
    pieces = (b"a" * 65536 for _ in range(200))
    connection.request("POST", "/classify", pieces, {"Content-Type": "application/json"}, encode_chunked=True)
    response = connection.getresponse()
    assert (response.status, response.headers["connection"]) == (413, "close")
    assert json.loads(response.read())["status"] == 413


def test_an_upload_beyond_the_bound_is_cut_off(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(HEAD + b"Content-Length: 10000000000\r\n\r\n")
        with pytest.raises(OSError, match=r"reset|pipe"):
            connection.sendall(b"a" * 1_000_000_000)


@pytest.mark.parametrize(
    "accept",
    [b"application/openmetrics-text; version=a", b"application/openmetrics-text;version=99.0.0;escaping=\xe9", b",;="],
)
def test_accept_is_taken_as_it_comes(server: Server, accept: bytes) -> None:
    sent = b"GET /metrics HTTP/1.1\r\nConnection: close\r\nAccept: %s\r\n\r\n" % accept
    assert [status for status, _, _ in talk(server, sent)] == [200]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/", "/models", "/openapi.json"])
def test_head_is_get_without_a_body(server: Server, path: str) -> None:
    [(status, headers, body)] = talk(server, f"HEAD {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
    assert (status, body) == (200, b"") or path == "/models"
    assert int(headers["content-length"]) > 0
    assert httpx2.head(server.url + path).status_code == 200


def test_a_client_that_ends_its_side_gets_its_answers(server: Server) -> None:
    assert [status for status, _, _ in talk(server, request(), half_close=True)] == [200]
    assert [status for status, _, _ in talk(server, request() * 3, half_close=True)] == [200] * 3
    assert talk(server, request()[:-4], half_close=True) == []


def test_requests_in_a_row_are_answered_in_order_and_garbage_behind_them_ends_it(server: Server) -> None:
    texts = [b'{"text": "%s"}' % (b"film " * i) for i in (1, 20, 2, 30, 3)]
    got = talk(server, b"".join(map(request, texts)) + b"\x00garbage\r\n\r\n")
    assert [status for status, _, _ in got[:5]] == [200] * 5
    assert [json.loads(body)["tokens"] for _, _, body in got[:5]] == [3, 22, 4, 32, 5]


@pytest.mark.slow
def test_what_comes_behind_a_body_is_no_header(tmp_path: Path) -> None:
    command = (BEEXFORMER, "serve", "--port", "0", "--workers", "1", "--checkpoints", GOLDEN)
    with server_of(tmp_path, *command, BEE_API_KEYS="the-secret-key") as server:
        chunked = HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)
        assert [status for status, _, _ in talk(server, chunked + b"X-API-Key: the-secret-key\r\n\r\n")] == [401]


def test_a_client_that_leaves_in_the_middle_of_its_body_is_499(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(HEAD + b"X-Request-ID: half-a-body\r\nContent-Length: 100\r\n\r\n{")
    wait_until(lambda: "half-a-body" in server.log.read_text())
    [line] = [line for line in server.lines() if line.get("request_id") == "half-a-body"]
    assert (line["level"], line["status"]) == ("info", 499)


@pytest.mark.parametrize("leaves", [True, False])
def test_who_has_left_is_told_from_who_has_only_ended_its_side(leaves: bool) -> None:
    """Both look the same to a server until it sends something."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["body"] == BODY
        with contextlib.suppress(TimeoutError):
            seen.append(await asyncio.wait_for(receive(), 0.5 if not leaves else PATIENCE))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def ask() -> bytes:
        loop = asyncio.get_running_loop()
        config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, proxy_headers=False)
        config.load()
        connections = Connections(Limits(10, 10, 10, 0))
        server = await loop.create_server(lambda: Protocol(config, connections, {}, loop), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(request())
        if leaves:
            writer.close()
        else:
            writer.write_eof()
        while connections.tasks or (not connections.total_requests and not seen):
            await asyncio.sleep(0.05)
            connections.probe()
        answer = b"" if leaves else await reader.read()
        writer.close()
        server.close()
        return answer

    seen: list[Any] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        got = runner.run(ask())
    if leaves:
        assert seen == [{"type": "http.disconnect"}]
    else:
        assert seen == []
        assert [(status, body) for status, _, body in answers(got)] == [(200, b"ok")]
        assert got.startswith(b"HTTP/1.1 100 ")


def test_a_request_that_waits_for_the_loop_keeps_its_connection() -> None:
    """Where the loop is late, a connection that looks idle may have its next request in the system's buffer."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def ask() -> list[object]:
        loop = asyncio.get_running_loop()
        config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, proxy_headers=False)
        config.load()
        connections = Connections(Limits(10, 10, 10, 0))
        server = await loop.create_server(lambda: Protocol(config, connections, {}, loop), "127.0.0.1", 0)

        async def answered() -> bytes:
            return await loop.run_in_executor(None, client.recv, 65536)

        seen: list[object] = []
        with socket.create_connection(server.sockets[0].getsockname(), timeout=10) as client:
            client.sendall(PROBE)
            seen.append(await answered())
            client.sendall(PROBE)  # and the loop has no turn
            seen.append(connections.close_idle())
            [connection] = connections.connections
            connection.deadline = 0.0
            connections.sweep()
            seen.append(await answered())
            seen.append(connections.close_idle())
            seen.append(await answered())
        server.close()
        return seen

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        first, closed, second, closed_then, end = runner.run(ask())
    assert [status for status, _, _ in answers(bytes(first) + bytes(second))] == [200, 200]
    assert (closed, closed_then, end) == (0, 1, b"")


@pytest.mark.slow
def test_old_connections_are_ended_with_notice(tmp_path: Path) -> None:
    command = (BEEXFORMER, "serve", "--port", "0", "--workers", "1", "--checkpoints", GOLDEN)
    with server_of(tmp_path, *command, "--connection-seconds", "1") as server, connect(server) as connection:
        connection.sendall(PROBE)
        first = connection.recv(65536)
        time.sleep(1.2)
        connection.sendall(PROBE)
        [(_, headers, _)] = answers(until_closed(connection))
    assert b"connection: close" not in first
    assert headers["connection"] == "close"


@pytest.mark.slow
def test_out_of_file_descriptors_new_connections_wait_and_the_log_says_so(tmp_path: Path) -> None:
    limited = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); "
    limited += "os.execv(sys.argv[1], sys.argv[1:])"
    serve = [str(BEEXFORMER), "serve", "--port", "0", "--workers", "1", "--checkpoints", str(GOLDEN)]
    with server_of(tmp_path, sys.executable, "-c", limited, *serve) as server:
        many = [connect(server) for _ in range(80)]  # all are in the queue of the socket
        try:
            for connection in many:
                connection.sendall(PROBE)
            for connection in many:
                assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        finally:
            for connection in many:
                connection.close()
        errors = [line["message"] for line in server.lines() if line["level"] == "error"]
        assert any("no connection can be taken" in message for message in errors)
        assert len(errors) < 5


def test_no_more_are_held_than_may_be_and_idle_ones_make_room(tmp_path: Path) -> None:
    serve = [
        str(BEEXFORMER),
        "serve",
        "--port",
        "0",
        "--workers",
        "1",
        "--checkpoints",
        str(GOLDEN),
        "--max-connections",
        "16",
    ]
    with server_of(tmp_path, *serve) as server:
        first = [connect(server) for _ in range(16)]
        for client in first:
            assert asked(client), "as many as may be are served"
        with connect(server) as late:
            late.sendall(PROBE)
            assert late.recv(65536).startswith(b"HTTP/1.1 200"), "connections that have idled for a second made room"
        closed = [client for client in first if not asked(client)]
        assert 1 <= len(closed) <= 8
        for client in first:
            client.close()
        warned = [line["message"] for line in server.lines() if line["level"] == "warning"]
        assert warned == ["as many connections as BEE_MAX_CONNECTIONS allows; new clients wait"]


def asked(client: socket.socket) -> bool:
    """A request on this connection is answered."""
    try:
        client.sendall(PROBE)
        return client.recv(65536).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def hostile_head(chance: random.Random) -> bytes:
    """A head that is nearly right."""
    lines = [
        chance.choice([b"POST", b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"post", b"P\x00ST", b"PUT" * 50]),
        chance.choice(
            [b"/classify", b"/classify/batch", b"/livez", b"/metrics", b"/%00", b"/assets/..%2f..", b"*", b"/\xff"]
        ),
        chance.choice([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1 ", b"http/1.1", b""]),
    ]
    names = [b"Content-Length", b"Transfer-Encoding", b"Content-Type", b"Connection", b"Upgrade", b"Expect", b"Host"]
    names += [b"Accept", b"X-Request-Timeout-Ms", b"X-Request-ID", b"Authorization", b"Cookie", b"Range", b"X\x01", b""]
    contents = [b"0", b"5", b"-1", b"9" * 30, b"chunked", b"application/json", b"close", b"keep-alive, upgrade", b"h2c"]
    contents += [b"100-continue", b"*/*;q=\xe9", b"bytes=0-9999999999", b"a" * 300, b"\t", b"\x00", b"1e9", b"identity"]
    head = b" ".join(lines) + b"\r\n"
    for _ in range(chance.randrange(8)):
        head += chance.choice(names) + chance.choice([b": ", b":", b" :"]) + chance.choice(contents) + b"\r\n"
    head += chance.choice([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r\n5\r\nabcde\r\n0\r\n\r\n", b"\r\nabcde"])
    if chance.random() < 0.3:  # a byte of it is another
        i = chance.randrange(len(head))
        head = head[:i] + bytes([chance.randrange(256)]) + head[i + 1 :]
    return head[: chance.randrange(len(head))] if chance.random() < 0.1 else head


def hostile_body(chance: random.Random) -> bytes:
    """A body that is nearly right."""
    texts: list[Any] = [
        "film",
        "",
        " ",
        "\u200b",
        "a" * 5000,
        "\ud800",
        "\x00",
        None,
        1,
        [],
        {},
        "ﬁlm",
        "\U0001f600" * 99,
    ]
    numbers: list[Any] = [0, 1, -1, 1e308, float("nan"), float("inf"), -0.0, True, "1", 10**400, [], None]
    item: dict[str, Any] = {"text": chance.choice(texts)}
    for name in chance.sample(
        ["text_pair", "model", "delta", "entropy_threshold", "min_blocks", "max_blocks", "truncate", "cost", "x"], 2
    ):
        item[name] = chance.choice(texts if name in ("text_pair", "model", "x") else numbers)
    whole: Any = chance.choice([item, {"items": [item] * chance.randrange(4)}, [item], {"items": item}, item["text"]])
    body = json.dumps(whole, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
    if chance.random() < 0.3:
        i = chance.randrange(len(body))
        body = body[:i] + bytes([chance.randrange(256)]) + body[i + 1 :]
    return body if chance.random() < 0.95 else b"[" * chance.randrange(1, 50_000)


def resident(server: Server) -> int:
    """Bytes that all processes of the server have to themselves and in memory, shares counted once (PSS)."""
    pid = server.process.pid
    pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    rollups = [Path(f"/proc/{one}/smaps_rollup").read_text() for one in pids]
    return sum(int(line.split()[1]) for text in rollups for line in text.splitlines() if line.startswith("Pss:")) * 1024


def torment(server: Server, heads: int, bodies: int, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(heads):
        head = hostile_head(chance)
        with connect(server) as connection:
            connection.sendall(head)
            connection.shutdown(socket.SHUT_WR)
            try:
                got = answers(until_closed(connection))
            except ConnectionResetError:
                continue
        assert all(status not in (500, 501, 502) for status, _, _ in got), head
    with contextlib.closing(http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=PATIENCE)) as asked:
        torment_with_bodies(asked, bodies, chance)


def torment_with_bodies(connection: http.client.HTTPConnection, bodies: int, chance: random.Random) -> None:
    for _ in range(bodies):
        body = hostile_body(chance)
        path = chance.choice(["/classify", "/classify/batch"])
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        assert response.status < 500, (path, body[:200], content)
        if response.status != 200:
            assert json.loads(content)["status"] == response.status


def test_generated_heads_and_bodies_get_no_500(strict: Server) -> None:
    torment(strict, heads=300, bodies=500, seed=24)
    assert not [line for line in strict.lines() if "traceback" in line]


@pytest.mark.soak
def test_many_generated_heads_and_bodies_get_no_500_and_take_no_memory(tmp_path: Path) -> None:
    flags = [f"--{name}-seconds=1" for name in ("head", "body")]
    command = (BEEXFORMER, "serve", "--port", "0", "--workers", "2", "--checkpoints", GOLDEN, *flags)
    with server_of(tmp_path, *command) as server:
        torment(server, heads=500, bodies=2000, seed=1)
        before = resident(server)
        torment(server, heads=10_000, bodies=100_000, seed=2)
        grown = resident(server) - before
        assert not [line for line in server.lines() if "traceback" in line]
    assert grown < 20_000_000
