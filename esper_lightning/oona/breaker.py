"""A breaker: after failures it lets nothing through for a while, then one trial."""

import time
from collections.abc import Callable
from enum import Enum

from esper_lightning.leyline import InvalidArgument


class BreakerState(str, Enum):
    """``CLOSED`` lets everything through, ``OPEN`` nothing, ``HALF_OPEN`` one trial."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Counts failures in a row, and says when to try again. For one thread.

    Args:
        failures: in a row that open it.
        wait_s: seconds that it stays open first; each failed trial doubles them.
        most_s: at most so many.
        clock: seconds that only grow.

    Raises:
        InvalidArgument: a number is not positive, or the longest wait is below the first.

    >>> breaker = Breaker(failures=1, wait_s=60)
    >>> breaker.failed()
    >>> breaker.state, breaker.allows()
    (<BreakerState.OPEN: 'open'>, False)
    """

    def __init__(
        self,
        *,
        failures: int = 3,
        wait_s: float = 0.1,
        most_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if failures < 1 or not wait_s > 0:
            raise InvalidArgument(
                f"a breaker opens after at least 1 failure for more than 0 s, "
                f"got {failures} and {wait_s}"
            )
        self.times_opened = 0
        self._limit = failures
        self._first_s, self._most_s = wait_s, max(most_s, wait_s)
        self._clock = clock
        self._failures = 0
        self._wait_s = wait_s
        self._until: float | None = None

    @property
    def state(self) -> BreakerState:
        """Where it stands now."""
        if self._until is None:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self._clock() >= self._until else BreakerState.OPEN

    def allows(self) -> bool:
        """Whether to try now."""
        return self.state is not BreakerState.OPEN

    def remaining_s(self) -> float:
        """Seconds until it allows a trial; 0 where it allows one now."""
        return 0.0 if self._until is None else max(0.0, self._until - self._clock())

    def succeeded(self) -> None:
        """A try went well: it is closed."""
        self._failures = 0
        self._wait_s = self._first_s
        self._until = None

    def failed(self) -> None:
        """A try went wrong."""
        self._failures += 1
        if self._until is not None:  # the trial failed
            self._wait_s = min(2 * self._wait_s, self._most_s)
        if self._failures >= self._limit:
            self.times_opened += self._until is None
            self._until = self._clock() + self._wait_s
