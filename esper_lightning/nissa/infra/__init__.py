"""The files of ``infra/`` that hold names of ours: rules, scrapes, routes, dashboards.

Each is text made from the tables of :mod:`esper_lightning.nissa.metrics` and
:mod:`esper_lightning.nissa.alerts`, so that no name in them can be wrong.
"""

from esper_lightning.nissa.alerts.rule_file import rule_file
from esper_lightning.nissa.infra.dashboards import dashboards
from esper_lightning.nissa.infra.settings import (
    alertmanager_settings,
    dashboard_provider,
    data_source,
    prometheus_settings,
)


def infra_files() -> dict[str, str]:
    """Text by path below ``infra/``."""
    files = {
        "prometheus/prometheus.yml": prometheus_settings(),
        "prometheus/rules.yml": rule_file(),
        "alertmanager/alertmanager.yml": alertmanager_settings(),
        "grafana/provisioning/datasources/prometheus.yml": data_source(),
        "grafana/provisioning/dashboards/esper.yml": dashboard_provider(),
    }
    files.update({f"grafana/dashboards/{name}.json": text for name, text in dashboards().items()})
    return files


__all__ = ["infra_files"]
