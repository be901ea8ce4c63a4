"""Which bytes of the bus may act: authentic, fresh, of a known kind, and new."""

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from esper_lightning.leyline import (
    MESSAGES,
    DecodeError,
    EsperError,
    EventEnvelope,
    NotAuthentic,
    PolicyUpdate,
    Signer,
    unpack,
    unseal,
)
from esper_lightning.oona.routing import DAY_S, ROUTES
from esper_lightning.oona.settings import Role

log = logging.getLogger(__name__)

MAX_SKEW_S = 60.0
"""So far ahead another machine's clock may be, in seconds."""

SEEN_S = int(DAY_S + 2 * MAX_SKEW_S)
"""So long ids are remembered, in seconds: longer than any clock takes a message for fresh."""

IN_A_ROW = 3
"""So many forged messages in a row turn on conservative mode."""

AUTHENTIC_AGAIN = 20
"""So many authentic messages in a row end it."""

MAX_REMEMBERED = 100_000
"""Ids that one process remembers; a consumer group's stand on the server."""


class Refusal(str, Enum):
    """Why a message changes nothing."""

    FORGED = "forged"
    MALFORMED = "malformed"
    STALE = "stale"
    FROM_THE_FUTURE = "from_the_future"
    WRONG_STREAM = "wrong_stream"
    REPLAYED = "replayed"
    OLD_VERSION = "old_version"


class Refused(EsperError):
    """A message that may not act.

    Args:
        why: in one word, for counting.
        text: in words.
        is_expired: whether it is nothing but too late, of a kind that is not kept.
    """

    def __init__(self, why: Refusal, text: str, is_expired: bool = False) -> None:
        super().__init__(why, text, is_expired)
        self.why = why
        self.text = text
        self.is_expired = is_expired

    def __str__(self) -> str:
        return f"{self.why.value}: {self.text}"


@dataclass(frozen=True, slots=True)
class Received:
    """A message that may act, and the envelope it came in."""

    envelope: EventEnvelope
    message: Any


class Admission:
    """Examines what comes in as bytes.

    A policy update is admitted with a version above every earlier one of its name only: what was
    signed once stays authentic for ever, and an old policy must not come back. Who installs a
    policy advances ``versions``: what is delivered again after a failure is admitted again.

    Args:
        signer: tells what this installation has signed.
        versions: by a policy's name, the newest that took effect here.
        on_forged: called with every message that was forged: bytes that the keys did not sign.
        clock: Unix seconds.

    Attributes:
        admitted: messages that may act.
        refused: how many were refused, by reason.
        is_conservative: forged messages came in a row, and since then too few authentic ones: who
            takes commands from the bus takes none.
    """

    def __init__(
        self,
        signer: Signer,
        *,
        versions: Mapping[str, int] | None = None,
        on_forged: Callable[[Refused], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.admitted = 0
        self.refused: Counter[Refusal] = Counter()
        self.is_conservative = False
        self._signer = signer
        self._versions = {} if versions is None else versions
        self._on_forged = on_forged
        self._clock = clock
        self._forged_in_a_row = 0
        self._authentic_in_a_row = 0
        self._ids: OrderedDict[str, float] = OrderedDict()

    def admit(self, role: Role, sealed: bytes | None, *, remember: bool = False) -> Received:
        """The message in ``sealed``, if it may act.

        Args:
            role: of the stream it came by.
            sealed: as sealed by the sender; None where an entry has nothing of the kind.
            remember: refuse an id that was admitted before. A consumer group remembers on the
                server instead.

        Raises:
            Refused: it may not. It was counted.
        """
        try:
            received = self._examine(role, sealed)
            if remember:
                self._remember(received.envelope)
            self._check_version(received.message)
        except Refused as refused:
            self.refused[refused.why] += 1
            if refused.why is Refusal.FORGED:
                self._forged(refused)
            raise
        self.admitted += 1
        return received

    def _examine(self, role: Role, sealed: bytes | None) -> Received:
        if sealed is None:
            raise Refused(Refusal.FORGED, "the entry holds no sealed message")
        try:
            envelope = unseal(sealed, self._signer, stream=role.value)
        except NotAuthentic as error:
            raise Refused(Refusal.FORGED, str(error)) from error
        except DecodeError as error:
            # Not even the form of a sealed message, or sealed by a release with another form.
            raise Refused(Refusal.FORGED, str(error)) from error
        self._authentic()
        kind = MESSAGES.get(envelope.kind)
        if kind is None:
            raise Refused(Refusal.MALFORMED, f"no message is of kind {envelope.kind!r}")
        self._check_age(envelope)
        if ROUTES[envelope.kind].role is not role:
            raise Refused(Refusal.WRONG_STREAM, f"a {envelope.kind} on the {role.value} stream")
        try:
            message = unpack(envelope.payload, kind, what=envelope.kind)
        except DecodeError as error:
            raise Refused(Refusal.MALFORMED, str(error)) from error
        return Received(envelope, message)

    def _check_age(self, envelope: EventEnvelope) -> None:
        way = ROUTES[envelope.kind]
        age_s, ttl_s = self._clock() - envelope.created_at, min(envelope.ttl_s, way.ttl_s)
        if age_s > ttl_s:
            raise Refused(
                Refusal.STALE,
                f"the {envelope.kind} {envelope.id} is {age_s:.0f} s old and good for {ttl_s:.0f}",
                is_expired=not way.is_kept,
            )
        if age_s < -MAX_SKEW_S:
            raise Refused(
                Refusal.FROM_THE_FUTURE,
                f"the {envelope.kind} {envelope.id} was made {-age_s:.0f} s ahead of this "
                f"machine's clock; at most {MAX_SKEW_S:.0f} are taken: set the clocks",
            )

    def _remember(self, envelope: EventEnvelope) -> None:
        if envelope.id in self._ids:
            raise Refused(Refusal.REPLAYED, f"{envelope.id} came before")
        self._ids[envelope.id] = envelope.created_at
        if len(self._ids) > MAX_REMEMBERED:
            self._ids.popitem(last=False)

    def _check_version(self, message: Any) -> None:
        if not isinstance(message, PolicyUpdate):
            return
        newest = self._versions.get(message.name, 0)
        if message.version <= newest:
            raise Refused(
                Refusal.OLD_VERSION,
                f"policy {message.name!r} version {message.version}; here is {newest} already",
            )

    def _authentic(self) -> None:
        self._forged_in_a_row = 0
        self._authentic_in_a_row += 1
        if self.is_conservative and self._authentic_in_a_row >= AUTHENTIC_AGAIN:
            self.is_conservative = False
            log.warning("conservative mode ends: %d authentic messages", AUTHENTIC_AGAIN)

    def _forged(self, refused: Refused) -> None:
        self._authentic_in_a_row = 0
        self._forged_in_a_row += 1
        log.warning("a message was refused, %s", refused)
        if self._forged_in_a_row >= IN_A_ROW and not self.is_conservative:
            self.is_conservative = True
            log.error("conservative mode: %d forged messages in a row", self._forged_in_a_row)
        if self._on_forged is not None:
            self._on_forged(refused)
