"""What happens between two epochs: health, gates, controller, commands."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec.structs import replace

from esper_lightning.callbacks.event_stream import EventStream
from esper_lightning.callbacks.treatment import HealthCheck
from esper_lightning.kasmina import Moment, Ranks, SeedBed, system_state, unreached
from esper_lightning.leyline import (
    AdaptationCommand,
    CommandKind,
    CommandRefused,
    Decision,
    Event,
    Intervention,
    InvalidArgument,
    SystemState,
)

log = logging.getLogger(__name__)

ROLLED_BACK = "the network was rolled back"
"""Stands among the slots that had a command when no other command may follow."""

Controller = Callable[[SystemState], Sequence[Decision]]


class Witness(Protocol):
    """Who completes the state that a controller sees, and reports on what its decisions led to."""

    def complete(self, state: SystemState) -> SystemState:
        """``state`` with what Kasmina does not know."""

    def due(self, *, ending: str = "") -> Sequence[Event]:
        """What has become known since it was asked last.

        Args:
            ending: why nothing follows any more, empty while something does.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Boundary:
    """One epoch boundary.

    Attributes:
        bed: the slots.
        stream: where it is told what happened.
        moment: when.
        host_parameters: of the network before any growth.
        controller: who decides; None plants nothing.
        governor: who judges the epoch; None keeps every one.
        witness: who completes states and reports; None for nobody.
        ranks: who goes through it together, from equal moments and slots: the first one decides.
    """

    bed: SeedBed
    stream: EventStream
    moment: Moment
    host_parameters: int
    controller: Controller | None
    governor: HealthCheck | None
    witness: Witness | None
    ranks: Ranks

    def run(self) -> None:
        """Everything, in its order. No gate and no controller sees an epoch that is undone."""
        treatment = self.governor.examine(self.moment) if self.governor is not None else None
        undone = treatment is not None and treatment.undone
        if not undone:
            self.stream.emit(*self.bed.close_epoch(self.moment))
            self._tell_unreached()
        commanded: set[str] = set()
        if treatment is not None:
            if treatment.intervention.restored is not None:
                self.bed.forget_epochs(after=treatment.intervention.restored)
            self.stream.emit(treatment.intervention)
            self._carry_out(treatment.decisions, commanded)
        if not undone:
            self.decide(commanded)
        if self.governor is not None:
            self.governor.keep(self.moment, treatment)

    def _tell_unreached(self) -> None:
        for slot in unreached(self.bed.slots.values()) if self.ranks.rank == 0 else ():
            log.warning(
                "slot %s: no gradient reached %s in epoch %d, and it cannot learn there: the host "
                "runs the slot under torch.no_grad, does not use or detaches its output, or "
                "checkpoints it with use_reentrant=True; choose another slot",
                slot.path,
                slot.record.seed.blueprint if slot.record.seed else "its seed",
                self.moment.epoch + 1,
            )

    def settle(self) -> None:
        """The run is over, which nobody knew at its last boundary: let live seeds be settled."""
        if not self.moment.is_last and self.bed.has_live_seeds():
            last = dataclasses.replace(self.moment, max_epochs=self.moment.epoch + 1)
            dataclasses.replace(self, moment=last).decide(set())

    def decide(self, commanded: set[str]) -> None:
        """Ask the controller, and do what it says.

        Args:
            commanded: slots that had a command at this boundary; they take no other.
        """
        state = system_state(self.bed, self.moment, host_parameters=self.host_parameters)
        controller, witness = self.controller, self.witness
        if witness is not None:
            state = witness.complete(state)
        self.stream.emit(state)
        if controller is not None:
            self._carry_out(self.ranks.first(lambda: controller(state)), commanded)
        if witness is not None:
            self.stream.emit(*witness.due())

    def _carry_out(self, decisions: Sequence[Decision], commanded: set[str]) -> None:
        for decision in decisions:
            if decision.refused:  # by the controller itself
                self.stream.emit(decision)
                continue
            try:
                happened = self._obey(decision.command, commanded)
            except (CommandRefused, InvalidArgument) as error:
                if self.ranks.rank == 0:
                    log.warning("refused: %s", error)
                self.stream.emit(replace(decision, refused=str(error)))
            else:
                self.stream.emit(decision, *happened)

    def _obey(self, command: AdaptationCommand, commanded: set[str]) -> Sequence[Event]:
        if ROLLED_BACK in commanded:
            raise CommandRefused(f"{ROLLED_BACK} here")
        if command.slot in commanded:
            raise CommandRefused(f"slot {command.slot!r} already had a command here")
        if command.kind is CommandKind.ROLLBACK:
            return [self._roll_back(command, commanded)]
        changes = self.bed.apply(command, self.moment)
        if command.slot:
            commanded.add(command.slot)
        return changes

    def _roll_back(self, command: AdaptationCommand, commanded: set[str]) -> Intervention:
        if self.governor is None:
            raise CommandRefused(
                "ROLLBACK needs a Governor, which keeps what to go back to; add the callback"
            )
        if commanded:
            raise CommandRefused(
                f"ROLLBACK comes after commands for slots {sorted(commanded)}, which it would "
                f"undo; it must be the first of a boundary's commands"
            )
        boundaries = command.parameters.get("boundaries", 1)
        unknown = sorted(command.parameters.keys() - {"boundaries"})
        if unknown or type(boundaries) is not int:
            raise InvalidArgument(
                f"ROLLBACK takes boundaries, a whole number of at least 1, got {command.parameters}"
            )
        intervention = self.governor.roll_back(self.moment, command.reason, boundaries=boundaries)
        assert intervention.restored is not None
        self.bed.forget_epochs(after=intervention.restored)
        commanded.add(ROLLED_BACK)
        return intervention
