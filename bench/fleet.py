"""
A fleet on one machine: processes of `beexformer serve` as pods behind a real proxy, HAProxy, while pods come and go.

    python bench/fleet.py [--rate 100] [--connections 16]

- proxy that balances requests (as a Gateway or an Ingress does): two pods; one is killed and started again, as
  Kubernetes would; one is rolled, its successor ready before it is told to end; one is added
- proxy that balances connections (as a Service does): a pod is added, and the share of requests that it has after the
  maximum age of connections

Clients keep their connections and send at a steady rate; each answer has to be that of a pod that nobody disturbs.
Needs haproxy (Debian's package). Prints what became of the requests, stage by stage, and ends with one line of JSON.
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from timing import cpu_seconds, machine, today

SERVE = [sys.executable, "-c", "from beexformer.cli import main; main()", "serve"]
TEXTS = ("a warm , funny film", "a dull and lifeless film", "it is what it is", "not once did i laugh")
DRAIN_SECONDS = 2
AGE_SECONDS = 5  # of a connection, at most
PATIENCE = 120
PROXY = """
global
    stats socket {socket} level admin
defaults
    mode {mode}
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout check 5s  # one that is gone refuses at once; a slow answer is none of its end
    # classifying twice does no harm: a request that a dying pod took goes to another one
    retries 3
    option redispatch 1
    {retry}
frontend clients
    bind 127.0.0.1:{port}
    default_backend pods
backend pods
    balance {balance}
    option httpchk GET /readyz
    default-server check inter 200ms fall 1 rise 1 {check}
    {servers}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@dataclass
class Pod:
    """A service of one worker at a port; it may be started again."""

    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        flags = ["--port", self.port, "--workers", 1, "--drain-seconds", DRAIN_SECONDS, "--log-level", "warning"]
        # what a busy machine would have it refuse is no loss, and not what is looked for here
        flags += ["--max-wait-ms", 20_000, "--request-timeout-ms", 30_000]
        command = [*SERVE, *flags, "--connection-seconds", AGE_SECONDS]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*map(str, command)], stdout=log, stderr=log, start_new_session=True)
        until(self.ready)

    def ready(self) -> bool:
        try:
            return bool(urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5).status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """As a node that fails."""
        assert self.process
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> int:
        """As Kubernetes ends one; its exit code."""
        assert self.process
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def answered(self) -> float:
        """Texts that it has answered since it started."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        return sum(
            float(line.split()[-1]) for line in lines if line.startswith("bee_requests_total{") and 'code="200"' in line
        )


@dataclass
class Clients:
    """Threads with a connection each that send at a steady rate; `outcomes` counts what became of the requests."""

    port: int
    number: int
    rate: float
    expected: dict[str, Any] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    lost: list[float] = field(default_factory=list)  # when they were sent

    def __post_init__(self) -> None:
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(self.number)]

    def _run(self, index: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        due = time.monotonic() + index / self.rate
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + self.number / self.rate, time.monotonic())
            text, start = TEXTS[index % len(TEXTS)], time.monotonic()
            index += 1
            outcome = self._ask(connection, text)
            with self._lock:
                self.outcomes[outcome] += 1
                if outcome == "lost":
                    self.lost.append(start)
                self.slowest = max(self.slowest, time.monotonic() - start)
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, text: str) -> str:
        try:
            connection.request("POST", "/classify", json.dumps({"text": text}), {"content-type": "application/json"})
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()  # the next request opens another
            return "lost"
        if response.status != 200:
            return str(response.status)
        return "right" if json.loads(body) == self.expected[text] else "wrong"

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def stage(self, name: str) -> dict[str, Any]:
        """What became of the requests since the last stage; forgets it."""
        with self._lock:
            result, self.outcomes = dict(self.outcomes), Counter()
            slowest, self.slowest = self.slowest, 0.0
        print(f"{name}: {result}, slowest {1000 * slowest:.0f} ms", flush=True)
        return {**result, "slowest_ms": round(1000 * slowest)}


@contextmanager
def proxy(folder: Path, pods: list[Pod], mode: str) -> Iterator[tuple[int, int]]:
    """HAProxy before `pods`, whichever of them are ready; its port and its process."""
    port, of_requests = free_port(), mode == "http"
    config = folder / f"haproxy-{mode}.cfg"
    config.write_text(
        PROXY.format(
            socket=folder / f"{mode}.sock",
            mode=mode,
            port=port,
            retry="retry-on all-retryable-errors" if of_requests else "",
            balance="roundrobin" if of_requests else "leastconn",
            check="" if of_requests else "on-marked-down shutdown-sessions",
            servers="\n    ".join(f"server pod{i} 127.0.0.1:{pod.port}" for i, pod in enumerate(pods)),
        )
    )
    with (folder / f"haproxy-{mode}.log").open("wb") as log:
        process = subprocess.Popen(["haproxy", "-db", "-f", config], stdout=log, stderr=log)
        try:
            until(lambda: urlopen_status(port) == 200)
            yield port, process.pid
        finally:
            process.terminate()
            process.wait()


def urlopen_status(port: int) -> int:
    try:
        return int(urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).status)
    except OSError:
        return 0


def balanced_requests(pods: list[Pod], clients: Clients, seconds: float) -> dict[str, Any]:
    """Kill, roll and add. pods[:2] run, the others don't yet."""
    result = {}
    clients.start()
    time.sleep(seconds)
    result["two pods"] = clients.stage("two pods")
    pods[0].kill()
    killed = time.monotonic()
    time.sleep(seconds / 2)
    pods[0].start()
    time.sleep(seconds / 2)
    result["one killed"] = clients.stage("one killed, and started again")
    result["lost_that_were_sent_after_the_kill"] = sum(sent > killed for sent in clients.lost)
    pods[2].start()
    time.sleep(1)
    assert pods[1].end() == 0
    time.sleep(seconds / 2)
    result["one rolled"] = clients.stage("one rolled")
    pods[3].start()
    now_there = [pods[0], pods[2], pods[3]]
    before = [pod.answered() for pod in now_there]
    time.sleep(seconds)
    result["one added"] = clients.stage("one added")
    since = [pod.answered() - earlier for pod, earlier in zip(now_there, before, strict=True)]
    clients.stop()
    result["share_of_added"] = round(since[2] / sum(since), 3)
    return result


def balanced_connections(pods: list[Pod], added: Pod, clients: Clients) -> dict[str, Any]:
    """Add one, and let all connections reach their age."""
    clients.start()
    time.sleep(2)
    added.start()
    clients.stage("connections: before")
    time.sleep(AGE_SECONDS + 1.5)
    outcomes = clients.stage("connections: one added, until all are renewed")
    before = [pod.answered() for pod in (*pods, added)]
    time.sleep(AGE_SECONDS)
    shares = [pod.answered() - earlier for pod, earlier in zip((*pods, added), before, strict=True)]
    clients.stop()
    later = clients.stage("connections: after")
    return {"until_renewed": outcomes, "after": later, "shares": [round(one / sum(shares), 3) for one in shares]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=100, help="requests a second (%(default)s)")
    parser.add_argument("--connections", type=int, default=16, help="of clients (%(default)s)")
    parser.add_argument("--seconds", type=float, default=6, help="of a stage, about (%(default)s)")
    asked = parser.parse_args()
    if not shutil.which("haproxy"):
        sys.exit("haproxy is not installed; apt-get install haproxy")
    with tempfile.TemporaryDirectory(prefix="beexformer-fleet-") as name, ExitStack() as stack:
        folder = Path(name)
        pods = [Pod(free_port(), folder / f"pod{i}.log") for i in range(6)]
        stack.callback(lambda: [pod.kill() for pod in pods if pod.process and pod.process.poll() is None])
        for pod in pods[:2]:
            pod.start()
        expected = {text: undisturbed(pods[0].port, text) for text in TEXTS}
        with proxy(folder, pods[:4], "http") as (port, pid):
            clients = Clients(port, asked.connections, asked.rate, expected)
            result: dict[str, Any] = {"requests": balanced_requests(pods, clients, asked.seconds)}
            result["proxy_cpu_us"] = round(proxy_cost(port, pid, expected))
        with proxy(folder, [pods[0], pods[2], pods[4]], "tcp") as (port, _):
            pods[3].end()
            clients = Clients(port, asked.connections, asked.rate, expected)
            result["connections"] = balanced_connections([pods[0], pods[2]], pods[4], clients)
    print(json.dumps({**result, "machine": machine(), "date": today()}))


def proxy_cost(port: int, pid: int, expected: dict[str, Any]) -> float:
    """CPU microseconds of the proxy a request, of eight connections that send all the time."""
    before = cpu_seconds(pid)
    clients = Clients(port, 8, 1e6, expected)
    clients.start()
    time.sleep(5)
    clients.stop()
    return 1e6 * (cpu_seconds(pid) - before) / clients.outcomes["right"]


def undisturbed(port: int, text: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/classify", json.dumps({"text": text}), {"content-type": "application/json"})
    return json.loads(connection.getresponse().read())


if __name__ == "__main__":
    main()
