"""
Counters as Prometheus reads them. Knows prometheus-client's formats and where in the counters each series stands.

A scrape is written in steps of well under a millisecond, so that nobody waits for it.
"""

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

SAMPLES = 100  # written in one step
OPEN_METRICS = "application/openmetrics-text"
END = b"# EOF\n"  # of OpenMetrics

Encode = Callable[[Collector], bytes]
Writing = Generator[float, None, bytes]
Labels = tuple[str, ...]  # values of labels, in the order of their names


@dataclass(frozen=True, slots=True)
class Family:
    """A metric and the index at which each of its series begins in the counters: one number, or of a histogram one for
    each bucket, +Inf last, and then the sum."""

    name: str
    kind: str  # counter, gauge or histogram
    text: str
    label_names: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    series: dict[Labels, int] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Numbers of one series."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1

    def metric(self) -> Metric:
        """Without samples."""
        return Metric(self.name, self.text, self.kind)

    def samples(
        self, values: Sequence[float], hidden: Callable[[int], bool]
    ) -> Iterator[tuple[str, dict[str, str], float]]:
        """(name, labels, value) of each sample; series that are 0 are left out where `hidden(index)` says so."""
        suffix = "_total" if self.kind == "counter" else ""
        bounds = [floatToGoString(bound) for bound in (*self.buckets, float("inf"))]  # type: ignore[no-untyped-call]
        for labels, first in self.series.items():
            named = dict(zip(self.label_names, labels, strict=True))
            if self.kind != "histogram":
                if values[first] or not hidden(first):
                    yield self.name + suffix, named, values[first]
                continue
            counts = list(accumulate(values[first : first + len(bounds)]))
            for bound, count in zip(bounds, counts, strict=True):
                yield self.name + "_bucket", {**named, "le": bound}, count
            yield self.name + "_count", named, counts[-1]
            yield self.name + "_sum", named, values[first + len(bounds)]


class Layout:
    """Families, one behind the other in the counters, from index `first` on."""

    def __init__(self, first: int) -> None:
        self.families: list[Family] = []
        self.size = first

    def add(
        self,
        name: str,
        kind: str,
        text: str,
        label_names: tuple[str, ...] = (),
        series: Iterable[Labels] = ((),),
        buckets: Iterable[float] = (),
    ) -> Family:
        """A new family with these series."""
        family = Family(name, kind, text, label_names, tuple(buckets))
        for labels in series:
            family.series[labels] = self.size
            self.size += family.width
        self.families.append(family)
        return family

    def digest(self) -> str:
        """A name that another layout hasn't got."""
        return hashlib.sha256(repr(self.families).encode()).hexdigest()[:16]


def gauge(name: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Metric:
    """A gauge that is known from the start."""
    metric = Metric(name, text, "gauge")
    for labels, value in samples:
        metric.add_sample(name, dict(labels), value)
    return metric


def processes(pids: Iterable[int], *, named: bool) -> list[Metric]:
    """process_* of these processes; `named`: told apart by the label pid."""
    families: dict[str, Metric] = {}
    for pid in pids:
        for one in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
            family = families.setdefault(one.name, Metric(one.name, one.documentation, one.type))
            for sample in one.samples:
                family.add_sample(sample.name, {"pid": str(pid)} if named else {}, sample.value)
    return list(families.values())


def write(
    accept: str,
    families: Iterable[Family],
    values: Sequence[float],
    hidden: Callable[[int], bool],
    others: Iterable[Metric],
) -> tuple[Writing, str]:
    """(the work of writing a scrape in the format that `accept` asks for, its content type)."""
    # only what matters of the header: prometheus-client fails on versions that are none
    encode, content_type = choose_encoder(OPEN_METRICS if OPEN_METRICS in accept else "")

    def steps() -> Writing:
        parts: list[bytes] = []
        for family in families:
            metric, samples = family.metric(), list(family.samples(values, hidden))
            for i in range(0, max(1, len(samples)), SAMPLES):
                metric.samples = []
                for sample in samples[i : i + SAMPLES]:
                    metric.add_sample(*sample)
                parts.append(_encoded(encode, metric, headed=i == 0))
                yield 0.0  # so little that it goes first, and no backlog
        parts += [_encoded(encode, metric, headed=True) for metric in others]
        return b"".join(parts) + (END if content_type.startswith("application/openmetrics") else b"")

    return steps(), content_type


def _encoded(encode: Encode, metric: Metric, *, headed: bool) -> bytes:
    text = encode(_Only(metric)).removesuffix(END)
    return text if headed else text.split(b"\n", 2)[2]  # without HELP and TYPE, which stand there already


class _Only(Collector):
    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return (self._metric,)
