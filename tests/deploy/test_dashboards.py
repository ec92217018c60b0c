"""
The dashboards: what the generator writes, what Grafana's types allow, what the service exports.

`node tests/deploy/grafana/validate.mjs` needs `npm ci --prefix tests/deploy/grafana` once; its test skips without.
That every query has data is in test_monitoring.py.

    pytest tests/deploy/test_dashboards.py
"""

import asyncio
import json
import re
import runpy
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import samples, scrape

from beexformer.app.metrics import PHASES, Metrics
from beexformer.model.engine import Engine

ROOT = Path(__file__).parent.parent.parent
GRAFANA = ROOT / "deploy/grafana"
TYPES = Path(__file__).parent / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in FILES}
PANELS = [(name, panel) for name, dashboard in DASHBOARDS.items() for panel in dashboard["panels"]]
ASKING = [pytest.param(panel, id=f"{name}: {panel['title']}") for name, panel in PANELS if panel["type"] != "row"]
RULES = [
    rule
    for path in sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
NOWHERE = {  # metrics that need no panel and no rule
    "process_virtual_memory_bytes": "says nothing: address space costs nothing",
}
NO_MEANING = {
    "CPU time of answers",  # panels whose numbers are neither good nor bad
    *("Mean exit", "Where texts left", "Exits over time", "Share of each exit", "Entropy of answers over time"),
    *("Moved against training", "FLOPs executed and at full depth", "Answers, and those at the model's own delta"),
    *(
        "Texts a second",
        "Texts by outcome",
        "Texts by model",
        "Latency over time",
        "Texts in progress",
        "Tokens over time",
    ),
    *("Tokens", "Tokens a second", "CPU", "Memory", "Up, and for how long", "Models"),
    *(f"Phase {phase}" for phase in PHASES),
}


@pytest.fixture(scope="module")
def exported() -> set[str]:
    """Names of all series of a service with the shipped model, which has a training distribution."""
    engine = Engine.load(ROOT / "model/checkpoints/sst2")
    metrics = Metrics([engine], wait_limit=0.5)

    async def serve() -> None:
        watching = asyncio.create_task(metrics.watch(lambda: 0.0))
        await asyncio.sleep(0)
        exported.update(name for name, *_ in samples(scrape(metrics)))
        watching.cancel()

    exported: set[str] = set()
    asyncio.run(serve())
    return exported


def named(expressions: list[str]) -> set[str]:
    """Metrics in queries, recorded ones left out."""
    result = {name for text in expressions for name in re.findall(r"[a-zA-Z_][\w:]*", re.sub(r'"[^"]*"', "", text))}
    return {name for name in result if name.startswith(("bee_", "process_")) and ":" not in name}


def queries() -> list[str]:
    asked = [target["expr"] for _, panel in PANELS for target in panel.get("targets", [])]
    variables = [one for dashboard in DASHBOARDS.values() for one in dashboard["templating"]["list"]]
    return asked + [variable["query"] for variable in variables if variable["type"] == "query"]


def test_the_files_are_what_the_generator_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    generator = runpy.run_path(str(GRAFANA / "dashboards.py"))
    monkeypatch.setitem(generator["main"].__globals__, "FOLDER", tmp_path)
    generator["main"]()
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in FILES}, "run python deploy/grafana/dashboards.py"


def validate(*files: Path) -> subprocess.CompletedProcess[str]:
    node = shutil.which("node")
    if not node or not (TYPES / "node_modules").exists():
        pytest.skip("Grafana's types are not installed; npm ci --prefix tests/deploy/grafana")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < 20:
        pytest.skip(f"what turns the types into a schema needs Node.js 20, not {version.strip()}")
    return subprocess.run([node, TYPES / "validate.mjs", *files], capture_output=True, text=True)


@pytest.mark.slow
def test_the_files_hold_to_the_types_of_grafana() -> None:
    checked = validate(*FILES)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
def test_what_grafana_does_not_know_is_found(tmp_path: Path) -> None:
    spoiled = json.loads(FILES[0].read_text())
    spoiled["panels"][0]["options"]["colourMode"] = "value"
    spoiled["panels"][1]["type"] = "singlestat"
    (tmp_path / "spoiled.json").write_text(json.dumps(spoiled))
    checked = validate(tmp_path / "spoiled.json")
    assert checked.returncode == 1
    assert "colourMode" in checked.stdout
    assert "singlestat" in checked.stdout


def test_the_types_are_those_of_the_image() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    package = json.loads((TYPES / "package.json").read_text())
    version = package["dependencies"]["@grafana/schema"]
    assert f":-grafana/grafana:{version}}}" in compose["services"]["grafana"]["image"]


def test_links_to_the_dashboards_keep_working() -> None:
    assert {name: dashboard["uid"] for name, dashboard in DASHBOARDS.items()} == {
        "exits": "beexformer-exits",
        "service": "beexformer-service",
    }


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_the_data_source_is_the_provisioned_one_and_models_can_be_chosen(dashboard: dict[str, Any]) -> None:
    provisioned = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())
    [source] = provisioned["datasources"]
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["current"]["value"] == source["uid"]
    assert variables["model"]["includeAll"]
    assert variables["model"]["multi"]


@pytest.mark.parametrize("panel", ASKING)
def test_every_panel_explains_itself(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert panel["description"].endswith(".")
    assert defaults["unit"]
    assert panel["targets"]
    for asked in [panel, *panel["targets"]]:
        assert asked["datasource"]["uid"] == "${datasource}"
    assert all(target["legendFormat"] for target in panel["targets"])
    assert ("thresholds" in defaults) != (panel["title"] in NO_MEANING)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_no_panel_covers_another(name: str) -> None:
    places = [panel["gridPos"] for panel in DASHBOARDS[name]["panels"]]
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)
    assert all(place["x"] + place["w"] <= 24 for place in places)


def test_no_query_and_no_rule_names_a_metric_that_is_not_exported(exported: set[str]) -> None:
    assert named(queries() + [rule["expr"] for rule in RULES]) - exported == set()


def test_no_query_names_a_series_that_is_not_recorded() -> None:
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    asked = {name for query in queries() for name in re.findall(r"\w+:\w+:\w+", query)}
    assert asked <= recorded
    assert asked


def test_every_metric_is_on_a_panel_or_in_a_rule(exported: set[str]) -> None:
    def family(name: str) -> str:
        return re.sub(r"_(bucket|count|sum)$", "", name)

    seen = {family(name) for name in named(queries() + [rule["expr"] for rule in RULES])}
    assert {family(name) for name in exported} - seen == set(NOWHERE)


def test_there_is_a_latency_panel_for_each_phase() -> None:
    titles = [panel["title"] for panel in DASHBOARDS["service"]["panels"]]
    assert [title for title in titles if title.startswith("Phase ")] == [f"Phase {phase}" for phase in PHASES]
