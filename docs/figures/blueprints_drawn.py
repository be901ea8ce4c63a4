"""A graph of operations as a picture: from left to right, on further lines where it is long."""

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise

from blueprints_traced import Step, steps
from svg import INK, SOFT, Point, picture, route

from esper_lightning.leyline import SeedStage
from esper_lightning.nissa.stage_look import STAGE_LOOKS

FIXED = STAGE_LOOKS[SeedStage.DORMANT].color
LEARNED = STAGE_LOOKS[SeedStage.TRAINING].color
SILENT = STAGE_LOOKS[SeedStage.BLENDING].color

WIDTH = 720
"""Of every picture, so that all are shown at one scale."""

HEIGHT, GAP, BETWEEN, MARGIN = 36.0, 25.0, 12.0, 18.0
"""Of a box; from one column to the next; from one lane to the next; around all."""

RADIUS = 12.0
"""Of a sum or a product."""

APART = 6.0
"""Between arrows that go to the next line side by side."""


def drawn(last: Step, title: str) -> str:
    """The picture of all that leads to ``last``."""
    every = steps(last)
    every.append(Step(f"f({every[0].title})", inputs=[last]))
    layout = _Layout(every)
    arrow = f'fill="none" stroke="{INK}" stroke-width="1.6" marker-end="url(#head-ink)"'
    parts = [
        f"<g {arrow}>",
        *(f'<path d="{route(way)}"/>' for way in layout.ways()),
        f'</g>\n<g stroke="{INK}" stroke-opacity="0.45">',
        *(_outline(step, layout.at(step)) for step in every[1:-1]),
        f'</g>\n<g fill="{INK}" text-anchor="middle" font-size="13">',
        *(_text(step, layout.at(step)) for step in every),
        "</g>",
    ]
    return picture(WIDTH, math.ceil(layout.height), title, parts)


def _is_sign(step: Step) -> bool:
    return len(step.title) == 1 and bool(step.inputs)


def _below(step: Step) -> str:
    times = f"{step.times} times" if step.times > 1 else ""
    return ", ".join(filter(None, (step.detail, times)))


def _width(step: Step) -> float:
    if _is_sign(step):
        return 2 * RADIUS
    return max(7.1 * len(step.title), 6.0 * len(_below(step)), 12) + 12


def _outline(step: Step, at: Point) -> str:
    """A circle for a sum or a product, else a box."""
    x, y = at
    fill = SILENT if step.silent else LEARNED if step.learned else FIXED
    if _is_sign(step):
        return f'<circle cx="{x:g}" cy="{y:g}" r="{RADIUS:g}" fill="{fill}"/>'
    width = _width(step)
    return (
        f'<rect x="{x - width / 2:g}" y="{y - HEIGHT / 2:g}" width="{width:g}" '
        f'height="{HEIGHT:g}" rx="7" fill="{fill}"/>'
    )


def _text(step: Step, at: Point) -> str:
    """One line or two."""
    x, y = at
    title, below = escape(step.title), escape(_below(step))
    if _is_sign(step):
        return f'<text x="{x:g}" y="{y + 5:g}" font-size="16">{title}</text>'
    if not below:
        return f'<text x="{x:g}" y="{y + 5:g}">{title}</text>'
    return (
        f'<text x="{x:g}" y="{y - 2:g}">{title}'
        f'<tspan x="{x:g}" dy="14" font-size="11" fill="{SOFT}">{below}</tspan></text>'
    )


class _Layout:
    """Columns by the longest way from the input, lanes below the longest way through all.

    Args:
        every: step, each after what it reads.
    """

    def __init__(self, every: Sequence[Step]) -> None:
        self.every = every
        self.column: dict[Step, int] = {}
        for step in every:
            self.column[step] = max((self.column[each] + 1 for each in step.inputs), default=0)
        self.lane: dict[Step, int] = {}
        self.passing: dict[tuple[Step, Step], int] = {}
        self._taken: dict[tuple[int, int], Step] = {}
        self._place_steps()
        self._place_passing()
        self._measure()

    def _place_steps(self) -> None:
        step = self.every[-1]
        self._take(step, 0)
        while step.inputs:
            step = max(step.inputs, key=self.column.__getitem__)
            self._take(step, 0)
        for step in self.every:
            if step not in self.lane:
                column, wanted = self.column[step], max(self.lane[each] for each in step.inputs)
                lanes = [wanted] * (wanted > 0) + list(range(1, len(self.every)))
                self._take(step, next(lane for lane in lanes if (column, lane) not in self._taken))

    def _take(self, step: Step, lane: int) -> None:
        self.lane[step] = lane
        self._taken[self.column[step], lane] = step

    def _place_passing(self) -> None:
        """Find a lane for every arrow that passes columns; those of one step may share theirs."""
        for step in self.every:
            for source in step.inputs:
                between = range(self.column[source] + 1, self.column[step])
                if not between:
                    continue
                wanted = max(self.lane[step], self.lane[source])
                lanes = [wanted] * (wanted > 0) + list(range(1, len(self.every)))
                lane = next(
                    lane
                    for lane in lanes
                    if all(self._taken.get((c, lane), source) is source for c in between)
                )
                self.passing[source, step] = lane
                self._taken |= {(column, lane): source for column in between}

    def _measure(self) -> None:
        """Break the columns into as few lines as possible, all about as long."""
        num_columns = self.column[self.every[-1]] + 1
        self.widths = [0.0] * num_columns
        for step, column in self.column.items():
            self.widths[column] = max(self.widths[column], _width(step))
        lines = _evenly_broken(self.widths, WIDTH - 2 * MARGIN)
        self.line = [number for number, line in enumerate(lines) for _ in line]
        self.x: list[float] = []
        self.y: dict[tuple[int, int], float] = {}
        bottom = MARGIN
        for number, line in enumerate(lines):
            left = MARGIN + (2 * GAP if number else 0)
            for column in line:
                self.x.append(left + self.widths[column] / 2)
                left += self.widths[column] + GAP
            boxed = {lane for step, lane in self.lane.items() if self.column[step] in line}
            for lane in range(1 + max(lane for column, lane in self._taken if column in line)):
                height = HEIGHT if lane in boxed else 0
                self.y[number, lane] = bottom + height / 2
                bottom += height + BETWEEN
            crossing = self._crossing(line[-1])
            bottom += APART * (crossing + 1) + BETWEEN if number + 1 < len(lines) else 0
        self.height = bottom - BETWEEN + MARGIN

    def _crossing(self, column: int) -> int:
        """The lowest lane of an arrow from ``column``, or from before it, to a later one."""
        lanes = [
            self.passing.get((source, step), self.lane[source])
            for step in self.every
            for source in step.inputs
            if self.column[source] <= column < self.column[step]
        ]
        return max(lanes, default=0)

    def at(self, step: Step) -> Point:
        """The middle of a step."""
        return self._point(self.column[step], self.lane[step])

    def _point(self, column: int, lane: int) -> Point:
        return self.x[column], self.y[self.line[column], lane]

    def ways(self) -> list[list[Point]]:
        """The arrows."""
        return [self._way(source, step) for step in self.every for source in step.inputs]

    def _way(self, source: Step, step: Step) -> list[Point]:
        begin, end = self.column[source], self.column[step]
        lane = self.lane[source]
        x, y = self.at(source)
        points = [(x + _width(source) / 2, y)]
        for column, following in pairwise(range(begin, end + 1)):
            after = self.passing[source, step] if following < end else self.lane[step]
            right = self.x[column] + self.widths[column] / 2
            left = self.x[following] - self.widths[following] / 2
            _, to = self._point(following, after)
            if self.line[following] > self.line[column]:
                deepest = self._crossing(column)
                right += 10 + APART * (deepest - lane)
                left -= 18 + APART * lane
                turn = self.y[self.line[following], 0] - HEIGHT / 2 - BETWEEN - APART * lane
                points += [(right, y), (right, turn), (left, turn), (left, to)]
            elif after < lane and following == end and self._enters_below(step, lane):
                return [*points, (self.x[end], y), (self.x[end], to + RADIUS + 1)]
            elif after != lane:
                turn = right + (8 if after > lane else GAP - 13)
                points += [(turn, y), (turn, to)]
            lane, y = after, to
        return [*points, (self.x[end] - _width(step) / 2 - 1, y)]

    def _enters_below(self, step: Step, lane: int) -> bool:
        """Whether there is nothing under a sum or a product down to ``lane``."""
        column, own = self.column[step], self.lane[step]
        under = range(own + 1, lane + 1)
        return _is_sign(step) and all((column, each) not in self._taken for each in under)


def _evenly_broken(widths: Sequence[float], longest: float) -> list[list[int]]:
    """The columns of each line, as few as possible, and no line longer than it must."""
    lines = _broken(widths, longest)
    if len(lines) == 1:
        return lines
    # Arrows come in at the left and go out at the right.
    longest -= 4 * GAP
    fewest = len(_broken(widths, longest))
    limits = [longest - 10 * number for number in range(int(longest // 10))]
    return _broken(widths, min(each for each in limits if len(_broken(widths, each)) == fewest))


def _broken(widths: Sequence[float], limit: float) -> list[list[int]]:
    """The columns of each line, none longer than ``limit`` where it can be."""
    lines: list[list[int]] = []
    length = math.inf
    for column, width in enumerate(widths):
        length += GAP + width
        if length > limit:
            lines.append([])
            length = width
        lines[-1].append(column)
    return lines
