"""The table of slots: where every slot stands and why."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from esper_lightning.leyline import (
    LIVE_STAGES,
    FossilState,
    RunStarted,
    SeedStage,
    SeedState,
    StageChanged,
    SystemState,
)
from esper_lightning.nissa.quantities import growth_factor, metric_value
from esper_lightning.nissa.stage_look import STAGE_LOOKS, stage_label

_BAR_CELLS = 6
_NO_CHANGES: Mapping[str, StageChanged] = MappingProxyType({})
_SHOWS_ALPHA = LIVE_STAGES | {SeedStage.FOSSILIZED, SeedStage.CULLED}


def slot_table(
    state: SystemState | None,
    *,
    started: RunStarted | None = None,
    changes: Mapping[str, StageChanged] = _NO_CHANGES,
) -> Table:
    """One row for each slot, under a line that says how the run stands.

    Args:
        state: the last epoch boundary; None before the first one.
        started: the run's first record: it names the slots while there is no ``state``.
        changes: by slot, the last move since ``state`` was taken; it overrides stage, blueprint and
            reason (commands are applied after a state is taken).
    """
    table = Table(
        title=_headline(state, started),
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
        expand=True,
    )
    table.add_column("slot")
    table.add_column("stage", no_wrap=True, min_width=14)
    table.add_column("blueprint")
    table.add_column("alpha", no_wrap=True, min_width=_BAR_CELLS + 5)
    table.add_column("age", no_wrap=True, justify="right", min_width=3)
    table.add_column("reason", ratio=1, no_wrap=True, overflow="ellipsis")
    for slot in _slots(state, started):
        table.add_row(*_row(_moved(slot, changes.get(slot.slot))))
    return table


def _slots(state: SystemState | None, started: RunStarted | None) -> tuple[SeedState, ...]:
    if state is not None:
        return state.slots
    if started is None:
        return ()
    return tuple(SeedState(slot=path, stage=SeedStage.UNKNOWN) for path in started.slots)


def _moved(slot: SeedState, change: StageChanged | None) -> SeedState:
    """``slot`` as it stands after ``change``, as far as the change tells."""
    if change is None:
        return slot
    same_seed = change.after not in (SeedStage.GERMINATED, SeedStage.DORMANT)
    fossils = slot.fossils
    if change.after is SeedStage.FOSSILIZED:
        fossils += (
            FossilState(
                blueprint=change.blueprint,
                parameters=change.parameters,
                num_parameters=change.num_parameters,
                planted_epoch=change.epoch - (slot.seed_age or 0),
                fossilized_epoch=change.epoch,
            ),
        )
    elif change.prunes:
        fossils = fossils[:-1]
    return SeedState(
        slot=slot.slot,
        stage=change.after,
        blueprint=change.blueprint if change.after in _SHOWS_ALPHA else "",
        alpha=slot.alpha if same_seed else 0.0,
        fossils=fossils,
        reason=change.reason,
    )


def _headline(state: SystemState | None, started: RunStarted | None) -> Text:
    if state is None:
        line = Text("before the first epoch boundary", style="dim", no_wrap=True)
        if started is not None:
            line.append(f"  parameters {started.host_parameters:,}")
        return line
    of = f"/{state.max_epochs}" if state.max_epochs is not None else ""
    objective = state.objective
    line = Text(f"epoch {state.epoch + 1}{of}", style="bold", no_wrap=True, overflow="ellipsis")
    line.append(f"   {objective.name} ", style="not bold dim")
    line.append(metric_value(objective.name, objective.value))
    line.append("   parameters ", style="not bold dim")
    line.append(f"{state.num_parameters:,}")
    if state.num_parameters != state.host_parameters:
        factor = growth_factor(state.host_parameters, state.num_parameters)
        line.append(f" ({factor} of {state.host_parameters:,})", style="not bold dim")
    return line


def _row(slot: SeedState) -> tuple[RenderableType, ...]:
    look = STAGE_LOOKS[slot.stage]
    stage = Text(f"{look.symbol} {stage_label(slot.stage)}", style=look.style)
    if slot.paused:
        stage = Text(f"‖ {stage_label(slot.stage)}", style=look.style)
    return (
        _SlotPath(slot.slot),
        stage,
        _Grown(slot),
        _alpha(slot, look.style),
        Text(str(slot.age)),
        Text(" ".join(slot.reason.split()), style="dim"),
    )


class _Cell:
    """Text that is shortened to the width of its column, which grows with the terminal."""

    share: ClassVar[float]

    def text(self, width: int) -> Text:
        """The cell in at most ``width`` columns."""
        raise NotImplementedError

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        most = max(round(self.share * options.max_width), 9)
        full = self.text(1000).cell_len
        return Measurement(min(full, 9), min(full, most))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text(options.max_width)


class _SlotPath(_Cell):
    """A module path; the end, which tells one slot from another, stays."""

    share = 0.22

    def __init__(self, path: str) -> None:
        self.path = path

    def text(self, width: int) -> Text:
        fits = len(self.path) <= width
        return Text(self.path if fits else "…" + self.path[len(self.path) - width + 1 :])


class _Grown(_Cell):
    """The live seed's blueprint and the number of fossils; the number stays."""

    share = 0.2

    def __init__(self, slot: SeedState) -> None:
        self.live = slot.blueprint if slot.stage is not SeedStage.FOSSILIZED else ""
        self.num_fossils = len(slot.fossils)

    def text(self, width: int) -> Text:
        text = Text(self.live)
        if not self.num_fossils:
            text.truncate(width, overflow="ellipsis")
            return text
        count = f"{' ' if self.live else ''}+{self.num_fossils}"
        words = f"{count} fossil{'s' if self.num_fossils > 1 else ''}"
        if len(self.live) + len(words) <= width:
            count = words
        text.truncate(max(width - len(count), 1), overflow="ellipsis")
        return text.append(count, style=STAGE_LOOKS[SeedStage.FOSSILIZED].style)


def _alpha(slot: SeedState, style: str) -> Text:
    """A bar of ``_BAR_CELLS`` cells and the number; nothing where there is no seed."""
    if slot.stage not in _SHOWS_ALPHA:
        return Text("")
    halves = round(2 * _BAR_CELLS * min(max(slot.alpha, 0.0), 1.0))
    bar = "━" * (halves // 2) + "╸" * (halves % 2)
    text = Text(bar, style=style)
    text.append("─" * (_BAR_CELLS - len(bar)), style="dim")
    text.append(f" {slot.alpha:.2f}", style="default")
    return text
