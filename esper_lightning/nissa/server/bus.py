"""Runs that are heard over the message bus."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from esper_lightning.leyline import BusUnavailable, Event, Raised
from esper_lightning.nissa.server.sources import Listener
from esper_lightning.oona import (
    FIELD,
    Admission,
    Breaker,
    Connection,
    Refused,
    Role,
    Settings,
    connect,
)

log = logging.getLogger(__name__)

BLOCK_MS = 50
"""Milliseconds that one reading waits for news."""

MOST = 500
"""Entries of a stream that one reading takes."""

_EVENTS = get_args(Event)


class BusReader:
    """Tells a listener what runs publish, from the oldest that the bus still has.

    It only reads: nothing is acknowledged, no consumer group knows of it, and any number of servers
    hear the same. A bus that cannot be reached is waited for. Messages that may not act are left
    out and counted. Messages are good for a day; of an older run its folder knows.

    Args:
        listener: is told every event.
        url: of the bus, as ``oona.url`` takes it.
        folder: of an embedded bus.
        raised: called with every alert that somebody raises from now on.

    Attributes:
        refused: messages that were left out.

    Raises:
        InvalidArgument: the address is none.
        KeyRequired: the bus is shared, and there is no key to believe messages by.
    """

    def __init__(
        self,
        listener: Listener,
        url: str,
        *,
        folder: Path | None = None,
        raised: Callable[[Raised], object] | None = None,
    ) -> None:
        self.listener = listener
        self.refused = 0
        self._raised = raised
        self._settings = Settings.from_environment(url)
        self._folder = folder
        self._streams = {
            self._settings.streams[role]: role for role in (Role.EMERGENCY, Role.NORMAL)
        }
        self._last = dict.fromkeys(self._streams, b"0")
        self._admission: Admission | None = None
        self._since = time.time()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        try:
            self._connect().close()  # what is wrong with address or key is told at once
        except BusUnavailable as error:
            log.warning("the bus cannot be reached yet: %s", error)

    def start(self) -> None:
        """Begin to read, on a thread of its own."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="nissa-bus", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Read no more; closing twice is allowed."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        breaker = Breaker(failures=1)
        while not self._stop.is_set():
            try:
                with self._connect() as connection:
                    while not self._stop.is_set():
                        self._read(connection)
                        breaker.succeeded()
            except BusUnavailable as error:
                log.warning("the bus cannot be read: %s", error)
                breaker.failed()
                self._stop.wait(breaker.remaining_s())

    def _connect(self) -> Connection:
        connection = connect(self._settings.url, folder=self._folder)
        if self._admission is None:
            try:
                self._admission = Admission(connection.signer())
            except BaseException:
                connection.close()
                raise
        return connection

    def _read(self, connection: Connection) -> None:
        """What is there, and else what comes within a moment."""
        found = False
        for stream in self._streams:
            found |= self._read_stream(connection, stream, None)
        if not found:
            self._read_stream(connection, self._settings.streams[Role.NORMAL], BLOCK_MS)

    def _read_stream(self, connection: Connection, stream: str, block_ms: int | None) -> bool:
        entries = connection.read(stream, after=self._last[stream], block_ms=block_ms, count=MOST)
        for entry_id, fields in entries:
            self._last[stream] = entry_id
            self._take(self._streams[stream], fields.get(FIELD))
        return len(entries) == MOST

    def _take(self, role: Role, sealed: bytes | None) -> None:
        assert self._admission is not None
        try:
            # What an outbox sent twice counts once.
            received = self._admission.admit(role, sealed, remember=True)
        except Refused as refused:
            self.refused += 1
            log.debug("a message was left out, %s", refused)
            return
        message, at = received.message, received.envelope.created_at
        if isinstance(message, _EVENTS) and message.run_id:
            self.listener.tell(message, at=at)
        elif isinstance(message, Raised) and self._raised is not None and at >= self._since:
            self._raised(message)
