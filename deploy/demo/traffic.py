#!/usr/bin/env python3
"""
Sends the service real sentences at a steady rate, so that every panel of the dashboards lives within a minute.

- open loop: request i is due at i / rate seconds, whatever became of those before it; one that finds all connections
  busy is not sent late but counted as `late`
- mostly single texts as they come; some with a delta of their own, some pairs, batches and requests that are refused
- `--texts encyclopedia.txt` sends long paragraphs about other things, to see the alert about drifting exits
- needs nothing but Python; knows neither `app` nor `model`, only HTTP. The texts beside it were written for it
"""

import argparse
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).parent
CONNECTIONS = 32
BUSY = (503, 504)  # fair answers to too high a rate


def request(chance: random.Random, texts: list[str]) -> tuple[str, bytes, int]:
    """(path, body, the status it should be answered with)."""
    text, other = chance.choice(texts), chance.choice(texts)
    kinds = {
        "single": (80, "/classify", {"text": text}, 200),
        "own delta": (6, "/classify", {"text": text, "delta": chance.choice((-0.2, 0.01, 0.3, 1))}, 200),
        "hardly ever early": (2, "/classify", {"text": text, "delta": -1}, 200),
        "pair for a model of single texts": (1, "/classify", {"text": text, "text_pair": other}, 422),
        "batch": (5, "/classify/batch", {"items": [{"text": text} for text in chance.choices(texts, k=8)]}, 200),
        "blank": (1, "/classify", {"text": " "}, 422),
        "unknown model": (1, "/classify", {"text": text, "model": "no-such-model"}, 404),
        "unknown field": (1, "/classify", {"text": text, "colour": "green"}, 422),
    }
    [(_, path, body, status)] = chance.choices(list(kinds.values()), [kind[0] for kind in kinds.values()])
    return path, json.dumps(body).encode(), status


class Sender:
    """Connections that stay open, one a thread, and what came back."""

    def __init__(self, service: str, key: str) -> None:
        url = urlsplit(service)
        self._new = lambda: (HTTPSConnection if url.scheme == "https" else HTTPConnection)(url.netloc, timeout=30)
        self._headers = {"content-type": "application/json", **({"x-api-key": key} if key else {})}
        self._of_thread = threading.local()
        self._free = threading.Semaphore(CONNECTIONS)
        self._pool = ThreadPoolExecutor(CONNECTIONS)
        self._counting = threading.Lock()
        self.outcomes: Counter[str] = Counter()

    def due(self, path: str, body: bytes, expected: int) -> None:
        if self._free.acquire(blocking=False):
            self._pool.submit(self._send, path, body, expected)
        else:
            self._note("late")

    def close(self) -> None:
        self._pool.shutdown()

    def _send(self, path: str, body: bytes, expected: int) -> None:
        try:
            status = self._post(path, body)
            self._note(str(status) if status in (expected, *BUSY) else f"{status} instead of {expected}")
        except (OSError, HTTPException):
            self._note("no answer")
        finally:
            self._free.release()

    def _note(self, outcome: str) -> None:
        with self._counting:
            self.outcomes[outcome] += 1

    def _post(self, path: str, body: bytes) -> int:
        kept = getattr(self._of_thread, "connection", None)
        if kept:
            with suppress(OSError, HTTPException):  # the server closes what was idle for some seconds
                return self._over(kept, path, body)
            kept.close()
        self._of_thread.connection = connection = self._new()
        return self._over(connection, path, body)

    def _over(self, connection: HTTPConnection, path: str, body: bytes) -> int:
        connection.request("POST", path, body, self._headers)
        response = connection.getresponse()
        response.read()
        return response.status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", default="http://127.0.0.1:8000", help="URL of the service (%(default)s)")
    parser.add_argument("--rate", type=float, default=20, help="requests a second (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0, help="when to stop; 0: never (%(default)s)")
    parser.add_argument(
        "--texts",
        type=Path,
        default=Path("movies.txt"),
        help="a text a line; movies.txt and encyclopedia.txt are here (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order of texts and kinds of request (%(default)s)")
    arguments = parser.parse_args()
    if arguments.rate <= 0:
        parser.error("--rate must be above 0")

    texts = [line.strip() for line in (HERE / arguments.texts).read_text().splitlines() if line.strip()]
    chance = random.Random(arguments.seed)
    sender = Sender(arguments.service, os.environ.get("BEE_API_KEYS", "").split(",")[0].strip())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # nobody else ends process 1 of a container
    start, told = time.monotonic(), 0.0
    try:
        for i in count():
            due = i / arguments.rate
            if arguments.seconds and due >= arguments.seconds:
                break
            time.sleep(max(0.0, start + due - time.monotonic()))
            sender.due(*request(chance, texts))
            if due - told >= 10:
                told = due
                tell(sender.outcomes)
    except KeyboardInterrupt:
        pass
    sender.close()
    tell(sender.outcomes)
    wrong = sum(n for outcome, n in sender.outcomes.items() if "instead" in outcome)
    sys.exit(1 if wrong or not sender.outcomes["200"] else 0)


def tell(outcomes: Counter[str]) -> None:
    print(
        ", ".join(f"{outcome}: {n}" for outcome, n in sorted(outcomes.copy().items())) or "nothing answered yet",
        flush=True,
    )


if __name__ == "__main__":
    main()
