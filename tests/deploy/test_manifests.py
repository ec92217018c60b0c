"""
The manifests beside the chart, against the schemas of the projects whose resources they are.

    pytest tests/deploy/test_manifests.py
"""

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from custom_resources import KINDS, problems
from strict import documents, of_json

from beexformer.app.settings import PREFIX, Settings

ROOT = Path(__file__).parent.parent.parent
FILES = [*sorted((ROOT / "deploy/kubernetes").glob("*.yaml")), ROOT / "deploy/ray/rayjob.yaml"]
RESOURCES = [
    pytest.param(resource, id=f"{path.name}-{resource['kind']}")
    for path in FILES
    for resource in documents(path.read_text())
]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


TEXTS = [
    path
    for pattern in ("docker-compose.yml", "deploy/**/*.y*ml", "deploy/**/*.json")
    for path in sorted(ROOT.glob(pattern))
    if path.parent.name != "templates"  # which are no YAML until Helm has rendered them
]


def of(kind: str) -> dict[str, Any]:
    [result] = [one.values[0] for one in RESOURCES if one.values[0]["kind"] == kind]  # type: ignore[index]
    return copy.deepcopy(result)  # type: ignore[return-value]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_said_twice(path: Path) -> None:
    assert (of_json if path.suffix == ".json" else documents)(path.read_text())


@pytest.mark.parametrize("resource", RESOURCES)
def test_it_is_valid(resource: dict[str, Any]) -> None:
    assert not problems(resource)


@pytest.mark.parametrize("resource", RESOURCES)
def test_a_misspelt_field_would_be_seen(resource: dict[str, Any]) -> None:
    spoilt = copy.deepcopy(resource)
    spoilt["spec"]["replicaz"] = 3
    [problem] = problems(spoilt)
    assert "replicaz" in problem


def test_a_wrong_value_deep_inside_would_be_seen() -> None:
    job = of("RayJob")
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["image"] = 3
    assert [problem for problem in problems(job) if "image" in problem]


def test_a_variable_that_stands_twice_would_be_seen() -> None:
    job = of("RayJob")
    [container] = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    container["env"] = [{"name": "BEE_CPU", "value": "x86-64"}, {"name": "BEE_CPU", "value": "x86-64-v3"}]
    [problem] = problems(job)
    assert problem.endswith("containers[0].env: ['BEE_CPU'] twice")


def test_every_schema_is_of_use_and_has_its_source() -> None:
    used = {one.values[0]["kind"] for one in RESOURCES}  # type: ignore[index]
    of_chart = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
    assert used | of_chart == KINDS
    readme = (ROOT / "tests/deploy/schemas/README.md").read_text()
    assert {kind for kind in KINDS if f"| {kind} " in readme} == KINDS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_images_are_of_this_version_and_settings_exist(path: Path) -> None:
    text = path.read_text()
    assert set(re.findall(r"beexformer(?:-ray)?:([0-9][^\s]*)", text)) <= {VERSION}
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"\bBEE_[A-Z_]+", text)) <= known


def test_kserve_gives_the_service_its_time_to_end() -> None:
    predictor = of("InferenceService")["spec"]["predictor"]
    defaults = Settings.model_fields
    least = defaults["drain_seconds"].default + defaults["request_timeout_ms"].default / 1000 + 10
    assert predictor["terminationGracePeriodSeconds"] > least
    assert predictor["model"]["runtime"] == of("ServingRuntime")["metadata"]["name"]


def test_the_rate_limit_is_on_the_route_of_the_canary() -> None:
    [target] = of("BackendTrafficPolicy")["spec"]["targetRefs"]
    route = of("HTTPRoute")
    assert (target["kind"], target["name"]) == (route["kind"], route["metadata"]["name"])
    assert sum(backend["weight"] for backend in route["spec"]["rules"][-1]["backendRefs"]) == 100


def test_the_image_of_the_job_has_what_the_job_runs() -> None:
    text = (ROOT / "deploy/ray/rayjob.yaml").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"EXTRAS=(\w+)", text)) == {"ray"} <= set(extras)
    [copied, folder] = re.findall(r"COPY (\S+) (/\S+)/", text)[0]
    assert (ROOT / "deploy/ray" / copied).is_file()
    job = of("RayJob")["spec"]
    assert job["entrypoint"].startswith(f"python {folder}/{copied} ")
    images = set(re.findall(r"image: (\S+)", text))
    assert images == set(re.findall(r"--tag (\S+/\S+)", text))


def test_engines_of_the_job_have_whole_nodes_and_the_head_none_and_nobody_else_may_use_them() -> None:
    cluster = of("RayJob")["spec"]["rayClusterSpec"]
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in cluster["workerGroupSpecs"]:
        [container] = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
