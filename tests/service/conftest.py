"""The service as most tests want it: with default settings, once for all of them."""

from collections.abc import Iterator

import pytest
from running import BEEXFORMER, GOLDEN, Server, client_of, server_of
from starlette.testclient import TestClient


@pytest.fixture(scope="session")
def client() -> Iterator[TestClient]:
    with client_of() as client:
        yield client


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with server_of(folder, BEEXFORMER, "serve", "--port", "0", BEE_CHECKPOINTS=str(GOLDEN)) as server:
        yield server
