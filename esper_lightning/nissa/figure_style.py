"""Type, ink and measures of the project's figures. All lengths on paper are in inches."""

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

INK = "#1E2530"
SOFT_INK = "#6A7482"
RULE = "#DDE1E6"
CURVE = "#1D5B9E"
SECOND_CURVE = "#9AA9BC"

BODY_PT = 8.5
SMALL_PT = 7.5

_LEAST_LETTERS = 3

STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "axes.grid": False,
    "axes.linewidth": 0.8,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": BODY_PT,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "hatch.linewidth": 0.7,
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "text.color": INK,
    "text.hinting": "none",
    "text.parse_math": False,
    "xtick.color": RULE,
    "xtick.labelcolor": SOFT_INK,
    "xtick.labelsize": SMALL_PT,
    "ytick.color": RULE,
    "ytick.labelcolor": SOFT_INK,
    "ytick.labelsize": SMALL_PT,
    "ytick.major.size": 0,
}
"""Settings on top of matplotlib's defaults; a user's own style does not reach the figure."""


PLATE: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
"""Box behind text that lines would otherwise cross."""


def text_width(text: str, size_pt: float, weight: str = "normal") -> float:
    """Width of one line of text, in inches."""
    font = FontProperties(family="DejaVu Sans", size=size_pt, weight=weight)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72


def cropped(text: str, size_pt: float, width: float) -> str:
    """``text`` cut at its end to ``width`` inches; empty where not even three letters fit."""
    return _longest(text, size_pt, width, lambda length: text[:length] + "…") or ""


def cropped_path(path: str, size_pt: float, width: float) -> str:
    """A module path cut in its middle to ``width`` inches: its end tells slots apart."""

    def cut(length: int) -> str:
        head = length // 3
        return path[:head] + "…" + path[len(path) - (length - head) :]

    return _longest(path, size_pt, width, cut) or cut(_LEAST_LETTERS)


def _longest(text: str, size_pt: float, width: float, cut: Callable[[int], str]) -> str | None:
    """``text``, or ``cut`` to as many letters as fit; None where too few do."""
    if text_width(text, size_pt) <= width:
        return text
    lengths = range(_LEAST_LETTERS, len(text))
    fitting = bisect_right(lengths, width, key=lambda length: text_width(cut(length), size_pt))
    return cut(lengths[fitting - 1]) if fitting else None
