"""Expressions over series: each is written as PromQL and worked out here, with the same outcome."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from esper_lightning.nissa.metrics import History, Kind, Labels, Metric, increase

Vector = Mapping[Labels, float]
"""Values by labels: what an expression is at one moment."""


class Expression(ABC):
    """An instant vector of PromQL."""

    @abstractmethod
    def promql(self) -> str:
        """As Prometheus reads it."""

    @abstractmethod
    def value(self, history: History) -> Vector:
        """What it is at the last moment of ``history``."""

    @abstractmethod
    def metrics(self) -> frozenset[Metric]:
        """What it looks at."""

    @abstractmethod
    def span_s(self) -> float:
        """Seconds that it looks back."""


class Comparison(str, Enum):
    """How a value must stand to a number; what does not is left out."""

    ABOVE = ">"
    AT_LEAST = ">="
    EQUAL = "=="


@dataclass(frozen=True, slots=True)
class Now(Expression):
    """A metric as it stands, or as it stood ``before_s`` seconds ago."""

    metric: Metric
    labels: Labels = ()
    before_s: int = 0

    def promql(self) -> str:
        """As Prometheus reads it."""
        offset = f" offset {duration(self.before_s)}" if self.before_s else ""
        return f"{_selector(self.metric, self.labels)}{offset}"

    def value(self, history: History) -> Vector:
        """What it is at the last moment of ``history``."""
        found = history.values(self.metric.name, before_s=self.before_s)
        return {labels: value for labels, value in found if set(self.labels) <= set(labels)}

    def metrics(self) -> frozenset[Metric]:
        """What it looks at."""
        return frozenset({self.metric})

    def span_s(self) -> float:
        """Seconds that it looks back."""
        return float(self.before_s)


@dataclass(frozen=True, slots=True)
class Increase(Expression):
    """How much a counter rose in the last ``window_s`` seconds."""

    metric: Metric
    window_s: int
    labels: Labels = ()

    def __post_init__(self) -> None:
        assert self.metric.kind is Kind.COUNTER, self.metric.name

    def promql(self) -> str:
        """As Prometheus reads it."""
        return f"increase({_selector(self.metric, self.labels)}[{duration(self.window_s)}])"

    def value(self, history: History) -> Vector:
        """What it is at the last moment of ``history``."""
        since = history.now - self.window_s
        risen = {
            labels: increase(points, since=since, until=history.now)
            for labels, points in history.ranges(self.metric.name, self.window_s)
            if set(self.labels) <= set(labels)
        }
        return {labels: rise for labels, rise in risen.items() if rise is not None}

    def metrics(self) -> frozenset[Metric]:
        """What it looks at."""
        return frozenset({self.metric})

    def span_s(self) -> float:
        """Seconds that it looks back."""
        return float(self.window_s)


@dataclass(frozen=True, slots=True)
class Ratio(Expression):
    """One expression over another, by labels; where the other is 0 there is no ratio."""

    part: Expression
    whole: Expression

    def promql(self) -> str:
        """As Prometheus reads it."""
        return f"{_inner(self.part)} / ({self.whole.promql()} > 0)"

    def value(self, history: History) -> Vector:
        """What it is at the last moment of ``history``."""
        whole = self.whole.value(history)
        return {
            labels: part / whole[labels]
            for labels, part in self.part.value(history).items()
            if whole.get(labels, 0.0) > 0
        }

    def metrics(self) -> frozenset[Metric]:
        """What it looks at."""
        return self.part.metrics() | self.whole.metrics()

    def span_s(self) -> float:
        """Seconds that it looks back."""
        return max(self.part.span_s(), self.whole.span_s())


@dataclass(frozen=True, slots=True)
class Compare(Expression):
    """The values that stand to a number as they must."""

    inner: Expression
    comparison: Comparison
    number: float

    def promql(self) -> str:
        """As Prometheus reads it."""
        return f"{_inner(self.inner)} {self.comparison.value} {self.number:.12g}"

    def value(self, history: History) -> Vector:
        """What it is at the last moment of ``history``."""
        found = self.inner.value(history)
        return {labels: value for labels, value in found.items() if self._holds(value)}

    def metrics(self) -> frozenset[Metric]:
        """What it looks at."""
        return self.inner.metrics()

    def span_s(self) -> float:
        """Seconds that it looks back."""
        return self.inner.span_s()

    def _holds(self, value: float) -> bool:
        if self.comparison is Comparison.EQUAL:
            return value == self.number
        return value > self.number or (
            self.comparison is Comparison.AT_LEAST and value == self.number
        )


class Joint(str, Enum):
    """How two vectors become one, by labels."""

    AND = "and"
    OR = "or"
    UNLESS = "unless"


@dataclass(frozen=True, slots=True)
class Joined(Expression):
    """The values of ``left`` that ``right`` has too, or has not; or those of both."""

    left: Expression
    joint: Joint
    right: Expression

    def promql(self) -> str:
        """As Prometheus reads it."""
        return f"({self.left.promql()}) {self.joint.value} ({self.right.promql()})"

    def value(self, history: History) -> Vector:
        """What it is at the last moment of ``history``."""
        left, right = self.left.value(history), self.right.value(history)
        if self.joint is Joint.OR:
            return {**right, **left}
        stays = self.joint is Joint.AND
        return {labels: value for labels, value in left.items() if (labels in right) is stays}

    def metrics(self) -> frozenset[Metric]:
        """What it looks at."""
        return self.left.metrics() | self.right.metrics()

    def span_s(self) -> float:
        """Seconds that it looks back."""
        return max(self.left.span_s(), self.right.span_s())


def above(inner: Expression, number: float) -> Expression:
    """The values above a number."""
    return Compare(inner, Comparison.ABOVE, number)


def both(left: Expression, right: Expression) -> Expression:
    """The values of ``left`` where there is a ``right``."""
    return Joined(left, Joint.AND, right)


def rose(metric: Metric, window_s: int, labels: Labels = ()) -> Expression:
    """Whether a counter rose in a window, its first appearance above 0 included.

    PromQL's ``increase`` is silent about a counter that was above 0 when it was first scraped.
    """
    now, before = Now(metric, labels), Now(metric, labels, window_s)
    appeared = Joined(above(now, 0), Joint.UNLESS, before)
    return Joined(above(Increase(metric, window_s, labels), 0), Joint.OR, appeared)


def duration(seconds: int) -> str:
    """A duration as PromQL writes it.

    >>> duration(300), duration(90), duration(86_400)
    ('5m', '90s', '1d')
    """
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _selector(metric: Metric, labels: Labels) -> str:
    chosen = ",".join(f'{name}="{value}"' for name, value in labels)
    return f"{metric.name}{{{chosen}}}" if chosen else metric.name


def _inner(inner: Expression) -> str:
    return inner.promql() if isinstance(inner, Now | Increase) else f"({inner.promql()})"
