"""The growth figure: how good a run became, how large, and what lived in which slot when."""

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import ConnectionPatch, Patch
from matplotlib.ticker import MaxNLocator

from esper_lightning.leyline import Event, SeedStage
from esper_lightning.nissa.figure_curves import draw_metric, draw_parameters, end_labels
from esper_lightning.nissa.figure_lanes import (
    FATE_MARKERS,
    PlacedLane,
    draw_lanes,
    list_width,
    path_width,
    place_lanes,
)
from esper_lightning.nissa.figure_style import BODY_PT, INK, SMALL_PT, SOFT_INK, STYLE, text_width
from esper_lightning.nissa.history import Fate, History, history
from esper_lightning.nissa.quantities import growth_factor, metric_value
from esper_lightning.nissa.stage_look import STAGE_LOOKS, stage_label

_WIDTH = 10.5
_TITLE = 0.92
_METRIC = 2.6
_PARAMETERS = 0.72
_PANEL_GAP = 0.34
_AXIS = 0.5
_LEGEND_ROW = 0.23
_LINK_PT = 0.8


def growth_figure(events: Iterable[Event]) -> Figure:
    """Draw a run.

    Above, a validation accuracy (or the objective, where no accuracy was logged) and its training
    counterpart; below it the parameters of each epoch; below that a lane for each slot, with its
    stages, its seeds, and its fossils as layers that stay. Thin lines lead from each planting,
    fossilisation and cull up to the curve.

    Args:
        events: of one run, as in ``events.jsonl``.

    Raises:
        InvalidArgument: there is no epoch boundary among the events.
    """
    told = history(events)
    with matplotlib.style.context(["default", STYLE]):
        return _draw(told)


def save_growth_figure(events: Iterable[Event], directory: Path | str) -> list[Path]:
    """Write ``growth.png`` and ``growth.svg`` into ``directory`` and return their paths.

    The same events give the same SVG, byte for byte.

    Raises:
        InvalidArgument: there is no epoch boundary among the events.
    """
    figure = growth_figure(events)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    png, svg = directory / "growth.png", directory / "growth.svg"
    with matplotlib.style.context(["default", STYLE, {"svg.hashsalt": "esper_lightning"}]):
        figure.savefig(png, dpi=160, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]


def _draw(told: History) -> Figure:
    figure = Figure(figsize=(_WIDTH, 5))
    FigureCanvasAgg(figure)
    placed = place_lanes(told.lanes)
    lanes_height = placed[-1].top + placed[-1].height if placed else 0.0
    left = max(path_width(figure, told.lanes) + 0.3, 0.85)
    right = max(
        list_width(figure, told.lanes) + 0.25,
        *(text_width(figure, text, BODY_PT, "bold") + 0.3 for text, *_ in end_labels(told)),
        text_width(figure, f"{told.num_parameters[-1][1]:,}", BODY_PT, "bold") + 0.3,
    )
    entries = _legend_entries(told)
    columns, rows = _legend_shape(figure, entries, _WIDTH - left - 0.3)
    height = _TITLE + _METRIC + _PANEL_GAP + _PARAMETERS + _AXIS + rows * _LEGEND_ROW + 0.2
    if placed:
        height += 0.16 + lanes_height
    figure.set_size_inches(_WIDTH, height)

    def panel(top: float, tall: float) -> Axes:
        box = (left / _WIDTH, 1 - (top + tall) / height, 1 - (left + right) / _WIDTH, tall / height)
        axes = figure.add_axes(box)
        axes.set_xlim(told.start, told.end)
        return axes

    metric = panel(_TITLE, _METRIC)
    draw_metric(metric, told)
    top = _TITLE + _METRIC + _PANEL_GAP
    last = parameters = panel(top, _PARAMETERS)
    draw_parameters(parameters, told)
    if placed:
        last = panel(top + _PARAMETERS + 0.16, lanes_height)
        draw_lanes(last, placed, (_WIDTH - left - right) / (told.end - told.start))
        _link(figure, metric, last, told, placed)
    last.tick_params(bottom=True, labelbottom=True)
    last.xaxis.set_major_locator(MaxNLocator(12, integer=True, steps=[1, 2, 5, 10]))
    last.set_xlabel("epochs trained", color=SOFT_INK, size=SMALL_PT, labelpad=3)
    _title(figure, told, left / _WIDTH, height)
    if entries:
        figure.legend(
            [handle for _, handle in entries],
            [label for label, _ in entries],
            loc="lower left",
            bbox_to_anchor=(left / _WIDTH, 0.1 / height),
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
    return figure


def _title(figure: Figure, told: History, left: float, height: float) -> None:
    before, after = told.host_parameters, told.num_parameters[-1][1]
    line = f"{before:,} parameters, not grown"
    if after != before:
        line = f"{before:,} → {after:,} parameters ({growth_factor(before, after)})"
    if told.validation.last is not None:
        value = metric_value(told.validation.name, told.validation.last[1])
        line += f",  {told.validation.name} {value}"
    figure.text(left, 1 - 0.2 / height, line, size=13, weight="bold", color=INK, va="top")
    fates = Counter(mark.fate for lane in told.lanes for mark in lane.marks)
    counts = ", ".join(f"{fates[fate]} {fate.value}" for fate in Fate if fates[fate])
    epochs = f"{told.end:.0f} epoch{'' if told.end == 1 else 's'}"
    parts = [f"run {told.run_id}", epochs, counts, told.outcome]
    text = "   ·   ".join(" ".join(part.split()) for part in parts if part)
    figure.text(left, 1 - 0.47 / height, text, size=BODY_PT, color=SOFT_INK, va="top")


def _link(
    figure: Figure, metric: Axes, lanes: Axes, told: History, placed: list[PlacedLane]
) -> None:
    """A thin line from each turning point up to the curve, and a dot where it arrives."""
    dots: dict[float, Fate] = {}
    for place in placed:
        for mark in place.lane.marks:
            value = told.validation.at(mark.time)
            if value is None:
                continue
            color = FATE_MARKERS[mark.fate][2]
            figure.add_artist(
                ConnectionPatch(
                    (mark.time, value),
                    (mark.time, place.block_middle),
                    coordsA="data",
                    coordsB="data",
                    axesA=metric,
                    axesB=lanes,
                    color=color,
                    alpha=0.4,
                    linewidth=_LINK_PT,
                    linestyle=(0, (1, 2)) if mark.fate is Fate.PLANTED else "solid",
                    zorder=-1,
                )
            )
            rank = list(Fate)
            known = dots.get(mark.time, Fate.PLANTED)
            dots[mark.time] = max(known, mark.fate, key=rank.index)
    for time, fate in dots.items():
        marker, size, color = FATE_MARKERS[fate]
        metric.plot(
            time,
            told.validation.at(time),
            marker=marker,
            markersize=size,
            markerfacecolor="white" if fate is Fate.PLANTED else color,
            markeredgecolor=INK if fate is Fate.PLANTED else "white",
            markeredgewidth=1.0,
            clip_on=False,
            zorder=5,
        )


Entry = tuple[str, Artist | tuple[Artist, ...]]


def _legend_entries(told: History) -> list[Entry]:
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
                Patch(facecolor=look.color, edgecolor="#4F8DB8", hatch=look.hatch, linewidth=0)
            )
        if fate in fates and fate is not None:
            artists.append(_marker(fate))
        if artists:
            entries.append((stage_label(stage), tuple(artists)))
    if Fate.PLANTED in fates:
        entries.insert(0, ("planted", _marker(Fate.PLANTED)))
    return entries


def _marker(fate: Fate) -> Line2D:
    marker, size, color = FATE_MARKERS[fate]
    planted = fate is Fate.PLANTED
    return Line2D(
        [],
        [],
        linestyle="",
        marker=marker,
        markersize=size,
        markerfacecolor="white" if planted else color,
        markeredgecolor=INK if planted else "white",
        markeredgewidth=1.1 if planted else 0.8,
    )


def _legend_shape(figure: Figure, entries: list[Entry], room: float) -> tuple[int, int]:
    """Columns and rows of a legend that is at most ``room`` inches wide."""
    if not entries:
        return 1, 0
    widest = max(text_width(figure, label, SMALL_PT) for label, _ in entries) + 0.48
    columns = max(min(len(entries), int(room / widest)), 1)
    return columns, math.ceil(len(entries) / columns)
