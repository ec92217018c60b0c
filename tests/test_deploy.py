"""
What stands in deploy/, docker-compose.yml and the Dockerfile, checked without a container engine.

The last test runs a real Prometheus against a real server and asks every query of the dashboard for data; it and the
check of Prometheus' configuration skip where Prometheus isn't installed. With containers: `sh deploy/smoke.sh`.

    pytest tests/test_deploy.py
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.metrics import PHASES, Metrics

ROOT = Path(__file__).parent.parent
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboards/beexformer.json").read_text())
PANELS = DASHBOARD["panels"]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROMETHEUS = ROOT / "deploy/prometheus/prometheus.yml"


def default(text: str) -> str:
    """What compose makes of ${NAME:-default} where NAME is not set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def by_title(panel: dict) -> str:
    return panel["title"]


def test_queries_name_only_metrics_that_the_service_exports():
    exposed, _ = Metrics({"tiny": {"blocks": "6"}}, max_batch_rows=32).exposition("")
    families = text_string_to_metric_families(exposed.decode())
    exported = {sample.name for family in families for sample in family.samples}
    queries = [target["expr"] for panel in PANELS for target in panel["targets"]]
    queries += [
        variable["query"]["query"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"
    ]
    named = {name for query in queries for name in re.findall(r"bee_\w+", query)}
    assert named <= exported


@pytest.mark.parametrize("panel", PANELS, ids=by_title)
def test_every_panel_explains_itself(panel):
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize("panel", PANELS, ids=by_title)
def test_every_panel_asks_the_provisioned_data_source(panel):
    provisioned = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    (source,) = provisioned["datasources"]
    assert all(asked["datasource"]["uid"] == source["uid"] for asked in [panel, *panel["targets"]])


def test_no_panel_covers_another():
    for one, other in combinations([panel["gridPos"] for panel in PANELS], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_links_to_the_dashboard_keep_working():
    assert DASHBOARD["uid"] == "beexformer"
    assert [panel["id"] for panel in PANELS] == list(range(1, len(PANELS) + 1))


def test_there_is_a_latency_panel_for_each_phase():
    (phase,) = (variable for variable in DASHBOARD["templating"]["list"] if variable["name"] == "phase")
    assert phase["query"] == ",".join(PHASES)
    assert [panel["title"] for panel in PANELS if panel.get("repeat") == "phase"] == ["Latency of phase $phase"]


@pytest.mark.parametrize("service", SERVICES)
def test_compose_mounts_what_exists_and_publishes_on_loopback_only(service):
    for volume in SERVICES[service].get("volumes", []):
        source = volume.split(":")[0]
        assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
    assert all(default(port).startswith("127.0.0.1:") for port in SERVICES[service]["ports"])


@pytest.mark.parametrize("service", SERVICES)
def test_compose_checks_the_health_of_every_service(service):
    built_here = "build" in SERVICES[service]
    assert "HEALTHCHECK" in DOCKERFILE if built_here else SERVICES[service]["healthcheck"]["test"]


@pytest.mark.parametrize("service", ["prometheus", "grafana"])
def test_foreign_images_are_pinned_to_a_release(service):
    assert re.search(r":v?\d+\.\d+\.\d+$", default(SERVICES[service]["image"]))


def test_prometheus_scrapes_the_service_where_compose_puts_it():
    (job,) = yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]
    port = SERVICES["beexformer"]["environment"]["BEE_PORT"]
    assert job["static_configs"] == [{"targets": [f"beexformer:{port}"]}]
    assert default(SERVICES["beexformer"]["ports"][0]).endswith(f":{port}")


def test_the_image_does_not_run_as_root_and_proves_its_checkpoint():
    serving = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    user, warmed = re.search(r"^USER (\d+)", serving, re.M), re.search(r"^RUN beexformer classify", serving, re.M)
    assert user is not None
    assert int(user[1]) > 0
    assert warmed is not None
    assert warmed.start() > user.start(), "kernels must be compiled by the user who loads them"


def test_workflows_pin_actions_to_commits():
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        for action in re.findall(r"uses: (\S+)", workflow.read_text()):
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action), f"{workflow.name}: {action}"


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed; apt-get install prometheus")
def test_promtool_accepts_the_configuration():
    checked = subprocess.run(["promtool", "check", "config", PROMETHEUS], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def running(command: list[str | Path], ready: str, log: Path, env: dict[str, str] | None = None) -> Iterator[None]:
    """The command, from when `ready` answers 200 until the block ends."""
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output, env=env) as process:
        try:
            deadline = time.monotonic() + 90
            while True:
                try:
                    with urlopen(ready, timeout=5):
                        break
                except (URLError, ConnectionError):
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.1)
            yield
        finally:
            process.terminate()


@pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed; apt-get install prometheus")
def test_every_query_of_the_dashboard_has_data_after_a_few_hundred_requests(tmp_path):
    service, prometheus = free_port(), free_port()
    config = yaml.safe_load(PROMETHEUS.read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{service}"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    env = {name: value for name, value in os.environ.items() if not name.startswith("BEE_")} | {
        "BEE_CHECKPOINTS": str(ROOT / "tests/golden/v1/checkpoint"),
        "BEE_PORT": str(service),
        "BEE_LOG_LEVEL": "warning",
    }
    serve = [Path(sys.executable).parent / "beexformer", "serve"]
    scrape = [
        "prometheus",
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{prometheus}",
    ]
    urls = [f"--service=http://127.0.0.1:{service}", f"--prometheus=http://127.0.0.1:{prometheus}"]
    with (
        running(serve, f"http://127.0.0.1:{service}/readyz", tmp_path / "service.log", env),
        running(scrape, f"http://127.0.0.1:{prometheus}/-/ready", tmp_path / "prometheus.log"),
    ):
        asked = subprocess.run(
            [sys.executable, ROOT / "deploy/check_dashboard.py", *urls, "--window=20s"], capture_output=True, text=True
        )
    assert asked.returncode == 0, asked.stdout + asked.stderr
