"""Assesses every boundary, and lets through what its level allows."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from esper_lightning.leyline import (
    CommandKind,
    InvalidArgument,
    Risk,
    RiskLevel,
    Signal,
    SystemState,
)
from esper_lightning.leyline.arguments import check_flag
from esper_lightning.tamiyo.policy import Choice, restore
from esper_lightning.tamiyo.risk.mode import ConservativeMode
from esper_lightning.tamiyo.risk.pauses import Pauses
from esper_lightning.tamiyo.risk.reactions import Reaction
from esper_lightning.tamiyo.risk.reading import Reading
from esper_lightning.tamiyo.risk.rules import RiskRules
from esper_lightning.tamiyo.risk.signals import CEILINGS, Signals
from esper_lightning.tamiyo.risk.thresholds import Track

log = logging.getLogger(__name__)

Fallback = Callable[[SystemState], Sequence[Choice]]
"""The rules for seeds on trial: what they would do with each live seed. It may keep a record."""


class _Memory(msgspec.Struct, forbid_unknown_fields=True):
    """What is known of a run.

    Attributes:
        signals: what they are told from.
        tracks: by signal, its noise and its level.
        pauses: how long seeds have been paused.
        epoch: of the last boundary.
        risk: there.
        since_rollback: boundaries since a rollback was asked for.
    """

    signals: Signals = msgspec.field(default_factory=Signals.empty)
    tracks: dict[Signal, Track] = msgspec.field(
        default_factory=lambda: {signal: Track() for signal in Signal}
    )
    pauses: Pauses = msgspec.field(default_factory=Pauses)
    epoch: int | None = None
    risk: Risk | None = None
    since_rollback: int | None = None


class RiskEngine:
    """Five signals, five levels, and a defined reaction to each.

    ========  ======================================================================================
    level     reaction
    ========  ======================================================================================
    GREEN     the policy's choices pass
    YELLOW    at most one seed is planted, of Karn's ten blueprints of the lowest risk
    ORANGE    none is planted, and live seeds are judged by rule, not by the policy
    RED       the same, and seeds in isolation are paused, within a quota, until the level falls
    CRITICAL  the bad epochs are undone where something that grew can have harmed them; without a
              governor, or soon after the last time, seeds that act on the output are removed
    ========  ======================================================================================

    At the last boundary nothing stops the settling of live seeds. In conservative mode
    (:class:`ConservativeMode`) GREEN plants no more than YELLOW.

    Args:
        rules: lengths, quota and budget.
        deterministic: nothing is decided by what a clock told.

    Attributes:
        mode: the system's conservative mode; others may enter it.

    Raises:
        InvalidArgument: an argument is of another kind.
    """

    def __init__(self, rules: RiskRules | None = None, *, deterministic: bool = True) -> None:
        if not isinstance(rules, RiskRules | None):
            raise InvalidArgument(f"rules must be RiskRules, got {rules!r}")
        check_flag("deterministic", deterministic)
        self._rules = rules or RiskRules()
        self._deterministic = deterministic
        self._memory = _Memory()
        self.mode = ConservativeMode(self._rules)

    def review(
        self, state: SystemState, choices: Sequence[Choice], *, fallback: Fallback
    ) -> list[Choice]:
        """Assess a boundary, and let through what its level allows.

        Args:
            state: at the boundary; asked about the same one again, it assesses nothing anew.
            choices: the policy's.
            fallback: asked once at every boundary, used from ORANGE on.

        Returns:
            As a policy's: at most one choice a slot, or one NOOP, each with its risk; a NOOP
            behind what the policy does, which is its choice to do no more, stands last; beside
            these, those that are refused. Every one that is not refused is legal.
        """
        is_critical = self._assess(state)
        memory = self._memory
        assert memory.risk is not None
        reaction = Reaction(
            state=state,
            level=memory.risk.level,
            why=memory.risk.reason,
            conservative=memory.risk.conservative,
            is_critical=is_critical,
            may_roll_back=memory.since_rollback is None
            or memory.since_rollback >= self._rules.rollback_every,
            bad=memory.signals.performance.bad,
            pauses=memory.pauses,
            pause_limit=self._rules.pause_limit,
        )
        reviewed = reaction.of(choices, fallback=fallback(state))
        if any(each.kind is CommandKind.ROLLBACK and not each.refused for each in reviewed):
            memory.since_rollback, memory.signals.lifecycle.asked = 0, True
        return [replace(choice, risk=memory.risk) for choice in reviewed]

    def state_dict(self) -> dict[str, Any]:
        """What it knows of the run, JSON-able."""
        return {"memory": msgspec.to_builtins(self._memory), "mode": self.mode.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            InvalidArgument: ``state`` is none of these; nothing was changed.
        """
        if state.keys() != {"memory", "mode"}:
            raise InvalidArgument(
                f"the risk engine saved memory and mode, got {sorted(state)}; resume with what "
                "the checkpoint was written with"
            )
        memory = restore(_Memory, state["memory"], policy="risk engine")
        if memory.tracks.keys() != set(Signal):
            raise InvalidArgument(
                f"the risk engine tracks {[signal.value for signal in Signal]}, the saved one "
                f"{[signal.value for signal in memory.tracks]}"
            )
        self.mode.load_state_dict(state["mode"])
        self._memory = memory

    def _assess(self, state: SystemState) -> bool:
        """Take in a boundary; whether it is CRITICAL by itself."""
        memory = self._memory
        if memory.risk is not None and memory.epoch == state.epoch:
            return False
        before = RiskLevel.GREEN if memory.risk is None else memory.risk.level
        if memory.since_rollback is not None:
            memory.since_rollback += 1
        readings = memory.signals.observe(
            state, rules=self._rules, deterministic=self._deterministic
        )
        memory.pauses.observe(state)
        risen = levels = RiskLevel.GREEN
        for signal, track in memory.tracks.items():
            reading = readings.get(signal)
            alone = track.observe(None if reading is None else reading.score, calm=self._rules.calm)
            risen = max(risen, min(alone, CEILINGS[signal]))
            levels = max(levels, min(track.level, CEILINGS[signal]))
        is_critical = risen is RiskLevel.CRITICAL
        self.mode.observe(levels, critical=is_critical)
        memory.epoch = state.epoch
        memory.risk = Risk(
            level=levels,
            signals={signal: reading.score for signal, reading in readings.items()},
            conservative=self.mode.active,
            reason=self._reason(levels, readings, is_held=risen < levels),
        )
        if levels is not before:
            log.info(
                "epoch %d: risk %s -> %s: %s",
                state.epoch,
                before.name,
                levels.name,
                memory.risk.reason,
            )
        return is_critical

    def _reason(
        self, level: RiskLevel, readings: Mapping[Signal, Reading], *, is_held: bool
    ) -> str:
        """The signal that decided first, and what else there is to say."""
        parts = []
        if level is RiskLevel.GREEN:
            parts.append("no signal is high")
        else:
            deciding = [
                signal
                for signal, track in self._memory.tracks.items()
                if min(track.level, CEILINGS[signal]) is level
            ]
            signal = max(deciding, key=lambda each: readings.get(each, Reading(-1.0, "")).score)
            reading = readings.get(signal)
            parts.append(
                f"{signal.value} was high and was not measured since"
                if reading is None
                else f"{signal.value} {reading.score:.2f}: {reading.what}"
            )
        if is_held:
            parts.append(f"{level.name} is held until {self._rules.calm} boundaries were calm")
        if self.mode.active:
            parts.append(f"conservative mode: {self.mode.reason}")
        return "; ".join(parts)
