"""Draws the pictures of the documentation beside this file: python docs/figures/draw.py.

The lifecycle is drawn from the table of transitions, so that it cannot tell anything else.
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from svg import INK, PAPER, RULE, SOFT, Point, arrow, box, picture, words

from esper_lightning.leyline import TRANSITIONS, SeedStage
from esper_lightning.nissa.stage_look import STAGE_LOOKS

S = SeedStage
PLACES: dict[SeedStage, Point] = {
    S.UNKNOWN: (95, 70),
    S.DORMANT: (290, 70),
    S.TERMINATED: (560, 70),
    S.FOSSILIZED: (830, 70),
    S.GERMINATED: (95, 220),
    S.TRAINING: (275, 220),
    S.BLENDING: (455, 220),
    S.SHADOWING: (635, 220),
    S.PROBATIONARY: (830, 220),
    S.RESETTING: (95, 370),
    S.EMBARGOED: (275, 370),
    S.CULLED: (455, 370),
}
"""Centre of each stage's box."""

PRUNING: list[Point] = [(910, 118), (910, 416), (455, 416), (455, 392)]
"""Where the three moves that prune a fossil run together."""

WAYS: dict[tuple[SeedStage, SeedStage], list[Point]] = {
    (S.FOSSILIZED, S.DORMANT): [(830, 48), (830, 22), (290, 22), (290, 48)],
    (S.DORMANT, S.GERMINATED): [(260, 92), (260, 130), (95, 130), (95, 198)],
    (S.GERMINATED, S.PROBATIONARY): [(125, 198), (125, 155), (790, 155), (790, 198)],
    (S.RESETTING, S.DORMANT): [
        (115, 348),
        (115, 300),
        (185, 300),
        (185, 178),
        (290, 178),
        (290, 92),
    ],
    (S.RESETTING, S.TERMINATED): [
        (145, 348),
        (145, 318),
        (365, 318),
        (365, 178),
        (560, 178),
        (560, 92),
    ],
    (S.GERMINATED, S.CULLED): [(95, 242), (95, 278), (425, 278), (425, 348)],
    (S.TRAINING, S.CULLED): [(275, 242), (275, 278), (425, 278), (425, 348)],
    (S.SHADOWING, S.CULLED): [(635, 242), (635, 278), (485, 278), (485, 348)],
    (S.PROBATIONARY, S.CULLED): [(830, 242), (830, 278), (485, 278), (485, 348)],
    (S.DORMANT, S.CULLED): [(320, 92), (320, 118), *PRUNING],
    (S.TERMINATED, S.CULLED): [(595, 92), (595, 118), *PRUNING],
    (S.FOSSILIZED, S.CULLED): [(865, 92), (865, 118), *PRUNING],
}
"""Moves that are not drawn as a straight line between two boxes."""

UNUSED = {(S.DORMANT, S.TERMINATED), (S.RESETTING, S.TERMINATED)}
"""Moves that are allowed, but that nothing makes yet."""

SIZE = (130.0, 44.0)


def lifecycle() -> str:
    """Every stage and every move of ``TRANSITIONS``."""
    parts = []
    for before, afters in TRANSITIONS.items():
        for after in sorted(afters):
            way = WAYS.get((before, after)) or _straight(PLACES[before], PLACES[after])
            unused = (before, after) in UNUSED
            color = "red" if after is S.CULLED else "green" if after is S.FOSSILIZED else "ink"
            parts.append(arrow(way, color="soft" if unused else color, dashed=unused))
    dark = {S.PROBATIONARY, S.FOSSILIZED, S.CULLED}
    for stage, place in PLACES.items():
        fill = STAGE_LOOKS[stage].color
        parts.append(box(place, SIZE, stage.name, fill=fill, dark=stage in dark))
    parts += [
        words((470, 148), "direct insertion", color=SOFT, anchor="middle", size=12),
        words((535, 375), "too long in a stage, or by a command", color=SOFT, size=12),
        words((460, 16), "free to grow again", color=SOFT, anchor="middle", size=12),
        words((845, 150), "G4", color=SOFT, size=12),
        words((700, 112), "pruning of a fossil", color=SOFT, anchor="middle", size=12),
    ]
    return picture(930, 430, "The stages of a slot and every move between them", parts)


def _straight(start: Point, end: Point) -> list[Point]:
    """From the border of one box to that of another, along a row or a column."""
    (x0, y0), (x1, y1) = start, end
    half = (SIZE[0] / 2, SIZE[1] / 2)
    if abs(y1 - y0) < SIZE[1]:
        side = half[0] if x1 > x0 else -half[0]
        return [(x0 + side, y0), (x1 - side, y1)]
    side = half[1] if y1 > y0 else -half[1]
    return [(x0, y0 + side), (x1, y1 - side)]


MODULE = STAGE_LOOKS[S.DORMANT].color
FOSSIL = STAGE_LOOKS[S.FOSSILIZED].color
SEED = STAGE_LOOKS[S.BLENDING].color


def slot() -> str:
    """A slot as a stack: module, fossils in their order, one live seed."""
    line, below, rail = 70.0, 165.0, 235.0
    parts = [
        words((30, line + 5), "x"),
        arrow([(46, line), (108, line)]),
        box((180, line), (140, 48), "host's module", fill=MODULE),
        arrow([(66, line), (66, rail), (365, rail), (365, below + 24)]),
        words((90, rail - 8), "around the module: parallel", color=SOFT, size=12),
    ]
    stops = [236.0, 425.0, 645.0, 865.0]
    for start, end in pairwise(stops):
        parts += [arrow([(start + 14, line), (end - 14, line)]), plus((end, line))]
    branches = (
        (365.0, "fossil 1", FOSSIL),
        (565.0, "fossil 2", FOSSIL),
        (785.0, "live seed", SEED),
    )
    for (x, text, fill), sum_at in zip(branches, stops[1:], strict=True):
        live = fill is SEED
        parts.append(box((x, below), (100, 44), text, fill=fill, dark=not live, dashed=live))
        parts.append(arrow([(x + 50, below), (sum_at, below), (sum_at, line + 14)]))
        if text != "fossil 1":
            parts.append(arrow([(x - 85, line), (x - 85, below), (x - 52, below)]))
    parts += [
        words((490, below + 42), "behind it: series", color=SOFT, size=12),
        words((880, 130), "alpha", color=SOFT, size=12),
        words((725, below + 42), "at most one", color=SOFT, size=12),
        words((690, line - 10), "h"),
        arrow([(879, line), (945, line)]),
    ]
    return picture(960, 260, "A slot is a stack: module, fossils, at most one live seed", parts)


def attachment() -> str:
    """Series reads the slot's output, parallel the module's input."""
    parts = []
    for left, name, text in (
        (0.0, "series", "f(h): as narrow as the host at this point"),
        (480.0, "parallel", "f(x): goes around the narrow module"),
    ):
        line = 85.0
        parts += [
            words((left + 30, 32), name, size=16),
            words((left + 110, 32), text, color=SOFT, size=13),
            words((left + 30, line + 5), "x"),
            arrow([(left + 46, line), (left + 98, line)]),
            box((left + 160, line), (120, 26), "module", fill=MODULE),
            arrow([(left + 220, line), (left + 386, line)]),
            plus((left + 400, line)),
            arrow([(left + 414, line), (left + 450, line)]),
        ]
        if name == "series":
            parts += [
                words((left + 232, line - 9), "h"),
                arrow([(left + 245, line), (left + 245, 165), (left + 268, 165)]),
                box((left + 320, 165), (100, 44), "f", fill=SEED),
                arrow([(left + 370, 165), (left + 400, 165), (left + 400, line + 14)]),
            ]
        else:
            parts += [
                arrow([(left + 66, line), (left + 66, 165), (left + 108, 165)]),
                box((left + 240, 165), (260, 58), "f, with a width of its own", fill=SEED),
                arrow([(left + 370, 165), (left + 400, 165), (left + 400, line + 14)]),
            ]
    return picture(960, 215, "Where a branch reads: in series or in parallel", parts)


def coupling() -> str:
    """How seed and host are coupled, stage by stage, forward and backward."""
    stages = (
        (S.TRAINING, "a copy of h", "", False),
        (S.BLENDING, "a copy of h", "alpha", False),
        (S.SHADOWING, "a copy of h", "1", False),
        (S.PROBATIONARY, "h itself", "1", True),
    )
    parts = []
    for number, (stage, reads, weight, both) in enumerate(stages):
        left, line, below = 240.0 * number, 95.0, 190.0
        look = STAGE_LOOKS[stage]
        parts += [
            box((left + 120, 32), (150, 32), stage.name, fill=look.color, dark=both),
            words((left + 22, line - 8), "h"),
            arrow([(left + 22, line), (left + 161, line)]),
            plus((left + 175, line), faint=not weight),
            arrow([(left + 189, line), (left + 222, line)]),
            box((left + 110, below), (60, 40), "seed", fill=look.color, dark=both),
            arrow([(left + 60, line), (left + 60, below), (left + 78, below)], dashed=not both),
            words((left + 20, below + 48), f"reads {reads}", color=SOFT, size=12),
            # Gradients.
            arrow(
                [(left + 190, line + 8), (left + 190, below + 8), (left + 142, below + 8)],
                color="red",
            ),
        ]
        if weight:
            way = [(left + 140, below - 8), (left + 175, below - 8), (left + 175, line + 14)]
            parts += [arrow(way), words((left + 138, below - 40), weight, color=SOFT, size=12)]
        if both:
            way = [(left + 78, below + 10), (left + 44, below + 10), (left + 44, line + 6)]
            parts.append(arrow(way, color="red"))
    parts += [
        arrow([(300, 262), (340, 262)]),
        words((348, 267), "forward", color=SOFT, size=13),
        arrow([(300 + 120, 262), (340 + 120, 262)], dashed=True),
        words((468, 267), "a copy", color=SOFT, size=13),
        arrow([(540, 262), (580, 262)], color="red"),
        words((588, 267), "gradient that the seed receives and sends", color=SOFT, size=13),
    ]
    return picture(960, 285, "How seed and host are coupled in each stage", parts)


def plus(at: Point, *, faint: bool = False) -> str:
    """A sum; a faint one to which nothing is added yet."""
    color = RULE if faint else INK
    return (
        f'<circle cx="{at[0]:g}" cy="{at[1]:g}" r="13" fill="{PAPER}" stroke="{color}"/>\n'
        + words((at[0], at[1] + 6), "+", anchor="middle", size=18, color=color)
    )


def favicon() -> str:
    """A seed leaf."""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
        f'<path d="M16 30V16" stroke="{FOSSIL}" stroke-width="3"/>'
        f'<path d="M16 17C16 8 9 5 2 5c0 8 5 12 14 12zM16 14c0-6 5-10 14-11 0 8-5 12-14 11z" '
        f'fill="{FOSSIL}"/></svg>\n'
    )


PICTURES: dict[str, Callable[[], str]] = {
    "attachment.svg": attachment,
    "coupling.svg": coupling,
    "favicon.svg": favicon,
    "lifecycle.svg": lifecycle,
    "slot.svg": slot,
}
"""How each file is drawn."""

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (Path(__file__).parent / name).write_text(draw())
