"""Dead letters: what was refused or failed for good, to be looked at and tried again."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from redis.exceptions import WatchError

from esper_lightning.leyline import InvalidArgument
from esper_lightning.oona.routing import FIELD
from esper_lightning.oona.settings import Role, Settings

MAX_DEAD_LETTERS = 10_000
"""Of each stream the newest are kept."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that took no effect in one group.

    Attributes:
        id: of the entry among the dead letters.
        role: of the stream it came by.
        sealed: the bytes that came; they may be forged.
        reason: why, in words.
        group: in which it took no effect.
        entry_id: of the entry that it came as.
        buried_at: Unix seconds.
    """

    id: str
    role: Role
    sealed: bytes
    reason: str
    group: str
    entry_id: str
    buried_at: float


def bury(
    pipeline: Any, stream: str, sealed: bytes, *, reason: str, group: str, entry_id: bytes
) -> None:
    """Queue the adding of a dead letter to ``stream`` in a pipeline."""
    pipeline.xadd(
        stream,
        {
            FIELD: sealed,
            b"reason": reason.encode(errors="replace")[:2000],
            b"group": group.encode(),
            b"entry": entry_id,
            b"at": repr(time.time()).encode(),
        },
        maxlen=MAX_DEAD_LETTERS,
    )


def dead_letters(client: Any, settings: Settings, role: Role) -> Iterator[DeadLetter]:
    """The dead letters of one stream, the oldest first.

    Raises:
        RedisError: the server cannot be reached.
    """
    start = "-"
    while True:
        entries = client.xrange(settings.dead_letters(role), min=start, count=100)
        for entry_id, fields in entries:
            yield _read(entry_id.decode(), role, fields)
        if len(entries) < 100:
            return
        start = f"({entries[-1][0].decode()}"


def _read(identifier: str, role: Role, fields: Mapping[bytes, bytes]) -> DeadLetter:
    def text(name: bytes) -> str:
        return fields.get(name, b"").decode(errors="replace")

    try:
        buried_at = float(text(b"at"))
    except ValueError:
        buried_at = 0.0
    sealed = fields.get(FIELD, b"")
    return DeadLetter(
        identifier, role, sealed, text(b"reason"), text(b"group"), text(b"entry"), buried_at
    )


def replay(client: Any, settings: Settings, letter: DeadLetter) -> None:
    """Put a dead letter back into its stream, as its newest entry, and off the dead ones.

    Every group gets it; in those in which it took effect before its id is known. What was refused
    is refused again.

    Raises:
        InvalidArgument: it is no longer there.
        RedisError: the server cannot be reached; it stays a dead letter.
    """
    dead = settings.dead_letters(letter.role)
    with client.pipeline(transaction=True) as transaction:
        transaction.watch(dead)
        if not transaction.xrange(dead, min=letter.id, max=letter.id):
            raise InvalidArgument(f"there is no dead letter {letter.id} of {dead} any more")
        transaction.multi()
        transaction.xadd(settings.streams[letter.role], {FIELD: letter.sealed})
        transaction.xdel(dead, letter.id)
        try:
            transaction.execute()
        except WatchError:
            raise InvalidArgument(f"{dead} changed meanwhile; try again") from None
