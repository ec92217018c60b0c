"""The service as most tests want it: with default settings, once for all of them."""

import logging
from collections.abc import Iterator

import pytest
from running import BEEXFORMER, GOLDEN, Server, client_of, server_of
from starlette.testclient import TestClient


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A test that serves in this process must not leave a handler behind that writes into its own, closed stderr."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def client() -> Iterator[TestClient]:
    with client_of() as client:
        yield client


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with server_of(folder, BEEXFORMER, "serve", "--port", "0", BEE_CHECKPOINTS=str(GOLDEN)) as server:
        yield server
