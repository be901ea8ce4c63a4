"""One run as the page shows it, kept up to date event by event and bounded in memory."""

from collections import deque
from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from esper_lightning.leyline import (
    LIVE_STAGES,
    Decision,
    Event,
    LayerState,
    Risk,
    RunEnded,
    RunStarted,
    SeedStage,
    SeedState,
    StageChanged,
    SystemState,
)
from esper_lightning.nissa.history import Curve, Fate, History, Lane, history
from esper_lightning.nissa.server import views
from esper_lightning.nissa.server.reasons import reasons, told

MAX_POINTS = 1_000
"""Epochs that are kept; of more than twice as many, every second one is dropped."""

MAX_MOVES = 2_000
"""Moves of slots that are kept, the latest ones; up to twice as many for a while."""

MAX_REASONS = 300
"""Entries of the list of reasons, the latest ones."""

GOVERNOR = "governor"
"""The name under which the governor decides: it is no policy."""

_MOVING = frozenset({SeedStage.BLENDING, SeedStage.CULLED})


class RunModel:
    """What is known of one run.

    Args:
        key: id of the run in the list.

    Attributes:
        version: counts the changes that were told.
        num_events: that were taken in.
        damaged: lines that could not be read.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.version = 0
        self.damaged = 0
        self._begin()

    def _begin(self) -> None:
        self.num_events = 0
        self._has_news = True
        self._line: list[Event] = []
        self._num_states = self._num_moves = self._left_out = 0
        self._last: SystemState | None = None
        self._moved: dict[str, StageChanged] = {}
        self._layers: tuple[LayerState, ...] = ()
        self._reasons: deque[tuple[int, Event]] = deque(maxlen=MAX_REASONS)
        self._risk: Risk | None = None
        self._policy = ""
        self._sections: _Sections | None = None

    def begin_anew(self) -> None:
        """Forget everything."""
        self._begin()

    @property
    def last(self) -> SystemState | None:
        """The latest epoch boundary."""
        return self._last

    @property
    def outcome(self) -> str:
        """How the run ended, empty while it has told no end."""
        last = self._line[-1] if self._line else None
        return last.outcome if isinstance(last, RunEnded) else ""

    def take(self, events: Iterable[Event]) -> None:
        """Take in what happened."""
        self._has_news = True
        for event in events:
            self.num_events += 1
            if told(event):
                self._reasons.append((self.num_events, event))
            if isinstance(event, SystemState):
                self._take_state(event)
            elif isinstance(event, StageChanged):
                self._moved[event.slot] = event
                self._line.append(replace(event, gate=None, reason="", parameters={}))
                self._num_moves += 1
            elif isinstance(event, RunStarted | RunEnded):
                self._line.append(event)
            elif isinstance(event, Decision):
                self._policy = event.policy if event.policy != GOVERNOR else self._policy
                self._risk = event.risk or self._risk
        self._bound()

    def _take_state(self, state: SystemState) -> None:
        self._last = state
        self._moved.clear()
        self._layers = state.layers or self._layers
        self._line.append(_slim(state))
        self._num_states += 1

    def _bound(self) -> None:
        if self._num_states > 2 * MAX_POINTS:
            places = [i for i, event in enumerate(self._line) if isinstance(event, SystemState)]
            gone = set(places[1:-1:2])
            self._line = [event for i, event in enumerate(self._line) if i not in gone]
            self._num_states -= len(gone)
        if self._num_moves > 2 * MAX_MOVES:
            places = [i for i, event in enumerate(self._line) if isinstance(event, StageChanged)]
            gone = set(places[:-MAX_MOVES])
            self._line = [event for i, event in enumerate(self._line) if i not in gone]
            self._num_moves -= len(gone)
            self._left_out += len(gone)

    # -- what is told -----------------------------------------------------------------------------

    def patch(self) -> views.RunPatch | None:
        """What changed since the last patch; None where nothing did. Counts the version up."""
        if not self._has_news:
            return None
        self._has_news = False
        before, now = self._sections, self._now()
        base = self.version if before is not None else None
        patch = now.against(before, key=self.key, version=self.version + 1, base=base)
        if patch is None:
            return None
        self._sections = now
        self.version += 1
        return patch

    def whole(self) -> views.RunPatch:
        """Everything, as of the last patch."""
        sections = self._sections or self._now()
        whole = sections.against(None, key=self.key, version=self.version, base=None)
        assert whole is not None
        return whole

    def _now(self) -> "_Sections":
        last = self._last
        told_reasons = reasons(self._reasons)
        if last is None:
            return _Sections(None, views.CurvesView(), (), self._layers, told_reasons)
        line = [*self._line]
        run = history(line)
        states = {e.epoch + 1.0: e for e in line if isinstance(e, SystemState)}
        curves = _curves(run, [states[time] for time in run.validation.times if time in states])
        head = self._head(last, run, curves)
        seen = {
            slot.slot: _since(slot, move) if (move := self._moved.get(slot.slot)) else slot
            for slot in last.slots
        }
        lanes = tuple(_lane(lane, seen.get(lane.slot)) for lane in run.lanes)
        return _Sections(head, curves, lanes, self._layers, told_reasons)

    def _head(self, last: SystemState, run: History, curves: views.CurvesView) -> views.HeadView:
        fates = [mark.fate for lane in run.lanes for mark in lane.marks]
        services, risk = last.services, self._risk
        host_totals = [value for value in curves.host_total_flops if value is not None]
        return views.HeadView(
            run_id=last.run_id,
            outcome=self.outcome,
            policy=self._policy,
            epoch=last.epoch + 1,
            max_epochs=last.max_epochs,
            start=run.start,
            end=run.end,
            step=last.global_step,
            validation=run.validation.name,
            training=run.training.name if run.training else "",
            objective=last.objective.name,
            mode=last.objective.mode,
            metrics=last.metrics,
            host_parameters=run.host_parameters,
            parameters=run.final_parameters,
            host_flops=last.host_flops,
            flops=last.flops,
            host_total_flops=host_totals[-1] if host_totals else None,
            total_flops=last.total_flops,
            learning_rate=last.learning_rate,
            rollbacks=last.rollbacks,
            step_s=services.step_s if services else None,
            device=last.hardware.device if last.hardware else "",
            risk=None if risk is None else _risk(risk),
            num_culled=fates.count(Fate.CULLED),
            num_fossilized=fates.count(Fate.FOSSILIZED),
            damaged=self.damaged,
            left_out=self._left_out,
        )


class _Sections(msgspec.Struct, frozen=True):
    head: views.HeadView | None
    curves: views.CurvesView
    lanes: tuple[views.LaneView, ...]
    layers: tuple[LayerState, ...]
    reasons: tuple[views.Reason, ...]

    def against(
        self, before: "_Sections | None", *, key: str, version: int, base: int | None
    ) -> views.RunPatch | None:
        """What is other than ``before``; everything where there is none; None where nothing is."""
        if before is None:
            return views.RunPatch(
                id=key,
                version=version,
                head=self.head,
                curves=views.CurvesPatch(first=0, curves=self.curves),
                lanes=self.lanes,
                layers=self.layers,
                reasons=self.reasons,
            )
        if self == before:
            return None
        return views.RunPatch(
            id=key,
            version=version,
            base=base,
            head=self.head if self.head != before.head else None,
            curves=_tail(self.curves, before.curves),
            lanes=self.lanes if self.lanes != before.lanes else None,
            layers=self.layers if self.layers != before.layers else None,
            reasons=_new(self.reasons, before.reasons),
        )


def _new(
    now: tuple[views.Reason, ...], before: tuple[views.Reason, ...]
) -> tuple[views.Reason, ...] | None:
    """The entries that came after the latest one of ``before``."""
    latest = before[0].number if before else 0
    return tuple(each for each in now if each.number > latest) or None


def _tail(now: views.CurvesView, before: views.CurvesView) -> views.CurvesPatch | None:
    if now == before:
        return None
    columns = msgspec.structs.asdict(now)
    old = msgspec.structs.asdict(before)
    same = min(_common(columns[name], old[name]) for name in columns)
    return views.CurvesPatch(
        first=same,
        curves=views.CurvesView(**{name: column[same:] for name, column in columns.items()}),
    )


def _common(now: Sequence[float | None], before: Sequence[float | None]) -> int:
    """How many values at the beginning are the same."""
    count = min(len(now), len(before))
    if now[:count] == before[:count]:
        return count
    return next(i for i in range(count) if now[i] != before[i])


def _slim(state: SystemState) -> SystemState:
    """The state without what curves and lanes do not tell."""
    slots = tuple(
        SeedState(
            slot=slot.slot,
            stage=slot.stage,
            alpha=slot.alpha,
            num_parameters=slot.num_parameters,
            fossils=slot.fossils,
        )
        for slot in state.slots
    )
    return replace(state, slots=slots, layers=(), services=None, hardware=None)


def _curves(run: History, states: Sequence[SystemState]) -> views.CurvesView:
    host, spent = 0.0, 0.0
    host_totals: list[float | None] = []
    for state in states:
        if state.total_flops is None or not state.flops or state.host_flops is None:
            host_totals.append(None)
            continue
        host += (state.total_flops - spent) * state.host_flops / state.flops
        spent = state.total_flops
        host_totals.append(host)
    parameters: dict[float, float] = dict(run.num_parameters)
    return views.CurvesView(
        times=run.validation.times,
        validation=_values(run.validation),
        training=_values(run.training) if run.training else (None,) * len(run.validation.times),
        objective=tuple(state.objective.value for state in states),
        parameters=tuple(parameters.get(time) for time in run.validation.times),
        total_flops=tuple(state.total_flops for state in states),
        host_total_flops=tuple(host_totals),
    )


def _values(curve: Curve) -> tuple[float | None, ...]:
    return tuple(None if value != value else value for value in curve.values)


def _since(slot: SeedState, move: StageChanged) -> SeedState:
    """The slot after a move that came after the state was taken."""
    if move.after not in LIVE_STAGES and move.after is not SeedStage.CULLED:
        return SeedState(slot=slot.slot, stage=move.after, reason=move.reason)
    is_new = move.before is SeedStage.DORMANT or slot.stage is SeedStage.DORMANT
    return replace(
        slot,
        stage=move.after,
        blueprint=move.blueprint,
        num_parameters=move.num_parameters,
        alpha=0.0 if is_new else slot.alpha,
        gain=None if is_new else slot.gain,
        rent=None if is_new else slot.rent,
        reason=move.reason or slot.reason,
    )


def _lane(lane: Lane, now: SeedState | None) -> views.LaneView:
    stage = lane.spans[-1].stage if lane.spans else SeedStage.UNKNOWN
    return views.LaneView(
        slot=lane.slot,
        spans=tuple(
            views.SpanView(
                stage=span.stage.name.lower(),
                start=span.start,
                end=span.end,
                alphas=span.alphas if span.stage in _MOVING else (),
            )
            for span in lane.spans
        ),
        marks=tuple(
            views.MarkView(fate=mark.fate.value, time=mark.time, blueprint=mark.blueprint)
            for mark in lane.marks
        ),
        fossils=tuple(
            views.FossilView(
                blueprint=each.blueprint, num_parameters=each.num_parameters, time=each.time
            )
            for each in lane.fossils
        ),
        stage=(now.stage if now else stage).name.lower(),
        paused=bool(now and now.paused),
        blueprint=now.blueprint if now else "",
        num_parameters=now.num_parameters if now else 0,
        alpha=now.alpha if now else 0.0,
        gain=now.gain if now else None,
        rent=now.rent if now else None,
        reason=now.reason if now else "",
    )


def _risk(risk: Risk) -> views.RiskView:
    return views.RiskView(
        level=risk.level.name.lower(),
        # JSON has no NaN: a signal that is none could not be measured.
        signals={s.value: value for s, value in risk.signals.items() if value == value},
        conservative=risk.conservative,
        reason=risk.reason,
    )
