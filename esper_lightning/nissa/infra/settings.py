"""Settings of Prometheus, Alertmanager and Grafana."""

from esper_lightning.leyline import Severity
from esper_lightning.nissa.alerts.expressions import duration
from esper_lightning.nissa.alerts.rule_file import EVALUATION_S, HEAD
from esper_lightning.nissa.alerts.yaml_text import Plain, yaml_text

JOB = "esper"
"""The scrape job of runs and of mission control."""

METRICS_PORT = 9464
"""The port at which the settings expect the first run's metrics; others take those that follow."""

NUM_PORTS = 4
"""So many runs or processes of the machine are scraped."""

SERVER_PORT = 8000
"""The port of mission control: uvicorn's own default."""

MACHINE = "host.docker.internal"
"""The name by which a container reaches the machine that it runs on."""

DATA_SOURCE = "esper-prometheus"
"""Grafana's identity of our Prometheus."""


def prometheus_settings() -> str:
    """What is scraped, and where rules and Alertmanager are."""
    ports = (SERVER_PORT, *range(METRICS_PORT, METRICS_PORT + NUM_PORTS))
    return HEAD + yaml_text(
        {
            "global": {
                "scrape_interval": duration(EVALUATION_S),
                "evaluation_interval": duration(EVALUATION_S),
            },
            "rule_files": ["rules.yml"],
            "alerting": {
                "alertmanagers": [{"static_configs": [{"targets": ["alertmanager:9093"]}]}]
            },
            "scrape_configs": [
                {
                    "job_name": JOB,
                    "static_configs": [{"targets": [f"{MACHINE}:{port}" for port in ports]}],
                }
            ],
        }
    )


def alertmanager_settings() -> str:
    """How alerts are grouped and routed; the webhook is that of whoever runs it."""
    return HEAD + yaml_text(
        {
            "route": {
                "receiver": "quiet",
                "group_by": ["alertname", "run"],
                "group_wait": "30s",
                "group_interval": "5m",
                "repeat_interval": "4h",
                "routes": [
                    {
                        "receiver": "webhook",
                        "matchers": [f'severity="{Severity.CRITICAL.value}"'],
                        "group_wait": "0s",
                        "repeat_interval": "1h",
                    },
                    {
                        "receiver": "webhook",
                        "matchers": [f'severity="{Severity.WARNING.value}"'],
                    },
                ],
            },
            "receivers": [
                {"name": "quiet"},
                {
                    "name": "webhook",
                    "webhook_configs": [
                        {"url": f"http://{MACHINE}:9095/alerts", "send_resolved": True}
                    ],
                },
            ],
            "inhibit_rules": [
                {
                    "source_matchers": ["alertname=tolaria_run_failed"],
                    "target_matchers": ["alertname=tolaria_run_stalled"],
                    "equal": ["run", "rank"],
                }
            ],
        }
    )


def data_source() -> str:
    """Grafana's way to Prometheus."""
    source: Plain = {
        "name": "Prometheus",
        "uid": DATA_SOURCE,
        "type": "prometheus",
        "access": "proxy",
        "url": "http://prometheus:9090",
        "isDefault": True,
        "jsonData": {"timeInterval": duration(EVALUATION_S)},
    }
    return HEAD + yaml_text({"apiVersion": 1, "datasources": [source]})


def dashboard_provider() -> str:
    """Where Grafana finds the dashboards."""
    provider: Plain = {
        "name": JOB,
        "folder": "Esper",
        "type": "file",
        "disableDeletion": True,
        "options": {"path": "/var/lib/grafana/dashboards"},
    }
    return HEAD + yaml_text({"apiVersion": 1, "providers": [provider]})
