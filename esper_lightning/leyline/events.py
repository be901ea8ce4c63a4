"""Records of what happened: the lines of ``events.jsonl``, in the order in which it happened."""

from enum import Enum

import msgspec

from esper_lightning.leyline.commands import AdaptationCommand, ParameterValue
from esper_lightning.leyline.gates import GateResult
from esper_lightning.leyline.reports import FieldReport
from esper_lightning.leyline.risk import Risk
from esper_lightning.leyline.stages import LIVE_STAGES, CommandKind, SeedStage
from esper_lightning.leyline.state import SystemState


class RunStarted(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="run_started"):
    """The first line of a run."""

    run_id: str
    slots: tuple[str, ...]
    host_parameters: int
    max_epochs: int | None
    versions: dict[str, str]


class StageChanged(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="stage_changed"
):
    """A slot moved from one stage to another.

    Attributes:
        epoch: 0-based epoch at whose end it happened; -1 before the first epoch.
        step: optimiser steps so far.
        gate: the gate that let it pass or stopped it, if one was asked.
        num_parameters: of the seed that moved.
    """

    run_id: str
    epoch: int
    step: int
    slot: str
    before: SeedStage
    after: SeedStage
    blueprint: str = ""
    parameters: dict[str, ParameterValue] = {}
    num_parameters: int = 0
    gate: GateResult | None = None
    reason: str = ""

    @property
    def prunes(self) -> bool:
        """True where it is a fossil that goes."""
        return self.after is SeedStage.CULLED and self.before not in LIVE_STAGES

    def __str__(self) -> str:
        what = f" {self.blueprint}" if self.blueprint else ""
        why = f": {self.reason}" if self.reason else ""
        return f"{self.slot} {self.before.name} -> {self.after.name}{what}{why}"


class Decision(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="decision"):
    """One command of a policy, or its choice to wait (NOOP), as experience.

    Attributes:
        policy: name of the policy.
        command: what it asked for, with its reason.
        mask: what it could have asked of this slot.
        log_probability: natural logarithm; None where the policy does not define one.
        refused: why the command was not carried out, empty when it was.
        value: what the policy expected of the run from here on; None where it expects nothing.
        policy_version: of that policy, None where it has none.
        share: of what was left of the budget, what a planting was given; None where the policy
            does not choose it.
        risk: at that boundary; None where nobody assesses it.
    """

    run_id: str
    epoch: int
    policy: str
    command: AdaptationCommand
    mask: tuple[CommandKind, ...] = ()
    log_probability: float | None = None
    refused: str = ""
    value: float | None = None
    policy_version: int | None = None
    share: float | None = None
    risk: Risk | None = None


class PolicyStep(str, Enum):
    """What became of a policy that was to be installed."""

    INSTALLED = "installed"
    REFUSED = "refused"
    ROLLED_BACK = "rolled_back"


class PolicyChanged(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="policy_changed"
):
    """A policy was installed in a run, or refused, or taken out again.

    Attributes:
        epoch: 0-based epoch at whose boundary it happened.
        policy: its name.
        step: what happened.
        before: version that decided until now.
        after: version that decides from now on.
        offered: version that it is about.
        reason: in words.
    """

    run_id: str
    epoch: int
    policy: str
    step: PolicyStep
    before: int | None
    after: int | None
    offered: int
    reason: str = ""


class AlarmLevel(str, Enum):
    """What the governor does about an epoch that went wrong.

    ``MINOR`` culls the suspects and keeps the network, ``SEVERE`` goes back to a snapshot in
    memory, ``MAJOR`` to a checkpoint file, ``CRITICAL`` stops the run.
    """

    MINOR = "minor"
    SEVERE = "severe"
    MAJOR = "major"
    CRITICAL = "critical"


class Intervention(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="intervention"):
    """The governor stepped in at an epoch boundary.

    Attributes:
        level: how.
        alarm: what was wrong, in words, with the figures.
        suspects: slots whose live seed is blamed.
        restored: epoch at whose end the network was what it is again; None where it was kept.
    """

    run_id: str
    epoch: int
    step: int
    level: AlarmLevel
    alarm: str
    suspects: tuple[str, ...] = ()
    restored: int | None = None

    def __str__(self) -> str:
        who = f"; blamed: {', '.join(self.suspects)}" if self.suspects else ""
        back = "" if self.restored is None else f"; back to the end of epoch {self.restored}"
        return f"{self.level.value}: {self.alarm}{who}{back}"


class RunEnded(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="run_ended"):
    """The last line of a run. ``outcome`` is ``finished`` or ``failed: <error>``."""

    run_id: str
    epoch: int
    step: int
    outcome: str


Event = (
    RunStarted
    | StageChanged
    | Decision
    | SystemState
    | Intervention
    | FieldReport
    | PolicyChanged
    | RunEnded
)
"""Any line of ``events.jsonl``; the field ``type`` tells which."""
