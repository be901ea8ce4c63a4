"""Leyline: the contracts between the subsystems. Imports neither torch nor any other subsystem.

Design: docs/design/detailed_design/00-leyline.md
"""

from esper_lightning.leyline.codec import decode, encode, pretty
from esper_lightning.leyline.commands import (
    AdaptationCommand,
    BlendCurve,
    BlendSchedule,
    Incubation,
    ParameterValue,
)
from esper_lightning.leyline.errors import (
    CommandRefused,
    DecodeError,
    EsperError,
    GateFailed,
    IllegalTransition,
    InvalidArgument,
    NonFiniteTraining,
    OtherRankFailed,
    SlotUnsuitable,
    TrainingHalted,
    UnknownBlueprint,
    UnknownSlot,
    UnsupportedOptimizer,
    UnsupportedTraining,
    UnusableKey,
)
from esper_lightning.leyline.events import (
    AlarmLevel,
    Decision,
    Event,
    Intervention,
    RunEnded,
    RunStarted,
    StageChanged,
)
from esper_lightning.leyline.gates import Comparison, Gate, GateResult, Measurement
from esper_lightning.leyline.shapes import (
    Attachment,
    FeatureKind,
    FeatureMap,
    PossibleSlot,
    SlotShape,
)
from esper_lightning.leyline.signing import Signer, installation_key
from esper_lightning.leyline.stages import (
    LEGAL_COMMANDS,
    LIVE_STAGES,
    TRANSITIONS,
    CommandKind,
    SeedStage,
    legal_commands,
    mermaid,
)
from esper_lightning.leyline.state import FossilState, Objective, SeedState, SystemState
from esper_lightning.leyline.summary import CulledSeed, GrownSeed, RunSummary

__all__ = [
    "LEGAL_COMMANDS",
    "LIVE_STAGES",
    "TRANSITIONS",
    "AdaptationCommand",
    "AlarmLevel",
    "Attachment",
    "BlendCurve",
    "BlendSchedule",
    "CommandKind",
    "CommandRefused",
    "Comparison",
    "CulledSeed",
    "Decision",
    "DecodeError",
    "EsperError",
    "Event",
    "FeatureKind",
    "FeatureMap",
    "FossilState",
    "Gate",
    "GateFailed",
    "GateResult",
    "GrownSeed",
    "IllegalTransition",
    "Incubation",
    "Intervention",
    "InvalidArgument",
    "Measurement",
    "NonFiniteTraining",
    "Objective",
    "OtherRankFailed",
    "ParameterValue",
    "PossibleSlot",
    "RunEnded",
    "RunStarted",
    "RunSummary",
    "SeedStage",
    "SeedState",
    "Signer",
    "SlotShape",
    "SlotUnsuitable",
    "StageChanged",
    "SystemState",
    "TrainingHalted",
    "UnknownBlueprint",
    "UnknownSlot",
    "UnsupportedOptimizer",
    "UnsupportedTraining",
    "UnusableKey",
    "decode",
    "encode",
    "installation_key",
    "legal_commands",
    "mermaid",
    "pretty",
]
