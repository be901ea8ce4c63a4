"""A consumer group's member: every message takes effect once, whoever dies on the way."""

import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError, ResponseError, WatchError

from esper_lightning.leyline import InvalidArgument
from esper_lightning.oona.admission import SEEN_S, Admission, Received, Refused
from esper_lightning.oona.breaker import Breaker
from esper_lightning.oona.dead_letters import bury
from esper_lightning.oona.routing import FIELD
from esper_lightning.oona.server import FAILURES
from esper_lightning.oona.settings import Role, Settings

log = logging.getLogger(__name__)

_EMPTIED = ("NOGROUP", "UNBLOCKED", "requires the key to exist")
"""What a server says where a stream was deleted; to who waits for it, Redis 7.0; fakeredis."""

Handler = Callable[[Received, Any], None]
"""Takes a message and a Redis transaction. What it queues there takes effect together with the
message's acknowledgement; what it does elsewhere happens at least once, and must be harmless twice
(the envelope's id tells)."""


class Consumer:
    """Reads streams as one member of a group, the emergency stream first.

    A message is acknowledged, remembered by its id for a day and made to take effect in one
    transaction of the server, so that neither a consumer that dies nor a sender that sends twice
    makes it count twice. A handler that fails is asked again, later each time, and at last the
    message is put among the dead letters. What a dead member held is taken over by the others.

    Args:
        client: of the server, for this consumer alone.
        settings: streams.
        admission: what may act.
        group: who shares the messages; each group gets all of them.
        handlers: by kind of message; other kinds are acknowledged and nothing more.
        name: of this member, unique in the group; None takes host, process and thread.
        roles: streams to read, the most urgent first.
        max_deliveries: after so many a message is a dead letter.
        retry_s: seconds until a failed message is tried again; each failure doubles them.
        idle_s: seconds after which a silent member's messages are taken over. A handler takes less.

    Attributes:
        counts: ``handled``, ``seen`` (had taken effect before), ``unhandled``, ``refused``,
            ``failed``, ``buried``, ``expired``, ``claimed``.

    Raises:
        InvalidArgument: a number is not positive.
    """

    def __init__(
        self,
        client: Any,
        settings: Settings,
        admission: Admission,
        *,
        group: str,
        handlers: Mapping[str, Handler],
        name: str | None = None,
        roles: Sequence[Role] = (Role.EMERGENCY, Role.NORMAL),
        max_deliveries: int = 5,
        retry_s: float = 0.2,
        idle_s: float = 30.0,
    ) -> None:
        if max_deliveries < 1 or not retry_s > 0 or not idle_s > 0:
            raise InvalidArgument(
                "max_deliveries is at least 1, retry_s and idle_s are more than 0 s, "
                f"got {max_deliveries}, {retry_s} and {idle_s}"
            )
        self.counts: Counter[str] = Counter()
        self.group = group
        self.name = name or f"{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
        self._client = client
        self._settings = settings
        self._admission = admission
        self._handlers = dict(handlers)
        self._roles = {settings.streams[role].encode(): role for role in roles}
        self._max_deliveries = max_deliveries
        self._retry_s = retry_s
        self._idle_s = idle_s
        self._looked_at = 0.0
        self._has_groups = False
        # Of what this process holds: how often a handler failed. The server counts deliveries, of
        # which one that the server itself made fail is one too.
        self._failures: dict[tuple[bytes, bytes], int] = {}

    def run(self, stop: threading.Event) -> None:
        """Poll until ``stop`` is set. A server that cannot be reached is waited for."""
        breaker = Breaker(failures=1)
        while not stop.is_set():
            try:
                self.poll()
                breaker.succeeded()
            except FAILURES as error:
                log.warning("the bus cannot be read: %s", error)
                breaker.failed()
                stop.wait(breaker.remaining_s())

    def poll(self, *, block_s: float = 0.1, count: int = 64) -> int:
        """Read and handle what is there.

        Args:
            block_s: seconds to wait for something; less than the client's time limit.
            count: most messages of one stream.

        Returns:
            How many messages were looked at.

        Raises:
            RedisError: the server cannot be reached; nothing is lost.
        """
        try:
            return self._poll(block_s, count)
        except ResponseError as error:
            if not any(words in str(error) for words in _EMPTIED):
                raise
            self._has_groups = False
            return 0

    def _poll(self, block_s: float, count: int) -> int:
        if not self._has_groups:
            self._make_groups()
        looked = self._take_over() if self._is_time() else 0
        for stream in self._roles:
            found = self._read([stream], count, None)
            if found:
                return looked + self._handle_all(found)
        if looked or block_s <= 0:
            return looked
        milliseconds = max(1, int(1000 * block_s))
        return self._handle_all(self._read(list(self._roles), count, milliseconds))

    def _make_groups(self) -> None:
        for stream in self._roles:
            try:
                self._client.xgroup_create(stream, self.group, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
        self._has_groups = True

    def _read(
        self, streams: list[bytes], count: int, block: int | None
    ) -> list[tuple[bytes, list[Any]]]:
        found = self._client.xreadgroup(
            self.group, self.name, dict.fromkeys(streams, ">"), count=count, block=block
        )
        pairs = list(found.items()) if isinstance(found, dict) else list(found or ())
        # Under protocol 3 a stream's entries are in a list of their own.
        flat = [
            (stream, entries[0] if entries and isinstance(entries[0], list) else entries)
            for stream, entries in pairs
        ]
        order = list(self._roles)
        return sorted(flat, key=lambda pair: order.index(pair[0]))

    def _handle_all(self, found: list[tuple[bytes, list[Any]]]) -> int:
        looked = 0
        for stream, entries in found:
            for entry_id, fields in entries:
                self._handle(stream, entry_id, fields or {}, failures=0)
                looked += 1
        return looked

    # -- one message ------------------------------------------------------------------------------

    def _handle(
        self, stream: bytes, entry_id: bytes, fields: Mapping[bytes, bytes], *, failures: int
    ) -> None:
        held = (stream, entry_id)
        self._failures[held] = failures
        if self._is_settled(stream, entry_id, fields.get(FIELD)):
            del self._failures[held]

    def _is_settled(self, stream: bytes, entry_id: bytes, sealed: bytes | None) -> bool:
        """Handle a message; False where it is to be tried again."""
        try:
            received = self._admission.admit(self._roles[stream], sealed)
        except Refused as refused:
            self._refuse(stream, entry_id, sealed, refused)
            return True
        handler = self._handlers.get(received.envelope.kind)
        if handler is None:
            self._client.xack(stream, self.group, entry_id)
            self.counts["unhandled"] += 1
            return True
        try:
            return self._takes_effect(stream, entry_id, sealed, received, handler)
        except RedisError:
            raise
        except Exception as error:  # pylint: disable=broad-exception-caught
            # A handler is somebody else's code, which may raise anything.
            self.counts["failed"] += 1
            self._failures[stream, entry_id] += 1
            failures = self._failures[stream, entry_id]
            log.warning("%s %s failed: %r", received.envelope.kind, received.envelope.id, error)
            if failures < self._max_deliveries:
                return False
            self._bury(stream, entry_id, sealed, f"failed {failures} times: {error!r}")
            return True

    def _takes_effect(
        self,
        stream: bytes,
        entry_id: bytes,
        sealed: bytes | None,
        received: Received,
        handler: Handler,
    ) -> bool:
        """Whether it is settled now: False where another member or a broken connection came in."""
        seen = b":".join((stream, b"seen", self.group.encode(), received.envelope.id.encode()))
        with self._client.pipeline(transaction=True) as transaction:
            try:
                # If another member makes it take effect in between, this transaction fails.
                transaction.watch(seen)
                if transaction.exists(seen):
                    self._client.xack(stream, self.group, entry_id)
                    self.counts["seen"] += 1
                    return True
                transaction.multi()
                handler(received, transaction)
                transaction.set(seen, b"", ex=SEEN_S)
                transaction.xack(stream, self.group, entry_id)
                answers = transaction.execute(raise_on_error=False)
            except WatchError:
                # Somebody else was faster, or the connection broke: who looks again knows which.
                return False
        wrong = next((each for each in answers if isinstance(each, Exception)), None)
        if wrong is None:
            self.counts["handled"] += 1
            return True
        # The server does the rest of a transaction, so trying again would do that twice.
        self.counts["failed"] += 1
        reason = (
            f"a command of its handler failed, and the others took effect, so that a replay does "
            f"nothing: {wrong}"
        )
        log.error("%s %s: %s", received.envelope.kind, received.envelope.id, reason)
        self._bury(stream, entry_id, sealed, reason)
        return True

    def _refuse(
        self, stream: bytes, entry_id: bytes, sealed: bytes | None, refused: Refused
    ) -> None:
        if refused.is_expired:
            self._client.xack(stream, self.group, entry_id)
            self.counts["expired"] += 1
            return
        self.counts["refused"] += 1
        self._bury(stream, entry_id, sealed, str(refused))

    def _bury(self, stream: bytes, entry_id: bytes, sealed: bytes | None, reason: str) -> None:
        with self._client.pipeline(transaction=True) as transaction:
            bury(
                transaction,
                self._settings.dead_letters(self._roles[stream]),
                sealed or b"",
                reason=reason,
                group=self.group,
                entry_id=entry_id,
            )
            transaction.xack(stream, self.group, entry_id)
            transaction.execute()
        self.counts["buried"] += 1

    # -- what was delivered and not acknowledged --------------------------------------------------

    def _is_time(self) -> bool:
        now = time.monotonic()
        if now - self._looked_at < min(self._retry_s, self._idle_s / 2):
            return False
        self._looked_at = now
        return True

    def _take_over(self) -> int:
        """Try again what failed here, and what another member holds and is silent about."""
        return sum(self._take_over_of(stream) for stream in self._roles)

    def _take_over_of(self, stream: bytes) -> int:
        looked, start, known = 0, "-", set()
        while True:
            pending = self._client.xpending_range(stream, self.group, min=start, max="+", count=100)
            for each in pending:
                known.add((stream, _raw(each["message_id"])))
                looked += self._claim(stream, each)
            if len(pending) < 100:
                break
            start = f"({_text(pending[-1]['message_id'])}"
        for held in [held for held in self._failures if held[0] == stream and held not in known]:
            del self._failures[held]  # another member settled it
        return looked

    def _claim(self, stream: bytes, pending: Mapping[str, Any]) -> int:
        held = (stream, _raw(pending["message_id"]))
        is_mine = held in self._failures  # a member of this name may have died before
        if is_mine:
            failures = self._failures[held]
            wait_s = self._retry_s * 2.0 ** max(0, failures - 1)
        else:
            failures, wait_s = int(pending["times_delivered"]), self._idle_s
        if pending["time_since_delivered"] < 1000 * wait_s:
            return 0
        # It counts as a delivery, and fails where another member was faster.
        claimed = self._client.xclaim(
            stream, self.group, self.name, int(1000 * wait_s), [pending["message_id"]]
        )
        for entry_id, fields in claimed:
            if fields is None:  # trimmed while it was pending
                continue
            self.counts["claimed"] += not is_mine
            if failures >= self._max_deliveries:  # those who had it died of it
                text = f"delivered {failures} times and never acknowledged"
                self._bury(stream, entry_id, fields.get(FIELD), text)
            else:
                self._handle(stream, entry_id, fields, failures=failures)
        if not claimed:  # another member has it, or it was trimmed
            self._failures.pop(held, None)
        return len(claimed)


def _raw(identifier: bytes | str) -> bytes:
    return identifier if isinstance(identifier, bytes) else identifier.encode()


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
