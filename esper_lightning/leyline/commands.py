"""Commands: what a controller asks of one slot at one boundary."""

from enum import Enum

import msgspec

from esper_lightning.leyline.arguments import check_whole
from esper_lightning.leyline.errors import InvalidArgument
from esper_lightning.leyline.stages import CommandKind

ParameterValue = bool | int | float | str
"""What a constructor parameter of a blueprint may be."""


class BlendCurve(str, Enum):
    """The shape of an alpha ramp."""

    LINEAR = "linear"
    COSINE = "cosine"
    SIGMOID = "sigmoid"


class BlendSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """An alpha ramp from 0 to 1.

    Attributes:
        curve: its shape.
        num_steps: its length in optimiser steps, at least 1.
    """

    curve: BlendCurve = BlendCurve.COSINE
    num_steps: int = 60

    def __post_init__(self) -> None:
        curves = [curve.value for curve in BlendCurve]
        if self.curve not in curves:
            raise InvalidArgument(f"blend curve {self.curve!r} is unknown; allowed: {curves}")
        msgspec.structs.force_setattr(self, "curve", BlendCurve(self.curve))
        check_whole("blend num_steps", self.num_steps, least=1)
        msgspec.structs.force_setattr(self, "num_steps", int(self.num_steps))  # NumPy's is no JSON


class Incubation(str, Enum):
    """How a seed is raised before it is coupled to its host.

    ``STRAIGHT_THROUGH`` trains it on the gradient that arrives at the slot, ``SHADOW`` on the loss
    of second passes in which its output counts, ``DIRECT`` couples it at once.
    """

    STRAIGHT_THROUGH = "straight_through"
    SHADOW = "shadow"
    DIRECT = "direct"


class AdaptationCommand(msgspec.Struct, frozen=True, kw_only=True):
    """One command for one slot, or a ROLLBACK of the network.

    Attributes:
        id: unique within the run.
        run_id: the run it is for.
        kind: what to do.
        slot: module path of the slot; empty only for NOOP and ROLLBACK.
        blueprint: name of the blueprint (GERMINATE only).
        parameters: constructor parameters of the blueprint (GERMINATE); ``boundaries`` to go back,
            1 unless it says so (ROLLBACK).
        incubation: how to raise the seed; None takes the slot's default (GERMINATE only).
        blend: alpha ramp; None takes the default (GERMINATE and PRUNE only).
        reason: in words.
    """

    id: str
    run_id: str
    kind: CommandKind
    slot: str = ""
    blueprint: str = ""
    parameters: dict[str, ParameterValue] = {}
    incubation: Incubation | None = None
    blend: BlendSchedule | None = None
    reason: str = ""

    def __str__(self) -> str:
        what = " ".join(part for part in (self.kind.name, self.slot, self.blueprint) if part)
        return f"{what}: {self.reason}" if self.reason else what
