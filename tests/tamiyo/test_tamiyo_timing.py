import math

import pytest
from growing_run import slot, state

from esper_lightning.leyline import FossilState, InvalidArgument
from esper_lightning.tamiyo.timing import Timing

FLAT = [(epoch, 1.0) for epoch in range(30)]
STEEP = [(epoch, 0.9**epoch) for epoch in range(30)]
DEFAULTS = {
    "min_epoch": 3,
    "min_improvement": 0.01,
    "window": 4,
    "latest_fraction": 0.5,
    "min_remaining": 4,
    "patience": 3,
}


def due(epoch, curve, *, last_change=None, slots=(), max_epochs=24, **options):
    seen = state(*slots, epoch=epoch, max_epochs=max_epochs)
    return Timing(**(DEFAULTS | options)).due(seen, curve[: epoch + 1], last_change=last_change)


def test_a_plateau_is_due_and_a_falling_curve_is_not():
    assert due(4, FLAT).yes
    assert due(4, FLAT).reason == "val/loss improves 0.0% an epoch; growing below 1.0%"
    assert "worsens" in due(4, [(epoch, 1.0 + epoch) for epoch in range(9)]).reason
    assert not due(4, STEEP).yes
    assert due(4, STEEP).reason == "val/loss still falls 10.5% an epoch; growing below 1.0%"


def test_min_epoch():
    assert not due(1, FLAT).yes
    assert due(2, FLAT).yes


def test_the_latest_useful_time_comes_on_a_falling_curve_too():
    assert not due(10, STEEP).yes
    assert due(11, STEEP).yes
    assert not due(11, STEEP, latest_fraction=None).yes
    assert not due(11, STEEP, max_epochs=None).yes


def test_it_comes_earlier_where_a_short_run_leaves_no_time():
    assert not due(2, STEEP, max_epochs=8, latest_fraction=0.9).yes
    assert due(3, STEEP, max_epochs=8, latest_fraction=0.9).yes


def test_it_is_for_the_first_cohort_only():
    fossil = FossilState(
        blueprint="around", parameters={}, num_parameters=1, planted_epoch=2, fossilized_epoch=5
    )
    assert not due(15, STEEP, slots=[slot(fossils=(fossil,))]).yes
    assert due(15, FLAT, slots=[slot(fossils=(fossil,))]).yes


def test_too_late():
    assert due(19, FLAT).yes
    assert not due(20, FLAT).yes
    assert "too late: epochs left 3" in due(20, FLAT).reason


def test_patience():
    assert not due(10, FLAT, last_change=8).yes
    assert due(11, FLAT, last_change=8).yes


def test_no_values_are_no_plateau():
    assert not due(4, []).yes
    assert "too few values" in due(4, []).reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_epoch": 0}, "min_epoch must be a whole number of at least 1, got 0"),
        ({"min_remaining": 0}, "min_remaining must be a whole number of at least 1, got 0"),
        ({"patience": -1}, "patience must be a whole number of at least 0, got -1"),
        ({"window": 2}, "window must be at least 3 values, got 2"),
        ({"min_improvement": math.nan}, "got nan"),
        ({"latest_fraction": 0.0}, "above 0 and at most 1, got 0"),
        ({"latest_fraction": 1.5}, "above 0 and at most 1, got 1.5"),
    ],
)
def test_rules_that_cannot_be_met_are_refused(options, message):
    with pytest.raises(InvalidArgument, match=message):
        Timing(**(DEFAULTS | options))
