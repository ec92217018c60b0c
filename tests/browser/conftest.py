"""
Chromium before the real server with the shipped checkpoint.

Every page of `opened` fails its test where it writes an error to the console, throws one, or asks another host.
Chromium itself writes one for each answer from 400 on: a test that means to get some says which.
"""

import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from browsing import Opened
from playwright.sync_api import sync_playwright
from running import BEEXFORMER, PATIENCE, Server, server_of

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server_of(tmp_path_factory.mktemp("shipped"), BEEXFORMER, "serve", "--port", "0") as server:
        yield server


@pytest.fixture(scope="module")  # not of the session: while it lives, the main thread has an event loop that runs
def chromium() -> Iterator[Any]:
    if not CHROMIUM:
        pytest.skip("there is no chromium here: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Any, shipped: Server) -> Iterator[Opened]:
    """opened(url, errors=[statuses], **options of the context): a page in a fresh profile, with what it may write."""
    contexts = []

    def open_(url: str = shipped.url, errors: tuple[str, ...] = (), **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": 1280, "height": 960}, **options)
        context.set_default_timeout(PATIENCE * 1000)
        result: list[str] = []
        contexts.append((context, result))
        page = context.new_page()
        page.on("console", lambda message: result.append(message.text) if _wrong(message, errors) else None)
        page.on("pageerror", lambda error: result.append(f"thrown: {error}"))
        page.on("request", lambda request: result.append(f"asked {request.url}") if _elsewhere(request, url) else None)
        page.goto(f"{url}/")
        return page

    yield open_
    for context, result in contexts:
        context.close()
        assert result == []


def _wrong(message: Any, expected: tuple[str, ...]) -> bool:
    return message.type in ("error", "warning") and not any(re.search(part, message.text) for part in expected)


def _elsewhere(request: Any, url: str) -> bool:
    return not request.url.startswith((f"{url}/", f"blob:{url.split('/', 3)[0]}//"))
