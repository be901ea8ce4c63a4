"""The lower panel of the growth figure: one lane for each slot, its stages, seeds and fossils."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

from esper_lightning.leyline import SeedStage
from esper_lightning.nissa.figure_style import (
    BODY_PT,
    INK,
    RULE,
    SMALL_PT,
    SOFT_INK,
    cropped,
    cropped_path,
    text_width,
)
from esper_lightning.nissa.history import Fate, Lane, Span
from esper_lightning.nissa.quantities import short_count
from esper_lightning.nissa.stage_look import STAGE_LOOKS

MAX_PATH_WIDTH = 2.2
"""Room for a slot's path, in inches."""

_PAD = 0.06
_LABEL_STRIP = 0.16
_BLOCK = 0.19
_STRATUM = 0.05
_STRATUM_GAP = 0.02
_LIST_ROW = 0.145
_MAX_LISTED = 8
_MAX_BLUEPRINT = 1.5

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
        fossils = len(lane.fossils)
        strata = fossils * _STRATUM + max(fossils - 1, 0) * _STRATUM_GAP + (0.04 if fossils else 0)
        drawn = 2 * _PAD + _LABEL_STRIP + _BLOCK + strata
        listed = 2 * _PAD + _LIST_ROW * len(fossil_list(lane))
        height = max(drawn, listed)
        placed.append(PlacedLane(lane=lane, top=top, height=height))
        top += height
    return placed


def fossil_list(lane: Lane) -> list[tuple[str, str]]:
    """Blueprint and size of each fossil as written beside the lane, the first one at the bottom."""
    rows = [(f.blueprint, f"+{short_count(f.num_parameters)}") for f in reversed(lane.fossils)]
    if len(rows) > _MAX_LISTED:
        hidden = len(rows) - _MAX_LISTED + 1
        rows = [*rows[: _MAX_LISTED - 1], (f"and {hidden} more", "")]
    return rows


def path_width(figure: Figure, lanes: tuple[Lane, ...]) -> float:
    """Room that the slots' paths take, in inches."""
    widths = [text_width(figure, lane.slot, BODY_PT) for lane in lanes]
    return min(max(widths, default=0.0), MAX_PATH_WIDTH)


def list_width(figure: Figure, lanes: tuple[Lane, ...]) -> float:
    """Room that the lists of fossils take, in inches."""
    return max((_row_width(figure, r) for lane in lanes for r in fossil_list(lane)), default=0.0)


def _row_width(figure: Figure, row: tuple[str, str]) -> float:
    blueprint = min(text_width(figure, row[0], SMALL_PT), _MAX_BLUEPRINT)
    return blueprint + text_width(figure, f"  {row[1]}", SMALL_PT) + 0.16


def draw_lanes(axes: Axes, placed: list[PlacedLane], epoch_width: float) -> None:
    """Draw every lane into ``axes``, whose y axis is in inches downwards.

    Args:
        axes: the panel; its x axis is already set.
        placed: lanes and their places.
        epoch_width: of one epoch on paper, in inches.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    axes.set_ylim(placed[-1].top + placed[-1].height, 0)
    axes.set_yticks(
        [place.block_middle for place in placed],
        [cropped_path(figure, p.lane.slot, BODY_PT, MAX_PATH_WIDTH) for p in placed],
        size=BODY_PT,
        color=INK,
    )
    axes.tick_params(axis="y", pad=8)
    for number, place in enumerate(placed):
        if number:
            axes.axhline(place.top, color=RULE, linewidth=0.6, zorder=0)
        for span in place.lane.spans:
            _draw_span(axes, span, place.block_top, min(0.8, 18 * epoch_width))
        _draw_fossils(axes, figure, place)
        _name_seeds(axes, figure, place, epoch_width)
        for mark in place.lane.marks:
            marker, size, color = FATE_MARKERS[mark.fate]
            axes.plot(
                mark.time,
                place.block_middle,
                marker=marker,
                markersize=size,
                markerfacecolor="white" if mark.fate is Fate.PLANTED else color,
                markeredgecolor=INK if mark.fate is Fate.PLANTED else "white",
                markeredgewidth=1.1 if mark.fate is Fate.PLANTED else 0.8,
                clip_on=False,
                zorder=6,
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
                edgecolor="#4F8DB8",
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


def _draw_fossils(axes: Axes, figure: Figure, place: PlacedLane) -> None:
    """A layer below the blocks for each fossil, from its commitment on; the first lies lowest."""
    color = STAGE_LOOKS[SeedStage.FOSSILIZED].color
    end = axes.get_xlim()[1]
    depth = place.block_top + _BLOCK + 0.04
    for number, fossil in enumerate(reversed(place.lane.fossils)):
        top = depth + number * (_STRATUM + _STRATUM_GAP)
        axes.add_patch(
            Rectangle((fossil.time, top), end - fossil.time, _STRATUM, color=color, lw=0)
        )
    for number, (blueprint, size) in enumerate(fossil_list(place.lane)):
        text = cropped(figure, blueprint, SMALL_PT, _MAX_BLUEPRINT)
        axes.annotate(
            f"{text}  {size}" if size else text,
            (end, place.top + _PAD + (number + 0.5) * _LIST_ROW),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            size=SMALL_PT,
            color=color if size else SOFT_INK,
            annotation_clip=False,
        )


def _name_seeds(axes: Axes, figure: Figure, place: PlacedLane, epoch_width: float) -> None:
    """The blueprint above each seed, as far as there is room before the next one."""
    planted = [mark for mark in place.lane.marks if mark.fate is Fate.PLANTED]
    for number, mark in enumerate(planted):
        end = planted[number + 1].time if number + 1 < len(planted) else axes.get_xlim()[1]
        room = (end - mark.time) * epoch_width - 0.06
        axes.text(
            mark.time,
            place.block_top - 0.035,
            cropped(figure, mark.blueprint, SMALL_PT, room),
            size=SMALL_PT,
            color=INK,
            va="bottom",
            ha="left",
        )
