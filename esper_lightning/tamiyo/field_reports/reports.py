"""Listens to a run, and reports on each adaptation when its window is over."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from esper_lightning.leyline import (
    CommandKind,
    Decision,
    Event,
    FieldReport,
    Intervention,
    InvalidArgument,
    Outcome,
    RiskLevel,
    RunEnded,
    RunStarted,
    StageChanged,
    SystemState,
)
from esper_lightning.leyline.arguments import check_whole
from esper_lightning.nissa.quantities import is_accuracy
from esper_lightning.tamiyo.field_reports.comparison import Comparison, Values, compare, judge
from esper_lightning.tamiyo.field_reports.windows import Epoch, Memory, Window

_VALIDATION = "val"
"""Metrics whose names begin so are reported on, ``val/loss`` as well as ``val_loss``."""

_MOST = 1e100
"""Larger values are taken for this one: what a diverged run logs must not overflow a forecast."""

_HOLDS_BACK = frozenset(
    {CommandKind.PAUSE, CommandKind.CULL, CommandKind.PRUNE, CommandKind.EMERGENCY}
)


class FieldReports:
    """What each adaptation led to, against where the curve was heading before it.

    Never against the network without it. An adaptation is a command that was carried out and
    changed something, whoever decided on it. It is observed for ``window`` epochs: from the next
    one on, or, where a seed was planted, from the first one in which the seed acts on its host.
    Epochs that were undone do not count. Every adaptation has one report, and its id is made of the
    command's: epochs that are trained again after a checkpoint give the same ids.

    It takes nothing but events, so that reports can also be made of a journal.

    Args:
        window: epochs for which an adaptation is observed.

    Raises:
        InvalidArgument: the window is not at least 1.
    """

    def __init__(self, window: int = 3) -> None:
        check_whole("the window of field reports", window, least=1)
        self.window = window
        self._memory = Memory(run_id="")

    def observe(self, event: Event) -> None:
        """Hear an event, in the order in which they happen. Another run's forgets this one."""
        if event.run_id != self._memory.run_id:
            self._memory = Memory(run_id=event.run_id)
        if isinstance(event, StageChanged | SystemState | Decision | Intervention):
            self._memory.ready += self._taken(lambda w: self._ended(w) < event.epoch)
        asked, self._memory.asked = self._memory.asked, None
        match event:
            case RunStarted():
                self._memory.ending = ""
            case StageChanged():
                self._move(event, asked)
            case SystemState():
                self._close_epoch(event)
            case Decision() if not event.refused:
                self._decided(event)
            case Intervention():
                self._step_in(event)
            case RunEnded():
                self._memory.ending = event.outcome

    def due(self, *, ending: str = "") -> list[FieldReport]:
        """Reports that have become due, each once.

        To be asked when everything that a boundary led to has been heard.

        Args:
            ending: why nothing follows any more, ``finished`` or ``failed: ...``; windows that are
                open are cut. Empty while something does.
        """
        memory = self._memory
        memory.ending = ending or memory.ending
        found, memory.ready = memory.ready, []
        found += self._taken(lambda w: bool(memory.ending) or self._ended(w) < math.inf)
        memory.trim()
        return found

    def state_dict(self) -> dict[str, Any]:
        """Open windows and what they need, JSON-able."""
        state: dict[str, Any] = msgspec.to_builtins(self._memory)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            InvalidArgument: a field is missing, unknown or of another type; nothing was changed.
        """
        try:
            self._memory = msgspec.convert(dict(state), type=Memory)
        except msgspec.ValidationError as error:
            raise InvalidArgument(
                f"this is not a saved state of field reports: {error}; resume from a checkpoint "
                f"that this release wrote"
            ) from error

    # -- events -----------------------------------------------------------------------------------

    def _open(self) -> list[Window]:
        """Windows in which something may still happen."""
        return [
            window
            for window in self._memory.windows
            if not window.aborted and not self._is_over(window)
        ]

    def _is_over(self, window: Window) -> bool:
        return len(window.epochs(self._memory.epochs, self.window)) == self.window

    def _ended(self, window: Window) -> float:
        """The epoch at whose end a window had its outcome, infinity for one that is open."""
        if window.ended is not None:
            return window.ended
        seen = window.epochs(self._memory.epochs, self.window)
        return seen[-1].number if len(seen) == self.window else math.inf

    def _taken(self, is_due: Callable[[Window], bool]) -> list[FieldReport]:
        """Reports of the windows that are due, which are remembered no more."""
        memory = self._memory
        due = [window for window in memory.windows if is_due(window)]
        memory.windows = [window for window in memory.windows if window not in due]
        return [self._report(window) for window in due]

    def _move(self, event: StageChanged, asked: Window | None) -> None:
        if asked is not None and asked.slot == event.slot:
            self._memory.windows.append(asked)
        for window in self._open():
            if window.slot == event.slot:
                window.move(event)

    def _close_epoch(self, state: SystemState) -> None:
        memory, objective = self._memory, state.objective
        memory.objective, memory.mode = objective.name, objective.mode
        values = {
            name: value for name, value in state.metrics.items() if name.startswith(_VALIDATION)
        }
        if objective.value is not None:
            values[objective.name] = objective.value
        again = [epoch for epoch in memory.epochs if epoch.number == state.epoch]
        memory.forget(after=state.epoch - 1)
        running = [
            window
            for window in memory.windows
            if window.covers(state.epoch) and not self._is_over(window)
        ]
        memory.epochs.append(
            Epoch(
                number=state.epoch,
                values={
                    name: max(-_MOST, min(float(value), _MOST))
                    for name, value in values.items()
                    if not math.isnan(value)
                },
                watched=again[0].watched if again else {w.command_id: str(w) for w in running},
            )
        )
        for window in running:
            window.rent = _rent(window, state, otherwise=window.rent)

    def _decided(self, decision: Decision) -> None:
        memory, command = self._memory, decision.command
        if command.kind is CommandKind.NOOP:
            return
        risk = decision.risk
        if risk is not None and risk.level >= RiskLevel.ORANGE and command.kind in _HOLDS_BACK:
            for window in self._open():
                if window.slot == command.slot:
                    window.mitigations.append(
                        f"epoch {decision.epoch}, {command.kind.value} at risk {risk.level.name}: "
                        f"{command.reason}"
                    )
        network = decision.epoch
        if memory.restored is not None and memory.restored[0] == decision.epoch:
            network = memory.restored[1]
        opened = Window.of(decision, network=network)
        told = (command.id, str(opened))
        memory.windows = [w for w in memory.windows if (w.command_id, str(w)) != told]
        if command.kind is CommandKind.ADVANCE:
            memory.asked = opened
        else:
            memory.windows.append(opened)

    def _step_in(self, event: Intervention) -> None:
        memory = self._memory
        back_to = event.restored
        if back_to is not None:
            memory.restored = (event.epoch, back_to)
            memory.forget(after=back_to)
        for window in [w for w in memory.windows if not w.aborted]:
            if window.kind is CommandKind.ROLLBACK and window.at == event.epoch:
                if back_to is not None:
                    window.network = back_to
                continue
            window.mitigations.append(f"epoch {event.epoch}, governor: {event}")
            if back_to is not None:
                window.undo(event, back_to=back_to)

    # -- reports ----------------------------------------------------------------------------------

    def _report(self, window: Window) -> FieldReport:
        memory = self._memory
        seen = window.epochs(memory.epochs, self.window)
        last = memory.epochs[-1].number if memory.epochs else window.at
        last = seen[-1].number if seen else max(window.at, window.ended or last)
        outcome, why, deltas = self._outcome(window, seen)
        shared = sorted(
            {
                words
                for epoch in seen
                for command, words in epoch.watched.items()
                if command != window.command_id
            }
        )
        if shared:
            why += f"; shared with {', '.join(shared)}"
        return FieldReport(
            id=f"{window.command_id}/report",
            run_id=memory.run_id,
            command_id=window.command_id,
            slot=window.slot,
            blueprint=window.blueprint,
            kind=window.kind,
            first_epoch=seen[0].number if seen else last,
            last_epoch=last,
            outcome=outcome,
            deltas=deltas,
            mitigations=tuple(window.mitigations),
            policy=window.policy,
            policy_version=window.policy_version,
            reason=why,
        )

    def _outcome(self, window: Window, seen: list[Epoch]) -> tuple[Outcome, str, dict[str, float]]:
        memory = self._memory
        ended = f"the run {memory.ending.replace('finished', 'ended')}"
        if not seen:
            return Outcome.ABORTED, window.aborted or f"nothing was observed: {ended}", {}
        names = {memory.objective, *(name for epoch in seen for name in epoch.values)}
        comparisons = {name: self._compare(window, seen, name) for name in sorted(names)}
        deltas = {
            name: each.delta
            for name, each in comparisons.items()
            if each is not None and math.isfinite(each.delta)
        }
        if window.aborted:
            return Outcome.ABORTED, window.aborted, deltas
        objective = comparisons[memory.objective]
        if objective is None:
            outcome, why = Outcome.NEUTRAL, self._nothing(window)
        else:
            outcome, words = judge(objective, rent=window.rent if window.adds else None)
            why = f"{memory.objective} {words}"
        if len(seen) < self.window:
            why += f"; the window was cut to {len(seen)} of {self.window} epochs: {ended}"
        return outcome, why, deltas

    def _compare(self, window: Window, seen: list[Epoch], name: str) -> Comparison | None:
        before: Values = self._memory.curve(name, until=window.at)
        curve = self._memory.curve(name, until=seen[-1].number)
        counts = {epoch.number for epoch in seen}
        observed = [
            value if number in counts else None
            for number, value in enumerate(curve)
            if number > window.at
        ]
        if name == self._memory.objective:
            mode = self._memory.mode
        else:
            mode = "max" if is_accuracy(name) else "min"
        return compare(before, observed, mode=mode)

    def _nothing(self, window: Window) -> str:
        name = self._memory.objective
        if any(value is not None for value in self._memory.curve(name, until=window.at)):
            return f"{name} was not measured in the window"
        return f"nothing to compare with: {name} was not measured before"


def _rent(window: Window, state: SystemState, *, otherwise: float | None) -> float | None:
    """What a state tells of the rent of the window's own seed."""
    for slot in state.slots:
        is_own = slot.cohort is not None and slot.cohort <= window.at
        if slot.slot == window.slot and is_own and slot.rent is not None:
            return slot.rent
    return otherwise
