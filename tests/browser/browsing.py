"""A reverse proxy with a prefix, and where pictures go."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
from running import PATIENCE

Opened = Callable[..., Any]


@contextmanager
def proxied(upstream: str, prefix: str) -> Iterator[str]:
    """A reverse proxy that serves `upstream` under a prefix, which it takes away, as most do."""

    class Proxy(BaseHTTPRequestHandler):
        def answer(self) -> None:
            if not self.path.startswith(f"{prefix}/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {
                name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")
            }
            response = httpx2.request(
                self.command, upstream + self.path.removeprefix(prefix), content=body, headers=headers, timeout=PATIENCE
            )
            self.send_response(response.status_code)
            for name, value in response.headers.items():
                if name not in ("content-encoding", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(response.content)

        do_GET = do_POST = answer

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{prefix}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def screenshots() -> Path:
    """The folder for pictures: SCREENSHOTS, or one that git ignores."""
    folder = Path(os.environ.get("SCREENSHOTS") or Path(__file__).parents[2] / "runs" / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
