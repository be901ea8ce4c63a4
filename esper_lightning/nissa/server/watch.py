"""Metrics and alerts of live runs, made from their records."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.exposition import generate_latest

from esper_lightning.leyline import Event, Raised
from esper_lightning.nissa.alerts import AlertBook
from esper_lightning.nissa.metrics import NissaIngestor, Series, names
from esper_lightning.nissa.metrics.registry import MetricsRegistry

MAX_RUNS = 16
"""Runs whose metrics are kept, those with the latest news."""

_NOT_TOLD = frozenset({names.BATCHES.name})
"""Samples that no record tells."""


class RunWatch:
    """Hears the events of live runs. May be used by several threads.

    Records tell of epochs and not of batches, so that a run that hangs is not told from one whose
    epochs are long: its own process raises that alert. The count of batches, which would stand at 0
    and look like a run that hangs, is neither looked at nor told.

    Args:
        book: works the alert rules out.
    """

    def __init__(self, book: AlertBook) -> None:
        self.book = book
        self._ingestors: OrderedDict[str, NissaIngestor] = OrderedDict()
        self._lock = threading.Lock()

    def hears(self, key: str) -> bool:
        """Whether what happens in a run is counted already."""
        with self._lock:
            return key in self._ingestors

    def hear(self, key: str, events: Sequence[Event], *, anew: bool) -> None:
        """Count what happened in a run; ``anew`` forgets what was counted before."""
        with self._lock:
            if anew or key not in self._ingestors:
                self._new(key)
            self._ingestors.move_to_end(key)
            for event in events:
                self._ingestors[key].take(event)

    def hear_raised(self, raised: Raised) -> None:
        """Count an alert of a run, or of another program, that reached us over the bus."""
        with self._lock:
            ingestor = next(
                (each for each in self._ingestors.values() if each.registry.run == raised.run_id),
                None,
            )
            if ingestor is None:
                ingestor = self._new(f"raised by {raised.run_id}")
                ingestor.registry.name_run(raised.run_id)
            ingestor.take(raised)

    def look(self) -> None:
        """Work the alert rules out on what stands now."""
        with self._lock:
            samples: dict[Series, float] = {}
            for registry in self._registries():
                samples.update(registry.samples())
        self.book.observe({s: v for s, v in samples.items() if s.name not in _NOT_TOLD})

    def exposition(self) -> bytes:
        """The metrics of all these runs, as ``/metrics`` answers."""
        with self._lock:
            return generate_latest(_Together(self._registries()))

    def _new(self, key: str) -> NissaIngestor:
        ingestor = self._ingestors[key] = NissaIngestor(MetricsRegistry())
        self._ingestors.move_to_end(key)
        while len(self._ingestors) > MAX_RUNS:
            self._ingestors.popitem(last=False)
        return ingestor

    def _registries(self) -> list[MetricsRegistry]:
        """One of each run: a copy of a run's folder tells the same series."""
        registries = (ingestor.registry for ingestor in self._ingestors.values())
        return list({registry.run: registry for registry in registries if registry.run}.values())


class _Together:
    """Several registries as one: a family stands only once in a scrape."""

    def __init__(self, registries: Sequence[MetricsRegistry]) -> None:
        self._registries = registries

    def collect(self) -> Iterator[Metric]:
        """The families, each with the samples of all."""
        families: dict[str, Metric] = {}
        for registry in self._registries:
            for family in registry.collect():
                if any(sample.name in _NOT_TOLD for sample in family.samples):
                    continue
                if family.name in families:
                    families[family.name].samples += family.samples
                else:
                    families[family.name] = family
        yield from families.values()
