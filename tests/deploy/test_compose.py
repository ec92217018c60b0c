"""
What stands in docker-compose.yml, checked without a container engine: `deploy/rehearse.sh` brings it up.

    pytest tests/deploy/test_compose.py
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
TOOLS = Path(__file__).parent / "tools"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
README = (ROOT / "README.md").read_text()


def default(text: str) -> str:
    """What compose makes of ${NAME:-default} where NAME is not set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_dclint_finds_nothing() -> None:
    dclint = TOOLS / "node_modules/.bin/dclint"
    if not dclint.exists():
        pytest.skip("dclint is not installed; npm ci --prefix tests/deploy/tools")
    checked = subprocess.run(
        [dclint, "--config", TOOLS / "dclint.yml", "--max-warnings", "0", ROOT / "docker-compose.yml"],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_shellcheck_finds_nothing() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed; apt-get install shellcheck")
    scripts = [*(ROOT / "deploy").glob("*.sh"), ROOT / ".ci/run"]
    checked = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_every_container_is_contained(service: str) -> None:
    has = SERVICES[service]
    assert has["read_only"] is True
    assert has["cap_drop"] == ["ALL"]
    assert has["security_opt"] == ["no-new-privileges:true"]
    assert has["logging"]["driver"] == "local", "logs must not grow for ever"
    assert "privileged" not in has


@pytest.mark.parametrize("service", SERVICES)
def test_mounts_exist_and_ports_are_published_on_loopback_only(service: str) -> None:
    for volume in SERVICES[service].get("volumes", []):
        source = default(volume).split(":")[0]
        assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
        assert not source.startswith(".") or volume.endswith(":ro")
    assert all(default(port).startswith("127.0.0.1:") for port in SERVICES[service].get("ports", []))


@pytest.mark.parametrize("service", [name for name in SERVICES if "profiles" not in SERVICES[name]])
def test_health_is_checked_and_memory_is_limited(service: str) -> None:
    assert SERVICES[service]["mem_limit"]
    if "build" in SERVICES[service]:
        assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text()
    else:
        assert SERVICES[service]["healthcheck"]["test"]


@pytest.mark.parametrize("service", ["prometheus", "grafana"])
def test_foreign_images_are_pinned_to_a_release(service: str) -> None:
    assert re.search(r":v?\d+\.\d+\.\d+$", default(SERVICES[service]["image"]))


def test_prometheus_scrapes_the_service_where_compose_puts_it() -> None:
    (job,) = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    port = SERVICES["beexformer"]["environment"]["BEE_PORT"]
    assert job["static_configs"] == [{"targets": [f"beexformer:{port}"]}]
    assert default(SERVICES["beexformer"]["ports"][0]).endswith(f":{port}")


def test_variables_of_compose_are_in_the_docs() -> None:
    variables = set(re.findall(r"\$\{(\w+):-", (ROOT / "docker-compose.yml").read_text()))
    documented = (ROOT / "docs/operations.md").read_text()
    assert {name for name in variables if f"`{name}`" not in documented} == set()


def test_workflows_pin_actions_to_commits() -> None:
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        for action in re.findall(r"uses: (\S+)", workflow.read_text()):
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action), f"{workflow.name}: {action}"
