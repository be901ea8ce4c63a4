"""``/metrics`` of one process, where no server of mission control runs."""

import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from esper_lightning.nissa.metrics.registry import CONTENT_TYPE, MetricsRegistry

log = logging.getLogger(__name__)

PATH = "/metrics"
"""What is served; nothing else is."""

LOOPBACK = "127.0.0.1"
"""The address that only this machine reaches."""


class MetricsServer:
    """Answers scrapes on a thread of its own.

    Args:
        registry: what is scraped.
        port: 0 takes a free one.
        host: the address; anybody who reaches it may read.

    Attributes:
        address: host and port that it listens on.

    Raises:
        OSError: the port is taken, or may not be had.
    """

    def __init__(self, registry: MetricsRegistry, port: int, *, host: str = LOOPBACK) -> None:
        class Scrape(_Scrape):
            """Answers for this registry."""

            metrics = registry

        self._server = ThreadingHTTPServer((host, port), Scrape)
        self._server.daemon_threads = True
        self.address = f"{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="nissa-metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Answer no more; closing twice is allowed."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Scrape(BaseHTTPRequestHandler):
    metrics: MetricsRegistry
    timeout = 10  # seconds for a whole request: who sends nothing holds no thread

    def do_GET(self) -> None:
        """Answer a scrape."""
        if self.path.partition("?")[0] != PATH:
            self.send_error(404, f"only {PATH} is served")
            return
        body = self.metrics.exposition()
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are chatter."""
        log.debug(format, *args)
