"""Alpha ramps, as functions of the optimiser step."""

import math

from esper_lightning.leyline import BlendCurve, BlendSchedule

_SIGMOID_STEEPNESS = 10.0


def alpha_at(schedule: BlendSchedule, step: int) -> float:
    """Alpha after ``step`` optimiser steps of a ramp: exactly 0 at 0, exactly 1 from its end on.

    >>> alpha_at(BlendSchedule(curve=BlendCurve.LINEAR, num_steps=4), 1)
    0.25
    >>> round(alpha_at(BlendSchedule(curve=BlendCurve.COSINE, num_steps=4), 2), 12)
    0.5
    """
    if step <= 0:
        return 0.0
    if step >= schedule.num_steps:
        return 1.0
    progress = step / schedule.num_steps
    if schedule.curve is BlendCurve.LINEAR:
        return progress
    if schedule.curve is BlendCurve.COSINE:
        return 0.5 - 0.5 * math.cos(math.pi * progress)
    # A logistic curve, shifted and scaled so that it meets 0 and 1 at its ends.
    low = 1.0 / (1.0 + math.exp(_SIGMOID_STEEPNESS / 2))
    value = 1.0 / (1.0 + math.exp(-_SIGMOID_STEEPNESS * (progress - 0.5)))
    return (value - low) / (1.0 - 2.0 * low)
