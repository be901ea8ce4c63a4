"""Metrics: their names, and how records become metrics.

:class:`~esper_lightning.nissa.metrics.registry.MetricsRegistry` is asked for by its own path, since
``prometheus_client`` takes its time to import.
"""

from esper_lightning.nissa.metrics.ingestor import NissaIngestor
from esper_lightning.nissa.metrics.names import METRICS, Kind, Metric, metric_named, series_names
from esper_lightning.nissa.metrics.series import History, Labels, Series, increase

__all__ = [
    "METRICS",
    "History",
    "Kind",
    "Labels",
    "Metric",
    "NissaIngestor",
    "Series",
    "increase",
    "metric_named",
    "series_names",
]
