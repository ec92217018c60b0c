"""
deploy/ray on a real Ray cluster of this machine: rows scored as the command line scores them, also where an actor and a
driver are killed; the service as an ingress of Ray Serve, and that no key reaches Ray's logs. Skips without Ray:
pip install 'beexformer[ray,train]'.

    pytest tests/deploy/test_ray.py
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

pytest.importorskip("ray", reason="Ray is not installed; pip install 'beexformer[ray]'")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
SCORE = ROOT / "deploy/ray/score.py"
GOLDEN = ROOT / "tests/golden/v4/checkpoint"
CLASSIFY = [sys.executable, "-c", "from beexformer.cli import main; main()", "classify"]
TEXTS = ["a warm , funny film", "dull", "", "it is what it is", "a film that nobody needs " * 20]
PATIENCE = 300
PORT = 18151
KEY = "a-key-that-nobody-may-read"


def score(source: Path, out: Path, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, SCORE, "--input", source, "--out", out, "--id", "id", "--text", "review"]
    command += ["--model", GOLDEN, "--rows", "100", "--actors", "2", *more]
    # a session of its own: what is killed with it is the cluster that it started
    return subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def ended(run: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = run.communicate(timeout=PATIENCE)
    return run.returncode, out, err


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 rows with ids, texts and another column; every fifth text is empty, which has no answer."""
    path = tmp_path_factory.mktemp("ray") / "rows.parquet"
    n = 2000
    texts = [f"{TEXTS[i % 5]} {i}" if TEXTS[i % 5] else "" for i in range(n)]
    pq.write_table(pa.table({"id": [f"{i:05}" for i in range(n)], "review": texts, "stars": list(range(n))}), path)
    return path


@pytest.fixture(scope="module")
def expected(source: Path) -> "pa.Table":
    out = source.with_name("scored.parquet")
    command = [*CLASSIFY, source, "--text", "review", "-o", out, "--checkpoint", GOLDEN, "--threads", "1"]
    subprocess.run(command, check=False, capture_output=True)
    return pq.read_table(out)


def descendants(pid: int) -> list[int]:
    pids = [pid]
    for one in pids:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                pids += [int(child) for child in children.read_text().split()]
            except OSError:
                continue
    return pids


def kill(*pids: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def files_with(text: str, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def parts(out: Path) -> int:
    return len([*out.glob("*.parquet")])


def until_parts(run: "subprocess.Popen[str]", out: Path, number: int) -> None:
    end = time.monotonic() + PATIENCE
    while parts(out) < number:
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def test_rows_are_scored_as_by_the_command_line_though_an_actor_and_the_driver_are_killed(
    source: Path, expected: "pa.Table", tmp_path: Path
) -> None:
    out = tmp_path / "scored"
    run = score(source, out)
    until_parts(run, out, 2)
    names = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(run.pid)}
    actors = [pid for pid, name in names.items() if b"MapWorker(MapBatches(Scorer))" in name]
    kill(actors[0])
    until_parts(run, out, 5)
    kill(*descendants(run.pid))
    run.communicate()
    done = parts(out)
    assert done < 20, "it was killed too late to show anything"
    code, printed, err = ended(score(source, out))
    assert code == 0, err
    told = json.loads(printed.splitlines()[-1])
    assert (told["rows"], told["bad"], told["resumed"]) == (2000, 400, True)
    scored = pq.read_table(out).sort_by("id")
    assert scored.column_names == expected.column_names
    assert scored.cast(expected.schema).equals(expected)
    assert not out.with_name("scored.partial").exists()
    code, _, err = ended(score(source, out))
    assert (code, err.splitlines()[-1]) == (2, f"{out} exists; name another --out, or remove it")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_text_files_are_read_as_they_are(kind: str, expected: "pa.Table", tmp_path: Path) -> None:
    folder, out = tmp_path / "rows", tmp_path / "scored"
    folder.mkdir()
    rows = expected.slice(0, 300).select(["id", "review"]).to_pylist()
    for number, some in enumerate((rows[:10], rows[10:])):  # two files of different size, three blocks
        with (folder / f"{number}.{kind}").open("w", encoding="utf-8") as file:
            if kind == "csv":
                file.write("id,review\n")
            for row in some:
                file.write(f'{row["id"]},"{row["review"]}"\n' if kind == "csv" else json.dumps(row) + "\n")
    code, _, err = ended(score(folder, out))
    assert code == 0, err
    scored = pq.read_table(out).sort_by("id")
    assert scored["id"].to_pylist() == [row["id"] for row in rows], "ids keep their leading zeros"
    wanted = expected.slice(0, 300)
    assert scored["predicted_score"].equals(wanted["predicted_score"])
    assert scored["error"].equals(wanted["error"])


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--text", "text"], "no column 'text'; it has id, review, stars"),
        (["--delta", "3"], "delta"),
        (["--input", "rows.parquet"], "rows.parquet: "),
        (["--input", "/nowhere/rows.parquet"], "/nowhere/rows.parquet: no such file or folder"),
    ],
    ids=str,
)
def test_what_is_wrong_is_one_sentence_and_leaves_nothing(
    source: Path, tmp_path: Path, more: list[str], sentence: str
) -> None:
    code, _, err = ended(score(source, tmp_path / "scored", *more))
    assert code == 2
    assert sentence in err.splitlines()[-1]
    assert not [*tmp_path.iterdir()]


@pytest.fixture
def cluster() -> Iterator[Path]:
    """A folder for what a cluster writes, its logs among it, with a name short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture
def served(cluster: Path) -> Iterator["subprocess.Popen[str]"]:
    """The command of docs/scaling.md, on another port than 8000, which another service may have."""
    [command] = re.findall(r"^serve (run .*)$", (ROOT / "docs/scaling.md").read_text(), re.MULTILINE)
    program = (
        "import ray; from ray import serve; from ray.serve.scripts import cli;"
        f"ray.init('local', namespace='serve', _temp_dir={str(cluster)!r});"
        f"serve.start(http_options={{'port': {PORT}}}); cli({shlex.split(command)})"
    )
    patient = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60", "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60"}
    environment = {**os.environ, **patient, "BEE_CHECKPOINTS": str(GOLDEN), "BEE_API_KEYS": KEY}
    run = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    yield run
    kill(*descendants(run.pid))
    run.communicate()


def test_a_replica_of_ray_serve_is_ready_before_it_is_asked_and_no_key_is_in_logs(
    served: "subprocess.Popen[str]", cluster: Path
) -> None:
    assert served.stderr
    said: list[str] = []
    for line in served.stderr:
        said.append(line)
        if f"ready at http://127.0.0.1:{PORT}/" in line:
            break
    else:
        pytest.fail("".join(said))
    with httpx2.Client(base_url=f"http://127.0.0.1:{PORT}") as client:
        assert client.post("/classify", json={"text": "a film"}).status_code == 401
        answered = client.post("/classify", json={"text": "a film"}, headers={"X-API-Key": KEY})
        assert answered.status_code == 200, answered.text
    own = httpx2.get("http://127.0.0.1:9464/metrics").text
    assert 'bee_requests_total{code="200",model="golden"} 1.0' in own
    assert "bee_ready 1.0" in own
    assert files_with("BEExformer", cluster), "the logs that were looked through have the deployment's name"
    assert not files_with(KEY, cluster)


def test_keys_in_runtime_env_which_ray_logs_are_refused(cluster: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'deploy/ray')!r}); import ray, serve;"
        f"ray.init('local', include_dashboard=False, _temp_dir={str(cluster)!r}, "
        f"runtime_env={{'env_vars': {{'BEE_API_KEYS': {KEY!r}}}}});"
        "ray.get(ray.remote(serve.refuse_keys_in_runtime_env).remote())"
    )
    refused = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE)
    assert refused.returncode == 1
    assert "BEE_API_KEYS is in runtime_env, which Ray writes to its logs" in refused.stderr
    assert files_with(KEY, cluster), "it is why they are refused"
