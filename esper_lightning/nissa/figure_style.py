"""Type, ink and measures of the project's figures. All lengths on paper are in inches."""

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
    "text.hinting_factor": 1,
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
    if text_width(text, size_pt) <= width:
        return text
    for length in range(len(text) - 1, 2, -1):
        short = text[:length] + "…"
        if text_width(short, size_pt) <= width:
            return short
    return ""


def cropped_path(path: str, size_pt: float, width: float) -> str:
    """A module path cut in its middle to ``width`` inches: its end tells slots apart."""
    if text_width(path, size_pt) <= width:
        return path
    for length in range(len(path) - 1, 4, -1):
        head = length // 3
        short = path[:head] + "…" + path[len(path) - (length - head) :]
        if text_width(short, size_pt) <= width:
            return short
    return "…" + path[-4:]
