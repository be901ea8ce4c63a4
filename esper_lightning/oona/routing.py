"""Which stream a message takes, how long it is good for, and whether it may be lost."""

import secrets
import time
from dataclasses import dataclass
from typing import Any

from esper_lightning.leyline import MESSAGES, EventEnvelope, Priority, Signer, pack, seal
from esper_lightning.oona.settings import Role

FIELD = b"m"
"""The field of a stream's entry that holds the sealed message."""

DAY_S = 86_400.0
"""For so long ids are remembered, so that what an outbox delivers late counts once, in seconds."""

MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Route:
    """The way of one kind of message.

    Attributes:
        role: of the stream it takes.
        ttl_s: seconds after which it is refused.
        is_kept: whether it waits in the outbox until the server has it. What is not kept is
            dropped where the server cannot be reached.
        priority: of its envelope.
    """

    role: Role
    ttl_s: float
    is_kept: bool = True
    priority: Priority = Priority.NORMAL


_EXPERIENCE = Route(Role.NORMAL, DAY_S)

ROUTES = {
    "run_started": _EXPERIENCE,
    "run_ended": _EXPERIENCE,
    "state": _EXPERIENCE,
    "decision": _EXPERIENCE,
    "stage_changed": _EXPERIENCE,
    "intervention": Route(Role.NORMAL, DAY_S, priority=Priority.HIGH),
    "report": Route(Role.NORMAL, DAY_S, priority=Priority.HIGH),
    # Good for one boundary: worth nothing once that is over.
    "question": Route(Role.NORMAL, MINUTE_S, is_kept=False, priority=Priority.HIGH),
    "answer": Route(Role.NORMAL, MINUTE_S, is_kept=False, priority=Priority.HIGH),
    "alert": Route(Role.EMERGENCY, DAY_S, priority=Priority.EMERGENCY),
    "policy_changed": Route(Role.NORMAL, DAY_S, priority=Priority.HIGH),
    "policy": Route(Role.POLICY, DAY_S, priority=Priority.HIGH),
    "telemetry": Route(Role.TELEMETRY, MINUTE_S, is_kept=False),
}
"""By kind, as :data:`esper_lightning.leyline.MESSAGES` names them."""

KINDS = {type_: kind for kind, type_ in MESSAGES.items()}
"""The name of each type of message."""


def envelope_of(
    message: Any,
    *,
    source: str,
    identifier: str = "",
    created_at: float | None = None,
    correlation_id: str = "",
) -> EventEnvelope:
    """What ``message`` travels in, by the way of its kind.

    Args:
        message: one of :data:`esper_lightning.leyline.MESSAGES`.
        source: who sends it.
        identifier: unique; empty makes one.
        created_at: Unix seconds; None is now.
        correlation_id: id of the message that it answers.

    Raises:
        InvalidArgument: a value of the message cannot be packed.
        KeyError: it is no message that travels.
    """
    kind = KINDS[type(message)]
    return EventEnvelope(
        id=identifier or secrets.token_hex(16),
        kind=kind,
        source=source,
        priority=ROUTES[kind].priority,
        created_at=time.time() if created_at is None else created_at,
        ttl_s=ROUTES[kind].ttl_s,
        correlation_id=correlation_id,
        payload=pack(message),
    )


def sealed(envelope: EventEnvelope, signer: Signer) -> bytes:
    """``envelope``, signed for the stream that its kind takes."""
    return seal(envelope, signer, stream=ROUTES[envelope.kind].role.value)
