"""When a policy is good enough to be published: a rule that is fixed before anything is run.

Nothing is looked at in between, so that no number is tested more than once: who stops as soon as
a difference shows publishes by chance.
"""

import math
from collections.abc import Collection, Sequence

import msgspec

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_names, check_number, check_whole
from esper_lightning.simic.validation.comparison import (
    MIN_TASKS,
    Difference,
    Measured,
    Resampling,
    difference,
)

CANDIDATE, CURRENT = "candidate", "current"
"""Who decides: the policy that would be published, and the one that would be replaced."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What has to be shown.

    The candidate must reach more than the current policy on average, and the interval of the
    difference must lie above ``-margin``. It must reach more than each of ``better_than``, with an
    interval above 0. Where no margin is granted the test by signs must agree.

    With the default margin of 0 that is superiority: runs in progress take up what is published, so
    a tie is not worth the change. Of candidates that are as good as the current policy, about one
    in forty passes. A margin above 0 asks only that a candidate is not worse by more
    (non-inferiority), for one that is wanted for another reason; then up to half of those that are
    as good pass.

    Attributes:
        margin: of utility, at least 0.
        better_than: names of who must be beaten beside the current policy.
        min_tasks: fewer are too few; at least 2.
        min_seeds: of each task; likewise at least 1.
        resampling: how intervals are computed.

    Raises:
        InvalidArgument: a number outside of what is allowed, or so few tasks that nothing would
            ever be shown with this confidence.
    """

    margin: float = 0.0
    better_than: tuple[str, ...] = ("random", "never")
    min_tasks: int = 8
    min_seeds: int = 3
    resampling: Resampling = Resampling()

    def __post_init__(self) -> None:
        check_number("margin", self.margin)
        if not 0 <= self.margin < math.inf:
            raise InvalidArgument(f"margin must be at least 0 and finite, got {self.margin}")
        check_names("better_than", self.better_than)
        check_whole("min_tasks", self.min_tasks, least=MIN_TASKS)
        check_whole("min_seeds", self.min_seeds, least=1)
        if 0.5**self.min_tasks > self.resampling.tail:
            raise InvalidArgument(
                f"with {self.min_tasks} tasks the signs of all of them are one and the same by "
                f"chance with probability {0.5**self.min_tasks:.3g}, above the "
                f"{self.resampling.tail:.3g} that is asked for; raise min_tasks"
            )


def differences(measured: Sequence[Measured], rule: Rule) -> tuple[Difference, ...]:
    """The candidate beside all others, the current policy first; none where data are missing."""
    if unfit(measured, rule):
        return ()
    others = [who for who in measured[0].utilities if who not in (CANDIDATE, CURRENT)]
    return tuple(
        difference(measured, CANDIDATE, other, resampling=rule.resampling)
        for other in (CURRENT, *others)
    )


def unfit(measured: Sequence[Measured], rule: Rule) -> list[str]:
    """Why nothing can be said by what was measured, in words; empty where it can."""
    needed = {CANDIDATE, CURRENT, *rule.better_than}
    seeds: dict[str, list[int]] = {}
    for each in measured:
        seeds.setdefault(each.task, []).append(each.seed)
    found = []
    if len(seeds) < rule.min_tasks:
        found.append(f"{len(seeds)} tasks are too few; the rule asks for {rule.min_tasks}")
    few = [task for task, each in seeds.items() if len(set(each)) < rule.min_seeds]
    if few:
        found.append(
            f"{len(few)} tasks have fewer than {rule.min_seeds} seeds, the first is {few[0]}"
        )
    twice = [task for task, each in seeds.items() if len(set(each)) < len(each)]
    if twice:
        found.append(f"a seed stands twice in {twice[0]}")
    return [*found, *_missing(measured, needed)]


def _missing(measured: Sequence[Measured], needed: Collection[str]) -> list[str]:
    """Utilities that are not there or not finite, one line for each who decided."""
    names = sorted({*needed, *(who for each in measured for who in each.utilities)})
    found = []
    for who in names:
        values = [each.utilities.get(who) for each in measured]
        bad = [
            each
            for each, value in zip(measured, values, strict=True)
            if value is None or not math.isfinite(value)
        ]
        if bad:
            found.append(
                f"{len(bad)} of {len(measured)} utilities of {who} are missing or not finite, the "
                f"first on {bad[0].task} with seed {bad[0].seed}"
            )
    return found


def shortfalls(found: Sequence[Difference], rule: Rule) -> list[str]:
    """What the differences do not show though the rule asks for it, in words.

    Args:
        found: what :func:`differences` tells.
        rule: what is asked for.
    """
    by_name = {each.other: each for each in found}
    told = []
    for other in (CURRENT, *rule.better_than):
        each = by_name.get(other)
        if each is None:
            told.append(f"it was not compared with {other}")
            continue
        margin = rule.margin if other == CURRENT else 0.0
        if not each.mean.value > 0:
            told.append(f"it is not better than {other} on average: {each}")
        elif each.mean.low is None or not each.mean.low > -margin:
            told.append(f"that it is better than {other} may be chance: {each}")
        elif not margin and each.chance > rule.resampling.tail:
            told.append(f"that it is better than {other} may be chance, by signs: {each}")
    return told
