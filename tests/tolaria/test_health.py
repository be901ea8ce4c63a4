"""When an epoch is not to be kept, by figures of the run itself."""

import math
import random
from typing import Any

import pytest

from esper_lightning.leyline import AlarmLevel, InvalidArgument
from esper_lightning.tolaria import Health, HealthRules, Reading


def reading(**changes: Any) -> Reading:
    usual: dict[str, Any] = {
        "loss": 1.0,
        "loss_deviation": 0.0,
        "gradient_norm": 2.0,
        "objective": 1.0,
        "mode": "min",
        "finite": True,
        "blocked": 0,
        "grown": True,
    }
    return Reading(**{**usual, **changes})


def trained(*losses: float, **rules: Any) -> Health:
    health = Health(HealthRules(**rules))
    for loss in losses:
        assert health.judge(reading(loss=loss, objective=loss)) is None
        health.accept(reading(loss=loss, objective=loss))
    return health


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({"loss": math.nan}, AlarmLevel.SEVERE, "the training loss is nan"),
        ({"loss": math.inf}, AlarmLevel.SEVERE, "the training loss is inf"),
        ({"finite": False}, AlarmLevel.SEVERE, "weights or buffers are not finite"),
        ({"objective": math.nan}, AlarmLevel.SEVERE, "the objective is nan"),
        ({"objective": -math.inf}, AlarmLevel.SEVERE, "the objective is -inf"),
        ({"loss": 9.0}, AlarmLevel.SEVERE, "9 is above its mean 0.3 by more than 14 times"),
        ({"objective": 2.3}, AlarmLevel.SEVERE, "from 0.2 to 2.3, which is 117% of what"),
        ({"blocked": 2}, AlarmLevel.SEVERE, "2 of the host's tensors get no gradient"),
        ({"gradient_norm": 10.1}, AlarmLevel.MINOR, "10.1 is more than 5 times its mean 2"),
    ],
)
def test_what_is_wrong_is_told_with_its_figures(
    change: dict[str, Any], level: AlarmLevel, words: str
) -> None:
    health = trained(2.0, 0.4, 0.2, window=2)
    assert health.judge(reading(loss=0.2, objective=0.2)) is None
    alarm = health.judge(reading(**{"loss": 0.2, "objective": 0.2, **change}))
    assert alarm is not None
    assert alarm.level is level
    assert words in alarm.what


def test_losses_below_the_first_one_never_explode() -> None:
    health = trained(2.0, 1e-6, 1e-6, 1e-6, window=2)
    assert health.judge(reading(loss=1.9, objective=1e-6)) is None


@pytest.mark.parametrize("usual", [0.3, 3e-4, 2.0])
def test_a_positive_loss_may_reach_fifteen_times_its_mean(usual: float) -> None:
    health = trained(usual, usual, usual)
    for times, told in ((14.9, False), (15.1, True)):
        found = health.judge(reading(loss=times * usual, objective=usual))
        assert (found is not None) is told


@pytest.mark.parametrize(
    ("losses", "deviation", "kept", "exploded"),
    [
        pytest.param([-0.1, -0.8, -0.82], 0.05, [-0.7, 0.0, 1.0], [50.0], id="cosine similarity"),
        pytest.param([3.0, -40.0, -55.0], 2.0, [-45.0, 2.0, 40.0], [1e4], id="log density"),
        pytest.param([-55.0, -55.1, -55.0], 0.1, [-54.0, -50.0], [1e4], id="trained before"),
        pytest.param([1e-5, -2e-4, 1e-4], 0.3, [0.2, -0.5, 2.0], [9.0], id="noise around 0"),
        pytest.param([2.0, 0.5, -1.0], 0.3, [-1.2, 1.0], [40.0], id="crossing 0"),
        pytest.param([0.0, 0.0, 0.0], 0.0, [0.0], [1.0], id="exactly 0"),
    ],
)
def test_a_loss_need_not_be_positive(
    losses: list[float], deviation: float, kept: list[float], exploded: list[float]
) -> None:
    health = Health(HealthRules())
    for loss in losses:
        told = reading(loss=loss, loss_deviation=deviation, grown=False)
        assert health.judge(told) is None
        health.accept(told)
    for loss in kept + exploded:
        alarm = health.judge(reading(loss=loss, grown=False))
        assert (alarm is not None) is (loss in exploded), loss


@pytest.mark.parametrize("change", [{"objective": 50.0}, {"objective": math.nan}, {"blocked": 3}])
def test_without_growth_a_drop_is_the_hosts_own(change: dict[str, Any]) -> None:
    health = trained(2.0, 0.4, 0.2)
    assert health.judge(reading(loss=0.2, grown=False, **{"objective": 0.2, **change})) is None


def test_a_score_that_is_maximised_may_fall_as_far_as_it_has_risen() -> None:
    health = Health(HealthRules())
    for accuracy in (0.1, 0.9):
        health.accept(reading(objective=accuracy, mode="max"))
    assert health.judge(reading(objective=0.11, mode="max")) is None
    assert health.judge(reading(objective=0.09, mode="max")) is not None
    assert health.judge(reading(objective=None, mode="max")) is None


def test_a_first_epoch_has_nothing_to_be_compared_with() -> None:
    health = Health(HealthRules())
    assert health.judge(reading(loss=1e9, gradient_norm=1e9, objective=1e9)) is None
    assert health.judge(reading(loss=math.nan)) is not None


def drops(*curve: float, mode: str = "min", **rules: float) -> bool:
    """Whether the last value of a curve is told to be a drop, after all before it were kept."""
    health = Health(HealthRules(**rules))
    for value in curve[:-1]:
        told = reading(objective=value, mode=mode)
        assert health.judge(told) is None
        health.accept(told)
    return health.judge(reading(objective=curve[-1], mode=mode)) is not None


def test_a_drop_of_next_to_no_gain_is_none() -> None:
    """The objective of a task on which nothing can be learned wanders about."""
    draw = random.Random(0)
    for _ in range(200):
        curve = [0.69 + draw.gauss(0, 0.02) for _ in range(12)]
        for n in range(2, 12):
            assert not drops(*curve[:n], mode="min")
            assert not drops(*curve[:n], mode="max")


def test_a_drop_is_larger_than_those_that_went_before() -> None:
    assert drops(2.3, 1.0, 0.9, 0.8, 2.6), "a curve that never got worse"
    assert not drops(2.3, 1.0, 1.7, 0.8, 2.9), "by 0.7 it did, and came back"
    assert drops(2.3, 1.0, 1.7, 0.8, 4.0), "but never by three times that"
    zigzag = (0.754, 0.658, 0.697, 0.604, 0.641, 0.543)
    assert not drops(*zigzag, 0.76), "nor did it come down evenly"
    assert drops(*zigzag, 0.9)
    calm = (0.9, 0.8, 0.75, 0.71, 0.68, 0.66)
    assert drops(2.3, 1.0, 1.7, *calm, 2.4), "long ago"


def test_a_drop_is_of_the_objectives_own_size() -> None:
    assert not drops(-1000.0, -1010.0, -1015.0, -900.0)
    assert drops(-1000.0, -1010.0, -1015.0, -900.0, min_drop=0.1)
    assert drops(-1000.0, -1010.0, -1015.0, -700.0)


@pytest.mark.parametrize(("loss", "worst"), [(0.9, 4.9), (1.0, 1.9), (1.1, 1.9), (None, 1.9)])
def test_evaluation_may_swing_further_while_the_training_loss_falls(loss, worst) -> None:
    health = Health(HealthRules())
    for value in (2.0, 1.0):
        health.accept(reading(loss=1.0, objective=value))
    assert health.judge(reading(loss=loss, objective=worst)) is None
    alarm = health.judge(reading(loss=loss, objective=worst + 1.2))
    assert alarm is not None
    assert "the objective went from 1 to" in alarm.what


def test_an_objective_that_is_not_finite_is_no_measure_for_later_ones() -> None:
    health = trained(2.0, 0.4, 0.2)
    before = health.state_dict()
    health.accept(reading(loss=0.2, objective=math.nan, grown=False))
    assert health.state_dict()["objectives"] == before["objectives"]


def test_it_goes_on_where_it_was() -> None:
    health = trained(2.0, 0.4, 0.2, window=2)
    other = Health(HealthRules(window=2))
    other.load_state_dict(health.state_dict())
    bad = reading(loss=9.0, objective=0.2)
    assert other.judge(bad) == health.judge(bad)
    assert other.state_dict() == health.state_dict()


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"loss_factor": 1.0}, "loss_factor must be above 1"),
        ({"gradient_factor": "5"}, "gradient_factor must be above 1, got '5'"),
        ({"max_drop": math.nan}, "max_drop must be above 0"),
        ({"min_drop": -0.1}, "min_drop must be 0 or above"),
        ({"window": 0}, "window must be a whole number of at least 1"),
        ({"max_rollbacks": True}, "max_rollbacks must be a whole number"),
        ({"period": 2.0}, "period must be a whole number"),
    ],
)
def test_thresholds_that_mean_nothing_are_refused(rules: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        HealthRules(**rules)
