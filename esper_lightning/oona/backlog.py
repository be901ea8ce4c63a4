"""What must be kept and the server does not have yet: on disk, or in memory where that fails."""

import itertools
import logging
from collections import deque

from esper_lightning.oona.breaker import Breaker, BreakerState
from esper_lightning.oona.outbox import Outbox, OutboxFailed, Waiting
from esper_lightning.oona.settings import Role

log = logging.getLogger(__name__)

_IN_MEMORY = 0
"""The number of a message that is not on disk; the outbox counts from 1."""


class Backlog:
    """Sealed messages between the writing to disk and the server's acknowledgement. For one thread.

    A disk that fails is let alone for a while, longer each time; what comes meanwhile is in memory.
    What the server has and the disk cannot forget is not sent again by this process.

    Args:
        outbox: closed by :meth:`close`; None keeps in memory only.
    """

    def __init__(self, outbox: Outbox | None) -> None:
        self._outbox = outbox
        self._disk = Breaker(failures=1)
        self._on_disk = 0
        self._fresh: list[Waiting] = []
        self._memory: deque[Waiting] = deque()
        self._accepted: list[Waiting] = []
        if outbox is not None:
            try:
                self._on_disk = len(outbox)
            except OutboxFailed as error:
                self._failed(error)
        if self._on_disk:
            log.info("%d messages of an earlier process are sent first", self._on_disk)

    @property
    def on_disk(self) -> int:
        """Messages on disk that the server does not have."""
        return self._on_disk - len(self._accepted)

    @property
    def in_memory(self) -> int:
        """Messages in memory only."""
        return len(self._memory)

    def __len__(self) -> int:
        return self.on_disk + self.in_memory

    def remaining_s(self) -> float:
        """Seconds until a disk that failed is tried again."""
        return self._disk.remaining_s()

    def add(self, sealed: list[tuple[Role, bytes]], *, now: bool = False) -> None:
        """Write to disk these and what is in memory, or keep them there.

        Args:
            sealed: by role.
            now: try the disk even if it has just failed.
        """
        self._fresh = []
        self._memory.extend(Waiting(_IN_MEMORY, role, data) for role, data in sealed)
        if self._outbox is None or not self._memory or not (now or self._disk.allows()):
            return
        try:
            added = self._outbox.add((each.role, each.sealed) for each in self._memory)
        except OutboxFailed as error:
            self._failed(error)
            return
        self._disk.succeeded()
        self._memory.clear()
        self._on_disk += len(added)
        if len(added) == self._on_disk:
            self._fresh = added

    def oldest(self, limit: int) -> list[Waiting]:
        """To be sent next: all that was written just now, or the oldest on disk and in memory.

        Args:
            limit: at most so many from disk, and from memory; what was written just now is no more
                than was added.
        """
        fresh, self._fresh = self._fresh, []
        return fresh or [*self._read(limit), *itertools.islice(self._memory, limit)]

    def _read(self, limit: int) -> list[Waiting]:
        if self._outbox is None or not self._on_disk or not self._disk.allows():
            return []
        self.remove([])
        try:
            found = self._outbox.oldest(limit + len(self._accepted))
        except OutboxFailed as error:
            self._failed(error)
            return []
        done = {each.number for each in self._accepted}  # and still there
        return [each for each in found if each.number not in done]

    def remove(self, accepted: list[Waiting]) -> None:
        """The server has these, which are among those that :meth:`oldest` told."""
        done = {id(each) for each in accepted if each.number == _IN_MEMORY}
        if done:
            self._memory = deque(each for each in self._memory if id(each) not in done)
        self._accepted += [each for each in accepted if each.number != _IN_MEMORY]
        if self._outbox is None or not self._accepted:
            return
        try:
            self._outbox.remove(self._accepted)
        except OutboxFailed as error:
            self._failed(error)
            return
        self._disk.succeeded()
        self._on_disk -= len(self._accepted)
        self._accepted = []

    def _failed(self, error: OutboxFailed) -> None:
        if self._disk.state is BreakerState.CLOSED:  # tell once
            log.error("%s; messages are kept in memory until it can be", error)
        self._disk.failed()

    def close(self) -> None:
        """Let go of the outbox."""
        self.remove([])
        if self._outbox is not None:
            self._outbox.close()
