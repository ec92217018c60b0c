"""What the page is served as; what it does is in tests/browser."""

import re
from pathlib import Path

import pytest
from running import client_of, problem, samples
from starlette.testclient import TestClient

from beexformer.app.page import ASSETS, STATIC

FILES = sorted(str(path.relative_to(STATIC)) for path in (STATIC / "assets").rglob("*") if path.is_file())
TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".woff2": "font/woff2",
}


def test_the_page_is_html_that_may_load_nothing_from_elsewhere(client: TestClient) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy.pop("default-src") == "'none'"
    assert policy.pop("trusted-types") == "'none'"
    assert policy.pop("require-trusted-types-for") == "'script'"
    assert set(policy.values()) == {"'self'", "'none'"}, "no inline, no eval, no other host"


def test_the_page_has_nothing_inline_and_only_relative_links() -> None:
    html = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]+src=)", html)
    assert not re.search(r'(?:href|src)="(?:/|\w+:)', html)


@pytest.mark.parametrize("path", FILES)
def test_every_file_is_served_with_its_type(client: TestClient, path: str) -> None:
    response = client.get(f"/{path}")
    assert response.content == (STATIC / path).read_bytes()
    assert response.headers["content-type"].split(";")[0] == TYPES[Path(path).suffix]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/", "/assets/page.js"])
def test_an_unchanged_file_is_not_sent_again(client: TestClient, path: str) -> None:
    first = client.get(path)
    assert first.headers["cache-control"] == "no-cache"
    again = client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


@pytest.mark.parametrize("path", ["/", "/assets/page.js"])
def test_head_is_get_without_a_body(client: TestClient, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]
    assert head.headers["etag"] == got.headers["etag"]


@pytest.mark.parametrize(
    "path", ["/assets", "/assets/", "/assets/none.js", "/assets/vendor", "/assets/%2e%2e/index.html"]
)
def test_there_is_nothing_but_files(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()["type"]) == (404, "urn:problem-type:beexformer:not-found")


@pytest.mark.parametrize("path", ["/", "/assets/page.js"])
def test_the_page_takes_no_post(client: TestClient, path: str) -> None:
    problem(client.post(path, json={}), 405, "method-not-allowed")


def test_the_page_needs_no_key_and_the_api_does() -> None:
    with client_of(api_keys=("correct-horse",)) as client:
        assert client.get("/").status_code == 200
        assert client.get("/assets/page.js").status_code == 200
        problem(client.get("/models"), 401, "unauthorized")
        problem(client.get("/index.html"), 401, "unauthorized")


def test_the_page_is_no_request_to_the_metrics(client: TestClient) -> None:
    def counted() -> dict[tuple[str, ...], float]:
        result = samples(client.get("/metrics").text)
        return {key: value for key, value in result.items() if key[0].startswith("bee_request")}

    before = counted()
    for path in ("/", "/assets/page.js", "/assets/none.js"):
        client.get(path)
    assert counted() == before


def test_what_others_made_has_its_licence_beside_it() -> None:
    for path in FILES:
        if Path(path).parent.name in ("vendor", "fonts") and not path.endswith(".LICENSE.txt"):
            licence = STATIC / re.sub(r"(\.umd\.min\.js|\.woff2)$", ".LICENSE.txt", path)
            assert re.search("MIT|SIL Open Font License", licence.read_text()), path


def test_assets_are_where_the_page_looks_for_them() -> None:
    html = (STATIC / "index.html").read_text()
    assert set(re.findall(r'(?:href|src)="(assets/[^"]+)"', html)) <= set(FILES)
    assert ASSETS == "/assets"
