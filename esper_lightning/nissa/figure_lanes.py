"""The lower panel of the growth figure: one lane for each slot, its stages, seeds and fossils."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon, Rectangle

from esper_lightning.leyline import SeedStage
from esper_lightning.nissa.figure_style import (
    BODY_PT,
    INK,
    PLATE,
    RULE,
    SMALL_PT,
    cropped,
    cropped_path,
    text_width,
)
from esper_lightning.nissa.history import Fate, Lane, Span
from esper_lightning.nissa.quantities import short_count
from esper_lightning.nissa.stage_look import STAGE_LOOKS

MAX_PATH_WIDTH = 1.8
"""Room for a slot's path, in inches."""

HATCH_COLOR = "#4F8DB8"

_PAD = 0.06
_LABEL_STRIP = 0.16
_BLOCK = 0.19
_LAYER = 0.06
_LAYER_ROW = 0.14
_MAX_LAYERS = 8
_MAX_BLUEPRINT = 1.3
_NARROW_EPOCH = 0.05

FATE_MARKERS: dict[Fate, tuple[str, float, str]] = {
    Fate.PLANTED: ("o", 4.6, INK),
    Fate.FOSSILIZED: ("D", 5.6, STAGE_LOOKS[SeedStage.FOSSILIZED].color),
    Fate.CULLED: ("X", 7.0, STAGE_LOOKS[SeedStage.CULLED].color),
}
"""Marker, size in points and colour of each turning point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedLane:
    """A lane and where it lies: ``top`` and ``height`` in inches from the panel's top."""

    lane: Lane
    top: float
    height: float

    @property
    def block_top(self) -> float:
        """Upper edge of the stage blocks."""
        return self.top + _PAD + _LABEL_STRIP

    @property
    def block_middle(self) -> float:
        """Height at which turning points are marked."""
        return self.block_top + _BLOCK / 2


def place_lanes(lanes: tuple[Lane, ...]) -> list[PlacedLane]:
    """Stack the lanes; one with many fossils is higher."""
    placed: list[PlacedLane] = []
    top = 0.0
    for lane in lanes:
        height = 2 * _PAD + _LABEL_STRIP + _BLOCK + _LAYER_ROW * len(layers(lane))
        placed.append(PlacedLane(lane=lane, top=top, height=height))
        top += height
    return placed


@dataclass(frozen=True, slots=True)
class Layer:
    """A fossil below the blocks, or the oldest ones together where there are too many."""

    time: float
    text: str
    size: str = ""


def layers(lane: Lane) -> list[Layer]:
    """Fossils from the newest down to the oldest, as layers lie."""
    found = [
        Layer(f.time, f.blueprint, f"+{short_count(f.num_parameters)}")
        for f in reversed(lane.fossils)
    ]
    if len(found) > _MAX_LAYERS:
        older = found[_MAX_LAYERS - 1 :]
        return [*found[: _MAX_LAYERS - 1], Layer(older[-1].time, f"and {len(older)} before")]
    return found


def path_width(lanes: tuple[Lane, ...]) -> float:
    """Room that the slots' paths take, in inches."""
    widths = [text_width(lane.slot, BODY_PT) for lane in lanes]
    return min(max(widths, default=0.0), MAX_PATH_WIDTH)


def list_width(lanes: tuple[Lane, ...]) -> float:
    """Room that the names of the fossils take, in inches."""
    return max((text_width(_layer_text(x), SMALL_PT) for n in lanes for x in layers(n)), default=0)


def _layer_text(layer: Layer) -> str:
    return f"{cropped(layer.text, SMALL_PT, _MAX_BLUEPRINT)}  {layer.size}".rstrip()


def draw_lanes(axes: Axes, placed: list[PlacedLane], epoch_width: float) -> None:
    """Draw every lane into ``axes``, whose y axis is in inches downwards.

    Args:
        axes: the panel; its x axis is already set.
        placed: lanes and their places.
        epoch_width: of one epoch on paper, in inches.
    """
    axes.set_ylim(placed[-1].top + placed[-1].height, 0)
    axes.set_yticks(
        [place.block_middle for place in placed],
        [cropped_path(p.lane.slot, BODY_PT, MAX_PATH_WIDTH) for p in placed],
        size=BODY_PT,
        color=INK,
    )
    axes.tick_params(axis="y", pad=8)
    for number, place in enumerate(placed):
        if number:
            axes.axhline(place.top, color=RULE, linewidth=0.6, zorder=0)
        for span in place.lane.spans:
            _draw_span(axes, span, place.block_top, min(0.8, 18 * epoch_width))
        _draw_fossils(axes, place)
        _name_seeds(axes, place, epoch_width)
        for mark in place.lane.marks:
            size = FATE_MARKERS[mark.fate][1]
            point = mark_artist(mark.fate, 0.7 * size if epoch_width < _NARROW_EPOCH else size)
            point.set_data([mark.time], [place.block_middle])
            point.set(clip_on=False, zorder=6)
            axes.add_line(point)


def mark_artist(fate: Fate, size: float) -> Line2D:
    """The marker of a turning point, ``size`` points large, nowhere yet."""
    marker, _, color = FATE_MARKERS[fate]
    hollow = fate is Fate.PLANTED
    return Line2D(
        [],
        [],
        linestyle="",
        marker=marker,
        markersize=size,
        markerfacecolor="white" if hollow else color,
        markeredgecolor=color if hollow else "white",
        markeredgewidth=1.1 if hollow else 0.8,
    )


def _draw_span(axes: Axes, span: Span, top: float, edge_pt: float) -> None:
    look = STAGE_LOOKS[span.stage]
    width = span.end - span.start
    thin = span.stage in (SeedStage.DORMANT, SeedStage.UNKNOWN, SeedStage.TERMINATED)
    if thin:
        axes.add_patch(
            Rectangle(
                (span.start, top + 0.36 * _BLOCK), width, 0.28 * _BLOCK, color=look.color, lw=0
            )
        )
        return
    ramps = span.stage is SeedStage.BLENDING and len(span.alphas) > 0
    face = _paler(look.color) if ramps else look.color
    axes.add_patch(Rectangle((span.start, top), width, _BLOCK, facecolor=face, linewidth=0))
    if look.hatch:
        axes.add_patch(
            Rectangle(
                (span.start, top),
                width,
                _BLOCK,
                facecolor="none",
                edgecolor=HATCH_COLOR,
                hatch=look.hatch,
                linewidth=0,
            )
        )
    if ramps:
        bottom = top + _BLOCK
        ramp = [(span.start, bottom)]
        ramp += [(time, bottom - alpha * _BLOCK) for time, alpha in span.alphas]
        ramp += [(span.end, ramp[-1][1]), (span.end, bottom)]
        axes.add_patch(Polygon(ramp, closed=True, facecolor=look.color, linewidth=0))
    axes.add_patch(
        Rectangle(
            (span.start, top), width, _BLOCK, facecolor="none", edgecolor="white", linewidth=edge_pt
        )
    )


def _paler(color: str) -> tuple[float, float, float]:
    red, green, blue = to_rgb(color)
    return (0.35 * red + 0.65, 0.35 * green + 0.65, 0.35 * blue + 0.65)


def _draw_fossils(axes: Axes, place: PlacedLane) -> None:
    """A layer for each fossil, from its commitment on, with its name at the end."""
    color = STAGE_LOOKS[SeedStage.FOSSILIZED].color
    end = axes.get_xlim()[1]
    for number, layer in enumerate(layers(place.lane)):
        middle = place.block_top + _BLOCK + (number + 0.55) * _LAYER_ROW
        start = (layer.time, middle - _LAYER / 2)
        axes.add_patch(Rectangle(start, end - layer.time, _LAYER, color=color, linewidth=0))
        axes.annotate(
            _layer_text(layer),
            (end, middle),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            size=SMALL_PT,
            color=color,
            annotation_clip=False,
        )


def _name_seeds(axes: Axes, place: PlacedLane, epoch_width: float) -> None:
    """The blueprint above each seed, as far as there is room before the next one."""
    planted = [mark for mark in place.lane.marks if mark.fate is Fate.PLANTED]
    for number, mark in enumerate(planted):
        end = planted[number + 1].time if number + 1 < len(planted) else axes.get_xlim()[1]
        room = (end - mark.time) * epoch_width - 0.06
        name = cropped(mark.blueprint, SMALL_PT, room)
        if not name:
            continue
        axes.text(
            mark.time,
            place.block_top - 0.035,
            name,
            size=SMALL_PT,
            color=INK,
            va="bottom",
            ha="left",
            bbox=PLATE,
        )
