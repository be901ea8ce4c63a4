"""Mission control in a thread, for a run of the same process."""

import asyncio
import socket
import threading
from types import TracebackType
from typing import Self

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from esper_lightning.leyline import InvalidArgument

STARTING_S = 30.0
"""Seconds that a server has to start."""

CLOSING_S = 5.0
"""Seconds that open requests have to end."""

MAX_CONNECTIONS = 600
"""At once: a run needs file descriptors of its own, of which a process often has 1,024."""


class _Bounded(H11Protocol):
    """One connection; one too many is closed, as is one on which nothing is asked."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self.timeout_keep_alive_task = asyncio.get_running_loop().call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )


class Serving:
    """Answers at an address until it is closed. A context manager, which closes it.

    Args:
        app: as :func:`~esper_lightning.nissa.server.create_app` makes it.
        host: address to listen on; anybody who reaches it may look.
        port: 0 takes a free one.

    Attributes:
        address: where it answers.

    Raises:
        OSError: the port is taken, or may not be had.
        InvalidArgument: it did not start.
    """

    def __init__(self, app: Starlette, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._app = app
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listening = socket.create_server((host, port), family=family, backlog=512)
        named = f"[{host}]" if family is socket.AF_INET6 else host
        self.address = f"http://{named}:{self._listening.getsockname()[1]}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=_Bounded,
                log_config=None,  # it would close every log file of this process
                log_level="error",
                access_log=False,
                lifespan="on",
                ws="none",
                timeout_graceful_shutdown=int(CLOSING_S),
            )
        )
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nissa-server", daemon=True)
        self._thread.start()
        self._started.wait(STARTING_S)
        if not self._server.started:
            self.close()
            raise InvalidArgument(f"mission control did not start on {self.address}; see the log")

    def close(self) -> None:
        """Answer no more; closing twice is allowed."""
        if self._thread.is_alive():
            # Streams have no end of their own.
            self._loop.call_soon_threadsafe(self._app.state.mission.feed.close)
            self._server.should_exit = True
            self._thread.join(2 * CLOSING_S)
        self._listening.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._started.set()
            self._loop.close()

    async def _serve(self) -> None:
        task = asyncio.create_task(self._server.serve(sockets=[self._listening]))
        while not self._server.started and not task.done():
            await asyncio.sleep(0.01)
        self._started.set()
        await task

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
