"""Behind a proxy that strips a prefix, and for pages of another origin."""

import http.server
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError
from running import Server, client_of, problem

from beexformer.app.settings import Settings

PREFIX = "/ml/sentiment"
ORIGIN = "https://app.example.com"


@contextmanager
def stripping_proxy(upstream: str, **headers: str) -> Iterator[str]:
    """A proxy in this process that serves `upstream` below PREFIX, and tells it `headers`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0))) or None
            kept = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
            url = upstream + (self.path.removeprefix(PREFIX) or "/")
            asked = urllib.request.Request(url, body, {**kept, **headers}, method=self.command)
            try:
                answer: Any = urllib.request.urlopen(asked, timeout=30)
            except urllib.error.HTTPError as error:
                answer = error
            content = answer.read()
            self.send_response(answer.status)
            self.send_header("content-type", answer.headers["content-type"])
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = forward

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}"
        proxy.shutdown()


def test_docs_and_page_work_behind_a_proxy_that_strips_a_prefix(server: Server) -> None:
    with stripping_proxy(server.url, **{"X-Forwarded-Prefix": PREFIX}) as proxy:
        docs = httpx2.get(f"{proxy}{PREFIX}/docs").text
        links = re.findall(r"""(?:src|href)="([^"]+)"|url: ['"]([^'"]+)""", docs)
        paths = [one or other for one, other in links]
        assert any(path.endswith("openapi.json") for path in paths)
        for path in paths:
            assert path.startswith(f"{PREFIX}/")
            assert httpx2.get(f"{proxy}{path}").status_code == 200, path
        document = httpx2.get(f"{proxy}{PREFIX}/openapi.json").json()
        assert document["servers"] == [{"url": PREFIX}]
        assert httpx2.post(f"{proxy}{PREFIX}/classify", json={"text": "a film"}).status_code == 200
        for path in ("/", "/assets/page.js", "/readyz", "/models/golden"):
            assert httpx2.get(f"{proxy}{PREFIX}{path}").status_code == 200, path
    assert "servers" not in httpx2.get(f"{server.url}/openapi.json").json()


def test_the_prefix_is_a_setting_for_proxies_that_say_nothing_or_strip_nothing() -> None:
    with client_of(root_path=PREFIX, api_keys=("secret-key",)) as client:
        for path in ("/docs", f"{PREFIX}/docs"):
            assert f'"{PREFIX}/docs/static/' in client.get(path).text
        for path in ("/livez", f"{PREFIX}/livez", f"{PREFIX}/", f"{PREFIX}/assets/page.js"):
            assert client.get(path).status_code == 200, "open with the prefix as without it"
        for path in ("/models", f"{PREFIX}/models"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"X-API-Key": "secret-key"}).status_code == 200
        key = {"X-API-Key": "secret-key"}
        assert client.post(f"{PREFIX}/classify", json={"text": "a film"}, headers=key).status_code == 200


@pytest.mark.parametrize("stated", ["//evil.example", "/a b", '/"><script>', "/" + "a" * 300, "https://a", "/a/../b?c"])
def test_an_odd_prefix_in_a_header_is_left_aside(stated: str) -> None:
    with client_of() as client:
        assert "evil" not in (docs := client.get("/docs", headers={"X-Forwarded-Prefix": stated})).text
        assert docs.text == client.get("/docs").text


def test_no_other_origin_may_call_unless_it_is_configured() -> None:
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    with client_of() as client:
        assert "access-control-allow-origin" not in client.get("/models", headers=asked).headers
        assert client.options("/classify", headers=asked).status_code == 405
    with client_of(cors_origins=(ORIGIN,), api_keys=("secret-key",)) as client:
        preflight = client.options("/classify", headers=asked)
        assert preflight.status_code == 200, "which has no key"
        assert preflight.headers["access-control-allow-origin"] == ORIGIN
        refused = client.post("/classify", json={"text": "a film"}, headers={"Origin": ORIGIN})
        problem(refused, 401, "unauthorized")
        assert refused.headers["access-control-allow-origin"] == ORIGIN, "the page can read what was wrong"
        assert "retry-after" in refused.headers["access-control-expose-headers"].lower()
        other = client.get("/models", headers={"Origin": "https://other.example", "X-API-Key": "secret-key"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("value", ["app.example.com", "https://app.example.com/", "ftp://a"])
def test_what_is_no_origin_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="an origin is a scheme and a host"):
        Settings(cors_origins=(value,))


@pytest.mark.parametrize("value", ["ml", "/ml/", "//ml", "/m l"])
def test_what_is_no_prefix_is_refused(value: str) -> None:
    with pytest.raises(ValidationError):
        Settings(root_path=value)
