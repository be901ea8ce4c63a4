"""What happened in a run, in words: the list beside the curves."""

from collections.abc import Iterable

from esper_lightning.leyline import (
    CommandKind,
    Decision,
    Event,
    FieldReport,
    Intervention,
    Outcome,
    PolicyChanged,
    PolicyStep,
    RunEnded,
    RunStarted,
    SeedStage,
    StageChanged,
)
from esper_lightning.nissa.server.views import Reason

_TONES = {
    SeedStage.FOSSILIZED: "good",
    SeedStage.CULLED: "bad",
}
_SILENT = frozenset({SeedStage.DORMANT, SeedStage.EMBARGOED, SeedStage.RESETTING})
_MOVES = frozenset(
    {
        CommandKind.GERMINATE,
        CommandKind.ADVANCE,
        CommandKind.FOSSILIZE,
        CommandKind.CULL,
        CommandKind.PRUNE,
    }
)
"""What, once it is done, is a move of a slot, which tells the command's reason."""


def told(event: Event) -> bool:
    """Whether the list tells it: a choice to wait, rest, and what a move tells too, it does not."""
    if isinstance(event, Decision):
        kind = event.command.kind
        return bool(event.refused) or (kind is not CommandKind.NOOP and kind not in _MOVES)
    if isinstance(event, StageChanged):
        return event.before is not SeedStage.UNKNOWN and event.after not in _SILENT
    return isinstance(event, Intervention | FieldReport | PolicyChanged | RunEnded | RunStarted)


def reasons(events: Iterable[tuple[int, Event]]) -> tuple[Reason, ...]:
    """The list, the latest first.

    Args:
        events: each with its number; those that are not told are left out.
    """
    found = [_reason(number, event) for number, event in events if told(event)]
    return tuple(reversed(found))


def _reason(number: int, event: Event) -> Reason:
    if isinstance(event, StageChanged):
        what = f" {event.blueprint}" if event.blueprint else ""
        gate = "" if event.gate is None else str(event.gate)
        return Reason(
            number=number,
            time=event.epoch + 1.0,
            kind="move",
            tone=_TONES.get(event.after, "plain"),
            slot=event.slot,
            title=f"{event.after.name.lower()}{what}",
            text=event.reason or gate,
        )
    if isinstance(event, Decision):
        command = event.command
        refused = f"refused: {event.refused}" if event.refused else ""
        return Reason(
            number=number,
            time=event.epoch + 1.0,
            kind="decision",
            tone="bad" if refused else "plain",
            slot=command.slot,
            title=f"{event.policy}: {command.kind.value} {command.blueprint}".rstrip(),
            text="; ".join(part for part in (command.reason, refused) if part),
        )
    if isinstance(event, Intervention):
        return Reason(
            number=number,
            time=event.epoch + 1.0,
            kind="governor",
            tone="bad",
            slot=event.suspects[0] if len(event.suspects) == 1 else "",
            title=f"governor: {event.level.value}",
            text=str(event).partition(": ")[2],
        )
    if isinstance(event, FieldReport):
        is_bad = event.outcome in (Outcome.REGRESSION, Outcome.ABORTED)
        tone = "good" if event.outcome is Outcome.SUCCESS else "bad" if is_bad else "plain"
        return Reason(
            number=number,
            time=event.last_epoch + 1.0,
            kind="report",
            tone=tone,
            slot=event.slot,
            title=f"{event.kind.value} in hindsight: {event.outcome.value}",
            text=event.reason,
        )
    if isinstance(event, PolicyChanged):
        return Reason(
            number=number,
            time=event.epoch + 1.0,
            kind="policy",
            tone="plain" if event.step is PolicyStep.INSTALLED else "bad",
            slot="",
            title=f"policy {event.policy} {event.offered} {event.step.value}",
            text=event.reason,
        )
    return _of_run(number, event)


def _of_run(number: int, event: Event) -> Reason:
    if isinstance(event, RunEnded):
        is_good = event.outcome == "finished"
        time, title, text = event.epoch, "run finished" if is_good else "run failed", event.outcome
        tone = "good" if is_good else "bad"
    else:
        assert isinstance(event, RunStarted)
        time, title, tone = 0, "run started", "plain"
        text = f"{len(event.slots)} slots, {event.host_parameters:,} parameters"
    return Reason(
        number=number,
        time=float(max(time, 0)),
        kind="run",
        tone=tone,
        slot="",
        title=title,
        text="" if text == "finished" else text,
    )
