"""What is sent to everybody who watches, and to whom it still has to be sent."""

import asyncio
import secrets
from collections import deque
from collections.abc import Collection

import msgspec

MAX_MESSAGES = 1024
MAX_BYTES = 16 * 2**20
"""What is kept for those who come back; who missed more begins anew."""


class Message(msgspec.Struct, frozen=True):
    """One message.

    Attributes:
        number: its place in the order of all messages.
        topic: what it is about: ``runs``, ``alerts``, or the id of a run.
        event: its kind.
        data: JSON, in one line.
    """

    number: int
    topic: str
    event: str
    data: bytes


class Feed:
    """The last messages, in order. Everything is called from the event loop.

    Attributes:
        boot: of this feed; the numbers of another one mean nothing here.
        last: number of the last message.
    """

    def __init__(self, *, most: int = MAX_MESSAGES, most_bytes: int = MAX_BYTES) -> None:
        self.boot = secrets.token_hex(4)
        self.last = 0
        self.most = most
        self.most_bytes = most_bytes
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self.closed = False

    def publish(self, topic: str, event: str, data: bytes) -> None:
        """Send a message to everybody who watches ``topic``."""
        self.last += 1
        self._messages.append(Message(self.last, topic, event, data))
        self._bytes += len(data)
        while len(self._messages) > self.most or self._bytes > self.most_bytes:
            self._bytes -= len(self._messages.popleft().data)
        self._wake()

    def close(self) -> None:
        """Nobody is sent anything any more."""
        self.closed = True
        self._wake()

    def since(self, number: int, topics: Collection[str]) -> list[Message] | None:
        """The messages after ``number``; None where some of them are no longer kept."""
        first = self._messages[0].number if self._messages else self.last + 1
        if not first - 1 <= number <= self.last:
            return None
        return [each for each in self._messages if each.number > number and each.topic in topics]

    async def wait(self, number: int, timeout_s: float) -> None:
        """Wait until there is a message after ``number``, the end, or ``timeout_s`` seconds."""
        if self.last > number or self.closed:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return

    def id_of(self, number: int) -> str:
        """As a browser sends it back: ``Last-Event-ID``."""
        return f"{self.boot}-{number}"

    def number_of(self, event_id: str) -> int | None:
        """The number in an id of this feed; None in any other."""
        boot, _, number = event_id.partition("-")
        is_ours = boot == self.boot and number.isascii() and number.isdecimal()
        return int(number) if is_ours and len(number) < 16 else None

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def frame(event: str, data: bytes, event_id: str) -> bytes:
    """One event of a ``text/event-stream``."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event_id.encode(), event.encode(), data)
