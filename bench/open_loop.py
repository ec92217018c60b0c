"""
An open loop: requests come when they come (Poisson), whether or not the ones before have been answered.

    taskset -c 1 python bench/open_loop.py PORT BODIES RATE SECONDS [--timeout-ms 1000]
        [--latencies FILE.json]

BODIES has one body a line, posted to /classify in turn; the answer to each, alone, is asked for beforehand, and what
comes under load has to equal it. A latency counts from the moment at which the request was to be sent, so that nothing
is hidden by a generator that waits: `sent_late_p99_ms` says how late it was itself, `generator_busy` in what share of
the time it had something to do; near 1 it can't offer more. Connections are kept and more are opened as long as all are
busy, up to CONNECTIONS; a request that finds none within its timeout is `unsent`. Ends with one line of JSON.
"""

import argparse
import json
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

CONNECTIONS = 10_000  # at most; what finds none waits here, and its latency counts on
GRACE = 5.0  # seconds that the last answers have
LOOK = 0.02  # seconds between two looks


@dataclass
class Connection:
    """A socket and the request that it is busy with."""

    socket: socket.socket
    number: int = -1  # of the request
    due: float = 0.0
    buffer: bytes = b""
    length: int = 0  # of the whole response, once its head is there
    connected: bool = True


@dataclass
class Outcomes:
    """What became of the requests."""

    latencies: list[float] = field(default_factory=list)  # of right answers, in seconds
    answered: list[int] = field(default_factory=list)  # the numbers of their requests
    delays: list[float] = field(default_factory=list)  # seconds by which requests were sent too late
    counts: Counter[str] = field(default_factory=Counter)
    busy: float = 0.0  # share of the time in which there was something to do


def requests(bodies: list[bytes], timeout_ms: int) -> list[bytes]:
    """Whole requests."""
    head = (
        b"POST /classify HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        b"X-Request-Timeout-Ms: %d\r\nContent-Length: %d\r\n\r\n"
    )
    return [head % (timeout_ms, len(body)) + body for body in bodies]


def connect(port: int) -> socket.socket:
    """A connection without Nagle's delay."""
    opened = socket.create_connection(("127.0.0.1", port))
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


def ask(connection: socket.socket, request: bytes) -> tuple[int, bytes]:
    """(status, body) of one request, waited for."""
    connection.sendall(request)
    buffer = b""
    while True:
        part = connection.recv(65536)
        if not part:
            raise ConnectionError("the server closed the connection")
        buffer += part
        end = complete(buffer)
        if end and len(buffer) >= end:
            return int(buffer[9:12]), buffer[buffer.index(b"\r\n\r\n") + 4 : end]


def complete(buffer: bytes) -> int:
    """Length of the whole response, 0 while its head isn't there."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return 0
    at = buffer.lower().find(b"content-length:", 0, end)
    return end + 4 + (int(buffer[at + 15 : buffer.index(b"\r", at)]) if at >= 0 else 0)


def alone(port: int, sent: list[bytes], repeats: int = 1) -> tuple[list[bytes], np.ndarray]:
    """(answers, seconds [repeats, requests]) of each request when nothing else is on its way."""
    answers: list[bytes] = []
    seconds = np.empty((repeats, len(sent)))
    with connect(port) as connection:
        for times in seconds:
            answers = []
            for i, request in enumerate(sent):
                start = time.perf_counter()
                status, body = ask(connection, request)
                times[i] = time.perf_counter() - start
                assert status == 200, body
                answers.append(body)
    return answers, seconds


class Clients:
    """The connections of a run, `ready` of them open from the beginning, and what becomes of its requests.

    Free ones are taken again, the one first that has been free the longest, as clients do who don't know of each other.
    The last one would get ahead of others: a server sees it before those that came since it read from it (epoll,
    level-triggered)."""

    def __init__(self, port: int, sent: list[bytes], ready: int = 0) -> None:
        self.port, self.sent, self.outcomes = port, sent, Outcomes()
        self.poll = select.epoll()
        self.all: dict[int, Connection] = {}
        self.free: deque[Connection] = deque()
        self.busy = self.events = 0
        for _ in range(ready):
            self.free.append(self._hold(connect(port), connected=True))

    def ask(self, number: int, due: float) -> bool:
        """Send the request of that number, or do so once a new connection is there. False where there are too many."""
        if self.free:
            connection = self.free.popleft()
        elif len(self.all) < CONNECTIONS:
            connection = self._open()
        else:
            return False
        connection.number, connection.due = number, due
        connection.buffer, connection.length = b"", 0
        self.outcomes.delays.append(time.perf_counter() - due)
        self.busy += 1
        if connection.connected:
            self._send(connection)
        return True

    def _open(self) -> Connection:
        opened = socket.socket()
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._hold(opened, connected=opened.connect_ex(("127.0.0.1", self.port)) == 0)

    def _hold(self, opened: socket.socket, *, connected: bool) -> Connection:
        opened.setblocking(False)
        connection = self.all[opened.fileno()] = Connection(opened, connected=connected)
        self.poll.register(opened, select.EPOLLIN | (0 if connected else select.EPOLLOUT))
        return connection

    def _send(self, connection: Connection) -> None:
        try:
            connection.socket.send(self.sent[connection.number % len(self.sent)])
        except OSError:
            self._break(connection)

    def _break(self, connection: Connection) -> None:
        if connection.number >= 0:
            self.outcomes.counts["broken"] += 1
            self.busy -= 1
        else:
            self.free.remove(connection)
        self.close(connection)

    def close(self, connection: Connection) -> None:
        self.poll.unregister(connection.socket)
        del self.all[connection.socket.fileno()]
        connection.socket.close()

    def whole(self, wait: float) -> Iterator[Connection]:
        """Those whose answers are there now, or within `wait` seconds; each is free afterwards."""
        for number, event in self.poll.poll(wait):
            self.events += 1
            connection = self.all[number]
            if not connection.connected and event & select.EPOLLOUT:
                connection.connected = True
                self.poll.modify(number, select.EPOLLIN)
                self._send(connection)
                continue
            try:
                part = connection.socket.recv(65536)
            except OSError:
                part = b""
            if not part:
                self._break(connection)
                continue
            connection.buffer += part
            connection.length = connection.length or complete(connection.buffer)
            if connection.length and len(connection.buffer) >= connection.length:
                yield connection
                self.busy -= 1
                connection.number = -1
                if b"connection: close" in connection.buffer[: connection.buffer.index(b"\r\n\r\n")].lower():
                    self.close(connection)
                else:
                    self.free.append(connection)


def offer(
    clients: Clients,
    answers: list[bytes],
    dues: np.ndarray,
    timeout: float,
    look: Callable[[], object] = lambda: None,
) -> Outcomes:
    """Send request i, in turn, at `dues[i]`, seconds from now. `look` is called about every LOOK seconds."""
    outcomes = clients.outcomes
    start, sending = time.perf_counter() + 0.1, 0
    looking = start
    times = (dues + start).tolist()
    end = times[-1] + timeout + GRACE
    idle = 0.0
    while (sending < len(times) or clients.busy) and time.perf_counter() < end:
        now, before = time.perf_counter(), sending + clients.events
        while sending < len(times) and times[sending] <= now:
            if not clients.ask(sending, times[sending]):
                if now < times[sending] + timeout:
                    break
                outcomes.counts["unsent"] += 1
            sending += 1
        wait = max(0.0, min(0.05, times[sending] - time.perf_counter())) if sending < len(times) else 0.05
        for connection in clients.whole(max(0.0, wait - 0.001)):  # it rounds up to milliseconds: the last one is spun
            settle(outcomes, connection, answers, timeout)
        if now >= looking:
            look()
            looking = now + LOOK
        if sending + clients.events == before:
            idle += time.perf_counter() - now
    outcomes.busy = 1 - idle / (time.perf_counter() - start)
    outcomes.counts["unanswered"] += clients.busy
    outcomes.counts["unsent"] += len(times) - sending
    for connection in list(clients.all.values()):
        connection.socket.close()
    return outcomes


def settle(outcomes: Outcomes, connection: Connection, answers: list[bytes], timeout: float) -> None:
    """Count a whole response."""
    latency, status = time.perf_counter() - connection.due, int(connection.buffer[9:12])
    if status == 200:
        answer = answers[connection.number % len(answers)]
        right = connection.buffer[-len(answer) :] == answer
        outcomes.counts["wrong" if not right else "ok" if latency <= timeout else "late"] += 1
        outcomes.latencies.append(latency)
        outcomes.answered.append(connection.number)
    elif status == 503:
        hinted = b"retry-after" in connection.buffer.lower()
        outcomes.counts["refused" if hinted else "refused without a hint"] += 1
    else:
        outcomes.counts[str(status)] += 1


def dues(rate: float, seconds: float, seed: int = 0) -> np.ndarray:
    """When requests are to be sent, in seconds: a Poisson process."""
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, int(rate * seconds)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("bodies", type=Path)
    parser.add_argument("rate", type=float, help="requests a second on average")
    parser.add_argument("seconds", type=float)
    parser.add_argument("--timeout-ms", type=int, default=1000, help="deadline, and what counts as late (%(default)s)")
    parser.add_argument("--latencies", type=Path, help="file for the seconds of every right answer, a JSON list")
    parser.add_argument("--fresh", action="store_true", help="a connection for each request")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    sent = requests(arguments.bodies.read_bytes().splitlines(), arguments.timeout_ms)
    answers, _ = alone(arguments.port, sent)
    if arguments.fresh:
        sent = [request.replace(b"Host: bench\r\n", b"Host: bench\r\nConnection: close\r\n", 1) for request in sent]
    times = dues(arguments.rate, arguments.seconds, arguments.seed)
    outcomes = offer(Clients(arguments.port, sent), answers, times, arguments.timeout_ms / 1000)
    result: dict[str, Any] = {"offered": len(times), **outcomes.counts}
    if outcomes.latencies:
        result["mean_ms"] = round(1000 * float(np.mean(outcomes.latencies)), 3)
        result["p50_ms"], result["p99_ms"] = (1000 * np.percentile(outcomes.latencies, (50, 99))).round(3).tolist()
    result["sent_late_p99_ms"] = round(1000 * float(np.percentile(outcomes.delays, 99)), 3)
    result["generator_busy"] = round(outcomes.busy, 2)
    result["ok_per_second"] = round(outcomes.counts["ok"] / float(times[-1]), 1)
    if arguments.latencies:
        arguments.latencies.write_text(json.dumps(outcomes.latencies))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
