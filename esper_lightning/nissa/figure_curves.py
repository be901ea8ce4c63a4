"""The upper panels of the growth figure: the metric and the number of parameters over time."""

import math

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from esper_lightning.leyline import SeedStage
from esper_lightning.nissa.figure_style import (
    BODY_PT,
    CURVE,
    INK,
    PLATE,
    SECOND_CURVE,
    SOFT_INK,
)
from esper_lightning.nissa.history import Curve, History
from esper_lightning.nissa.quantities import is_accuracy, metric_value, short_count
from esper_lightning.nissa.stage_look import STAGE_LOOKS

_HOST_FILL = "#C7CDD6"
_GROWN_FILL = "#54A88C"
_LABEL_GAP = 0.17
_MAX_DOTS = 40
_LEAST_ACCURACY_SPAN = 0.04


def end_labels(told: History) -> list[tuple[str, Curve, str, str]]:
    """Text, curve, colour and weight of what is written beside the ends of the curves."""
    labels = []
    for word, curve, color, weight in (
        ("validation", told.validation, CURVE, "bold"),
        ("training", told.training, SECOND_CURVE, "normal"),
    ):
        if curve is not None and curve.last is not None:
            value = metric_value(curve.name, curve.last[1])
            labels.append((f"{word} {value}", curve, color, weight))
    return labels


def draw_metric(axes: Axes, told: History) -> None:
    """Validation and training curve, each named at its end."""
    axes.set_title(told.validation.name, loc="left", size=BODY_PT, color=INK, weight="bold", pad=6)
    axes.tick_params(bottom=False, labelbottom=False)
    axes.grid(axis="y")
    if told.validation.last is None:
        axes.set_yticks([])
        axes.text(
            0.5,
            0.5,
            f"{told.validation.name} was not logged in this run",
            transform=axes.transAxes,
            ha="center",
            va="center",
            color=SOFT_INK,
        )
        return
    if told.training is not None:
        _draw(axes, told.training, SECOND_CURVE, 1.3)
    _draw(axes, told.validation, CURVE, 2.1)
    axes.margins(y=0.09)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    low, high = axes.get_ylim()
    if is_accuracy(told.validation.name) and low >= -0.1 and high <= 1.1:
        spare = max(_LEAST_ACCURACY_SPAN - (high - low), 0.0) / 2
        axes.set_ylim(max(low - spare, 0.0), high + spare)
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.4g} %"))
    _name_ends(axes, told)


def _draw(axes: Axes, curve: Curve, color: str, width: float) -> None:
    dots = sum(not math.isnan(v) for v in curve.values) <= _MAX_DOTS
    axes.plot(
        curve.times,
        curve.values,
        color=color,
        linewidth=width,
        marker="o" if dots else "",
        markersize=1.9 * width,
        markeredgewidth=0,
        solid_capstyle="round",
        solid_joinstyle="round",
        clip_on=False,
        zorder=3,
    )


def _name_ends(axes: Axes, told: History) -> None:
    """Labels at the height of the last values, moved apart where they would touch."""
    low, high = axes.get_ylim()
    figure = axes.get_figure(root=True)
    assert figure is not None
    height = axes.get_position().height * figure.get_size_inches()[1]
    placed = []
    for text, curve, color, weight in end_labels(told):
        assert curve.last is not None
        placed.append([(curve.last[1] - low) / (high - low) * height, text, color, weight])
    placed.sort(key=lambda label: label[0])
    if len(placed) == 2 and placed[1][0] - placed[0][0] < _LABEL_GAP:
        middle = (placed[0][0] + placed[1][0]) / 2
        placed[0][0], placed[1][0] = middle - _LABEL_GAP / 2, middle + _LABEL_GAP / 2
    for inches, text, color, weight in placed:
        axes.annotate(
            text,
            (1.0, inches / height),
            xycoords="axes fraction",
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            color=color if weight == "bold" else SOFT_INK,
            weight=weight,
            size=BODY_PT,
            annotation_clip=False,
        )


def draw_parameters(axes: Axes, told: History) -> None:
    """Parameters of each epoch as a stepped area: the host, and above it what grew."""
    title = axes.set_title("parameters", loc="left", size=BODY_PT, color=INK, weight="bold", pad=4)
    title.set_bbox(PLATE)
    axes.tick_params(bottom=False, labelbottom=False)
    edges: list[float] = []
    counts: list[int] = []
    for time, count in told.num_parameters:
        edges += [edges[-1] if edges else told.start, time]
        counts += [count, count]
    host = [min(count, told.host_parameters) for count in counts]
    axes.fill_between(edges, 0, host, color=_HOST_FILL, linewidth=0)
    axes.fill_between(edges, host, counts, color=_GROWN_FILL, linewidth=0)
    axes.set_ylim(0, max(counts) * 1.08)
    axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: short_count(round(v))))
    grown = counts[-1] > told.host_parameters
    axes.annotate(
        f"{counts[-1]:,}",
        (told.end, counts[-1]),
        xytext=(9, 0),
        textcoords="offset points",
        va="center",
        weight="bold",
        color=STAGE_LOOKS[SeedStage.FOSSILIZED].color if grown else SOFT_INK,
        size=BODY_PT,
        annotation_clip=False,
    )
