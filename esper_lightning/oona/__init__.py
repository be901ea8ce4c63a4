"""Oona: the message bus, on Redis Streams. Never in the way of training.

Design: docs/design/detailed_design/09-oona.md
"""

from esper_lightning.oona.admission import Admission, Received, Refusal, Refused
from esper_lightning.oona.alerts import FORGED_MESSAGE, alarm
from esper_lightning.oona.breaker import Breaker, BreakerState
from esper_lightning.oona.consumer import Consumer
from esper_lightning.oona.dead_letters import DeadLetter, dead_letters, replay
from esper_lightning.oona.health import GroupHealth, Health, StreamHealth, health_of
from esper_lightning.oona.outbox import OUTBOX_NAME, Outbox, OutboxFailed
from esper_lightning.oona.publisher import Published, Publisher
from esper_lightning.oona.routing import FIELD, KINDS, ROUTES, Route, envelope_of, sealed
from esper_lightning.oona.server import Connection, connect
from esper_lightning.oona.settings import Role, Settings

__all__ = [
    "FIELD",
    "FORGED_MESSAGE",
    "KINDS",
    "OUTBOX_NAME",
    "ROUTES",
    "Admission",
    "Breaker",
    "BreakerState",
    "Connection",
    "Consumer",
    "DeadLetter",
    "GroupHealth",
    "Health",
    "Outbox",
    "OutboxFailed",
    "Published",
    "Publisher",
    "Received",
    "Refusal",
    "Refused",
    "Role",
    "Route",
    "Settings",
    "StreamHealth",
    "alarm",
    "connect",
    "dead_letters",
    "envelope_of",
    "health_of",
    "replay",
    "sealed",
]
