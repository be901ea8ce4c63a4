"""Where a host can grow, as a table."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from esper_lightning.leyline import PossibleSlot


def slot_listing(slots: Sequence[PossibleSlot], fitting: Mapping[str, Sequence[str]]) -> Table:
    """One row for each module that could be a slot.

    Args:
        slots: what was found.
        fitting: names of the blueprints that fit, by path.
    """
    table = Table(title="Possible slots", caption="* taken by kasmina.slots=auto")
    for column in ("", "path", "module", "input -> output", "parameters", "blueprints that fit"):
        table.add_column(column, justify="right" if column == "parameters" else "left")
    for slot in slots:
        names = fitting.get(slot.path, ())
        table.add_row(
            "*" if slot.suggested and names else "",
            slot.path,
            slot.module,
            str(slot.shape),
            f"{slot.num_parameters:,}",
            f"{len(names)}: {', '.join(names)}" if names else "none",
        )
    return table
