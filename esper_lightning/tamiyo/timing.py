"""When to grow."""

import math
from dataclasses import dataclass

from esper_lightning.leyline import InvalidArgument, SystemState
from esper_lightning.leyline.arguments import check_number, check_whole
from esper_lightning.tamiyo.plateau import MIN_POINTS, Curve, improvement


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Whether the time has come, and why or why not in words."""

    yes: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Rules for the epoch of a planting.

    A cohort is due when the objective has stopped moving. The first one is also due at the latest
    useful time, moving or not: what grows later has too few epochs left to pay.

    Attributes:
        min_epoch: epochs that must be done first.
        min_improvement: the objective has stopped moving below this relative improvement an epoch.
        window: how many of its last values are looked at.
        latest_fraction: of ``max_epochs``; the latest useful time while nothing has been
            fossilised, moved forward where ``min_remaining`` asks for it. None waits for the
            plateau alone.
        min_remaining: epochs that must be left for a seed to live through its stages.
        patience: epochs from the last planting, fossilising or cull to the next planting.

    Raises:
        InvalidArgument: a rule that cannot be met.
    """

    min_epoch: int
    min_improvement: float
    window: int
    latest_fraction: float | None
    min_remaining: int
    patience: int

    def __post_init__(self) -> None:
        for name, least in (("min_epoch", 1), ("min_remaining", 1), ("patience", 0)):
            check_whole(name, getattr(self, name), least=least)
        check_whole("window", self.window)
        check_number("min_improvement", self.min_improvement)
        check_number("latest_fraction", self.latest_fraction, or_none=True)
        if not math.isfinite(self.min_improvement):
            raise InvalidArgument(
                f"min_improvement is a relative improvement per epoch (0.01 for 1 %), "
                f"got {self.min_improvement}"
            )
        if self.window < MIN_POINTS:
            raise InvalidArgument(
                f"window must be at least {MIN_POINTS} values, got {self.window}: "
                "fewer say nothing about a slope"
            )
        if self.latest_fraction is not None and not 0 < self.latest_fraction <= 1:
            raise InvalidArgument(
                f"latest_fraction is a share of max_epochs above 0 and at most 1, "
                f"got {self.latest_fraction}; None waits for a plateau alone"
            )

    def due(self, state: SystemState, curve: Curve, *, last_change: int | None) -> Due:
        """Whether a cohort should be planted at this boundary.

        Args:
            state: at the boundary.
            curve: the objective so far.
            last_change: epoch of the last planting, fossilising or cull, None before the first.
        """
        done = state.epoch + 1
        if done < self.min_epoch:
            return Due(yes=False, reason=f"{done} of the first {self.min_epoch} epochs are done")
        if state.max_epochs is not None and state.max_epochs - done < self.min_remaining:
            return Due(
                yes=False,
                reason=f"too late: epochs left {state.max_epochs - done}, a seed needs "
                f"{self.min_remaining}",
            )
        if last_change is not None and state.epoch - last_change < self.patience:
            return Due(
                yes=False,
                reason=f"epochs since the network changed: {state.epoch - last_change}; the next "
                f"planting waits for {self.patience}",
            )
        latest = self._latest(state)
        if latest is not None and done >= latest:
            return Due(
                yes=True, reason=f"latest useful time: after {latest} of {state.max_epochs} epochs"
            )
        return self._plateau(state, curve)

    def _latest(self, state: SystemState) -> int | None:
        """Number of epochs after which the first cohort is due whatever the curve does."""
        if self.latest_fraction is None or state.max_epochs is None:
            return None
        if any(slot.fossils for slot in state.slots):
            return None
        return min(
            math.ceil(self.latest_fraction * state.max_epochs),
            state.max_epochs - self.min_remaining,
        )

    def _plateau(self, state: SystemState, curve: Curve) -> Due:
        name, mode = state.objective.name, state.objective.mode
        rate = improvement(curve, mode=mode, window=self.window)
        if rate is None:
            return Due(yes=False, reason=f"{name} has too few values yet to tell a plateau")
        if rate < self.min_improvement:
            verb = "improves" if rate >= 0 else "worsens"
            return Due(
                yes=True,
                reason=f"{name} {verb} {abs(rate):.1%} an epoch; growing below "
                f"{self.min_improvement:.1%}",
            )
        verb = "falls" if mode == "min" else "rises"
        return Due(
            yes=False,
            reason=f"{name} still {verb} {rate:.1%} an epoch; growing below "
            f"{self.min_improvement:.1%}",
        )
