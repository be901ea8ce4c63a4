"""The reward: what a run is worth beside its twin without growth, at every boundary.

It is a function of where the run stands, never of what was done: rewards are differences of utility
from one boundary to the next (potential-based shaping, Ng et al. 1999, with the utility itself as
the potential), so that their sum is the utility at the end whatever the way there.
"""

import math
from collections.abc import Sequence

import msgspec

from esper_lightning.leyline import InvalidArgument, RunSummary, SystemState
from esper_lightning.leyline.arguments import check_number, check_whole

MAX_GAIN = 3.0
"""Most that a network can be better or worse by, as the logarithm of a ratio: twenty times. A run
whose objective is not finite, or not known, is worth the least."""

LEAST = 1e-8
"""Objectives below it count as it: of two that are as good as perfect none is the better one."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run stands at the end of an epoch, or when it is over.

    Attributes:
        epoch: 0-based; that of the last one when it is over.
        value: of the objective, on validation; None where it is not known.
        parameters: of the network, live seeds included.
        flops: spent on training so far; None where they were not counted.
    """

    epoch: int
    value: float | None
    parameters: int
    flops: float | None


class Utility(msgspec.Struct, frozen=True, kw_only=True):
    """What a network is worth beside the host alone, trained on the same batches.

    ``log(twin's loss / loss) - rent_parameters * (P / P_twin - 1) - rent_flops * (F / F_twin - 1)``
    with parameters P and FLOPs spent on training F. The twin itself is worth 0. An objective that
    is to be maximised enters as the inverse ratio.

    Attributes:
        rent_parameters: for each time that the host's parameters are added; the default is what
            gate G4 asks for.
        rent_flops: for each time that the twin's training FLOPs are spent beyond them; likewise.
        window: epochs over which logarithms of the objective are averaged while a run goes on, so
            that the noise of one is not paid.
    """

    rent_parameters: float = 0.002
    rent_flops: float = 0.002
    window: int = 2

    def __post_init__(self) -> None:
        for name in ("rent_parameters", "rent_flops"):
            value = getattr(self, name)
            check_number(name, value)
            if not 0 <= value < math.inf:
                raise InvalidArgument(f"{name} must be at least 0 and finite, got {value}")
        check_whole("window", self.window, least=1)

    def of(self, run: Sequence[Standing], twin: Sequence[Standing], *, mode: str) -> float:
        """At the last of some boundaries of both.

        Args:
            run: standings, in order; the last ones of ``window`` at which anything was measured
                are read. Before the first it is worth what the twin is.
            twin: of the host alone, in the same epochs.
            mode: of the objective, ``min`` or ``max``.

        Raises:
            InvalidArgument: the twin's objective is missing, not finite or not positive, or an
                objective of the run is not positive: then there is no ratio.
        """
        here, there = run[-1], twin[-1]
        gain = 0.0
        pairs = [
            (one, other)
            for one, other in zip(run, twin, strict=True)
            if one.value is not None or other.value is not None
        ][-self.window :]
        for one, other in pairs:
            gain += _gain(one, other, mode=mode) / len(pairs)
        price = self.rent_parameters * (here.parameters / max(1, there.parameters) - 1)
        if here.flops is not None and there.flops:
            price += self.rent_flops * (here.flops / there.flops - 1)
        return gain - price

    def curve(self, run: Sequence[Standing], twin: Sequence[Standing], *, mode: str) -> list[float]:
        """At each boundary of a run; the twin has all of its epochs.

        Raises:
            InvalidArgument: an epoch of the run is not among the twin's, or as :meth:`of`.
        """
        by_epoch = {each.epoch: each for each in twin}
        missing = [each.epoch for each in run if each.epoch not in by_epoch]
        if missing:
            raise InvalidArgument(
                f"the twin has no epoch {missing[0]}: it is another run, or was cut off; "
                f"train it again with the same configuration and tamiyo=never"
            )
        beside = [by_epoch[each.epoch] for each in run]
        return [
            self.of(run[: number + 1], beside[: number + 1], mode=mode)
            for number in range(len(run))
        ]


def standing(state: SystemState) -> Standing:
    """Where a run stood at a boundary."""
    return Standing(
        epoch=state.epoch,
        value=state.objective.value,
        parameters=state.num_parameters,
        flops=state.total_flops,
    )


def ending(summary: RunSummary, objective: str) -> Standing:
    """Where a run stood when it was over: its final network, on validation, never on test.

    Args:
        summary: of the run.
        objective: name of the metric, as in ``SystemState.objective``.
    """
    return Standing(
        epoch=summary.epochs - 1,
        value=summary.validation.get(objective),
        parameters=summary.parameters,
        flops=summary.training_flops,
    )


def _gain(run: Standing, twin: Standing, *, mode: str) -> float:
    if twin.value is None or not math.isfinite(twin.value):
        raise InvalidArgument(
            f"the twin's objective in epoch {twin.epoch} is {twin.value}: there is nothing to "
            f"compare with; leave this task out"
        )
    if run.value is None or not math.isfinite(run.value):
        return -MAX_GAIN
    if min(run.value, twin.value) < 0:
        raise InvalidArgument(
            f"a utility is a ratio of objectives, which are positive, got {run.value} and "
            f"{twin.value} for the twin"
        )
    ratio = math.log(max(twin.value, LEAST)) - math.log(max(run.value, LEAST))
    return max(-MAX_GAIN, min(MAX_GAIN, ratio if mode == "min" else -ratio))
