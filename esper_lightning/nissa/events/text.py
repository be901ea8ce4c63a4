"""A record in words, for a search by words."""

from esper_lightning.leyline import (
    Decision,
    Event,
    FieldReport,
    Intervention,
    PolicyChanged,
    RunStarted,
    StageChanged,
    SystemState,
)


def event_text(event: Event) -> str:
    """What happened, in one line.

    >>> from esper_lightning.leyline import RunEnded
    >>> event_text(RunEnded(run_id="a", epoch=3, step=40, outcome="finished"))
    'run finished'
    """
    if isinstance(event, RunStarted):
        return f"run started with slots {', '.join(event.slots)}"
    if isinstance(event, StageChanged):
        gate = "" if event.gate is None else f"; {event.gate}"
        return f"{event}{gate}"
    if isinstance(event, Decision):
        refused = f"; refused: {event.refused}" if event.refused else ""
        return f"{event.policy} decided {event.command}{refused}"
    if isinstance(event, Intervention):
        return f"governor intervened, {event}"
    if isinstance(event, FieldReport):
        what = " ".join(part for part in (event.kind.value, event.slot, event.blueprint) if part)
        return f"{what} was a {event.outcome.value}: {event.reason}"
    if isinstance(event, PolicyChanged):
        return f"policy {event.policy} {event.offered} {event.step.value}: {event.reason}"
    if isinstance(event, SystemState):
        value = "" if event.objective.value is None else f" {event.objective.value:.4g}"
        return f"epoch {event.epoch + 1} ended, {event.objective.name}{value}"
    return f"run {event.outcome}"


def event_slot(event: Event) -> str:
    """The slot that it is about, or empty."""
    if isinstance(event, Decision):
        return event.command.slot
    return event.slot if isinstance(event, StageChanged | FieldReport) else ""


def event_epoch(event: Event) -> int | None:
    """The epoch at whose end it happened, 0-based; None where it tells none."""
    if isinstance(event, RunStarted):
        return None
    return event.last_epoch if isinstance(event, FieldReport) else event.epoch
