"""
A real Prometheus with the shipped configuration before the real service with the shipped checkpoint, under traffic.

Skips where Prometheus isn't installed: apt-get install prometheus. The drift alert is also tried on texts that nobody
wrote for it, SST-2's test sentences and Wikipedia, where BEE_DATA names the data folder of the README.

    pytest tests/deploy/test_monitoring.py
"""

import gzip
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml
from running import BEEXFORMER, PATIENCE, Server, server_of, wait_until

ROOT = Path(__file__).parent.parent.parent
PROMETHEUS = ROOT / "deploy/prometheus"
DEMO = ROOT / "deploy/demo"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which("prometheus"), reason="prometheus is not installed; apt-get install prometheus"
    ),
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("service")
    with server_of(folder, BEEXFORMER, "serve", "--port", "0", "--log-level", "info") as server:
        yield server


@contextmanager
def prometheus(folder: Path, service: Server, rules: Callable[[str], str] = str, **interval: str) -> Iterator[str]:
    """The URL of a Prometheus with the shipped files, which scrapes `service`; `rules` may change their text."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"].update(interval)
    config["scrape_configs"][0]["static_configs"] = [{"targets": [service.url.removeprefix("http://")]}]
    (folder / "rules").mkdir()
    for path in (PROMETHEUS / "rules").glob("*.yml"):
        (folder / "rules" / path.name).write_text(rules(path.read_text()))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    log = folder / "prometheus.log"
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
    ]
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            wait_until(lambda: process.poll() is not None or "Server is ready" in log.read_text())
            assert process.poll() is None, log.read_text()
            yield f"http://{address}"
        finally:
            process.terminate()


def ask(url: str, query: str) -> dict[str, float]:
    """Values by what tells the series apart."""
    with urlopen(f"{url}/api/v1/query?{urlencode({'query': query})}", timeout=PATIENCE) as response:
        result = json.load(response)["data"]["result"]
    return {" ".join(sorted(one["metric"].values())): float(one["value"][1]) for one in result}


def test_every_query_has_data_under_a_minute_of_the_demo(service: Server, tmp_path: Path) -> None:
    demo = [sys.executable, DEMO / "traffic.py", "--service", service.url, "--rate", "20", "--seconds", "30"]
    with (
        prometheus(tmp_path, service) as url,
        subprocess.Popen(demo, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as traffic,
    ):
        asked = subprocess.run(
            [sys.executable, ROOT / "deploy/check_dashboard.py", "--prometheus", url, "--timeout", "60"],
            capture_output=True,
            text=True,
        )
        said, _ = traffic.communicate(timeout=PATIENCE)
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert traffic.returncode == 0, said
    assert re.search(r"200: \d+, 404: \d+, 422: \d+$", said.strip()), said


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def unpacked(path: Path) -> Iterator[str]:
    if not path.exists():
        pytest.skip(f"the corpora beside the folder of BEE_DATA lack {path.name}")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from file


@pytest.fixture
def ours() -> tuple[list[str], list[str]]:
    return lines(DEMO / "movies.txt"), lines(DEMO / "encyclopedia.txt")


@pytest.fixture
def real(data_root: Path) -> tuple[list[str], list[str]]:
    films = [line.split("\t")[0] for line in unpacked(data_root / "glue/sst2/test.tsv.gz")][1:]
    articles = (line.strip() for line in unpacked(data_root / "../corpora/enwiki_110mb.txt.gz"))
    return films, list(islice((line for line in articles if len(line) > 400), 600))


@pytest.mark.parametrize("texts", ["ours", "real"])
def test_the_drift_alert_fires_when_films_turn_into_encyclopedia(
    texts: str, request: pytest.FixtureRequest, service: Server, tmp_path: Path
) -> None:
    films, encyclopedia = request.getfixturevalue(texts)

    def sooner(rules: str) -> str:
        assert "[1h]" in rules
        return rules.replace("[1h]", "[30s]").replace("for: 15m", "for: 3s")

    with (
        prometheus(
            tmp_path, service, sooner, scrape_interval="1s", scrape_timeout="1s", evaluation_interval="1s"
        ) as url,
        service.http() as http,
    ):

        def send(some: Iterator[str], rows: int, **more: float) -> None:
            for start in range(0, rows, 50):
                items = [{"text": text, **more} for text in islice(some, min(50, rows - start))]
                results = http.post("/classify/batch", json={"items": items}).json()["results"]
                assert all("label" in result for result in results)

        def drift() -> float | None:
            return ask(url, "model:bee_exit_drift:psi1h").get("beexformer model:bee_exit_drift:psi1h sst2")

        def firing() -> bool:
            return bool(ask(url, 'ALERTS{alertname="BeexformerExitDrift", alertstate="firing"}'))

        wait_until(lambda: ask(url, "up") == {" ".join(sorted(["up", "beexformer", service.url[7:]])): 1.0})
        some, seen = cycle(films), list[float]()
        for _ in range(10):  # a second and more each, so longer than the alert waits
            send(some, 100)
            send(some, 100, delta=1)  # callers who leave after block 1 always: they must not count
            seen += [value for value in [drift()] if value is not None]
            time.sleep(1)
        assert len(seen) >= 3
        assert max(seen[2:]) < 0.1, seen
        assert not firing()
        some, end = cycle(encyclopedia), time.monotonic() + PATIENCE
        while not firing():
            assert time.monotonic() < end, f"drift is {drift()}"
            send(some, 50)
            time.sleep(0.5)
        value = drift()
        assert value is not None
        assert value > 0.1
