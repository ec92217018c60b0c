"""
How many pods a rate of texts needs: measured service times, a queueing model, and real runs that check it.

    python bench/capacity.py --data folder                   measure, check at 50, 70 and 85 % load, plan
    python bench/capacity.py --data folder --write docs/scaling.md             the same, and its tables into a document
    python bench/capacity.py --service-ms 0.4,0.35,1.9       plan for service times measured elsewhere
    python bench/capacity.py --self-check                    the simulation against formulas that are known

A process runs each text to completion, one after another: a queue with one server, Poisson arrivals and service times
of any distribution (M/G/1). A pod of c processes is c such queues, since a connection stays with the process that took
it; pods stand behind a balancer. The mean wait is Pollaczek and Khinchine's, W = rate E[S^2] / (2 (1 - rho));
percentiles come from simulating every text (Lindley's recursion). How long a process is busy with a text is its CPU
time; how that differs from text to text, what texts take when they come one by one. A check sends the same texts at the
same times to the service and through the simulation, in short rounds, of which the median counts. The CPUs are kept
awake meanwhile (bench/timing.py).

The autoscaler is simulated as Kubernetes documents it: a look every 15 s at CPU averaged over the last samples, a
tolerance of 10 %, at most double or 4 pods more every 15 s, and a pod that needs its time to start.

Prints tables, then one line of JSON. Measuring needs two quiet CPUs, wrk, and the folder that bench/load.py needs.
"""

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from load import ASKING, SERVING, Server, bodies_of, serving
from open_loop import alone, requests
from queues import TIMEOUT_MS, Service, checked, mean_wait, waits
from rich.console import Console
from rich.table import Table
from timing import awake, machine, today

LOADS = (0.5, 0.7, 0.85)
BATCH = 16  # texts of a request to /classify/batch
PERCENTILES = (50, 99, 99.9)
WARM_UP = 0.1  # share of a simulation that is not counted


def simulate(rate: float, service: Service, queues: int, texts: int, seed: int) -> np.ndarray:
    """Sojourn times (wait and service, seconds) of `texts` texts that arrive as a Poisson process of `rate` a second
    and are spread over `queues` equal queues at random, as connections are."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, texts))
    services = rng.choice(service.seconds, texts)
    queue = rng.integers(queues, size=texts)
    result = np.empty(texts)
    for q in range(queues):
        own = np.flatnonzero(queue == q)
        if len(own):
            result[own] = waits(arrivals[own], services[own]) + services[own]
    return result[int(WARM_UP * texts) :]


@dataclass(frozen=True)
class Fleet:
    """What a rate needs. `pods` stay below `load` with one of `zones` lost."""

    rate: float
    pods: int
    cores: int
    load: float
    load_with_a_zone_lost: float
    p50_ms: float
    p99_ms: float
    series: int
    dollars_an_hour: float


def plan(rate: float, service: Service, options: argparse.Namespace) -> Fleet:
    """Pods of `options.processes` processes for `rate` texts a second, none above `options.load` with a zone lost."""
    whole = options.processes * service.capacity  # texts a second of a pod at full load
    needed = rate / (whole * options.load)
    left = (options.zones - 1) / options.zones if options.zones > 1 else 1.0
    pods = max(options.zones, math.ceil(needed / left))
    pods = math.ceil(pods / options.zones) * options.zones
    load = rate / (pods * whole)
    # queues are alike and independent: one of them, at its share of the rate, stands for all
    sojourn = simulate(rate / (pods * options.processes), service, 1, 200_000, seed=1)
    p50, p99 = np.percentile(sojourn, [50, 99])
    cores = pods * options.processes
    return Fleet(
        rate=rate,
        pods=pods,
        cores=cores,
        load=round(load, 3),
        load_with_a_zone_lost=round(load / left, 3),
        p50_ms=round(1000 * float(p50), 3),
        p99_ms=round(1000 * float(p99), 3),
        series=pods * options.series,
        dollars_an_hour=round(cores * options.core_dollars, 2),
    )


@dataclass(frozen=True)
class Autoscaler:
    """Kubernetes' HorizontalPodAutoscaler on CPU with the chart's settings; times in seconds.

    https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details
    """

    target: float = 0.6  # busy share of a pod
    sync: float = 15.0  # between two looks
    metric_lag: float = 30.0  # of what metrics-server has to say: its window and its scrape
    start: float = 10.0  # from the decision to a pod that is ready: scheduling and 4 s of our own
    tolerance: float = 0.1
    doubles: float = 1.0  # pods may grow by this share ...
    adds: int = 4  # ... or by so many, whichever is more, in `period`
    period: float = 15.0


def followed(scaler: Autoscaler, pods: int, capacity: float, rate: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Pods that serve, second by second, where `rate` texts a second come and `lost` pods are away, which the
    autoscaler doesn't know but from the others' CPU. `capacity`: texts a second of a pod."""
    busy: list[float] = []
    ready: list[tuple[float, int]] = [(0.0, pods)]  # (from, pods)
    asked, counts, changes = pods, [], []
    next_look = scaler.sync
    for t, (r, away) in enumerate(zip(rate, lost, strict=True)):
        now = max(count for since, count in ready if since <= t) - away
        counts.append(now)
        busy.append(min(1.0, r / (now * capacity)))
        if t < next_look:
            continue
        next_look += scaler.sync
        ratio = float(np.mean(busy[-int(scaler.metric_lag) :])) / scaler.target
        if ratio <= 1 + scaler.tolerance:
            continue
        recent = asked - sum(added for when, added in changes if t - when < scaler.period)
        most = max(math.ceil(recent * (1 + scaler.doubles)), recent + scaler.adds)
        wanted = min(math.ceil(now * ratio) + away, most)
        if wanted > asked:
            changes.append((t, wanted - asked))
            asked = wanted
            ready.append((t + scaler.start, asked))
    return np.array(counts)


def through(service: Service, share: np.ndarray) -> dict[str, float]:
    """99th percentiles (milliseconds) of texts where `share` texts come to a process each second: over all, and in the
    worst 5 s. 64 processes, so that the percentiles are steady."""
    rng, sojourns, windows = np.random.default_rng(1), [], []
    for _ in range(64):
        number = rng.poisson(share)
        arrivals = np.sort(np.concatenate([t + rng.random(n) for t, n in enumerate(number)]))
        services = rng.choice(service.seconds, len(arrivals))
        sojourns.append(waits(arrivals, services) + services)
        windows.append((arrivals // 5).astype(int))
    sojourn, window = np.concatenate(sojourns), np.concatenate(windows)
    by_window = [float(np.percentile(sojourn[window == w], 99)) for w in np.unique(window)]
    return {
        "p99_ms": round(1000 * float(np.percentile(sojourn, 99)), 2),
        "worst_5s_p99_ms": round(1000 * max(by_window), 2),
        "largest_busy_share": round(float((share * service.mean).max()), 3),
    }


def autoscale(
    service: Service, scaler: Autoscaler, pods: int, processes: int, before: float, ramp: float
) -> dict[str, float]:
    """The load of `pods` pods, at first the share `before` of their capacity, doubles within `ramp` seconds."""
    capacity = processes * service.capacity
    times = np.arange(0.0, ramp + 240.0)
    rate = before * pods * capacity * (1 + np.clip((times - 30) / ramp, 0, 1))
    serving = followed(scaler, pods, capacity, rate, np.zeros(len(rate), int))
    return {**through(service, rate / serving / processes), "pods_in_the_end": int(serving[-1])}


def zone_lost(
    service: Service, scaler: Autoscaler, pods: int, processes: int, before: float, zones: int, back: float = 60.0
) -> dict[str, float]:
    """One of `zones` is gone after 30 s; its pods are ready again on other nodes after `back` seconds more, by when
    the autoscaler may have added some as well."""
    capacity = processes * service.capacity
    times = np.arange(0.0, 300.0)
    rate = np.full(len(times), before * pods * capacity)
    away = np.where((times >= 30) & (times < 30 + back), pods // zones, 0)
    serving = followed(scaler, pods, capacity, rate, away)
    return {**through(service, rate / serving / processes), "pods_in_the_end": int(serving[-1])}


def rolled(service: Service, before: float, surge: float, *, by_connections: bool) -> dict[str, float]:
    """A rolling update, a share `surge` of the pods at a time, each ready before an old one ends. A balancer of
    requests keeps all pods at the load `before`. One of connections sends those of a pod that ends to all that there
    are, so old pods have more and more of them, until they end themselves or their connections reach their age."""
    old, new = np.ones(round(1 / surge)), np.zeros(0)  # connections of each wave's pods, as a share of the usual
    busiest = 1.0
    while by_connections and len(old):
        new = np.append(new, 0.0)
        freed, old = old[0], old[1:]
        each = freed / (len(old) + len(new))
        old, new = old + each, new + each
        busiest = max(busiest, *old, *new)
    load = before * busiest
    sojourn = simulate(min(load, 0.999) * service.capacity, service, 1, 400_000, seed=4)
    return {"busiest": round(load, 3), "p99_ms": round(1000 * float(np.percentile(sojourn, 99)), 2)}


def self_check() -> list[tuple[str, float, float]]:
    """(case, formula, simulation) of mean waits in seconds: M/M/1, M/D/1 and a mixture by Pollaczek-Khinchine."""
    rng = np.random.default_rng(0)
    cases = {
        "M/M/1": Service(rng.exponential(0.001, 400_000)),
        "M/D/1": Service(np.full(10, 0.001)),
        "one in ten takes ten times as long": Service(np.repeat([0.0005, 0.005], [9, 1])),
    }
    result = []
    for name, service in cases.items():
        for load in LOADS:
            rate = load * service.capacity
            sojourn = simulate(4 * rate, service, 4, 4_000_000, seed=2)
            result.append((f"{name}, load {load:g}", mean_wait(rate, service), float(sojourn.mean() - service.mean)))
    return result


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with glue/sst2/dev.tsv.gz; measures and checks")
    parser.add_argument("--delta", type=float, help="of the requests (the model's own exit options)")
    parser.add_argument(
        "--mix", default="1:1", help="lengths of texts, in sentences, with their shares, as 1:0.8,10:0.2 (%(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=30, help="of the real runs at a load")
    parser.add_argument("--service-ms", help="service times in milliseconds, separated by commas, instead of measuring")
    parser.add_argument(
        "--rate", type=float, nargs="*", default=[1e3, 1e4, 1e5, 1e6], help="texts a second to plan for"
    )
    parser.add_argument("--processes", type=int, default=1, help="processes of a pod, a core each")
    parser.add_argument("--load", type=float, default=0.7, help="busy share of a process that is not exceeded")
    parser.add_argument("--zones", type=int, default=3)
    parser.add_argument("--series", type=int, default=1036, help="time series that a pod exports: 292 of one model")
    parser.add_argument("--core-dollars", type=float, default=0.04, help="price of a core for an hour")
    parser.add_argument("--write", type=Path, help="document to put the tables into, between its marks")
    parser.add_argument("--self-check", action="store_true", help="the simulation against known formulas, nothing else")
    return parser.parse_args(given)


def mixed(sentences: Sequence[str], mix: str, delta: float | None) -> bytes:
    """Bodies, one a line, as many as there are sentences: texts of 1 or more sentences in the shares of `mix`."""
    pairs = [part.split(":") for part in mix.split(",")]
    lengths, shares = [int(length) for length, _ in pairs], np.array([float(share) for _, share in pairs])
    rng = np.random.default_rng(0)
    lines = []
    for i, length in enumerate(rng.choice(lengths, len(sentences), p=shares / shares.sum())):
        text = " ".join(sentences[(i + k) % len(sentences)] for k in range(length))
        lines.append(json.dumps({"text": text} if delta is None else {"text": text, "delta": delta}))
    return "\n".join(lines).encode()


def cpu_of_batches(server: Server, bodies: Sequence[bytes]) -> float:
    """CPU seconds of a text where each request has BATCH of them."""
    many = [b'{"items": [' + b", ".join(bodies[i : i + BATCH]) + b"]}" for i in range(0, len(bodies), BATCH)]
    sent = [one.replace(b"POST /classify ", b"POST /classify/batch ", 1) for one in requests(many, TIMEOUT_MS)]
    before = server.cpu_seconds()
    alone(server.port, sent, 3)
    return (server.cpu_seconds() - before) / (3 * len(bodies))


def measured(options: argparse.Namespace) -> tuple[Service, list[dict[str, float]], float]:
    """Service times of a process on one CPU, (load, p99 simulated and measured, ms) of real runs, and the CPU seconds
    of a text in batches."""
    checks, seconds = [], options.seconds
    with tempfile.TemporaryDirectory(prefix="beexformer-capacity-") as name:
        bodies = bodies_of(options.data, Path(name))
        sentences = [json.loads(line)["text"] for line in bodies.read_bytes().splitlines()]
        bodies.write_bytes(mixed(sentences, options.mix, options.delta))
        with serving("ours", bodies, 18130) as server, awake([SERVING, ASKING]):
            lines = bodies.read_bytes().splitlines()
            sent = requests(lines, TIMEOUT_MS)
            os.sched_setaffinity(0, {int(ASKING)})
            answers, _ = alone(server.port, sent)
            services = []
            for load in LOADS:
                service, check = checked(server, sent, answers, load, seconds)
                services.append(service)
                checks.append(check)
            middle = sorted(services, key=lambda one: one.mean)[len(services) // 2]
            return middle, checks, cpu_of_batches(server, lines)


def shown(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    result = Table(title=title)
    for column in columns:
        result.add_column(column, justify="right")
    for row in rows:
        result.add_row(*row)
    return result


def check_itself(console: Console) -> int:
    checks = self_check()
    rows = [(name, f"{1e3 * a:.4f}", f"{1e3 * b:.4f}", f"{b / a - 1:+.1%}") for name, a, b in checks]
    console.print(shown("mean wait, ms", ("case", "formula", "simulated", "apart"), rows))
    worst = max(abs(b / a - 1) for _, a, b in checks)
    print(json.dumps({"largest_difference": round(worst, 4)}))
    return int(worst > 0.05)


CHECKS = ("load of one process", "mean ms, formula", "measured", "p99 ms, simulated", "measured", "apart")
FLEETS = ("texts a second", "pods", "cores", "load", "with a zone lost", "p50 ms", "p99 ms", "time series", "$ an hour")
EVENTS = ("what happens", "p99 ms", "in the worst 5 s", "busiest process", "pods in the end")


def rows_of_checks(checks: Sequence[dict[str, float]]) -> list[list[str]]:
    return [
        [
            f"{one['load']:.0%}",
            f"{one['formula_mean_ms']:.2f}",
            f"{one['measured_mean_ms']:.2f}",
            f"{one['simulated_p99_ms']:.2f}",
            f"{one['measured_p99_ms']:.2f}",
            f"{one['p99_ratio'] - 1:+.0%}",
        ]
        for one in checks
    ]


def rows_of_fleets(fleets: Sequence[Fleet]) -> list[list[str]]:
    return [
        [
            f"{one.rate:,.0f}",
            f"{one.pods:,}",
            f"{one.cores:,}",
            f"{one.load:.0%}",
            f"{one.load_with_a_zone_lost:.0%}",
            f"{one.p50_ms:.2f}",
            f"{one.p99_ms:.2f}",
            f"{one.series:,}",
            f"{one.dollars_an_hour:,.2f}",
        ]
        for one in fleets
    ]


def events(service: Service, processes: int, zones: int) -> dict[str, dict[str, float]]:
    """What a fleet goes through, simulated: p99 and load by event."""
    scaler = Autoscaler()
    return {
        "10 pods at half their capacity, the load doubles within a minute": autoscale(
            service, scaler, 10, processes, 0.5, 60.0
        ),
        f"12 pods in {zones} zones at 47 %, a zone is lost for a minute": zone_lost(
            service, scaler, 12, processes, 0.47, zones
        ),
        "rolling update at 47 %, requests balanced": rolled(service, 0.47, 0.25, by_connections=False),
        "rolling update at 47 %, connections balanced": rolled(service, 0.47, 0.25, by_connections=True),
    }


def rows_of_events(result: dict[str, dict[str, float]]) -> list[list[str]]:
    return [
        [
            name,
            f"{one['p99_ms']:.1f}",
            f"{one['worst_5s_p99_ms']:.1f}" if "worst_5s_p99_ms" in one else "",
            f"{one.get('largest_busy_share', one.get('busiest', 0)):.0%}",
            f"{one['pods_in_the_end']:.0f}" if "pods_in_the_end" in one else "",
        ]
        for name, one in result.items()
    ]


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---:" for _ in columns], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_into(document: Path, text: str) -> None:
    """Put `text` between the document's marks."""
    before, start, rest = document.read_text().partition(START)
    _, end, after = rest.partition(END)
    assert start, f"{document} has no {START}"
    assert end, f"{document} has no {END}"
    document.write_text(f"{before}{start}\n\n{text}\n\n{end}{after}")


START, END = "<!-- capacity: written by bench/capacity.py --write -->", "<!-- end of capacity -->"


def main() -> int:
    options, console = arguments(), Console()
    if options.self_check:
        return check_itself(console)
    checks: list[dict[str, float]] = []
    batched = 0.0
    if options.service_ms:
        service = Service(np.array([float(ms) / 1000 for ms in options.service_ms.split(",")]))
    elif options.data:
        service, checks, batched = measured(options)
    else:
        raise SystemExit("give --data to measure, or --service-ms")
    fleets = [plan(rate, service, options) for rate in options.rate]
    simulated = events(service, options.processes, options.zones)
    tables = (
        ("one process, Poisson arrivals of SST-2 sentences", CHECKS, rows_of_checks(checks)),
        (f"pods of {options.processes} processes", FLEETS, rows_of_fleets(fleets)),
        ("simulated, with the chart's settings", EVENTS, rows_of_events(simulated)),
    )
    for title, columns, rows in tables:
        if rows:
            console.print(shown(title, columns, rows))
    stated = {"service_ms": round(1000 * service.mean, 4), "squared_variation": round(service.squared_variation, 3)}
    stated |= {"batched_ms": round(1000 * batched, 4), "mix": options.mix, "delta": options.delta}
    stated |= {"machine": machine(), "date": today()}
    if options.write:
        rule = "the model's own exit options" if options.delta is None else f"delta {options.delta:g}"
        about = (
            f"On {stated['date']}, {stated['machine']}: a process is busy for {stated['service_ms']} ms with a text "
            f"(SST-2, lengths {options.mix}, {rule}, over HTTP), squared coefficient of variation "
            f"{stated['squared_variation']}; with {stated['batched_ms']} ms of CPU in batches of {BATCH}. "
            f"{options.zones} zones, no process above {options.load:.0%} with a zone lost, "
            f"${options.core_dollars:g} for a core an hour."
        )
        parts = [
            f"{title[0].upper()}{title[1:]}:\n\n{markdown(columns, rows)}" for title, columns, rows in tables if rows
        ]
        write_into(options.write, "\n\n".join([about, *parts]))
    result: dict[str, Any] = {
        "checks": [{name: round(value, 3) for name, value in one.items()} for one in checks],
        "fleets": [asdict(fleet) for fleet in fleets],
        "events": simulated,
    }
    print(json.dumps({**stated, **result}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
