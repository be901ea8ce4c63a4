"""Where a host can grow, as a table."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from esper_lightning.leyline import PossibleSlot, SlotShape


def slot_listing(
    slots: Sequence[PossibleSlot], fitting: Mapping[str, Sequence[str]]
) -> RenderableType:
    """One row for each module that could be a slot, then the blueprints that fit.

    Args:
        slots: what was found.
        fitting: names of the blueprints that fit, by path.
    """
    table = Table(title="Possible slots", caption="* taken by kasmina.slots=auto")
    table.add_column("")
    table.add_column("path", no_wrap=True, overflow="fold")
    for column in ("module", "input -> output"):
        table.add_column(column, no_wrap=True)
    for column in ("parameters", "blueprints"):
        table.add_column(column, justify="right")
    kinds: dict[tuple[str, ...], list[str]] = {}
    for slot in slots:
        names = tuple(fitting.get(slot.path, ()))
        kinds.setdefault(names, []).append(slot.path)
        table.add_row(
            "*" if slot.suggested and names else "",
            slot.path,
            slot.module,
            _maps(slot.shape),
            f"{slot.num_parameters:,}",
            str(len(names)),
        )
    fits = [
        Text(f"\nFit in {', '.join(paths)}:\n  {', '.join(names) or 'none'}")
        for names, paths in kinds.items()
    ]
    return Group(table, *fits)


def _maps(shape: SlotShape) -> str:
    if shape.input.kind is shape.output.kind:
        return str(shape).replace(f"-> {shape.output.kind.value} ", "-> ")
    return str(shape)
