"""The metrics of one process of one run, in a registry of their own.

``prometheus_client`` is imported here and takes its time: ask for this module by its own path.
"""

from collections.abc import Iterator
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client import Metric as PrometheusMetric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_whole
from esper_lightning.nissa.metrics.names import CONSTANT_LABELS, METRICS, Kind, Metric
from esper_lightning.nissa.metrics.series import Series

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""Of what :meth:`MetricsRegistry.exposition` gives."""

Child = TypeVar("Child", Counter, Gauge, Histogram)


class MetricsRegistry:
    """The metrics of one process of one run.

    Every metric is there from the start. One that has no labels of its own begins at 0, so that a
    scrape sees the first rise; of a gauge nobody set nothing is told.

    Args:
        run: id of the run; may be told later by :meth:`name_run`.
        rank: number of the process.

    Raises:
        InvalidArgument: the rank is below 0.
    """

    def __init__(self, *, run: str = "", rank: int = 0) -> None:
        check_whole("rank", rank, least=0)
        self._constant = (run, str(rank))
        self._registry = CollectorRegistry()
        self._families: dict[str, Counter | Gauge | Histogram] = {}
        self._children: dict[tuple[str, tuple[str, ...]], Counter | Gauge | Histogram] = {}
        for metric in METRICS.values():
            self._families[metric.name] = _family(metric, self._registry)
        if run:
            self._begin()

    @property
    def run(self) -> str:
        """Id of the run, empty until it is known."""
        return self._constant[0]

    def name_run(self, run: str) -> None:
        """From now on the series are of this run; those of another one are dropped."""
        if run != self.run:
            self._constant = (run, self._constant[1])
            self._children.clear()
            for family in self._families.values():
                family.clear()
            self._begin()

    def counter(self, metric: Metric, *values: str) -> Counter:
        """A counter with these values of the metric's own labels; the same one every time.

        Raises:
            InvalidArgument: the metric is no counter, or has other labels.
        """
        return self._child(Counter, metric, values)

    def gauge(self, metric: Metric, *values: str) -> Gauge:
        """Likewise a gauge."""
        return self._child(Gauge, metric, values)

    def histogram(self, metric: Metric, *values: str) -> Histogram:
        """Likewise a histogram."""
        return self._child(Histogram, metric, values)

    def drop(self, metric: Metric, *values: str) -> None:
        """Tell nothing more of one series; one that is not there may be dropped."""
        if self._children.pop((metric.name, values), None) is not None:
            self._families[metric.name].remove(*self._constant, *values)

    def collect(self) -> Iterator[PrometheusMetric]:
        """What ``prometheus_client`` renders: without the times at which counters were made."""
        for family in self._registry.collect():
            if family.samples:
                samples = [each for each in family.samples if not each.name.endswith("_created")]
                family.samples = samples
                yield family

    def exposition(self) -> bytes:
        """What ``/metrics`` answers, as :data:`CONTENT_TYPE`."""
        return generate_latest(self)

    def samples(self) -> dict[Series, float]:
        """Every series and its value at this moment."""
        return {
            Series(sample.name, tuple(sorted(sample.labels.items()))): float(sample.value)
            for family in self.collect()
            for sample in family.samples
        }

    def _begin(self) -> None:
        for metric in METRICS.values():
            if metric.kind is Kind.COUNTER and not metric.labels:
                self.counter(metric)
            elif metric.kind is Kind.HISTOGRAM and not metric.labels:
                self.histogram(metric)

    def _child(self, kind: type[Child], metric: Metric, values: tuple[str, ...]) -> Child:
        known = self._children.get((metric.name, values))
        if known is None:
            family = self._families.get(metric.name)
            if not isinstance(family, kind) or len(values) != len(metric.labels):
                raise InvalidArgument(
                    f"{metric.name} is a {metric.kind.value} with the labels {metric.labels}, "
                    f"asked for as a {kind.__name__.lower()} with {values}"
                )
            known = family.labels(*self._constant, *values)
            self._children[metric.name, values] = known
        if not isinstance(known, kind):
            raise InvalidArgument(f"{metric.name} is a {metric.kind.value}, no {kind.__name__}")
        return known


def _family(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    labels = (*CONSTANT_LABELS, *metric.labels)
    if metric.kind is Kind.COUNTER:
        return Counter(metric.name, metric.text, labels, registry=registry)
    if metric.kind is Kind.GAUGE:
        return Gauge(metric.name, metric.text, labels, registry=registry)
    return Histogram(metric.name, metric.text, labels, registry=registry, buckets=metric.buckets)
