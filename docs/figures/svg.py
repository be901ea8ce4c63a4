"""Boxes, arrows and words as SVG text: what the pictures of the documentation are made of."""

import math
from collections.abc import Sequence
from html import escape

INK, SOFT, RULE, PAPER = "#1E2530", "#6A7482", "#C9CFD7", "#FFFFFF"
Point = tuple[float, float]


def picture(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """A whole file, on white paper, so that it reads on a dark page too."""
    heads = "".join(
        f'<marker id="head-{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto-start-reverse"><path d="M0 0.5L8 4L0 7.5z" '
        f'fill="{color}"/></marker>\n'
        for name, color in HEADS.items()
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="14">\n<title>{escape(title)}</title>\n'
        f"<defs>\n{heads}</defs>\n"
        f'<rect width="{width}" height="{height}" rx="10" fill="{PAPER}"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


HEADS = {"ink": INK, "soft": SOFT, "red": "#B03A26", "green": "#10815F"}
"""Colours that an arrow may have."""


def box(
    center: Point, size: Point, text: str, *, fill: str, dark: bool = False, dashed: bool = False
) -> str:
    """A rounded box with words in its middle; ``dark`` writes in white."""
    (x, y), (width, height) = center, size
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width:g}" height="{height:g}" '
        f'rx="7" fill="{fill}" stroke="{INK}" stroke-opacity="0.45"{dash}/>\n'
        + words((x, y + 5), text, color=PAPER if dark else INK, anchor="middle")
    )


def words(
    at: Point, text: str, *, color: str = INK, anchor: str = "start", size: float = 14
) -> str:
    """One line of text; ``at`` is on its base line."""
    return (
        f'<text x="{at[0]:g}" y="{at[1]:g}" fill="{color}" text-anchor="{anchor}" '
        f'font-size="{size:g}">{escape(text)}</text>'
    )


def arrow(points: Sequence[Point], *, color: str = "ink", dashed: bool = False) -> str:
    """A line through ``points`` with rounded corners and a head at its end."""
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<path d="{route(points)}" fill="none" stroke="{HEADS[color]}" stroke-width="1.6"{dash} '
        f'marker-end="url(#head-{color})"/>'
    )


def route(points: Sequence[Point]) -> str:
    """The line of an :func:`arrow`, as a path says it."""
    path = f"M{points[0][0]:g} {points[0][1]:g}"
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        start, end = _towards(corner, before), _towards(corner, after)
        path += f"L{start[0]:g} {start[1]:g}Q{corner[0]:g} {corner[1]:g} {end[0]:g} {end[1]:g}"
    return path + f"L{points[-1][0]:g} {points[-1][1]:g}"


def _towards(corner: Point, other: Point, radius: float = 12) -> Point:
    """The point on the way from ``corner`` to ``other`` at which the curve begins."""
    length = math.dist(corner, other)
    share = min(radius, length / 2) / length
    return (
        round(corner[0] + (other[0] - corner[0]) * share, 1),
        round(corner[1] + (other[1] - corner[1]) * share, 1),
    )
