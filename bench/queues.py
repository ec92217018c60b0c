"""
One process beside a FIFO queue: the same texts, arriving at the same times, served first come, first served.

Times of service are those of the moment before each round; rounds are short and many, and their median counts, because
a shared machine stands still now and then.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from open_loop import Clients, Outcomes, alone, dues, offer
from timing import cpu_seconds, processes

if TYPE_CHECKING:
    from load import Server

ROUNDS = 31  # of a check
TIMEOUT_MS = 60_000  # that a request may take
# Connections of a round. One that is opened because all are busy is opened where the queue is the longest, and while it
# is taken others overtake its request: of short rounds' worst hundredth most would be such.
READY = 128
SETTLING = 0.1  # seconds that taking them may last
TOGETHER = 50  # texts by whose CPU time the machine's speed is known


Looks = list[tuple[int, float]]
"""Of a run, in order of time: texts answered so far, CPU seconds of the server so far."""


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

    def of_mean(self, mean: float) -> "Service":
        """The same texts on a machine on which they take `mean` seconds."""
        return Service(self.seconds * (mean / self.mean))

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
    result: np.ndarray = total - np.minimum.accumulate(total)
    return result


def at_its_speed(services: np.ndarray, answered: Sequence[int], looks: Looks) -> np.ndarray:
    """Service times [N] (seconds) of a run, brought to the speed that the machine had while TOGETHER of them were
    `answered`, or a few more: they add up to the CPU time that went by from look to look."""
    result = services.copy()
    first, before = looks[0]
    for end, after in looks[1:]:
        if end >= min(first + TOGETHER, len(answered)) and end > first:
            texts = list(answered[first:end])
            result[texts] *= (after - before) / services[texts].sum()
            first, before = end, after
    return result


def one_by_one(server: "Server", sent: list[bytes]) -> tuple[Service, float]:
    """Service times of these texts in turn, and the seconds that a text takes on the wire and at the client. What the
    machine does to some of them stays in: it does so to texts that come all at once too."""
    before = server.cpu_seconds()
    took = alone(server.port, sent)[1].ravel()
    busy = (server.cpu_seconds() - before) / len(took)
    return Service(np.maximum(took - took.mean() + busy, 0.2 * busy)), float(took.mean()) - busy


def offered(server: "Server", sent: list[bytes], answers: list[bytes], times: np.ndarray) -> tuple[Outcomes, Looks]:
    """What became of requests that were sent at these times, and what the server had used meanwhile."""
    clients, pids = Clients(server.port, sent, READY), processes(server.process.pid)
    time.sleep(SETTLING)  # until all are taken
    looks: Looks = []

    def look() -> None:
        looks.append((len(clients.outcomes.answered), sum(map(cpu_seconds, pids))))

    look()
    offer(clients, answers, times, TIMEOUT_MS / 1000, look)
    look()
    return clients.outcomes, looks


def checked(
    server: "Server", sent: list[bytes], answers: list[bytes], load: float, seconds: float
) -> tuple[Service, dict[str, float]]:
    """Real runs at a load, and the same simulated: with the service times of the moment before, brought to the CPU time
    that texts took in that very run, from look to look, since the speed of a shared machine changes within a second.
    `p99_ratio_at_one_speed` is what it would be with the run's mean. Runs are short and many, and what is said is their
    median, of ratios too: one in which the host stood still says nothing about a queue. Each round begins with other
    texts. `right` counts all of them."""
    services, said, right, all_of_them = [], [], 0, 0
    further = len(sent) // ROUNDS
    for seed in range(ROUNDS):
        sent, answers = sent[further:] + sent[:further], answers[further:] + answers[:further]
        service, elsewhere = one_by_one(server, sent)
        rate = load * service.capacity
        times = dues(rate, seconds / ROUNDS, seed)
        outcomes, looks = offered(server, sent, answers, times)
        busy = (looks[-1][1] - looks[0][1]) / len(times)
        service = service.of_mean(busy)
        services.append(service)
        each = service.seconds[np.arange(len(times)) % len(sent)]
        real = 1000 * np.array(outcomes.latencies)
        foretold, at_one_speed = (
            1000 * (waits(times, seconds) + seconds + elsewhere)
            for seconds in (at_its_speed(each, outcomes.answered, looks), each)
        )
        p99 = float(np.percentile(real, 99))
        said.append(
            {
                "load": rate * busy,
                "formula_mean_ms": 1000 * (mean_wait(rate, service) + service.mean + elsewhere),
                "measured_mean_ms": float(real.mean()),
                "simulated_p99_ms": float(np.percentile(foretold, 99)),
                "measured_p99_ms": p99,
                "p99_ratio": float(np.percentile(foretold, 99)) / p99,
                "p99_ratio_at_one_speed": float(np.percentile(at_one_speed, 99)) / p99,
                "simulated_p50_ms": float(np.percentile(foretold, 50)),
                "measured_p50_ms": float(np.percentile(real, 50)),
                # by the generator: where it is large, nothing is said
                "sent_late_p99_ms": 1000 * float(np.percentile(outcomes.delays, 99)),
            }
        )
        right += outcomes.counts["ok"]
        all_of_them += len(times)
    return Service(np.concatenate([one.seconds for one in services])), {
        **{name: float(np.median([each[name] for each in said])) for name in said[0]},
        "right": right / all_of_them,
    }
