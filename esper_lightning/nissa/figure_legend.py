"""The legend of the growth figure: only what occurs in the run."""

import math
from typing import Any

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.patches import Patch

from esper_lightning.leyline import SeedStage
from esper_lightning.nissa.figure_lanes import FATE_MARKERS, HATCH_COLOR, mark_artist
from esper_lightning.nissa.figure_style import SMALL_PT, text_width
from esper_lightning.nissa.history import Fate, History
from esper_lightning.nissa.stage_look import STAGE_LOOKS, stage_label

LEGEND_ROW = 0.21
"""Height of a row, in inches."""

Entry = tuple[str, tuple[Artist, ...]]


def legend_entries(told: History) -> list[Entry]:
    """Only the stages and turning points that occur, in the order of a seed's life."""
    stages = {span.stage for lane in told.lanes for span in lane.spans}
    fates = {mark.fate for lane in told.lanes for mark in lane.marks}
    if any(lane.fossils for lane in told.lanes):
        stages.add(SeedStage.FOSSILIZED)
    entries: list[Entry] = []
    for stage in SeedStage:
        fate = {SeedStage.FOSSILIZED: Fate.FOSSILIZED, SeedStage.CULLED: Fate.CULLED}.get(stage)
        artists: list[Artist] = []
        if stage in stages:
            look = STAGE_LOOKS[stage]
            artists.append(
                Patch(facecolor=look.color, edgecolor=HATCH_COLOR, hatch=look.hatch, linewidth=0)
            )
        if fate in fates and fate is not None:
            artists.append(mark_artist(fate, FATE_MARKERS[fate][1]))
        if artists:
            entries.append((stage_label(stage), tuple(artists)))
    if Fate.PLANTED in fates:
        entries.insert(0, ("planted", (mark_artist(Fate.PLANTED, FATE_MARKERS[Fate.PLANTED][1]),)))
    return entries


def legend_shape(entries: list[Entry], room: float) -> tuple[int, int]:
    """Columns and rows of a legend that is at most ``room`` inches wide."""
    if not entries:
        return 1, 0
    widest = max(text_width(label, SMALL_PT) for label, _ in entries) + 0.48
    most = max(min(len(entries), int(room / widest)), 1)
    rows = math.ceil(len(entries) / most)
    return math.ceil(len(entries) / rows), rows


def draw_legend(
    figure: Figure, entries: list[Entry], columns: int, corner: tuple[float, float]
) -> None:
    """Put the entries, row by row, with their lower left ``corner`` at that place of the figure."""
    if not entries:
        return
    rows = math.ceil(len(entries) / columns)
    by_column = [
        entries[c + r * columns]
        for c in range(columns)
        for r in range(rows)
        if c + r * columns < len(entries)
    ]
    handles: list[Any] = [artists for _, artists in by_column]
    figure.legend(
        handles,
        [label for label, _ in by_column],
        loc="lower left",
        bbox_to_anchor=corner,
        bbox_transform=figure.transFigure,
        borderaxespad=0,
        borderpad=0,
        ncols=columns,
        frameon=False,
        fontsize=SMALL_PT,
        handlelength=1.8,
        handleheight=0.95,
        columnspacing=1.6,
        labelspacing=0.7,
        handler_map={tuple: HandlerTuple(ndivide=1)},
    )
