"""Series of a scrape: their names and labels, and what they were over the last hours."""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from esper_lightning.leyline import InvalidArgument

Labels = tuple[tuple[str, str], ...]
"""Names and values of labels, sorted by name."""


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """One series of a scrape.

    Attributes:
        name: as it stands in the scrape, ``_bucket`` and the like included.
        labels: names and values, sorted by name.
    """

    name: str
    labels: Labels = ()


LOOKBACK_S = 300.0
"""Seconds for which a sample counts as the value of a moment, as in Prometheus."""

Point = tuple[float, float]
"""A time in seconds, and a value."""


class History:
    """The samples of the last while, for the series that somebody asks about.

    Args:
        names: of the series that are kept.
        span_s: seconds that are looked back at most.

    Raises:
        InvalidArgument: at :meth:`append`, time runs backwards.
    """

    def __init__(self, names: frozenset[str], span_s: float) -> None:
        self.names = names
        self.span_s = span_s
        self.now = float("-inf")
        self._points: dict[Series, deque[Point]] = {}
        self._present: frozenset[Series] = frozenset()
        self._times: deque[tuple[float, frozenset[Series]]] = deque()

    def append(self, at: float, samples: Mapping[Series, float]) -> None:
        """Take the samples of one moment; a series that is not among them has ended."""
        if at < self.now:
            raise InvalidArgument(
                f"samples of {at} s come after those of {self.now} s; time may not run backwards"
            )
        self.now = at
        kept = {series: value for series, value in samples.items() if series.name in self.names}
        if self._present != kept.keys():
            self._present = frozenset(kept)
        for series, value in kept.items():
            self._points.setdefault(series, deque()).append((at, value))
        self._times.append((at, self._present))
        oldest = at - self.span_s - LOOKBACK_S
        while self._times and self._times[0][0] < oldest:
            self._times.popleft()
        for series in list(self._points):
            points = self._points[series]
            while points and points[0][0] < oldest:
                points.popleft()
            if not points:
                del self._points[series]

    def values(self, name: str, *, before_s: float = 0.0) -> Iterator[tuple[Labels, float]]:
        """Labels and value of every series of a name as it was ``before_s`` seconds ago."""
        at = self.now - before_s
        present = self._present if before_s == 0 else self._present_at(at)
        for series, points in self._points.items():
            if series.name == name and series in present:
                time, value = next((p for p in reversed(points) if p[0] <= at), (-math.inf, 0.0))
                if time >= at - LOOKBACK_S:
                    yield series.labels, value

    def ranges(self, name: str, window_s: float) -> Iterator[tuple[Labels, list[Point]]]:
        """Labels and points of every series of a name in the last ``window_s`` seconds."""
        since = self.now - window_s
        for series, points in self._points.items():
            if series.name == name:
                yield series.labels, [point for point in points if point[0] >= since]

    def _present_at(self, at: float) -> frozenset[Series]:
        return next((there for time, there in reversed(self._times) if time <= at), frozenset())


def increase(points: list[Point], *, since: float, until: float) -> float | None:
    """How much a counter rose in a window, as PromQL's ``increase`` tells it; None if it cannot.

    What a restart set back to 0 is added up. The rise between the first and the last point is
    extended to the edges of the window, unless they are far from the points, and not to before the
    counter was 0. (Prometheus 2: the window includes both its edges.)

    >>> increase([(0.0, 0.0), (60.0, 6.0)], since=0.0, until=60.0)
    6.0
    """
    if len(points) < 2:
        return None
    rise = points[-1][1] - points[0][1]
    previous = points[0][1]
    for _, value in points[1:]:
        if value < previous:
            rise += previous
        previous = value
    sampled_s = points[-1][0] - points[0][0]
    if sampled_s <= 0:
        return None
    start_s, end_s = points[0][0] - since, until - points[-1][0]
    mean_s = sampled_s / (len(points) - 1)
    if rise > 0 and points[0][1] >= 0:
        start_s = min(start_s, sampled_s * points[0][1] / rise)
    far_s = 1.1 * mean_s
    covered_s = sampled_s
    covered_s += start_s if start_s < far_s else mean_s / 2
    covered_s += end_s if end_s < far_s else mean_s / 2
    return rise * covered_s / sampled_s
