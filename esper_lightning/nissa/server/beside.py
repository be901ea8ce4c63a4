"""Mission control beside a run of the same process."""

from collections.abc import Callable
from pathlib import Path

from esper_lightning.leyline import Event
from esper_lightning.nissa.alerts import AlertBook
from esper_lightning.nissa.server.app import create_app, named_hosts
from esper_lightning.nissa.server.serving import Serving
from esper_lightning.nissa.server.sources import Listener


class MissionControl:
    """Shows one run, which tells its events itself, until it is closed.

    Args:
        folder: of token and audit log.
        host: address to listen on; anybody who reaches it may look.
        port: 0 takes a free one.
        alerts: that the run raises; None raises those that its records tell of.
        exposition: the run's metrics.

    Attributes:
        address: where it answers.

    Raises:
        OSError: the port is taken, or may not be had.
    """

    def __init__(
        self,
        *,
        folder: Path,
        host: str,
        port: int,
        alerts: AlertBook | None,
        exposition: Callable[[], bytes],
    ) -> None:
        self._listener = Listener()
        app = create_app(
            runs=[],
            sources=[self._listener],
            alerts=alerts,
            exposition=exposition,
            folder=folder,
            # What it listens on is the name under which it says that it answers.
            hosts=[f"[{host}]" if ":" in host else host, *named_hosts()],
        )
        self._serving = Serving(app, host=host, port=port)
        self.address = self._serving.address

    def tell(self, event: Event) -> None:
        """Something happened in the run."""
        self._listener.tell(event)

    def close(self) -> None:
        """Stop."""
        self._serving.close()
