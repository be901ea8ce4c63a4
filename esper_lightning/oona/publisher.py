"""Publishing that never holds up who publishes: a put into a queue; a thread does the rest."""

import hashlib
import itertools
import logging
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from redis.exceptions import OutOfMemoryError
from redis.exceptions import TimeoutError as NoAnswer

from esper_lightning.leyline import EsperError, FieldReport, InvalidArgument, Signer
from esper_lightning.oona.backlog import Backlog
from esper_lightning.oona.breaker import Breaker, BreakerState
from esper_lightning.oona.outbox import Outbox
from esper_lightning.oona.routing import FIELD, KINDS, ROUTES, Route, envelope_of, sealed
from esper_lightning.oona.server import FAILURES, Connection
from esper_lightning.oona.settings import Role, Settings
from esper_lightning.oona.trimming import Pressure, relieve

log = logging.getLogger(__name__)

BATCH = 500
"""Most messages of one trip to the server."""

LINGER_S = 0.002
"""Seconds for which more is let come after a batch: a put that wakes the thread costs its caller
ten times one that does not. The first message after a pause is sent at once."""

RELIEVE_EVERY_S = 2.0
"""Seconds between two looks at how full the streams are."""

_WAYS = {type_: ROUTES[kind] for type_, kind in KINDS.items()}


class Put(NamedTuple):
    """A message in the queue, with what was true when it was put there."""

    id: str
    message: Any
    way: Route
    created_at: float


@dataclass(slots=True)
class Published:
    """Figures of a publisher, in messages.

    Attributes:
        put: given to it.
        sent: acknowledged by the server.
        dropped: not kept and not sent, by reason: ``queue_full``, ``pressure``, ``unreachable``,
            ``unpackable``.
        lost: kept ones that neither the server nor the disk took, and memory could not hold.
        waiting: in the outbox, not acknowledged.
        memory: in memory only: not looked at yet, or kept ones that the outbox cannot take.
    """

    put: int
    sent: int
    dropped: dict[str, int]
    lost: int
    waiting: int
    memory: int


class Publisher:
    """Seals messages and brings them to the server, on a thread of its own.

    :meth:`publish` is a put into a bounded queue and knows nothing of server, disk or keys. The
    thread writes what must be kept into the outbox before it sends it, and removes it when the
    server has acknowledged it; what waits from an earlier process is sent first. Telemetry is
    dropped where the queue is full, the server cannot be reached or its readers are behind, and
    counted.

    Args:
        connect: opens the connection; called on the thread, again after failures.
        signer: signs.
        settings: streams.
        source: who sends, such as the id of a run.
        outbox: opened here and closed by the publisher; None keeps in memory only.
        capacity: messages in the queue from which on telemetry is dropped; with twice as many in
            memory, what must be kept is lost.
        clock: Unix seconds.

    Raises:
        InvalidArgument: the capacity is not positive, or the source is empty or too long.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        signer: Signer,
        settings: Settings,
        *,
        source: str,
        outbox: Outbox | None = None,
        capacity: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if capacity < 1:
            raise InvalidArgument(f"the queue's capacity is at least 1, got {capacity}")
        if not 0 < len(source) <= 256:
            raise InvalidArgument(f"a source has 1 to 256 characters, got {source!r}")
        self.settings = settings
        self.source = source
        self.breaker = Breaker()
        self.pressure = Pressure()
        self._connect = connect
        self._connection: Connection | None = None
        self._signer = signer
        self._backlog = Backlog(outbox)
        self._capacity = capacity
        self._clock = clock
        # Ids are unique among processes by their beginning and in this one by the rest.
        self._prefix = secrets.token_hex(10)
        self._numbers = itertools.count()
        # Its put and get are C code that needs no lock of ours: the put is all that a caller pays.
        self._queue: SimpleQueue[Put | threading.Event | None] = SimpleQueue()
        self._urgent: deque[Put] = deque()
        self._kept: deque[Put] = deque()
        self._passing: deque[Put] = deque()
        self._flushes: list[threading.Event] = []
        self._put = 0
        self._sent = 0
        self._lost = 0
        self._dropped: Counter[str] = Counter()
        self._is_full = False
        self._is_closing = False
        self._is_over = False
        self._relieved_at = -RELIEVE_EVERY_S
        self._thread = threading.Thread(target=self._run, name="oona-publisher", daemon=True)
        self._thread.start()

    # -- from any thread --------------------------------------------------------------------------

    def publish(self, message: Any) -> str:
        """Put a message into the queue. It is not touched again, so it must not change.

        Args:
            message: one of :data:`esper_lightning.leyline.MESSAGES`.

        Returns:
            Its id.

        Raises:
            InvalidArgument: it is no message that travels.
        """
        try:
            way = _WAYS[type(message)]
        except KeyError:
            raise InvalidArgument(
                f"a {type(message).__name__} does not travel; what does: {sorted(KINDS.values())}"
            ) from None
        number = next(self._numbers)
        identifier = f"{self._prefix}{number:012x}"
        if isinstance(message, FieldReport):  # a resumed run makes it again, and it counts once
            identifier = hashlib.sha256(message.id.encode()).hexdigest()[: len(identifier)]
        put = Put(identifier, message, way, self._clock())
        self._put = number + 1
        waiting = self._untouched()
        if not way.is_kept and waiting >= self._capacity:
            self._dropped["queue_full"] += 1
        elif way.is_kept and waiting + self._backlog.in_memory >= 2 * self._capacity:
            self._lose()
        elif way.role is Role.TELEMETRY and self.pressure.is_high:
            self._dropped["pressure"] += 1
        else:
            self._queue.put(put)
        return put.id

    def _lose(self) -> None:
        self._lost += 1
        if self._lost == 1:
            log.error(
                "%d messages that must be kept are in memory, neither the server nor the outbox "
                "takes them, and more are lost from now on: free the disk or mend the server",
                2 * self._capacity,
            )

    def figures(self) -> Published:
        """What became of the messages so far."""
        return Published(
            put=self._put,
            sent=self._sent,
            dropped={why: count for why, count in dict(self._dropped).items() if count},
            lost=self._lost,
            waiting=self._backlog.on_disk,
            memory=self._backlog.in_memory + self._untouched(),
        )

    def _untouched(self) -> int:
        """What the thread has not looked at."""
        piles = len(self._passing) + len(self._kept) + len(self._urgent)
        return piles + (0 if self._is_over else self._queue.qsize())

    def flush(self, timeout_s: float) -> bool:
        """Wait until the server has acknowledged what was put so far.

        Returns:
            Whether it has, within so many seconds.
        """
        done = threading.Event()
        self._queue.put(done)
        return done.wait(timeout_s)

    def close(self, timeout_s: float = 2.0) -> bool:
        """Bring what is left to the server or, if that takes too long, leave it in the outbox.

        Returns:
            Whether the thread ended in time, with everything on the server or on disk.
        """
        ends = time.monotonic() + timeout_s
        if self._thread.is_alive():
            self.flush(timeout_s)
        self._is_closing = True
        self._queue.put(None)
        self._thread.join(max(1.0, ends - time.monotonic()))
        return self._is_over and not self._backlog.in_memory

    # -- on the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._is_closing:
                self._take(self._pause_s())
                self._turn()
                if not self._flushes:
                    time.sleep(LINGER_S)
            self._take(0.0)
            self._backlog.add(self._sealed([*self._urgent, *self._kept]), now=True)
            self._dropped["unreachable"] += len(self._passing)
            self._is_over = True
        except Exception:  # pylint: disable=broad-exception-caught
            # Whatever it is, it must not reach training.
            log.exception("the bus is off: its thread failed; training goes on without it")
        finally:
            self._disconnect()
            self._backlog.close()

    def _pause_s(self) -> float:
        """Until there is something to do anyway."""
        if self._backlog:
            return max(0.005, self.breaker.remaining_s(), self._backlog.remaining_s())
        return RELIEVE_EVERY_S

    def _take(self, timeout_s: float) -> None:
        """What is in the queue now, sorted by urgency; wait for something if nothing is."""
        try:
            taken = self._queue.get(timeout=timeout_s) if timeout_s else self._queue.get_nowait()
            while True:
                if isinstance(taken, Put):
                    self._pile_of(taken).append(taken)
                elif taken is not None:
                    self._flushes.append(taken)
                taken = self._queue.get_nowait()
        except Empty:
            pass

    def _pile_of(self, put: Put) -> deque[Put]:
        if not put.way.is_kept:
            return self._passing
        return self._urgent if put.way.role is Role.EMERGENCY else self._kept

    def _turn(self) -> None:
        """Bring away what was taken, a batch at a time, what is urgent first."""
        while True:
            kept = _first(self._urgent) or _first(self._kept)
            self._backlog.add(self._sealed(kept))
            passing = _first(self._passing)
            busy = bool(kept or passing)
            if not (busy or self._backlog):
                break
            if self.breaker.allows() and not self._is_closing:
                busy |= self._send(self._sealed(passing))
            else:
                self._dropped["unreachable"] += len(passing)
            if not busy:
                break
            self._take(0.0)
        self._relieve()
        if not self._backlog:
            for flush in self._flushes:
                flush.set()
            self._flushes.clear()

    def _sealed(self, puts: Iterable[Put]) -> list[tuple[Role, bytes]]:
        done = []
        for put in puts:
            try:
                envelope = envelope_of(
                    put.message, source=self.source, identifier=put.id, created_at=put.created_at
                )
                data = sealed(envelope, self._signer)
            except (EsperError, TypeError, ValueError) as error:
                self._dropped["unpackable"] += 1
                log.error("a %s cannot be sent: %s", KINDS[type(put.message)], error)
            else:
                done.append((put.way.role, data))
        return done

    def _send(self, passing: list[tuple[Role, bytes]]) -> bool:
        """One trip.

        Returns:
            Whether there may be more.
        """
        waiting = self._backlog.oldest(BATCH)
        batch = [(each.role, each.sealed) for each in waiting] + passing
        if not batch:
            return False
        done = self._trip(batch)
        self._backlog.remove([each for each, ok in zip(waiting, done, strict=False) if ok])
        self._dropped["unreachable"] += done[len(waiting) :].count(False)
        self._sent += sum(done)
        return all(done) and bool(self._backlog)

    def _trip(self, batch: list[tuple[Role, bytes]]) -> list[bool]:
        """Which of them the server acknowledged."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            with self._connection.client.pipeline(transaction=False) as trip:
                for role, sealed in batch:
                    most = self.settings.lengths[role] if role is Role.TELEMETRY else None
                    trip.xadd(self.settings.streams[role], {FIELD: sealed}, maxlen=most)
                answers = trip.execute(raise_on_error=False)
        except (*FAILURES, EsperError) as error:
            self._unreachable(error)
            return [False] * len(batch)
        done = [not isinstance(answer, Exception) for answer in answers]
        if all(done):
            self.breaker.succeeded()
        else:
            wrong = next(each for each in answers if isinstance(each, Exception))
            self._is_full = isinstance(wrong, OutOfMemoryError)
            self._failed(wrong)
        return done

    def _failed(self, error: Exception) -> None:
        was = self.breaker.state
        self.breaker.failed()
        if was is BreakerState.CLOSED and self.breaker.state is BreakerState.OPEN:
            log.warning("the bus cannot be used, training goes on: %s", error)

    def _unreachable(self, error: Exception) -> None:
        self._failed(error)
        # A slow server is not let go of: who is the last to let go of an embedded one stops it.
        if not isinstance(error, NoAnswer):
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            try:
                self._connection.close()
            except FAILURES as error:
                log.debug("while closing: %s", error)
            self._connection = None

    def _relieve(self) -> None:
        """Look how full the streams are, and trim what everybody has."""
        now = time.monotonic()
        if self._connection is None:
            return
        if self.breaker.state is not BreakerState.CLOSED and not self._is_full:
            return
        if self._is_closing or now - self._relieved_at < RELIEVE_EVERY_S:
            return
        self._relieved_at = now
        try:
            relieve(self._connection.client, self.settings, self.pressure, is_full=self._is_full)
            self._is_full = False
        except FAILURES as error:
            self._unreachable(error)


def _first(pile: deque[Put]) -> list[Put]:
    """Up to a batch from the front."""
    return [pile.popleft() for _ in range(min(len(pile), BATCH))]
