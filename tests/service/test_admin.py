"""Models loaded, reloaded and unloaded while the service answers: verified first, nothing dropped, all agree."""

import json
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError
from running import BEEXFORMER, GOLDEN, Server, client_of, problem, server_of, wait_until

from beexformer.app.deployment import Deployment, below_roots
from beexformer.app.errors import ChangeRefused
from beexformer.app.main import create_app
from beexformer.app.settings import Settings
from beexformer.model.engine import Engine
from beexformer.model.errors import BEEError
from beexformer.model.options import ExitOptions

ADMIN = {"X-API-Key": "admin-secret"}
ONE = {"text": "a warm film"}


def checkpoint(folder: Path, name: str, labels: tuple[str, str] = ("negative", "positive")) -> Path:
    """A copy of the golden one under another name; format 1 has no digest of config.json itself."""
    shutil.copytree(GOLDEN, folder, dirs_exist_ok=True)
    described = json.loads((folder / "config.json").read_text())
    new = folder / "config.json.new"
    new.write_text(json.dumps({**described, "name": name, "labels": labels}))
    new.rename(folder / "config.json")
    return folder


def test_what_workers_cannot_serve_is_not_what_is_served(tmp_path: Path) -> None:
    first, second = (checkpoint(tmp_path / name, name) for name in ("first", "second"))
    deployment = Deployment(Settings(checkpoints=(first,)), Engine.load)
    change = {"kind": "load", "name": "second", "folder": str(second)}
    deployment.registry.warm()
    assert [engine.name for engine in deployment.renew(change)] == ["first", "second"]
    deployment.put_back()
    assert [engine.name for engine in deployment.registry] == ["first"]
    assert [engine.name for engine in deployment.renew({})] == ["first"]
    assert [engine.name for engine in deployment.renew(change)] == ["first", "second"]  # it may be tried again
    assert [engine.name for engine in deployment.renew({})] == ["first", "second"]


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("roots")


@pytest.fixture(scope="module")
def running(roots: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {
        "BEE_CHECKPOINTS": str(checkpoint(roots / "first", "first")),
        "BEE_CHECKPOINT_ROOTS": str(roots),
        "BEE_ADMIN_KEYS": "admin-secret",
        "BEE_WORKERS": "2",
        "BEE_DRAIN_SECONDS": "5",  # kept connections get time to ask once more before their worker ends
    }
    with server_of(tmp_path_factory.mktemp("admin"), BEEXFORMER, "serve", "--port", "0", **env) as server:
        yield server


def settled(post: Callable[[], httpx2.Response]) -> httpx2.Response:
    """The answer once workers of the change before have ended, which on a busy machine takes a while: until then 409
    says to try again."""
    answers: list[httpx2.Response] = []

    def asked() -> bool:
        answers.append(post())
        return answers[-1].status_code != 409 or "try again" not in answers[-1].json()["detail"]

    wait_until(asked)
    return answers[-1]


def change(server: Server, what: str, body: Any = None, status: int = 200) -> httpx2.Response:
    url = f"{server.url}/admin/models/{what}"
    response = settled(lambda: httpx2.post(url, json=body, headers=ADMIN, timeout=120))
    assert response.status_code == status, response.text
    return response


def names(server: Server) -> set[str]:
    """What workers say is loaded, asked on many fresh connections: all of them agree where this is one answer."""
    result = {tuple(m["name"] for m in httpx2.get(f"{server.url}/models").json()["models"]) for _ in range(30)}
    return set(result.pop()) if len(result) == 1 else {"they", "differ"}


@pytest.mark.slow
def test_a_model_is_loaded_and_unloaded(running: Server, roots: Path) -> None:
    checkpoint(roots / "second", "second")
    assert change(running, "second/load", {"folder": "second"}).json() == {"model": "second", "change": "load"}
    wait_until(lambda: names(running) == {"first", "second"})
    answer = httpx2.post(f"{running.url}/classify", json={**ONE, "model": "second"}).json()
    assert answer["model"] == "second"
    refused = change(running, "second/load", {"folder": "second"}, 409)
    assert "loaded already" in problem(refused, 409, "change-refused")["detail"]
    running.process.send_signal(signal.SIGHUP)  # which reads all anew, and keeps what /admin has loaded
    wait_until(lambda: sum(line["message"] == "ready" for line in running.lines()) >= 6)
    wait_until(lambda: names(running) == {"first", "second"})
    change(running, "second/unload")
    wait_until(lambda: names(running) == {"first"})
    assert "it stays" in change(running, "first/unload", status=409).json()["detail"]
    problem(change(running, "second/unload", status=404), 404, "unknown-model")


@pytest.mark.slow
def test_who_has_loaded_a_model_can_ask_for_it_at_once(running: Server, roots: Path) -> None:
    checkpoint(roots / "soon", "soon")
    with httpx2.Client(base_url=running.url, headers=ADMIN, timeout=120) as client:
        for _ in range(2):
            loaded = settled(lambda: client.post("/admin/models/soon/load", json={"folder": "soon"}))
            assert loaded.status_code == 200
            response = client.post("/classify", json={**ONE, "model": "soon"})
            assert response.status_code == 200, response.text
            assert settled(lambda: client.post("/admin/models/soon/unload")).status_code == 200
            assert client.post("/classify", json={**ONE, "model": "soon"}).status_code == 404


@pytest.mark.slow
def test_what_is_bad_or_elsewhere_is_refused_and_the_old_one_stays(
    running: Server, roots: Path, tmp_path: Path
) -> None:
    checkpoint(tmp_path / "outside", "outside")
    (roots / "link").symlink_to(tmp_path / "outside")
    damaged = checkpoint(roots / "damaged", "damaged")
    weights = bytearray((damaged / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (damaged / "model.safetensors").write_bytes(weights)
    for name, folder, words in (
        ("outside", str(tmp_path / "outside"), "below the configured roots"),
        ("outside", "link", "below the configured roots"),
        ("outside", "../", "below the configured roots"),
        ("nothing", "nothing", "below the configured roots"),
        ("damaged", "damaged", "SHA-256"),
        ("other", "first", "holds model 'first', not 'other'"),
    ):
        assert words in change(running, f"{name}/load", {"folder": folder}, 409).json()["detail"]
    before = (roots / "first" / "tokenizer.json").read_bytes()
    (roots / "first" / "tokenizer.json").write_bytes(before + b" ")
    assert "damaged" in change(running, "first/reload", status=409).json()["detail"]
    (roots / "first" / "tokenizer.json").write_bytes(before)
    assert names(running) == {"first"}
    assert httpx2.post(f"{running.url}/classify", json=ONE).status_code == 200


@pytest.mark.slow
def test_a_reload_under_load_drops_nothing_and_answers_are_the_old_or_the_new_ones(
    running: Server, roots: Path
) -> None:
    done, seen = threading.Event(), []

    def ask(fresh: bool) -> None:
        with running.http() as http:
            while not done.is_set():
                post = httpx2.post if fresh else http.post
                response = post(f"{running.url}/classify", json=ONE)
                seen.append((response.status_code, tuple(response.json().get("scores", ()))))

    threads = [threading.Thread(target=ask, args=(fresh,)) for fresh in (True, False)]
    for thread in threads:
        thread.start()
    try:
        for labels in (("bad", "good"), ("negative", "positive")):
            checkpoint(roots / "first", "first", labels)
            change(running, "first/reload")
            wait_until(lambda labels=labels: seen[-1] == (200, labels))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in seen} == {200}
    assert {labels for _, labels in seen} <= {("bad", "good"), ("negative", "positive")}
    assert len(seen) > 20


@pytest.mark.slow
def test_only_an_admin_key_opens_it(running: Server) -> None:
    url = f"{running.url}/admin/models/first/reload"
    for headers in ({}, {"X-API-Key": "guess-guess"}, {"Authorization": "Bearer admin-secre"}):
        problem(httpx2.post(url, headers=headers), 401, "unauthorized")
    operation = httpx2.get(f"{running.url}/openapi.json").json()["paths"]["/admin/models/{name}/reload"]["post"]
    assert operation["security"] == [{"key": []}, {"bearer": []}]
    with client_of(api_keys=("secret-key",), admin_keys=("admin-secret",)) as client:
        problem(client.post("/admin/models/golden/reload", headers={"X-API-Key": "secret-key"}), 401, "unauthorized")
        problem(client.get("/models", headers=ADMIN), 401, "unauthorized")
        alone = client.post("/admin/models/golden/reload", headers=ADMIN)
        assert "has no parent" in problem(alone, 409, "change-refused")["detail"]
    with client_of() as client:
        assert client.post("/admin/models/golden/reload", headers=ADMIN).status_code in (401, 404)


def test_a_folder_is_below_a_root_or_refused(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "ab").mkdir()
    assert below_roots("b", (tmp_path / "x", tmp_path / "a")) == tmp_path / "a" / "b"
    assert below_roots(str(tmp_path / "a" / "b"), (tmp_path / "a",)) == tmp_path / "a" / "b"
    for folder in ("../ab", str(tmp_path / "ab"), "c", "b/../../ab"):
        with pytest.raises(ChangeRefused):
            below_roots(folder, (tmp_path / "a",))
    with pytest.raises(ChangeRefused):
        below_roots("b", ())


def test_defaults_of_a_model_are_a_setting() -> None:
    with client_of(model_defaults={"golden": ExitOptions(delta=-1, max_blocks=2)}) as client:
        answer = client.post("/classify", json=ONE).json()
        assert (answer["delta"], answer["exit_index"], answer["max_blocks"]) == (-1, 2, 2)
        assert client.post("/classify", json={**ONE, "max_blocks": 6}).json()["exit_index"] == 6
        assert client.get("/models").json()["models"][0]["default_delta"] == -1
    with pytest.raises(BEEError, match="no model is named 'other'"):
        create_app(Settings(checkpoints=(GOLDEN,), model_defaults={"other": ExitOptions(delta=0.1)}))
    with pytest.raises(BEEError, match=r"max_blocks is 7 and must lie in 1\.\.6"):
        create_app(Settings(checkpoints=(GOLDEN,), model_defaults={"golden": ExitOptions(max_blocks=7)}))


@pytest.mark.slow
def test_defaults_come_from_the_environment_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEE_MODEL_DEFAULTS", '{"sst2": {"delta": 0.001, "max_blocks": 4}}')
    assert Settings().model_defaults == {"sst2": ExitOptions(delta=0.001, max_blocks=4)}
    monkeypatch.setenv("BEE_MODEL_DEFAULTS", '{"sst2": {"delta": 2}}')
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        Settings()
