#!/usr/bin/env python3
"""
Asks every query of the dashboard for a number, on a running Prometheus, while it sends the service something to count.

- sends rounds of requests (good ones of many lengths, batches, a few bad ones) until each query answers or time is up
- a query answers when at least one of its series is a finite number; one that doesn't is named, and the exit code is 1
- `--prometheus` may be any URL that speaks Prometheus' API, so also Grafana's proxy of its data source
- needs nothing but Python; knows neither `app` nor `model`, only HTTP and the dashboard's file
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

DASHBOARD = Path(__file__).parent / "grafana" / "dashboards" / "beexformer.json"
SENTENCE = "a warm funny film that never once forgets how much its people want to be seen and quietly lets them"


def queries(dashboard: dict, window: str) -> Iterator[tuple[str, str]]:
    """(name, expression) of all there is to ask: variables replaced, a repeated panel once for each of its values."""
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    for panel in dashboard["panels"]:
        repeat = panel.get("repeat")
        for value in variables[repeat]["query"].split(",") if repeat else [""]:
            for target in panel["targets"]:
                expression, title = target["expr"], panel["title"]
                if repeat:
                    expression, title = (text.replace(f"${repeat}", value) for text in (expression, title))
                for name in ("__rate_interval", "__range"):
                    expression = expression.replace(f"${name}", window)
                for name in variables:
                    expression = expression.replace(f"${name}", ".*")
                yield f"{title} / {target['legendFormat']}", expression


def ask(prometheus: str, expression: str) -> list[float]:
    """The finite numbers among the series that answer."""
    with urlopen(f"{prometheus}/api/v1/query?{urlencode({'query': expression})}", timeout=10) as response:
        series = json.load(response)["data"]["result"]
    return [value for one in series if math.isfinite(value := float(one["value"][1]))]


def post(url: str, body: object) -> tuple[int, bytes]:
    request = Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urlopen(request, timeout=30) as response:
            return response.status, response.read()
    except HTTPError as refused:
        return refused.code, refused.read()


def send_round(service: str, size: int) -> None:
    """`size` good requests and three bad ones. Raises SystemExit if one isn't answered as it should be."""
    words = SENTENCE.split()
    items = [{"text": " ".join(words[: 1 + i % len(words)]), "delta": (0.0001, -0.2, 0.3)[i % 3]} for i in range(size)]
    expected = [("/classify", item, 200) for item in items]
    expected += [("/classify/batch", {"items": items[:8]}, 200)]
    expected += [("/classify", body, 422) for body in ({"text": ""}, {"text": "x", "delta": 2}, {"unknown": "field"})]
    for path, body, code in expected:
        answered, content = post(service + path, body)
        if answered != code:
            raise SystemExit(f"POST {path} {body} answered {answered} and not {code}: {content.decode()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", required=True, help="URL of the service")
    parser.add_argument("--prometheus", required=True, help="URL of a Prometheus that scrapes it")
    parser.add_argument("--window", default="1m", help="what stands in for $__rate_interval and $__range (%(default)s)")
    parser.add_argument("--timeout", type=float, default=60, help="seconds until giving up (%(default)s)")
    arguments = parser.parse_args()

    wanted = list(queries(json.loads(DASHBOARD.read_text()), arguments.window))
    deadline = time.monotonic() + arguments.timeout
    while True:
        for _ in range(3):
            send_round(arguments.service, 100)
            time.sleep(2)  # for a scrape or two: a rate needs two samples that differ
        answers = {name: ask(arguments.prometheus, query) for name, query in wanted}
        if all(answers.values()) or time.monotonic() > deadline:
            break
    for name, query in wanted:
        shown = " ".join(f"{value:.4g}" for value in answers[name][:8])
        print(f"{name:45}", shown or f"NO DATA  {query}")
    missing = sum(not found for found in answers.values())
    print(f"{len(wanted)} queries, {missing} without data")
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
