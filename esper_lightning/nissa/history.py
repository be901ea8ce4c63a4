"""A run told as curves and lanes: what the growth figure draws, without drawing it.

Time is counted in epochs that were trained: what happened at the end of the 0-based epoch ``e``
happened at ``e + 1``.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from esper_lightning.leyline import (
    LIVE_STAGES,
    Event,
    InvalidArgument,
    RunEnded,
    RunStarted,
    SeedStage,
    SeedState,
    StageChanged,
    SystemState,
)
from esper_lightning.nissa.journal import timeline
from esper_lightning.nissa.quantities import is_accuracy


class Fate(str, Enum):
    """Turning points in the life of a seed."""

    PLANTED = "planted"
    FOSSILIZED = "fossilized"
    CULLED = "culled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One metric over time; ``values`` are NaN where it is missing."""

    name: str
    times: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def last(self) -> tuple[float, float] | None:
        """Time and value of the last point that is there."""
        points = [(t, v) for t, v in zip(self.times, self.values, strict=True) if v == v]
        return points[-1] if points else None

    def at(self, time: float) -> float | None:
        """The value at ``time``, or the nearest earlier one, or the first one."""
        points = [(t, v) for t, v in zip(self.times, self.values, strict=True) if v == v]
        earlier = [v for t, v in points if t <= time]
        return earlier[-1] if earlier else (points[0][1] if points else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A slot in one stage. ``alphas`` are the (time, alpha) pairs that were seen in it."""

    stage: SeedStage
    start: float
    end: float
    alphas: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A turning point of one seed."""

    fate: Fate
    time: float
    blueprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fossil:
    """A branch that is part of the host from ``time`` on."""

    blueprint: str
    num_parameters: int
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """The life of one slot."""

    slot: str
    spans: tuple[Span, ...]
    marks: tuple[Mark, ...]
    fossils: tuple[Fossil, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One run.

    Attributes:
        start, end: of the time axis, in epochs.
        validation: the curve of the title: a validation accuracy if one was logged, else the
            objective.
        training: the same metric on training data, None where it was not logged.
        num_parameters: (time, count) of the network as it was trained in the epoch that ended then.
        host_parameters: before any growth.
        final_parameters: of the network that the run leaves: with fossils and living seeds, without
            those that were culled last.
        lanes: one for each slot.
        outcome: ``finished``, ``failed: ...``, or empty when the run is not over.
    """

    run_id: str
    start: float
    end: float
    validation: Curve
    training: Curve | None
    num_parameters: tuple[tuple[float, int], ...]
    host_parameters: int
    final_parameters: int
    lanes: tuple[Lane, ...]
    outcome: str


def history(events: Iterable[Event]) -> History:
    """Tell a run from its events.

    Raises:
        InvalidArgument: the events contain no epoch boundary.
    """
    line = timeline(events)
    states = [event for event in line if isinstance(event, SystemState)]
    changes = [event for event in line if isinstance(event, StageChanged)]
    if not states:
        raise InvalidArgument(
            f"there is no epoch boundary among {len(line)} events; the history of a run needs at "
            "least one SystemState"
        )
    start = float(states[0].epoch)
    end = float(max(states[-1].epoch, *(change.epoch for change in changes), 0) + 1)
    paths = [slot.slot for slot in states[-1].slots]
    paths += [path for event in line if isinstance(event, RunStarted) for path in event.slots]
    # Grouped once: to look for each of thousands of slots in every epoch takes minutes.
    moves: dict[str, list[StageChanged]] = {path: [] for path in paths}
    for change in changes:
        moves.get(change.slot, []).append(change)
    seen: dict[str, list[tuple[int, SeedState]]] = {path: [] for path in paths}
    for state in states:
        for slot in state.slots:
            seen.get(slot.slot, []).append((state.epoch, slot))
    ends = [event for event in line if isinstance(event, RunEnded)]
    validation = _curve(_headline_metric(states), states)
    return History(
        run_id=states[-1].run_id,
        start=start,
        end=end,
        validation=validation,
        training=_training_curve(validation.name, states),
        num_parameters=_num_parameters(line),
        host_parameters=states[-1].host_parameters,
        final_parameters=_final_parameters(states[-1], line[line.index(states[-1]) :]),
        lanes=tuple(
            _lane(path, moves[path], seen[path], states[-1].epoch, (start, end)) for path in moves
        ),
        outcome=ends[-1].outcome if ends else "",
    )


def _num_parameters(line: list[Event]) -> tuple[tuple[float, int], ...]:
    """A state is taken after seeds have left at its boundary; they were trained until then."""
    counts = []
    left: list[StageChanged] = []
    for event in line:
        if isinstance(event, StageChanged) and event.after is SeedStage.EMBARGOED:
            left.append(event)
        elif isinstance(event, SystemState):
            trained = sum(change.num_parameters for change in left if change.epoch == event.epoch)
            counts.append((event.epoch + 1.0, event.num_parameters + trained))
            left = []
    return tuple(counts)


def _final_parameters(last: SystemState, after: list[Event]) -> int:
    leaving = {s.slot: s.num_parameters for s in last.slots if s.stage is SeedStage.CULLED}
    for event in after:
        if isinstance(event, StageChanged) and event.after is SeedStage.CULLED:
            leaving[event.slot] = event.num_parameters
    return last.num_parameters - sum(leaving.values())


def _headline_metric(states: list[SystemState]) -> str:
    objective = states[-1].objective.name
    if is_accuracy(objective):
        return objective
    names = {name for state in states for name in state.metrics if is_accuracy(name)}
    validation = sorted(name for name in names if name.lower().startswith("val"))
    return validation[0] if validation else objective


def _curve(name: str, states: list[SystemState]) -> Curve:
    values = []
    for state in states:
        value = state.metrics.get(name)
        if value is None and name == state.objective.name:
            value = state.objective.value
        values.append(value if value is not None and math.isfinite(value) else math.nan)
    times = tuple(state.epoch + 1.0 for state in states)
    return Curve(name=name, times=times, values=tuple(values))


def _training_curve(validation: str, states: list[SystemState]) -> Curve | None:
    """``train/acc`` beside ``val/acc``; None when no such metric was logged."""
    for split in ("validation", "valid", "val"):
        if validation.startswith(split):
            curve = _curve("train" + validation.removeprefix(split), states)
            return curve if curve.last else None
    return None


def _lane(
    path: str,
    changes: list[StageChanged],
    states: list[tuple[int, SeedState]],
    last_epoch: int,
    axis: tuple[float, float],
) -> Lane:
    start, end = axis
    seen = [(epoch + 1.0, slot) for epoch, slot in states]
    first_seen = seen[0][1].stage if seen else SeedStage.UNKNOWN
    stage = changes[0].before if changes else first_seen
    spans: list[Span] = []
    times = [when for when, _ in seen]
    since = start
    for when, after in [*((_time(c, start), c.after) for c in changes), (end, stage)]:
        if when > since:
            within = seen[bisect_right(times, since) : bisect_right(times, when)]
            alphas = tuple((t, slot.alpha) for t, slot in within)
            spans.append(Span(stage=stage, start=since, end=when, alphas=alphas))
            since = when
        stage = after
    return Lane(
        slot=path,
        spans=tuple(spans),
        marks=tuple(_marks(changes, start)),
        fossils=_fossils(changes, states, last_epoch),
    )


def _time(change: StageChanged, start: float) -> float:
    return max(change.epoch + 1.0, start)


def _marks(changes: list[StageChanged], start: float) -> list[Mark]:
    marks = []
    for change in changes:
        if change.before is SeedStage.DORMANT and change.after in LIVE_STAGES:
            fate = Fate.PLANTED
        elif change.after is SeedStage.FOSSILIZED:
            fate = Fate.FOSSILIZED
        elif change.after is SeedStage.CULLED:
            fate = Fate.CULLED
        else:
            continue
        marks.append(Mark(fate=fate, time=_time(change, start), blueprint=change.blueprint))
    return marks


def _fossils(
    changes: list[StageChanged], states: list[tuple[int, SeedState]], last_epoch: int
) -> tuple[Fossil, ...]:
    """Those of the last state, and those that were made after it was taken."""
    last = states[-1][1] if states and states[-1][0] == last_epoch else None
    fossils = [
        Fossil(
            blueprint=fossil.blueprint,
            num_parameters=fossil.num_parameters,
            time=max(fossil.fossilized_epoch + 1.0, 0.0),
        )
        for fossil in (last.fossils if last is not None else ())
    ]
    known = {fossil.time for fossil in fossils}
    for change in changes:
        late = change.epoch >= last_epoch and change.epoch + 1.0 not in known
        if change.after is SeedStage.FOSSILIZED and late:
            fossils.append(
                Fossil(
                    blueprint=change.blueprint,
                    num_parameters=change.num_parameters,
                    time=change.epoch + 1.0,
                )
            )
        elif change.prunes and change.epoch >= last_epoch:
            fossils.pop()
    return tuple(fossils)
