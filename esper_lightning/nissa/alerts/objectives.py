"""Service-level objectives and their error budgets, of one run and of 30 days.

The burn rate is the share of bad events over the share that the objective allows: at 1 a budget
lasts exactly its period. Windows and rates are those of Google's Site Reliability Workbook,
chapter 5, "Alerting on SLOs": two windows must burn, a long one so that it matters, and a short one
so that it still does.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from esper_lightning.leyline import InvalidArgument, Severity
from esper_lightning.nissa.alerts.expressions import (
    Compare,
    Comparison,
    Expression,
    Increase,
    Now,
    Ratio,
    above,
    both,
)
from esper_lightning.nissa.metrics import Metric, Series, names

PERIOD_S = 30 * 86_400
"""The period of the long budget, in seconds."""

LEAST_EVENTS = 100
"""So many events make a run's own budget worth an alert."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceObjective:
    """What share of events must be good.

    Attributes:
        name: in lower case with underscores.
        text: what is promised, in words.
        total: counts the events.
        bad: counts those that were not good.
        target: share that must be good, between 0 and 1.

    Raises:
        InvalidArgument: the target leaves no budget, or is no share.
    """

    name: str
    text: str
    total: Metric
    bad: Metric
    target: float

    def __post_init__(self) -> None:
        if not 0 < self.target < 1:
            raise InvalidArgument(
                f"the target of {self.name} is between 0 and 1, both excluded, got {self.target}"
            )

    @property
    def budget(self) -> float:
        """Share that may be bad."""
        return 1 - self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class Burning:
    """Two windows in which a budget must burn for an alert.

    Attributes:
        name: how it burns, in one word.
        rate: times the rate at which the budget lasts its period.
        long_s: the long window.
        short_s: the short window.
        severity: how soon somebody should look.
    """

    name: str
    rate: float
    long_s: int
    short_s: int
    severity: Severity


OBJECTIVES = (
    ServiceObjective(
        name="step_latency",
        text="99 of 100 training steps are within the run's step budget",
        total=names.STEPS,
        bad=names.SLOW_STEPS,
        target=0.99,
    ),
    ServiceObjective(
        name="epochs_kept",
        text="95 of 100 epochs stand; the others are undone",
        total=names.EPOCHS,
        bad=names.ROLLBACKS,
        target=0.95,
    ),
    ServiceObjective(
        name="delivery",
        text="999 of 1,000 messages of a run are not dropped",
        total=names.PUBLISHED_MESSAGES,
        bad=names.DROPPED_MESSAGES,
        target=0.999,
    ),
)
"""What is promised."""

BURNINGS = (
    Burning(name="fast", rate=14.4, long_s=3_600, short_s=300, severity=Severity.CRITICAL),
    Burning(name="slow", rate=6.0, long_s=21_600, short_s=1_800, severity=Severity.WARNING),
)
"""Ways of burning that are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBudget:
    """What is left of a budget.

    Attributes:
        objective: name of the objective.
        total: events.
        bad: those that were not good.
        allowed: share that may be bad.
    """

    objective: str
    total: float
    bad: float
    allowed: float

    @property
    def burn_rate(self) -> float | None:
        """Share of bad events over the share that is allowed; None without events."""
        return self.bad / self.total / self.allowed if self.total > 0 else None

    @property
    def remaining(self) -> float:
        """What is left, 1 for all of it; below 0 when more was spent than there was."""
        rate = self.burn_rate
        return 1.0 if rate is None else 1.0 - rate


def run_budgets(samples: Mapping[Series, float], run: str) -> tuple[ErrorBudget, ...]:
    """The budgets of one run since its start, over all its processes.

    Args:
        samples: of the registries of the run's processes.
        run: its id.
    """

    def total_of(metric: Metric) -> float:
        return sum(
            value
            for series, value in samples.items()
            if series.name == metric.name and ("run", run) in series.labels
        )

    return tuple(
        ErrorBudget(
            objective=each.name,
            total=total_of(each.total),
            bad=total_of(each.bad),
            allowed=each.budget,
        )
        for each in OBJECTIVES
    )


def bad_share(objective: ServiceObjective, window_s: int) -> Expression:
    """Share of events that were bad in a window, by run and process."""
    return Ratio(Increase(objective.bad, window_s), Increase(objective.total, window_s))


def burns(objective: ServiceObjective, burning: Burning) -> Expression:
    """Where a budget burns in both windows."""
    limit = burning.rate * objective.budget
    long = above(bad_share(objective, burning.long_s), limit)
    return both(long, above(bad_share(objective, burning.short_s), limit))


def run_budget_spent(objective: ServiceObjective) -> Expression:
    """Where the events of a run since its start spent more than its budget."""
    spent = above(Ratio(Now(objective.bad), Now(objective.total)), objective.budget)
    return both(spent, Compare(Now(objective.total), Comparison.AT_LEAST, LEAST_EVENTS))
