"""What is remembered of a run until its adaptations have been reported on."""

from collections.abc import Iterable, Sequence

import msgspec

from esper_lightning.leyline import (
    CommandKind,
    Decision,
    FieldReport,
    Intervention,
    SeedStage,
    StageChanged,
)

KEPT = 64
"""Epochs before the oldest open window that are kept: a forecast needs the last few values, which
may lie far apart where validation is rare, and a rollback takes some."""

_ADDS = frozenset({CommandKind.GERMINATE, CommandKind.ADVANCE, CommandKind.FOSSILIZE})
"""Commands whose effect is gone when what is in their slot goes; a live seed pays its rent."""

_ACTING = frozenset({SeedStage.BLENDING, SeedStage.SHADOWING, SeedStage.PROBATIONARY})
"""Stages in which the output of a seed counts."""


class Epoch(msgspec.Struct, forbid_unknown_fields=True):
    """One epoch that was not undone.

    Attributes:
        number: 0-based.
        values: validation metrics, finite, the objective among them.
        watched: by command id, in words: the commands in whose windows it is.
    """

    number: int
    values: dict[str, float]
    watched: dict[str, str]


class Window(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A command that was carried out and has not been reported on.

    Attributes:
        command_id: of the command.
        kind: of the command.
        slot: module path, empty for a ROLLBACK.
        blueprint: what was planted, if anything was.
        policy: who decided.
        policy_version: of that policy.
        at: epoch at whose end it was carried out.
        network: epoch whose network it changed; before ``at`` where ``at`` had been undone.
        first: epoch with which the window begins; None while the seed does not act on the host.
        is_fossil: what it added is part of the host.
        rent: the least relative gain that pays for the seed's cohort, as last told.
        mitigations: what was done about it meanwhile, in words.
        aborted: why there is no outcome, in words; empty while there may be one.
        ended: epoch at whose end it was aborted.
    """

    command_id: str
    kind: CommandKind
    slot: str
    blueprint: str
    policy: str
    policy_version: int | None
    at: int
    network: int
    first: int | None
    is_fossil: bool = False
    rent: float | None = None
    mitigations: list[str] = []
    aborted: str = ""
    ended: int | None = None

    @classmethod
    def of(cls, decision: Decision, *, network: int) -> "Window":
        """The window of a decision that was carried out."""
        command = decision.command
        waits = command.kind is CommandKind.GERMINATE
        return cls(
            command_id=command.id,
            kind=command.kind,
            slot=command.slot,
            blueprint=command.blueprint,
            policy=decision.policy,
            policy_version=decision.policy_version,
            at=decision.epoch,
            network=network,
            first=None if waits else decision.epoch + 1,
        )

    def __str__(self) -> str:
        return " ".join(part for part in (self.kind.name, self.slot, self.blueprint) if part)

    @property
    def adds(self) -> bool:
        """Whether it added something to the network, which may go again."""
        return self.kind in _ADDS

    def epochs(self, run: Iterable[Epoch], length: int) -> list[Epoch]:
        """The epochs of the window that have been observed, ``length`` at most."""
        return [epoch for epoch in run if self.covers(epoch.number)][:length]

    def covers(self, epoch: int) -> bool:
        """Whether it acted in an epoch."""
        begun = self.first is not None and self.first <= epoch
        return begun and (self.ended is None or epoch <= self.ended)

    def move(self, event: StageChanged) -> None:
        """Its slot went on: the seed begins to act, is permanent, or is gone."""
        if self.first is None and event.after in _ACTING:
            self.first = event.epoch + 1
        elif event.after is SeedStage.FOSSILIZED:
            self.is_fossil = True
        elif event.after is SeedStage.CULLED and self.adds and event.prunes is self.is_fossil:
            gone = "pruned" if event.prunes else "culled"
            before = "" if self.first is not None else " before it acted on the host"
            self.abort(f"{gone}{before}: {event.reason}", epoch=event.epoch)

    def undo(self, event: Intervention, *, back_to: int) -> None:
        """The network is again what it was at the end of an earlier epoch."""
        if self.network > back_to:
            self.abort(f"undone at the end of epoch {event.epoch}: {event}", epoch=event.epoch)
        elif self.kind is CommandKind.GERMINATE and (self.first or 0) > back_to + 1:
            self.first = None

    def abort(self, why: str, *, epoch: int) -> None:
        """There will be no outcome."""
        self.aborted, self.ended = why, epoch


class Memory(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A run, as far as open windows need it.

    Attributes:
        run_id: the run.
        objective: name of the metric that is optimised.
        mode: ``min`` or ``max``.
        epochs: those that were not undone, ascending; the last few before the oldest open window,
            and all since.
        windows: those that are open, in the order of their commands.
        asked: an ADVANCE of which it is not known yet whether anything moved.
        restored: the last epoch that was undone, and the one to whose end it went back.
        ready: reports that nobody has asked for yet.
        ending: why nothing follows any more, empty while something does.
    """

    run_id: str
    objective: str = ""
    mode: str = "min"
    epochs: list[Epoch] = []
    windows: list[Window] = []
    asked: Window | None = None
    restored: tuple[int, int] | None = None
    ready: list[FieldReport] = []
    ending: str = ""

    def curve(self, metric: str, *, until: int) -> list[float | None]:
        """A metric by epoch, epoch ``until`` included; None where it is missing or was undone."""
        values: list[float | None] = [None] * (until + 1)
        for epoch in self.epochs:
            if epoch.number <= until:
                values[epoch.number] = epoch.values.get(metric)
        return values

    def forget(self, *, after: int) -> None:
        """Epochs were undone."""
        self.epochs = [epoch for epoch in self.epochs if epoch.number <= after]

    def trim(self) -> None:
        """Keep no more than open windows, and those that may be opened next, need."""
        oldest = min((window.at for window in self.windows), default=None)
        if oldest is None:
            self.epochs = self.epochs[-KEPT:]
            return
        since = _count(self.epochs, after=oldest)
        self.epochs = self.epochs[-(since + KEPT) :]


def _count(epochs: Sequence[Epoch], *, after: int) -> int:
    return sum(epoch.number > after for epoch in epochs)
