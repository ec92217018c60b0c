#!/usr/bin/env python3
"""
Asks every query of every dashboard for a number, on a running Prometheus, until all answer or time is up.

- a query answers when at least one of its series is a finite number, and one of a heat map when that isn't 0; one that
  doesn't is named, and the exit code is 1
- the service needs traffic meanwhile, such as that of demo/traffic.py
- `--prometheus` may be any URL that speaks Prometheus' API, so also Grafana's proxy of its data source
- needs nothing but Python; knows neither `app` nor `model`, only HTTP and the dashboards' files
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

DASHBOARDS = sorted((Path(__file__).parent / "grafana" / "dashboards").glob("*.json"))


def queries(dashboard: dict, window: str) -> Iterator[tuple[str, str]]:
    """(name, expression) of all that its panels ask, with every variable replaced."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name in ("__rate_interval", "__range"):
                expression = expression.replace(f"${name}", window)
            for variable in dashboard["templating"]["list"]:
                expression = expression.replace(f"${variable['name']}", ".*")
            if panel["type"] == "heatmap":
                expression = f"({expression}) > 0"  # buckets without texts are an empty picture
            yield f"{dashboard['uid']} / {panel['title']} / {target['legendFormat']}", expression


def ask(prometheus: str, expression: str) -> list[float]:
    """The finite numbers among the series that answer."""
    with urlopen(f"{prometheus}/api/v1/query?{urlencode({'query': expression})}", timeout=10) as response:
        series = json.load(response)["data"]["result"]
    return [value for one in series if math.isfinite(value := float(one["value"][1]))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", required=True, help="URL of a Prometheus that scrapes the service")
    parser.add_argument("--window", default="1m", help="what stands in for $__rate_interval and $__range (%(default)s)")
    parser.add_argument("--timeout", type=float, default=90, help="seconds until giving up (%(default)s)")
    arguments = parser.parse_args()

    wanted = [query for file in DASHBOARDS for query in queries(json.loads(file.read_text()), arguments.window)]
    start = time.monotonic()
    answers: dict[str, list[float]] = {}  # by query; asked again while it has none
    while True:
        for _, query in wanted:
            if not answers.get(query):
                answers[query] = ask(arguments.prometheus, query)
        if all(answers.values()) or time.monotonic() > start + arguments.timeout:
            break
        time.sleep(1)
    for name, query in wanted:
        shown = " ".join(f"{value:.4g}" for value in answers[query][:8])
        print(f"{name:75}", shown or f"NO DATA  {query}")
    missing = sum(not result for result in answers.values())
    print(f"{len(wanted)} queries of {len(DASHBOARDS)} dashboards, {missing} without data", end=" ")
    print(f"after {time.monotonic() - start:.0f} s")
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
