"""Watches samples on a thread of its own: a run that hangs tells nothing itself."""

import logging
import threading
from collections.abc import Callable, Mapping

from esper_lightning.leyline import InvalidArgument
from esper_lightning.nissa.alerts.book import Alert, AlertBook, AlertState
from esper_lightning.nissa.alerts.webhook import Webhook
from esper_lightning.nissa.metrics import Series

log = logging.getLogger(__name__)

EVERY_S = 15.0
"""Seconds between two looks, as between two scrapes."""

CLOSING_S = 20.0
"""Seconds that the last look has: a run does not wait for ever for a webhook."""


class AlertWatch:
    """Lets a book look at samples again and again, until it is closed.

    Args:
        book: works out the rules.
        samples: gives them.
        every_s: seconds between two looks.
        webhook: told what the book tells; None for none.

    Raises:
        InvalidArgument: ``every_s`` is not positive.
    """

    def __init__(
        self,
        book: AlertBook,
        samples: Callable[[], Mapping[Series, float]],
        *,
        every_s: float = EVERY_S,
        webhook: Webhook | None = None,
    ) -> None:
        if not every_s > 0:
            raise InvalidArgument(f"seconds between two looks are more than 0, got {every_s}")
        self._book = book
        self._samples = samples
        self._every_s = every_s
        self._webhook = webhook
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="nissa-alerts", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look a last time and stop; closing twice is allowed."""
        self._stop.set()
        self._thread.join(CLOSING_S)
        if self._thread.is_alive():
            log.warning("the webhook does not come to an end; it is left alone")

    def _watch(self) -> None:
        self._look()
        while not self._stop.wait(self._every_s):
            self._look()
        self._look()

    def _look(self) -> None:
        self._book.observe(self._samples())
        if self._webhook is not None:
            self._webhook.flush()


def log_alert(alert: Alert) -> None:
    """Tell an alert in the log."""
    if alert.state is AlertState.FIRING:
        log.warning("alert %s: %s %s", alert.name, alert.text, alert.remedy)
    elif alert.state is AlertState.RESOLVED:
        log.info("alert %s is over", alert.name)
