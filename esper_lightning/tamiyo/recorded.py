"""The boundaries of a run that is over, from its events."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from esper_lightning.leyline import Decision, Event, SystemState
from esper_lightning.tamiyo.policy import Choice


@dataclass(slots=True)
class RecordedBoundary:
    """What a controller saw, and what it decided.

    Attributes:
        state: what it saw.
        decisions: what it wanted, those that were refused included, in their order.
    """

    state: SystemState
    decisions: list[Decision] = field(default_factory=list)

    @property
    def choices(self) -> list[Choice]:
        """What was carried out."""
        return [choice_of(decision) for decision in self.decisions if not decision.refused]


def recorded(events: Iterable[Event]) -> list[RecordedBoundary]:
    """The boundaries, in order; of an epoch that was trained twice, the later one.

    A run that ends early has a second boundary in its last epoch, which knows that it is the last.
    """
    found: dict[tuple[int, int | None], RecordedBoundary] = {}
    last: RecordedBoundary | None = None
    for event in events:
        if isinstance(event, SystemState):
            last = RecordedBoundary(event)
            found.pop((event.epoch, event.max_epochs), None)
            found[event.epoch, event.max_epochs] = last
        # Before the state of their epoch stand the decisions of the governor, which decides again.
        elif isinstance(event, Decision) and last is not None and event.epoch == last.state.epoch:
            last.decisions.append(event)
    return list(found.values())


def choice_of(decision: Decision) -> Choice:
    """What a policy chose, whatever became of it."""
    command = decision.command
    return Choice(
        kind=command.kind,
        slot=command.slot,
        blueprint=command.blueprint,
        parameters=command.parameters,
        reason=command.reason,
        log_probability=decision.log_probability,
        value=decision.value,
        policy_version=decision.policy_version,
        share=decision.share,
        risk=decision.risk,
    )
