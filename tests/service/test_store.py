"""Checkpoints from an object store: fetched within bounds, verified, kept, and loaded anew while the service runs."""

import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import httpx2
import pytest
from running import BEEXFORMER, GOLDEN, server_of, wait_until

from beexformer.app import store
from beexformer.app.deployment import below_roots
from beexformer.app.errors import ChangeRefused
from beexformer.app.settings import Settings
from beexformer.model.checkpoint import CONFIG, FILES, read
from beexformer.model.errors import CheckpointError

ADMIN = {"X-API-Key": "admin-secret"}
URL = "memory://models/reviews"


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """fsspec's store in memory, with the golden checkpoint at URL."""
    result = fsspec.filesystem("memory")
    for name in (CONFIG, *FILES):
        result.pipe(f"/models/reviews/{name}", (GOLDEN / name).read_bytes())
    yield result
    result.rm("/models", recursive=True)


def rename(folder: Path, name: str) -> None:
    """Another content: format 1 has no digest of config.json itself."""
    described = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**described, "name": name}))


def test_a_checkpoint_is_fetched_once(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    folder = store.fetch(URL, tmp_path / "cache")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: (GOLDEN / name).read_bytes() for name in (CONFIG, *FILES)
    }
    assert read(folder).name == "golden"
    for name in FILES:
        memory.rm(f"/models/reviews/{name}")
    assert store.fetch(URL, tmp_path / "cache") == folder  # config.json alone says that it is the same


def test_another_content_is_fetched_and_the_oldest_is_forgotten(
    memory: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    folders = []
    for name in ("first", "second", "third"):
        described = json.loads((GOLDEN / CONFIG).read_text())
        memory.pipe(f"/models/reviews/{CONFIG}", json.dumps({**described, "name": name}).encode())
        folders.append(store.fetch(URL, tmp_path))
    assert [read(folder).name for folder in folders[1:]] == ["second", "third"]
    assert not folders[0].exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda memory: memory.pipe("/models/reviews/README.md", b"another"), "README.md is damaged"),
        (lambda memory: memory.rm("/models/reviews/tokenizer.json"), "has no tokenizer.json"),
        (lambda memory: memory.rm(f"/models/reviews/{CONFIG}"), f"has no {CONFIG}"),
        (lambda memory: memory.pipe("/models/reviews/model.safetensors", bytes(9_000_000)), "is larger than"),
        (lambda memory: memory.pipe(f"/models/reviews/{CONFIG}", b"{"), "can't be understood"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_leaves_nothing(
    damage: Callable[[fsspec.AbstractFileSystem], None],
    words: str,
    memory: fsspec.AbstractFileSystem,
    tmp_path: Path,
) -> None:
    damage(memory)
    with pytest.raises(CheckpointError, match=words) as refused:
        store.fetch(URL, tmp_path)
    assert "\n" not in str(refused.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_process_that_fetches_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^s3://bucket/model needs the extra \[store\].* s3fs$"):
        store.local("s3://bucket/model", tmp_path)
    with pytest.raises(CheckpointError, match="can't be understood"):
        store.local("carrier-pigeon://bucket/model", tmp_path)
    with pytest.raises(CheckpointError) as refused:
        store.local("http://someone:secret@127.0.0.1:1/model", tmp_path)
    assert "http://127.0.0.1:1/model" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.slow
def test_a_store_that_hangs_is_left(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(CheckpointError, match="within 2 s"):
        store.local(f"http://127.0.0.1:{silent.getsockname()[1]}/model", tmp_path, seconds=2)


def test_urls_are_told_from_folders() -> None:
    settings = Settings(checkpoints="models, s3://bucket/model")  # type: ignore[arg-type]  # as a variable has it
    assert settings.checkpoints == (Path("models"), "s3://bucket/model")
    assert settings.checkpoint_cache.is_absolute()


def test_urls_that_may_be_loaded_lie_below_a_root() -> None:
    roots = ("s3://bucket/models",)
    assert below_roots("s3://bucket/models/reviews", roots) == "s3://bucket/models/reviews"
    for foreign in ("s3://bucket/models-of-others/x", "s3://bucket/models/../x", "file:///etc", "s3://bucket/models"):
        with pytest.raises(ChangeRefused):
            below_roots(foreign, roots)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A folder that is served over HTTP."""
    folder = tmp_path / "shop"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_the_service_loads_from_a_url_and_anew(shop: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = shop
    for name in ("first", "second"):
        shutil.copytree(GOLDEN, folder / name)
        rename(folder / name, name)
    env = {
        "BEE_CHECKPOINTS": f"{url}/first",
        "BEE_CHECKPOINT_CACHE": str(tmp_path / "cache"),
        "BEE_CHECKPOINT_ROOTS": url,
        "BEE_ADMIN_KEYS": "admin-secret",
        "BEE_WORKERS": "1",
    }
    with (
        server_of(tmp_path, BEEXFORMER, "serve", "--port", "0", **env) as server,
        httpx2.Client(base_url=server.url, headers=ADMIN, timeout=120) as http,
    ):

        def ask(model: str) -> str:
            response = http.post("/classify", json={"text": "film", "model": model})
            return str(response.json().get("label", response.status_code))

        assert ask("first") in ("negative", "positive")
        loaded = http.post("/admin/models/second/load", json={"folder": f"{url}/second"})
        assert loaded.status_code == 200, loaded.text
        wait_until(lambda: ask("second") in ("negative", "positive"))  # a kept connection: the old worker once more
        described = json.loads((folder / "second" / CONFIG).read_text())
        (folder / "second" / CONFIG).write_text(json.dumps({**described, "labels": ["bad", "good"]}))
        assert http.post("/admin/models/second/reload").status_code == 200
        wait_until(lambda: ask("second") in ("bad", "good"))
        (folder / "second" / "README.md").write_text("damaged")
        (folder / "second" / CONFIG).write_text(json.dumps(described))
        shutil.rmtree(tmp_path / "cache")
        refused = http.post("/admin/models/second/reload")
        assert refused.status_code == 409
        assert "README.md is damaged" in refused.json()["detail"]
        assert ask("second") in ("bad", "good")
    assert not [line for line in server.lines() if line["level"] == "warning"]  # no thread where workers are forked
