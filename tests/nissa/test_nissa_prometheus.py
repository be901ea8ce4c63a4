"""The real Prometheus scrapes a process of ours, and the real Alertmanager tells a webhook."""

import json
import queue
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from esper_lightning.nissa.alerts.rule_file import rule_file
from esper_lightning.nissa.infra import infra_files
from esper_lightning.nissa.infra.settings import MACHINE
from esper_lightning.nissa.metrics import names
from esper_lightning.nissa.metrics.registry import MetricsRegistry
from esper_lightning.nissa.metrics.serving import MetricsServer

PROMETHEUS = shutil.which("prometheus")
ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.integration,
    pytest.mark.skipif(
        PROMETHEUS is None or ALERTMANAGER is None,
        reason="Prometheus and Alertmanager are not both installed",
    ),
]
PATIENCE_S = 90


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class Receiver:
    """A webhook that keeps what it was told."""

    def __init__(self) -> None:
        self.told: queue.Queue[dict[str, Any]] = queue.Queue()
        told = self.told

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait_for(self, status: str) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE_S
        while True:
            message = self.told.get(timeout=max(0.1, until - time.monotonic()))
            if message["status"] == status:
                return message

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def start(folder: Path, name: str, *command: str) -> subprocess.Popen[bytes]:
    log = (folder / f"{name}.log").open("wb")
    with log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)


def wait_until_ready(url: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=2):
                return
        except OSError:
            assert time.monotonic() < until, f"{url} is not ready"
            time.sleep(0.1)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def test_an_alert_fires_through_prometheus_and_alertmanager(
    tmp_path: Path, receiver: Receiver
) -> None:
    registry = MetricsRegistry(run="r1")
    served = MetricsServer(registry, 0)
    at, alerts_at = free_port(), free_port()
    files = infra_files()
    settings = files["prometheus/prometheus.yml"].replace("15s", "1s")
    settings = settings.replace(f"{MACHINE}:8000", served.address)
    settings = settings.replace("alertmanager:9093", f"127.0.0.1:{alerts_at}")
    settings = settings.replace(MACHINE, "127.0.0.1")
    (tmp_path / "prometheus.yml").write_text(settings, encoding="utf-8")
    rules = rule_file().replace('interval: "15s"', 'interval: "1s"')
    (tmp_path / "rules.yml").write_text(rules, encoding="utf-8")
    routes = files["alertmanager/alertmanager.yml"].replace("5m", "1s")
    routes = routes.replace(f"{MACHINE}:9095", f"127.0.0.1:{receiver.port}")
    (tmp_path / "alertmanager.yml").write_text(routes, encoding="utf-8")
    assert PROMETHEUS is not None
    assert ALERTMANAGER is not None
    processes = [
        start(
            tmp_path,
            "alertmanager",
            ALERTMANAGER,
            "--config.file=alertmanager.yml",
            "--storage.path=alertmanager",
            f"--web.listen-address=127.0.0.1:{alerts_at}",
            "--cluster.listen-address=",
        ),
        start(
            tmp_path,
            "prometheus",
            PROMETHEUS,
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address=127.0.0.1:{at}",
        ),
    ]
    try:
        wait_until_ready(f"http://127.0.0.1:{alerts_at}")
        wait_until_ready(f"http://127.0.0.1:{at}")
        registry.counter(names.ISOLATION_VIOLATIONS).inc()
        registry.gauge(names.RISK).set(4)
        told = [receiver.wait_for("firing"), receiver.wait_for("firing")]
        by_name = {each["commonLabels"]["alertname"]: each for each in told}
        assert set(by_name) == {"kasmina_isolation_violation", "tamiyo_risk_critical"}
        labels = by_name["kasmina_isolation_violation"]["commonLabels"]
        assert (labels["run"], labels["rank"], labels["severity"]) == ("r1", "0", "critical")
        annotations = by_name["kasmina_isolation_violation"]["commonAnnotations"]
        assert annotations["summary"].startswith("A seed in training changed")
        registry.gauge(names.RISK).set(0)
        over = receiver.wait_for("resolved")
        assert over["commonLabels"]["alertname"] == "tamiyo_risk_critical"
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)
        served.close()
