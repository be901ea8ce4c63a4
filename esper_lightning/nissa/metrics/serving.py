"""``/metrics`` of one process, where no server of mission control runs."""

import contextlib
import logging
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from esper_lightning.nissa.metrics.registry import CONTENT_TYPE, MetricsRegistry

log = logging.getLogger(__name__)

PATH = "/metrics"
"""What is served; nothing else is."""

LOOPBACK = "127.0.0.1"
"""The address that only this machine reaches."""

MAX_ANSWERING = 16
"""Scrapes that are answered at once; one more is closed, since each takes a thread of the run."""

REQUEST_S = 10.0
"""Seconds that a scrape has, from its connection to the end of the answer."""


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

        self._server = _Bounded((host, port), Scrape)
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


class _Bounded(ThreadingHTTPServer):
    """Gives threads to few at once, and to nobody for long."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._free = threading.BoundedSemaphore(MAX_ANSWERING)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a thread of its own, or not at all."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer; who has not asked in time, or does not listen, is cut off."""
        timer = threading.Timer(REQUEST_S, _cut_off, [request])
        timer.daemon = True
        timer.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scrape that breaks off is no error of the run."""
        log.debug("the scrape of %s on %s broke off", client_address, request, exc_info=True)


def _cut_off(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended meanwhile
        connection.shutdown(socket.SHUT_RDWR)


class _Scrape(BaseHTTPRequestHandler):
    metrics: MetricsRegistry

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
