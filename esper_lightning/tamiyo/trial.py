"""Seeds on trial: which to keep and which to remove. A cohort stands or falls together."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from esper_lightning.leyline import (
    LIVE_STAGES,
    CommandKind,
    Gate,
    InvalidArgument,
    SeedStage,
    SeedState,
    SystemState,
)
from esper_lightning.leyline.arguments import check_number, check_whole
from esper_lightning.tamiyo.policy import Choice
from esper_lightning.tamiyo.stopping import worth_waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Rules for seeds in PROBATIONARY.

    A seed whose gain was not measured, or pays while another measurement of G4 fails, is left to
    wait; Kasmina's maximum age ends that.

    Attributes:
        epochs: so many epochs in PROBATIONARY a trial lasts at least, because what was planted
            disturbs at first.
        share: of the epochs that were left when the cohort was planted, where the run's end is
            known: after so many a gain below its rent ends the trial. What grew pays late, when the
            rate falls. Before, it ends when waiting is not worth its rent any more
            (:mod:`~esper_lightning.tamiyo.stopping`).
        max_regression: relative worsening of the objective since planting that ends it at once.
        max_dropped: share of an epoch's steps whose seed gradient may have been dropped because it
            was not finite.

    Raises:
        InvalidArgument: a rule that cannot be met.
    """

    epochs: int
    share: float
    max_regression: float
    max_dropped: float

    def __post_init__(self) -> None:
        check_whole("trial", self.epochs, least=1)
        check_number("trial_share", self.share)
        check_number("max_regression", self.max_regression)
        check_number("max_dropped", self.max_dropped)
        if not self.max_regression > 0:
            raise InvalidArgument(
                f"max_regression must be above 0, got {self.max_regression}; 0.5 ends a trial when "
                "the objective is half as bad again as at planting"
            )
        if not 0 <= self.share <= 1:
            raise InvalidArgument(
                f"trial_share is a share of the epochs left, 0 to 1, got {self.share}"
            )
        if not 0 <= self.max_dropped <= 1:
            raise InvalidArgument(f"max_dropped is a share, 0 to 1, got {self.max_dropped}")

    def judge(
        self, cohort: Sequence[SeedState], *, regression: float | None, state: SystemState
    ) -> list[Choice]:
        """What to do with the live seeds of one cohort.

        Seeds that are paused or not yet PROBATIONARY are left alone.

        Args:
            cohort: its live seeds.
            regression: relative worsening of the objective since it was planted, if known;
                infinite when the objective is not finite.
            state: at the boundary.
        """
        steps_per_epoch = state.steps_per_epoch
        lifetime = _lifetime(cohort[0].cohort, state.max_epochs)
        epochs = self.length(lifetime)
        on_trial = [
            seed for seed in cohort if seed.stage is SeedStage.PROBATIONARY and not seed.paused
        ]
        if regression is not None and not regression <= self.max_regression:
            worse = f"{regression:.0%} worse than at planting"
            finite = math.isfinite(regression)
            return _cull(on_trial, f"the objective is {worse if finite else 'not finite'}")
        choices = []
        for seed in on_trial:
            if self._drops_too_many(seed, steps_per_epoch):
                choices += _cull(
                    [seed], f"{seed.dropped_gradients} of {steps_per_epoch} gradients not finite"
                )
            elif has_passed(seed):
                if all(has_passed(other) for other in cohort):
                    choices += _fossilize([seed], "the whole cohort passed")
                elif seed.age >= epochs:
                    choices += _fossilize([seed], "passed, and its trial is over")
            elif seed.age >= epochs and _loses(seed):
                choices += _cull([seed], f"no gain worth its rent in {seed.age} epochs of trial")
            elif seed.age >= self.epochs and _is_hopeless(seed, epochs - seed.age, lifetime):
                choices += _cull(
                    [seed], f"after {seed.age} epochs of trial no more are worth their rent"
                )
        return choices

    def length(self, lifetime: int | None) -> int:
        """Most epochs in PROBATIONARY of a cohort.

        Args:
            lifetime: epochs that were left at its planting, None where the run is open-ended.
        """
        if lifetime is None:
            return self.epochs
        return max(self.epochs, math.ceil(self.share * lifetime))

    def _drops_too_many(self, seed: SeedState, steps_per_epoch: int) -> bool:
        dropped = seed.dropped_gradients
        return dropped is not None and dropped > self.max_dropped * steps_per_epoch


def live(slots: Iterable[SeedState]) -> list[SeedState]:
    """The slots that hold a live seed."""
    return [slot for slot in slots if slot.stage in LIVE_STAGES]


def cohorts(slots: Iterable[SeedState]) -> list[list[SeedState]]:
    """Live seeds that were planted at the same boundary, in the order of their first slot."""
    groups: dict[int | None, list[SeedState]] = {}
    for seed in live(slots):
        groups.setdefault(seed.cohort, []).append(seed)
    return list(groups.values())


def has_passed(seed: SeedState) -> bool:
    """True when G4 passed and the seed may be fossilised."""
    return (
        seed.gate is not None
        and seed.gate.gate is Gate.G4_SYSTEM_IMPACT
        and seed.gate.passed
        and CommandKind.FOSSILIZE in seed.legal
    )


def is_last(state: SystemState) -> bool:
    """True at the last boundary of the run."""
    return state.max_epochs is not None and state.epoch >= state.max_epochs - 1


def settle(slots: Iterable[SeedState]) -> list[Choice]:
    """The last boundary: keep what passed, remove the rest, leave no seed alive."""
    choices = []
    for seed in live(slots):
        if has_passed(seed):
            choices += _fossilize([seed], "last boundary")
        else:
            choices += _cull([seed], f"last boundary and it is {seed.stage.name}")
    return choices


def describe(seed: SeedState) -> str:
    """Gain and rent of a seed, or what of them is missing, in words."""
    if seed.gain is None or seed.rent is None:
        return "its gain was not measured"
    sign = ">=" if seed.gain >= seed.rent else "<"
    return f"gain {seed.gain:.2%} {sign} rent {seed.rent:.2%}"


def _loses(seed: SeedState) -> bool:
    """True when gain and rent were measured and the gain does not pay (a NaN gain never pays)."""
    if seed.gain is None or seed.rent is None:
        return False
    return math.isnan(seed.rent) or not seed.gain >= seed.rent


def _lifetime(planted: int | None, max_epochs: int | None) -> int | None:
    """Epochs that were left when a cohort was planted."""
    return None if planted is None or max_epochs is None else max_epochs - 1 - planted


def _is_hopeless(seed: SeedState, epochs: int, lifetime: int | None) -> bool:
    """True when a seed that loses is not worth any of the epochs that its trial may still last."""
    if seed.gain is None or seed.rent is None or lifetime is None or not _loses(seed):
        return False
    if not (math.isfinite(seed.gain) and math.isfinite(seed.rent)):
        return False
    shortfall = seed.rent - seed.gain
    return not worth_waiting(shortfall, owed=seed.rent, epochs=epochs, lifetime=lifetime)


def _fossilize(seeds: Iterable[SeedState], why: str) -> list[Choice]:
    return [
        Choice(kind=CommandKind.FOSSILIZE, slot=seed.slot, reason=f"{why}: {describe(seed)}")
        for seed in seeds
    ]


def _cull(seeds: Iterable[SeedState], why: str) -> list[Choice]:
    """A cull of each seed that may be culled."""
    return [
        Choice(kind=CommandKind.CULL, slot=seed.slot, reason=f"{why}; {describe(seed)}")
        for seed in seeds
        if CommandKind.CULL in seed.legal
    ]
