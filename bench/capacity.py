"""
How many pods a rate of texts needs: measured service times, a queueing model, and real runs that check it.

    python bench/capacity.py --data folder                   measure, check at 50, 70 and 85 % load, plan
    python bench/capacity.py --service-ms 0.4,0.35,1.9       plan for service times measured elsewhere
    python bench/capacity.py --self-check                    the simulation against formulas that are known

A process runs each text to completion, one after another: a queue with one server, Poisson arrivals and service times
of any distribution (M/G/1). A pod of c processes is c such queues, since a connection stays with the process that took
it; pods stand behind a balancer. The mean wait is Pollaczek and Khinchine's, W = rate E[S^2] / (2 (1 - rho));
percentiles come from simulating every text (Lindley's recursion). The autoscaler is simulated as Kubernetes documents
it: a look every 15 s at CPU averaged over the last samples, a tolerance of 10 %, at most double or 4 pods more every
15 s, and a pod that needs its time to start.

Prints tables, then one line of JSON. Measuring needs two quiet CPUs, wrk, and the folder that bench/load.py needs.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from load import bodies_of, open_loop, serving, wrk
from open_loop import alone, requests
from rich.console import Console
from rich.table import Table
from timing import machine, today

LOADS = (0.5, 0.7, 0.85)
PERCENTILES = (50, 99, 99.9)
WARM_UP = 0.1  # share of a simulation that is not counted


@dataclass(frozen=True)
class Service:
    """Seconds that one process is busy with a text: a sample to draw from."""

    seconds: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.seconds.mean())

    @property
    def capacity(self) -> float:
        """Texts a second of one process that never waits."""
        return 1 / self.mean

    @property
    def squared_variation(self) -> float:
        """Var[S] / E[S]^2: 0 where all take the same time, 1 of exponential times."""
        return float(self.seconds.var() / self.mean**2)


def mean_wait(rate: float, service: Service) -> float:
    """Pollaczek-Khinchine: mean seconds in the queue of an M/G/1 with `rate` texts a second; inf at full load."""
    load = rate * service.mean
    return math.inf if load >= 1 else rate * float((service.seconds**2).mean()) / (2 * (1 - load))


def waits(arrivals: np.ndarray, services: np.ndarray) -> np.ndarray:
    """Lindley's recursion: times of arrival [N] (seconds, sorted), service times [N] -> waits [N] of one FIFO server.

    W[n+1] = max(0, W[n] + S[n] - A[n]); unrolled, the running sum less its running minimum.
    """
    steps = services[:-1] - np.diff(arrivals)
    total = np.concatenate([[0.0], np.cumsum(steps)])
    found: np.ndarray = total - np.minimum.accumulate(total)
    return found


def simulate(rate: float, service: Service, queues: int, texts: int, seed: int) -> np.ndarray:
    """Sojourn times (wait and service, seconds) of `texts` texts that arrive as a Poisson process of `rate` a second
    and are spread over `queues` equal queues at random, as connections are."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, texts))
    services = rng.choice(service.seconds, texts)
    queue = rng.integers(queues, size=texts)
    found = np.empty(texts)
    for q in range(queues):
        own = np.flatnonzero(queue == q)
        if len(own):
            found[own] = waits(arrivals[own], services[own]) + services[own]
    return found[int(WARM_UP * texts) :]


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


def autoscale(
    service: Service, scaler: Autoscaler, pods: int, processes: int, before: float, ramp: float
) -> dict[str, float]:
    """The load of `pods` pods, at first the share `before` of their capacity, doubles within `ramp` seconds. Answers
    the 99th percentile (milliseconds) over the whole and in the worst 5 s, the largest busy share and the pods in the
    end."""
    step, end = 1.0, ramp + 240.0
    start_rate = before * pods * processes * service.capacity
    times = np.arange(0.0, end, step)
    rate = start_rate * (1 + np.clip((times - 30) / ramp, 0, 1))
    busy: list[float] = []
    ready: list[tuple[float, int]] = [(0.0, pods)]  # (from, pods)
    asked, counts, changes = pods, [], []
    next_look = scaler.sync
    for t, r in zip(times, rate, strict=True):
        now = max(count for since, count in ready if since <= t)
        counts.append(now)
        busy.append(min(1.0, r / (now * processes * service.capacity)))
        if t >= next_look:
            next_look += scaler.sync
            seen = float(np.mean(busy[max(0, len(busy) - int(scaler.metric_lag / step)) :]))
            ratio = seen / scaler.target
            if abs(ratio - 1) > scaler.tolerance and ratio > 1:
                wanted = math.ceil(asked * ratio)
                recent = asked - sum(added for when, added in changes if t - when < scaler.period)
                wanted = min(wanted, max(math.ceil(recent * (1 + scaler.doubles)), recent + scaler.adds))
                if wanted > asked:
                    changes.append((t, wanted - asked))
                    asked = wanted
                    ready.append((t + scaler.start, asked))
    # one queue stands for all: arrivals thinned to its share of the rate, second by second
    rng = np.random.default_rng(1)
    share = rate / (np.array(counts) * processes)
    queues = 64  # as many samples of it, one after another, so that the percentile is steady
    worst, all_texts = [], []
    for _ in range(queues):
        number = rng.poisson(share * step)
        arrivals = np.sort(np.concatenate([t + rng.random(n) * step for t, n in zip(times, number, strict=True)]))
        services = rng.choice(service.seconds, len(arrivals))
        sojourn = waits(arrivals, services) + services
        all_texts.append(sojourn)
        worst.append((arrivals // 5).astype(int))
    sojourn, window = np.concatenate(all_texts), np.concatenate(worst)
    by_window = [float(np.percentile(sojourn[window == w], 99)) for w in np.unique(window)]
    return {
        "p99_ms": round(1000 * float(np.percentile(sojourn, 99)), 2),
        "worst_5s_p99_ms": round(1000 * max(by_window), 2),
        "largest_busy_share": round(float(max(busy)), 3),
        "pods_in_the_end": asked,
    }


def self_check() -> list[tuple[str, float, float]]:
    """(case, formula, simulation) of mean waits in seconds: M/M/1, M/D/1 and a mixture by Pollaczek-Khinchine."""
    rng = np.random.default_rng(0)
    cases = {
        "M/M/1": Service(rng.exponential(0.001, 400_000)),
        "M/D/1": Service(np.full(10, 0.001)),
        "one in ten takes ten times as long": Service(np.repeat([0.0005, 0.005], [9, 1])),
    }
    found = []
    for name, service in cases.items():
        for load in LOADS:
            rate = load * service.capacity
            sojourn = simulate(4 * rate, service, 4, 4_000_000, seed=2)
            found.append((f"{name}, load {load:g}", mean_wait(rate, service), float(sojourn.mean() - service.mean)))
    return found


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with glue/sst2/dev.tsv.gz; measures and checks")
    parser.add_argument("--seconds", type=float, default=20, help="of each real run")
    parser.add_argument("--service-ms", help="service times in milliseconds, separated by commas, instead of measuring")
    parser.add_argument(
        "--rate", type=float, nargs="*", default=[1e3, 1e4, 1e5, 1e6], help="texts a second to plan for"
    )
    parser.add_argument("--processes", type=int, default=1, help="processes of a pod, a core each")
    parser.add_argument("--load", type=float, default=0.7, help="busy share of a process that is not exceeded")
    parser.add_argument("--zones", type=int, default=3)
    parser.add_argument("--series", type=int, default=930, help="time series that a pod exports")
    parser.add_argument("--core-dollars", type=float, default=0.04, help="price of a core for an hour")
    parser.add_argument("--self-check", action="store_true", help="the simulation against known formulas, nothing else")
    return parser.parse_args(given)


def measured(data: Path, seconds: float) -> tuple[Service, list[dict[str, float]]]:
    """Service times of sentences in a process on one CPU, and (load, p99 simulated and measured, ms) of real runs.

    The mean is that of a server that never waits (wrk's rate of many connections); the shape is that of the sentences
    asked one by one."""
    checks = []
    with tempfile.TemporaryDirectory(prefix="beexformer-capacity-") as name:
        bodies = bodies_of(data, Path(name))
        with serving("ours", bodies, 18130) as server:
            peak = statistics.median(wrk(server, seconds / 3)["rate"] for _ in range(3))
            _, each = alone(server.port, requests(bodies.read_bytes().splitlines(), 60_000), 3)
            shape = np.array(each) - min(each)
            service = Service(1 / peak + (shape - shape.mean()))
            service = Service(np.maximum(service.seconds, 0.2 / peak))
            for load in LOADS:
                found = open_loop(server, load * peak, seconds)
                sojourn = simulate(load * peak, service, 1, 400_000, seed=3)
                checks.append(
                    {
                        "load": load,
                        "mean_wait_ms": 1000 * mean_wait(load * peak, service),
                        "simulated_p99_ms": 1000 * float(np.percentile(sojourn, 99)),
                        "measured_p99_ms": found["p99_ms"],
                    }
                )
    return service, checks


def shown(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    found = Table(title=title)
    for column in columns:
        found.add_column(column, justify="right")
    for row in rows:
        found.add_row(*row)
    return found


def check_itself(console: Console) -> int:
    checks = self_check()
    rows = [(name, f"{1e3 * a:.4f}", f"{1e3 * b:.4f}", f"{b / a - 1:+.1%}") for name, a, b in checks]
    console.print(shown("mean wait, ms", ("case", "formula", "simulated", "apart"), rows))
    worst = max(abs(b / a - 1) for _, a, b in checks)
    print(json.dumps({"largest_difference": round(worst, 4)}))
    return int(worst > 0.05)


def main() -> int:
    options, console = arguments(), Console()
    if options.self_check:
        return check_itself(console)
    result: dict[str, Any] = {}
    if options.service_ms:
        service = Service(np.array([float(ms) / 1000 for ms in options.service_ms.split(",")]))
    elif options.data:
        service, checks = measured(options.data, options.seconds)
        columns = ("load", "mean wait ms (formula)", "p99 ms (simulated)", "p99 ms (measured)", "apart")
        rows = [
            (
                f"{one['load']:.0%}",
                f"{one['mean_wait_ms']:.2f}",
                f"{one['simulated_p99_ms']:.2f}",
                f"{one['measured_p99_ms']:.2f}",
                f"{one['simulated_p99_ms'] / one['measured_p99_ms'] - 1:+.0%}",
            )
            for one in checks
        ]
        console.print(shown("one process, Poisson arrivals of SST-2 sentences", columns, rows))
        result["checks"] = [{name: round(value, 3) for name, value in one.items()} for one in checks]
    else:
        raise SystemExit("give --data to measure, or --service-ms")
    result |= {"service_ms": round(1000 * service.mean, 4), "squared_variation": round(service.squared_variation, 3)}
    fleets = [plan(rate, service, options) for rate in options.rate]
    rows = [[f"{value:,}" for value in asdict(fleet).values()] for fleet in fleets]
    console.print(shown(f"pods of {options.processes} processes", [*asdict(fleets[0])], rows))
    doubled = autoscale(service, Autoscaler(), 10, options.processes, 0.5, 60.0)
    console.print(f"load of 10 pods at 50 %, doubled within a minute: {doubled}")
    result |= {"fleets": [asdict(fleet) for fleet in fleets], "doubled_within_a_minute": doubled}
    print(json.dumps({**result, "machine": machine(), "date": today()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
