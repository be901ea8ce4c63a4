"""A fixed grid of schedules: when to plant, where and how much, whatever the curve does.

What is planted and how large each seed is the heuristic's doing, so that schedules differ from it
and from each other in their timing and their shares alone.
"""

from itertools import product

STARTS = (1, 2, 3, 4, 6)
"""Epochs before the first planting."""

AT_ONCE = (1, 4)
"""Slots that are planted in at a time."""

SHARES = (0.5, 1.0)
"""Of the budget that is left, which one cohort may take."""

AT_THE_START = 0.01
"""Share of a run after which the first cohort is due: none, so that the start decides."""


def schedules() -> dict[str, tuple[str, ...]]:
    """Twenty of them: options of a run, by name."""
    return {
        f"after {start}, {num} at once, {share:.0%}": (
            "tamiyo=heuristic",
            f"tamiyo.policy.min_epoch={start}",
            f"tamiyo.policy.latest_fraction={AT_THE_START}",
            f"tamiyo.policy.max_live={num}",
            f"+tamiyo.policy.spend={share}",
        )
        for start, num, share in product(STARTS, AT_ONCE, SHARES)
    }
