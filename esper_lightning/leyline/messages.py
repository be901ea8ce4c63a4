"""Every kind of message that travels between processes."""

import msgspec

from esper_lightning.leyline.events import (
    Decision,
    Intervention,
    PolicyChanged,
    RunEnded,
    RunStarted,
    StageChanged,
)
from esper_lightning.leyline.remote import Answer, Question
from esper_lightning.leyline.reports import FieldReport, PolicyUpdate, Raised, TelemetryPacket
from esper_lightning.leyline.state import SystemState

MESSAGES: dict[str, type[msgspec.Struct]] = {
    "run_started": RunStarted,
    "stage_changed": StageChanged,
    "decision": Decision,
    "state": SystemState,
    "intervention": Intervention,
    "run_ended": RunEnded,
    "report": FieldReport,
    "telemetry": TelemetryPacket,
    "policy": PolicyUpdate,
    "policy_changed": PolicyChanged,
    "alert": Raised,
    "question": Question,
    "answer": Answer,
}
"""By the name that an envelope has as its ``kind``; it is the message's own tag, too."""
