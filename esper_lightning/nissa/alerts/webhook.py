"""Tells alerts to a webhook, in the form in which Alertmanager would."""

import logging
import threading
import urllib.request
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import msgspec

from esper_lightning.leyline import InvalidArgument
from esper_lightning.nissa.alerts.book import Alert, AlertState

log = logging.getLogger(__name__)

MAX_WAITING = 100
"""Alerts that wait for a webhook that does not answer; the oldest are dropped."""

Send = Callable[[str, bytes, float], None]
"""Posts bytes to a URL within so many seconds; raises OSError where that fails."""


class Webhook:
    """Posts every alert that is told to it, from the thread that calls :meth:`flush`.

    Args:
        url: ``http`` or ``https``.
        timeout_s: seconds for one post.
        send: how; None posts.

    Attributes:
        sent: alerts that were taken.
        dropped: alerts that were given up.

    Raises:
        InvalidArgument: the URL is none that can be posted to.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0, send: Send | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidArgument(
                f"the webhook is an http or https address with a host, got {url[:200]!r}"
            )
        self.url = url
        self.timeout_s = timeout_s
        self.sent = self.dropped = 0
        self._send = send or _post
        self._waiting: deque[Alert] = deque()
        self._lock = threading.Lock()

    def tell(self, alert: Alert) -> None:
        """Let an alert wait for the next :meth:`flush`."""
        with self._lock:
            self._waiting.append(alert)
            if len(self._waiting) > MAX_WAITING:
                self._waiting.popleft()
                self.dropped += 1

    def flush(self) -> bool:
        """Post what waits, in order; False where the webhook did not take all of it."""
        while True:
            with self._lock:
                alert = self._waiting[0] if self._waiting else None
            if alert is None:
                return True
            try:
                self._send(self.url, msgspec.json.encode(message(alert)), self.timeout_s)
            except OSError as error:
                log.warning("the webhook did not take %s: %s", alert.name, error)
                return False
            with self._lock:
                self.sent += 1
                if self._waiting and self._waiting[0] is alert:
                    self._waiting.popleft()


def message(alert: Alert) -> dict[str, Any]:
    """What is posted: version 4 of Alertmanager's webhook message, with one alert in it."""
    status = "resolved" if alert.state is AlertState.RESOLVED else "firing"
    labels = {**alert.labels, "alertname": alert.name, "severity": alert.severity.value}
    annotations = {"summary": alert.text, "description": alert.remedy}
    if alert.acknowledged_by:
        annotations["acknowledged_by"] = alert.acknowledged_by
    return {
        "version": "4",
        "groupKey": f"{{}}:{{alertname={alert.name!r}}}",
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "nissa",
        "groupLabels": {"alertname": alert.name},
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [
            {
                "status": status,
                "labels": labels,
                "annotations": annotations,
                "startsAt": _iso(alert.since),
                "endsAt": _iso(alert.resolved or 0.0),
                "generatorURL": "",
                "fingerprint": alert.id,
            }
        ],
    }


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def _post(url: str, body: bytes, timeout_s: float) -> None:
    request = urllib.request.Request(
        url, data=body, headers={"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_s):
            pass
    except HTTPException as error:  # what answers speaks no HTTP
        raise OSError(f"{type(error).__name__}: {error}") from error
