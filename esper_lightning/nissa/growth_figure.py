"""The growth figure: how good a run became, how large, and what lived in which slot when."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from matplotlib.ticker import MaxNLocator

from esper_lightning.leyline import Event
from esper_lightning.nissa.figure_curves import draw_metric, draw_parameters, end_labels
from esper_lightning.nissa.figure_lanes import (
    FATE_MARKERS,
    PlacedLane,
    draw_lanes,
    list_width,
    mark_artist,
    path_width,
    place_lanes,
)
from esper_lightning.nissa.figure_legend import (
    LEGEND_ROW,
    draw_legend,
    legend_entries,
    legend_shape,
)
from esper_lightning.nissa.figure_style import (
    BODY_PT,
    INK,
    SMALL_PT,
    SOFT_INK,
    STYLE,
    cropped,
    text_width,
)
from esper_lightning.nissa.history import Fate, History, history
from esper_lightning.nissa.quantities import growth_factor, metric_value

_WIDTH = 10.5
_TITLE = 0.92
_METRIC = 2.6
_PARAMETERS = 0.72
_PANEL_GAP = 0.34
_AXIS = 0.52
_BOTTOM = 0.14
_MANY_MARKS = 24


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
    left = max(path_width(told.lanes) + 0.3, 0.85)
    right = max(
        list_width(told.lanes) + 0.25,
        *(text_width(text, BODY_PT, "bold") + 0.3 for text, *_ in end_labels(told)),
        text_width(f"{told.num_parameters[-1][1]:,}", BODY_PT, "bold") + 0.3,
    )
    entries = legend_entries(told)
    columns, rows = legend_shape(entries, _WIDTH - left - 0.3)
    height = _TITLE + _METRIC + _PANEL_GAP + _PARAMETERS + _AXIS + rows * LEGEND_ROW + _BOTTOM
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
    draw_legend(figure, entries, columns, (left / _WIDTH, _BOTTOM / height))
    return figure


def _title(figure: Figure, told: History, left: float, height: float) -> None:
    before, after = told.host_parameters, told.final_parameters
    line = f"{before:,} parameters, "
    if after == before:
        tried = any(lane.marks for lane in told.lanes)
        line += "nothing that grew was kept" if tried else "not grown"
    else:
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
    text = cropped(text, BODY_PT, _WIDTH * (1 - left) - 0.2)
    figure.text(left, 1 - 0.47 / height, text, size=BODY_PT, color=SOFT_INK, va="top")


def _link(
    figure: Figure, metric: Axes, lanes: Axes, told: History, placed: list[PlacedLane]
) -> None:
    """A thin line from each turning point up to the curve, and a mark where it arrives.

    Turning points of one boundary share a line; it looks like the weightiest of them.
    """
    found: dict[float, tuple[Fate, float]] = {}
    rank = list(Fate)
    for place in placed:
        for mark in place.lane.marks:
            fate, _ = found.get(mark.time, (mark.fate, 0.0))
            found[mark.time] = (max(fate, mark.fate, key=rank.index), place.block_middle)
    many = len(found) > _MANY_MARKS
    for time, (fate, depth) in found.items():
        value = told.validation.at(time)
        if value is None:
            continue
        _, size, color = FATE_MARKERS[fate]
        line = ConnectionPatch(
            (time, value),
            (time, depth),
            coordsA="data",
            coordsB="data",
            axesA=metric,
            axesB=lanes,
            color=color,
            alpha=0.3 if many else 0.45,
            linewidth=0.8,
            linestyle=(0, (1, 2.5)) if fate is Fate.PLANTED else "solid",
            zorder=-1,
        )
        figure.add_artist(line)
        point = mark_artist(fate, size * (0.75 if many else 1.0))
        point.set_data([time], [value])
        point.set(clip_on=False, zorder=5)
        metric.add_line(point)
