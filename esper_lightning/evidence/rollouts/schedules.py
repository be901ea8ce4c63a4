"""A fixed grid of schedules: when to plant, how often and where, whatever the curve does."""

from itertools import product

STARTS = (2, 3, 4, 6, 8)
PERIODS = (4, 100)
"""In epochs; the second plants once."""

SLOTS = ("all", "round_robin")

TRIAL = 2


def schedules() -> dict[str, tuple[str, ...]]:
    """Twenty of them: options of a run, by name."""
    return {
        f"{start}/{'once' if period == PERIODS[-1] else period}/{slots}": (
            "tamiyo=periodic",
            f"tamiyo.policy.start={start}",
            f"tamiyo.policy.period={period}",
            f"tamiyo.policy.slots={slots}",
            f"tamiyo.policy.trial={TRIAL}",
        )
        for start, period, slots in product(STARTS, PERIODS, SLOTS)
    }
