import pytest

from esper_lightning.leyline import InvalidArgument
from esper_lightning.oona import Breaker, BreakerState


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_opens_after_failures_in_a_row_and_lets_one_trial_through() -> None:
    clock = Clock()
    breaker = Breaker(failures=3, wait_s=1.0, most_s=3.0, clock=clock)
    for _ in range(2):
        breaker.failed()
    assert breaker.state is BreakerState.CLOSED
    breaker.succeeded()
    for _ in range(3):
        assert breaker.allows()
        breaker.failed()
    assert breaker.state is BreakerState.OPEN
    assert breaker.remaining_s() == 1.0
    clock.now += 1.0
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.times_opened == 1


def test_each_failed_trial_doubles_the_wait_up_to_the_most() -> None:
    clock = Clock()
    breaker = Breaker(failures=1, wait_s=1.0, most_s=3.0, clock=clock)
    waits = []
    for _ in range(4):
        breaker.failed()
        waits.append(breaker.remaining_s())
        clock.now += waits[-1]
    assert waits == [1.0, 2.0, 3.0, 3.0]
    breaker.succeeded()
    breaker.failed()
    assert breaker.remaining_s() == 1.0


@pytest.mark.parametrize("arguments", [{"failures": 0}, {"wait_s": 0.0}, {"wait_s": float("nan")}])
def test_numbers_must_be_positive(arguments: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument, match="at least 1 failure"):
        Breaker(**arguments)  # type: ignore[arg-type]
