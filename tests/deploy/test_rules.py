"""
Prometheus' configuration and rules, asked of promtool, and the runbooks behind the alerts.

The unit tests of the rules stand in deploy/prometheus/tests; here they are run, and counted: each alert fires in one
and is silent in another. That the drift alert fires on real traffic is in test_monitoring.py.

    pytest tests/deploy/test_rules.py
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import client_of

ROOT = Path(__file__).parent.parent.parent
PROMETHEUS = ROOT / "deploy/prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
ALERTS = {
    rule["alert"]: rule
    for path in RULES
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
EXPECTED = [
    (test["alertname"], bool(test["exp_alerts"]))
    for path in TESTS
    for group in yaml.safe_load(path.read_text())["tests"]
    for test in group["alert_rule_test"]
]


def promtool(*arguments: str | Path, given: str | None = None) -> None:
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed; apt-get install prometheus")
    checked = subprocess.run(["promtool", *arguments], input=given, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_promtool_accepts_the_configuration_and_finds_the_rules() -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yml")
    result = {
        path
        for glob in yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["rule_files"]
        for path in PROMETHEUS.glob(glob)
    }
    assert result == set(RULES)


def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", *RULES)


@pytest.mark.slow
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_unit_tests_of_the_rules_pass(path: Path) -> None:
    promtool("test", "rules", path)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_fires_in_one_test_and_is_silent_in_another(alert: str) -> None:
    assert (alert, True) in EXPECTED
    assert (alert, False) in EXPECTED


def test_promtool_accepts_the_metrics() -> None:
    with client_of() as client:
        client.post("/classify", json={"text": "film"})
        promtool("check", "metrics", given=client.get("/metrics").text)


@pytest.mark.parametrize("alert", ALERTS.values(), ids=ALERTS)
def test_every_alert_says_what_it_means_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    path, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.MULTILINE)
    assert anchor in {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_every_runbook_has_an_alert() -> None:
    headings = re.findall(r"^### (Beexformer\w+)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    assert headings == list(dict.fromkeys(headings))
    assert set(headings) == set(ALERTS)
