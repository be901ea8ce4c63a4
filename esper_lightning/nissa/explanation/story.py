"""A run's record cut at its epoch boundaries, with what belongs together put together."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from esper_lightning.leyline import (
    CommandKind,
    Decision,
    Event,
    FieldReport,
    Intervention,
    InvalidArgument,
    PolicyChanged,
    Risk,
    RunEnded,
    RunStarted,
    StageChanged,
    SystemState,
)
from esper_lightning.nissa.journal import timeline

Consequence = StageChanged | Intervention
"""What follows a decision at once."""


@dataclass(slots=True, kw_only=True)
class Act:
    """A decision and what came of it.

    Attributes:
        decision: it.
        happened: what it did to the network at once, in order.
        reports: what it was found to have led to; of one id the last.
    """

    decision: Decision
    happened: list[Consequence] = field(default_factory=list)
    reports: list[FieldReport] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        """True where nothing was asked for."""
        return self.decision.command.kind is CommandKind.NOOP and not self.decision.refused

    @property
    def acts(self) -> bool:
        """True where something was asked for and not refused."""
        return self.decision.command.kind is not CommandKind.NOOP and not self.decision.refused

    def explains(self, event: Consequence) -> bool:
        """Whether this decision, the last one before ``event``, may have led to it."""
        command = self.decision.command
        if self.decision.refused:
            return False
        if isinstance(event, StageChanged):
            return event.slot == command.slot
        return command.kind is CommandKind.ROLLBACK


@dataclass(slots=True, kw_only=True)
class Chapter:
    """One epoch boundary.

    Attributes:
        epoch: 0-based epoch that ended; -1 before the first.
        again: a second one in this epoch: the run ended there, which nobody knew at the first.
        moves: that slots made by themselves.
        interventions: of the governor.
        governed: decisions that came before the controller was asked.
        state: what the controller saw; None where the epoch was undone before that.
        acts: decisions of the controller.
        afterwards: moves that no decision in the record explains.
        exchanges: of the policy, before the controller was asked.
        later_exchanges: those after it had decided.
    """

    epoch: int
    again: bool = False
    moves: list[StageChanged] = field(default_factory=list)
    interventions: list[Intervention] = field(default_factory=list)
    governed: list[Act] = field(default_factory=list)
    state: SystemState | None = None
    acts: list[Act] = field(default_factory=list)
    afterwards: list[StageChanged] = field(default_factory=list)
    exchanges: list[PolicyChanged] = field(default_factory=list)
    later_exchanges: list[PolicyChanged] = field(default_factory=list)

    @property
    def is_quiet(self) -> bool:
        """True where the controller waited and nothing else happened."""
        apart = (
            *(self.moves, self.afterwards, self.interventions, self.governed),
            *(self.exchanges, self.later_exchanges),
        )
        return not any(apart) and all(act.waits for act in self.acts)

    @property
    def waited(self) -> bool:
        """True where the controller chose to do nothing; after it has acted, that is no wait."""
        return any(act.waits for act in self.acts) and not any(act.acts for act in self.acts)

    @property
    def risk(self) -> Risk | None:
        """As it was assessed here."""
        return next((act.decision.risk for act in self.acts if act.decision.risk), None)

    @property
    def changes(self) -> list[StageChanged]:
        """Every change of stage, in order."""
        acts = [event for act in self.governed + self.acts for event in act.happened]
        led = [event for event in acts if isinstance(event, StageChanged)]
        return self.moves + led + self.afterwards

    @property
    def rollbacks(self) -> list[Intervention]:
        """Interventions that brought an earlier network back, whoever asked for them."""
        acts = [event for act in self.governed + self.acts for event in act.happened]
        found = [*self.interventions, *(each for each in acts if isinstance(each, Intervention))]
        return [each for each in found if each.restored is not None]

    def add(self, event: StageChanged | Intervention | Decision | PolicyChanged) -> None:
        """Put what happened where it belongs: after a decision stands what it led to."""
        acts = self.governed if self.state is None else self.acts
        if isinstance(event, PolicyChanged):
            (self.exchanges if self.state is None else self.later_exchanges).append(event)
        elif isinstance(event, Decision):
            acts.append(Act(decision=event))
        elif acts and acts[-1].explains(event):
            acts[-1].happened.append(event)
        elif isinstance(event, Intervention):
            self.interventions.append(event)
        else:
            (self.moves if self.state is None else self.afterwards).append(event)


@dataclass(slots=True, kw_only=True)
class Story:
    """One run.

    Attributes:
        run_id: the run.
        started: its first line; None in a record without it.
        chapters: its boundaries, in order.
        orphans: reports on decisions that are not in the record.
        resumed: 0-based epochs with which the run began again, after the first time.
        ended: its last line; None while it goes on, and where it was killed.
    """

    run_id: str
    started: RunStarted | None = None
    chapters: list[Chapter] = field(default_factory=list)
    orphans: list[FieldReport] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)
    ended: RunEnded | None = None

    @property
    def states(self) -> list[SystemState]:
        """What the controller saw, boundary by boundary."""
        return [chapter.state for chapter in self.chapters if chapter.state is not None]

    @property
    def acts(self) -> list[Act]:
        """Every decision of the run, the governor's included, in order."""
        return [act for chapter in self.chapters for act in chapter.governed + chapter.acts]

    @property
    def policy(self) -> str:
        """Name of the policy that decided most often; empty where none did."""
        names = Counter(act.decision.policy for chapter in self.chapters for act in chapter.acts)
        return names.most_common(1)[0][0] if names else ""

    @property
    def undone(self) -> dict[int, int]:
        """Epochs whose training was undone, and the epoch at whose end that was done."""
        return {
            epoch: chapter.epoch
            for chapter in self.chapters
            for each in chapter.rollbacks
            if each.restored is not None
            for epoch in range(each.restored + 1, chapter.epoch + 1)
        }


def story(events: Sequence[Event]) -> Story:
    """Put a run's record in order.

    Raises:
        InvalidArgument: there is no event, or they are of several runs.
    """
    run_ids = sorted({event.run_id for event in events})
    if len(run_ids) != 1:
        what = f"of the runs {run_ids}" if run_ids else "without an event"
        raise InvalidArgument(f"a record {what} cannot be explained; give that of one run")
    told = Story(run_id=run_ids[0], resumed=_resumed(events))
    reports: dict[str, FieldReport] = {}
    for event in timeline(events):
        if isinstance(event, RunStarted):
            told.started = event
        elif isinstance(event, RunEnded):
            told.ended = event
        elif isinstance(event, FieldReport):
            reports[event.id] = event
        else:
            _tell(told.chapters, event)
    acts = {act.decision.command.id: act for act in told.acts}
    for report in reports.values():
        act = acts.get(report.command_id)
        (told.orphans if act is None else act.reports).append(report)
    return told


def _tell(
    chapters: list[Chapter],
    event: SystemState | StageChanged | Intervention | Decision | PolicyChanged,
) -> None:
    last = chapters[-1] if chapters else None
    seen = isinstance(event, SystemState) and last is not None and last.state is not None
    if last is None or last.epoch != event.epoch or seen:
        again = last is not None and last.epoch == event.epoch
        last = Chapter(epoch=event.epoch, again=again)
        chapters.append(last)
    if isinstance(event, SystemState):
        last.state = event
    else:
        last.add(event)


def _resumed(events: Iterable[Event]) -> list[int]:
    """First epoch of each start but the first; a start that reached no epoch's end is none."""
    starts = 0
    waiting = False
    resumed = []
    for event in events:
        if isinstance(event, RunStarted):
            starts += 1
            waiting = starts > 1
        elif isinstance(event, SystemState) and waiting:
            resumed.append(event.epoch)
            waiting = False
    return resumed
