"""The resources signal: is the network larger than it may be, or than its device can hold?"""

import math

from esper_lightning.leyline import SystemState
from esper_lightning.tamiyo.budget import GrowthBudget
from esper_lightning.tamiyo.risk.reading import Reading, highest, number, quotient, within

BYTES_PER_PARAMETER = 16
"""In single precision: the weight, its gradient and Adam's two moments."""

EASY = 0.5
"""Share of a device's memory that these may take without a score: as much again goes to what is
computed from them."""


def resources(state: SystemState, budget: GrowthBudget | None) -> Reading | None:
    """The scarcest of them; None where there is neither a budget nor a known memory.

    A budget that is used up scores 0, one exceeded by half 0.5. Memory scores 0 up to
    :data:`EASY` of the device's and 1 where the weights alone fill it.
    """
    readings: list[Reading | None] = []
    if budget is not None:
        readings += [_parameters(state, budget), _flops(state, budget)]
    return highest(*readings, _memory(state))


def _parameters(state: SystemState, budget: GrowthBudget) -> Reading | None:
    added = state.num_parameters - state.host_parameters
    limits = [float(budget.max_parameters)] if budget.max_parameters is not None else []
    if budget.max_growth is not None:
        limits.append(budget.max_growth * number(state.host_parameters))
    if not limits:
        return None
    used = quotient(added, min(limits))
    return Reading(within(used - 1), f"parameters: {used:.0%} of the growth budget")


def _flops(state: SystemState, budget: GrowthBudget) -> Reading | None:
    host, now = state.host_flops, state.flops
    if budget.max_flops_growth is None or host is None or now is None:
        return None
    host, now = number(host), number(now)
    if not (math.isfinite(host) and math.isfinite(now)):
        return None
    used = quotient(now - host, budget.max_flops_growth * host)
    return Reading(within(used - 1), f"FLOPs: {used:.0%} of the growth budget")


def _memory(state: SystemState) -> Reading | None:
    if state.hardware is None or not state.hardware.memory_bytes:
        return None
    share = quotient(BYTES_PER_PARAMETER * state.num_parameters, state.hardware.memory_bytes)
    return Reading(
        within((share - EASY) / (1 - EASY)),
        f"weights and optimiser take {share:.0%} of the device's memory",
    )
