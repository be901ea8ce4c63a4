"""How the bus is: the server, its streams, and who is behind."""

from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from esper_lightning.oona.settings import Role, Settings


@dataclass(frozen=True, slots=True)
class GroupHealth:
    """One consumer group of one stream.

    Attributes:
        name: of the group.
        members: that it has or had.
        lag: entries that it has not read; None where the server cannot tell.
        pending: entries that a member holds and has not acknowledged.
    """

    name: str
    members: int
    lag: int | None
    pending: int


@dataclass(frozen=True, slots=True)
class StreamHealth:
    """One stream.

    Attributes:
        role: what it is for.
        name: on the server.
        length: entries in it.
        most: entries at which it is trimmed.
        dead_letters: of it.
        groups: that read it.
    """

    role: Role
    name: str
    length: int
    most: int
    dead_letters: int
    groups: tuple[GroupHealth, ...]


@dataclass(frozen=True, slots=True)
class Health:
    """The server and its streams.

    Attributes:
        version: of the server.
        memory: bytes that it uses; None where it does not tell.
        most_memory: bytes that it may use; None without a bound.
        streams: in the order of urgency.
    """

    version: str
    memory: int | None
    most_memory: int | None
    streams: tuple[StreamHealth, ...]


def health_of(client: Any, settings: Settings) -> Health:
    """Ask the server.

    Raises:
        RedisError: it cannot be reached.
    """
    server = _info(client)
    return Health(
        version=str(server.get("valkey_version") or server.get("redis_version") or "unknown"),
        memory=server.get("used_memory"),
        most_memory=server.get("maxmemory") or None,
        streams=tuple(
            StreamHealth(
                role=role,
                name=settings.streams[role],
                length=int(client.xlen(settings.streams[role])),
                most=settings.lengths[role],
                dead_letters=int(client.xlen(settings.dead_letters(role))),
                groups=_groups(client, settings.streams[role]),
            )
            for role in (Role.EMERGENCY, Role.NORMAL, Role.POLICY, Role.TELEMETRY)
        ),
    )


def _info(client: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = client.info()
    except ResponseError:  # a server in this process, which is none
        return {}
    return found


def _groups(client: Any, stream: str) -> tuple[GroupHealth, ...]:
    try:
        found = client.xinfo_groups(stream)
    except ResponseError:  # there is no such stream yet
        return ()
    return tuple(
        GroupHealth(
            name=_text(each["name"]),
            members=int(each["consumers"]),
            lag=None if each.get("lag") is None else int(each["lag"]),
            pending=int(each["pending"]),
        )
        for each in found
    )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
