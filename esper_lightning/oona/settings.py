"""Where the bus is, what its streams are called, and with which key it is signed."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

from esper_lightning.leyline import InvalidArgument, KeyRequired, Signer, installation_key
from esper_lightning.leyline.signing import MIN_KEY_BYTES, SECRET_VARIABLE

URL_VARIABLE = "REDIS_URL"
"""The environment variable that may say where the server is."""

PREVIOUS_SECRET_VARIABLE = "ESPER_LEYLINE_PREVIOUS_SECRET"
"""The environment variable that may hold the key before this one, while a new one is introduced."""

AUTO = "auto"
"""The address that takes what is there."""


class Role(str, Enum):
    """What a stream is for."""

    NORMAL = "normal"
    EMERGENCY = "emergency"
    TELEMETRY = "telemetry"
    POLICY = "policy"


STREAMS = {role: f"oona.{role.value}" for role in Role}
"""Names of the streams, unless others are told."""

LENGTHS = {
    Role.NORMAL: 100_000,
    Role.EMERGENCY: 10_000,
    Role.TELEMETRY: 20_000,
    Role.POLICY: 1_000,
}
"""Entries that a stream keeps at most, unless others are told."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the bus is, and its streams.

    Attributes:
        url: as :func:`esper_lightning.oona.server.connect` takes it.
        streams: names by role; a role that is not named has its name of :data:`STREAMS`.
        lengths: entries that a stream keeps at most, by role; likewise of :data:`LENGTHS`.

    Raises:
        InvalidArgument: a name is empty or stands twice, a role is unknown, a length is below 1.

    >>> Settings(streams={Role.NORMAL: "lab.normal"}).dead_letters(Role.NORMAL)
    'lab.normal.dead'
    """

    url: str = AUTO
    streams: Mapping[Role, str] = field(default_factory=dict)
    lengths: Mapping[Role, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.url.strip():
            raise InvalidArgument(f"the bus's url is empty; {AUTO!r} takes what is there")
        streams = STREAMS | {_role(role): name for role, name in self.streams.items()}
        lengths = LENGTHS | {_role(role): length for role, length in self.lengths.items()}
        taken: dict[str, str] = {}
        for role, name in streams.items():
            if not name.strip():
                raise InvalidArgument(f"the {role.value} stream has no name: {name!r}")
            what = f"the {role.value} stream"
            for each, holder in ((name, what), (_dead(name), f"the dead letters of {what}")):
                if each in taken:
                    raise InvalidArgument(
                        f"{taken[each]} and {holder} are both called {each!r}; each needs a name "
                        "of its own"
                    )
                taken[each] = holder
        for role, length in lengths.items():
            if length < 1:
                raise InvalidArgument(
                    f"the {role.value} stream keeps at least 1 entry, got {length}"
                )
        object.__setattr__(self, "streams", streams)
        object.__setattr__(self, "lengths", lengths)

    @classmethod
    def from_environment(
        cls, url: str | None = None, environ: Mapping[str, str] = os.environ
    ) -> Self:
        """What the environment says: ``REDIS_URL`` and ``OONA_NORMAL_STREAM`` and its like.

        Args:
            url: None and ``auto`` take ``REDIS_URL`` if that is set.
            environ: the variables; an empty one counts as not set.

        Raises:
            InvalidArgument: two streams have the same name.
        """
        if url is None or url == AUTO:
            url = environ.get(URL_VARIABLE) or AUTO
        told = {role: environ.get(f"OONA_{role.name}_STREAM") for role in Role}
        return cls(url=url, streams={role: name for role, name in told.items() if name})

    def dead_letters(self, role: Role) -> str:
        """Name of the stream for what failed again and again."""
        return _dead(self.streams[role])


def signer(is_shared: bool) -> Signer:
    """Signs for a bus, and tells what its users have signed.

    ``ESPER_LEYLINE_PREVIOUS_SECRET`` may hold a key that is still believed.

    Args:
        is_shared: others use the server too: its users must have been given one key, in
            ``ESPER_LEYLINE_SECRET``. Otherwise the key of this installation does.

    Raises:
        KeyRequired: the server is shared, and no key is set.
        InvalidArgument: a variable holds fewer than 16 bytes.
        UnusableKey: as :func:`esper_lightning.leyline.installation_key` raises it.
    """
    if is_shared and not os.environ.get(SECRET_VARIABLE):
        raise KeyRequired(
            f"{SECRET_VARIABLE} is not set: on a server that others use too, what may be believed "
            f"is told by a key that its users share; set it to the same long random string, at "
            f"least {MIN_KEY_BYTES} bytes, in every process"
        )
    previous = os.fsencode(os.environ.get(PREVIOUS_SECRET_VARIABLE, ""))
    if previous and len(previous) < MIN_KEY_BYTES:
        raise InvalidArgument(
            f"{PREVIOUS_SECRET_VARIABLE} has {len(previous)} bytes; a key for signatures needs at "
            f"least {MIN_KEY_BYTES}"
        )
    return Signer(installation_key(), previous=[previous] if previous else [])


def _dead(stream: str) -> str:
    return f"{stream}.dead"


def _role(role: Role | str) -> Role:
    try:
        return Role(role)
    except ValueError:
        raise InvalidArgument(
            f"no stream is for {role!r}; there are {', '.join(each.value for each in Role)}"
        ) from None
