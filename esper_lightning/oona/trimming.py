"""How full the streams are: old entries that everybody has are trimmed, telemetry makes room."""

import logging
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import ResponseError

from esper_lightning.oona.admission import SEEN_S
from esper_lightning.oona.settings import Role, Settings

log = logging.getLogger(__name__)

HIGH = 0.8
"""Telemetry is dropped from this share of its stream's length on, unread by a group,"""

LOW = 0.5
"""and again sent from this one down."""

SILENT_MS = 60_000
"""A group whose members have all been silent for so long, in milliseconds, holds nobody back."""


@dataclass(slots=True)
class Pressure:
    """How far the slowest consumer group is behind.

    Attributes:
        behind: entries that it has not read or not acknowledged, by role.
        is_high: so far that telemetry is dropped.
    """

    behind: dict[Role, int] = field(default_factory=dict)
    is_high: bool = False


def relieve(client: Any, settings: Settings, pressure: Pressure, *, is_full: bool = False) -> None:
    """Bring ``pressure`` up to date, and trim the streams that grew too long.

    From streams whose messages are kept only that goes what every group has acknowledged, and what
    is too old to act; without any group, what exceeds the length. The server bounds the telemetry
    stream itself.

    Args:
        client: of the server.
        settings: streams.
        pressure: is brought up to date.
        is_full: the server has no memory left: trim streams that are not too long, too.

    Raises:
        RedisError: the server cannot be reached.
    """
    for role, stream in settings.streams.items():
        groups = _groups(client, stream)
        if groups is None:
            continue
        most = settings.lengths[role]
        if role is Role.TELEMETRY:
            groups = [group for group in groups if _is_read(client, stream, group)]
        behind = max((_behind(client, stream, group) for group in groups), default=0)
        pressure.behind[role] = behind
        if role is Role.TELEMETRY:
            share = behind / most
            pressure.is_high = share > (LOW if pressure.is_high else HIGH)
        elif is_full or client.xlen(stream) > most:
            _trim(client, stream, groups, most)


def _groups(client: Any, stream: str) -> list[dict[str, Any]] | None:
    try:
        found: list[dict[str, Any]] = client.xinfo_groups(stream)
    except ResponseError:  # there is no such stream yet
        return None
    return found


def _is_read(client: Any, stream: str, group: dict[str, Any]) -> bool:
    members = client.xinfo_consumers(stream, group["name"])
    # Redis 7.0 knows a member only once there was something for it to read.
    return not members or any(int(member["idle"]) < SILENT_MS for member in members)


def _behind(client: Any, stream: str, group: dict[str, Any]) -> int:
    """Entries that a group has not acknowledged. Its lag is unknown after some deletions."""
    lag = group.get("lag")
    if lag is None:
        last = group["last-delivered-id"]
        lag = len(client.xrange(stream, min=b"(" + _raw(last), count=100_000))
    return int(lag) + int(group["pending"])


def _trim(client: Any, stream: str, groups: list[dict[str, Any]], most: int) -> None:
    if not groups:
        client.xtrim(stream, maxlen=most, approximate=True)
        return
    needed = []
    for group in groups:
        pending = client.xpending(stream, group["name"])
        first = pending["min"] if pending["pending"] else None
        needed.append(_number(first if first else group["last-delivered-id"]))
    # A group whose members left for good would hold its stream for ever.
    stale = (int(1000 * (client.time()[0] - SEEN_S)), 0)
    milliseconds, sequence = max(min(needed), stale)
    client.xtrim(stream, minid=f"{milliseconds}-{sequence}", approximate=True)


def _raw(identifier: bytes | str) -> bytes:
    return identifier if isinstance(identifier, bytes) else identifier.encode()


def _number(identifier: bytes | str) -> tuple[int, int]:
    """An entry's id as a number that can be compared."""
    milliseconds, _, sequence = _raw(identifier).partition(b"-")
    return int(milliseconds), int(sequence or 0)
