"""Tells alerts to a webhook, in the form in which Alertmanager would."""

import logging
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
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
        if not _can_be_posted_to(url):
            raise InvalidArgument(
                "the webhook is an http or https address with a host, in printable ASCII without "
                f"spaces, got {url[:200]!r}"
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
        """Post what waits, in order; False where the webhook did not take all of it.

        One that is slow is left alone after twice ``timeout_s``, since who posts has more to do.
        """
        until = time.monotonic() + 2 * self.timeout_s
        while True:
            with self._lock:
                alert = self._waiting[0] if self._waiting else None
            if alert is None:
                return True
            if time.monotonic() > until:
                return False
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


def _can_be_posted_to(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or "").encode("idna"), parts.port
    except ValueError:
        return False
    is_plain = url.isascii() and url.isprintable() and " " not in url
    return is_plain and parts.scheme in ("http", "https") and bool(host)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An alert that is led elsewhere was not taken: the other place would be asked, not told."""

    def redirect_request(self, *args: Any) -> None:
        """Never."""


_OPENER = urllib.request.build_opener(_NoRedirect)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def _post(url: str, body: bytes, timeout_s: float) -> None:
    request = urllib.request.Request(
        url, data=body, headers={"Content-Type": "application/json"}, method="POST"
    )
    try:
        with _OPENER.open(request, timeout=timeout_s):
            pass
    except HTTPError as error:
        error.close()
        raise
    except (HTTPException, ValueError) as error:  # what answers speaks no HTTP, or names no address
        raise OSError(f"{type(error).__name__}: {error}") from error
