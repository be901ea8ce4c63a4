import math

import pytest
from growing_run import CATALOGUE, GrowingRun, g4, slot, state

from esper_lightning.leyline import CommandKind, InvalidArgument, SeedStage
from esper_lightning.tamiyo import FRAGrow, GrowthBudget


def policy(**options) -> FRAGrow:
    return FRAGrow(**({"catalogue": CATALOGUE} | options))


def planted(deciding: FRAGrow, *, risk: float | None, epochs: int = 24, slots: str = "abc"):
    """Epochs done at each planting of a run whose training is so many points above validation."""
    metrics = {} if risk is None else {"train/acc": 0.5 + risk / 100, "val/acc": 0.5}
    found = []
    for epoch in range(epochs):
        seen = state(*map(slot, slots), epoch=epoch, max_epochs=epochs, metrics=metrics)
        choices = deciding.decide(seen)
        found += [(epoch + 1, choice.slot) for choice in choices if choice.slot]
    return found


def test_it_grows_slowly_where_the_network_overfits():
    assert planted(policy(), risk=40.0) == [(5, "a"), (10, "b"), (15, "c")]  # 18 / 3, just below


def test_it_grows_at_once_where_the_network_underfits():
    assert planted(policy(), risk=-10.0) == [(1, "a"), (2, "b"), (3, "c")]


def test_at_alpha_it_grows_half_as_fast_as_it_may():
    assert planted(policy(alpha=7.0), risk=7.0) == [(3, "a"), (6, "b"), (9, "c")]


@pytest.mark.parametrize("risk", [None, math.nan])
def test_without_accuracies_it_is_periodic(risk):
    assert planted(policy(), risk=risk) == [(6, "a"), (12, "b"), (18, "c")]


@pytest.mark.parametrize(("share", "last"), [(0.0, 24), (0.25, 18), (0.5, 12)])
def test_the_last_epochs_are_for_fine_tuning(share, last):
    found = planted(policy(fine_tuning=share), risk=None)
    assert [done for done, _ in found] == [last // 3, 2 * last // 3, last][: len(found)]
    late = state(slot(), epoch=last, max_epochs=24)
    if last < 23:
        assert (
            f"nothing grows after {last} of 24" in policy(fine_tuning=share).decide(late)[0].reason
        )


def test_each_slot_gets_its_share_of_the_budget():
    deciding = policy(budget=GrowthBudget(max_parameters=900))
    found = []
    grown = 0
    for epoch in range(24):
        seen = state(*map(slot, "abc"), epoch=epoch, num_parameters=1000 + grown)
        for choice in deciding.decide(seen):
            if choice.slot:
                cost = CATALOGUE[choice.blueprint].num_parameters(slot().shape, choice.parameters)
                found.append(cost)
                grown += cost
    assert len(found) == 3
    assert all(200 < cost <= 900 - sum(found[:number]) for number, cost in enumerate(found))


def test_a_slot_that_is_taken_is_passed_over():
    seen = state(slot("a", SeedStage.EMBARGOED), slot("b"), epoch=11)
    assert [choice.slot for choice in policy().decide(seen)] == ["b"]
    taken = state(slot("a", SeedStage.EMBARGOED), slot("b", SeedStage.BLENDING), epoch=11)
    assert "nothing fits a free slot" in policy().decide(taken)[0].reason


def test_what_passed_stays_and_nothing_is_culled_before_the_last_boundary():
    seeds = (
        slot("a", SeedStage.PROBATIONARY, gate=g4(True), gain=0.2, rent=0.1),
        slot("b", SeedStage.PROBATIONARY, gate=g4(False), gain=-0.9, rent=0.1, age=9),
    )
    choices = policy().decide(state(*seeds, epoch=2))
    assert [(choice.kind.name, choice.slot) for choice in choices] == [("FOSSILIZE", "a")]
    choices = policy().decide(state(*seeds, epoch=23))
    assert [choice.kind.name for choice in choices] == ["FOSSILIZE", "CULL"]


def test_an_open_ended_run_does_not_grow():
    seen = state(slot(), max_epochs=None)
    assert "how long the run is" in policy().decide(seen)[0].reason


def test_a_whole_run_grows_in_every_slot():
    run = GrowingRun().run(policy())
    assert all(each.fossils for each in run.slots)


def test_candidates_are_what_it_plants():
    seen = state(slot("a"), slot("b"), epoch=8)
    deciding = policy()
    (candidate,) = deciding.candidates(seen)
    (choice,) = deciding.decide(seen)
    assert choice.kind is candidate.kind is CommandKind.GERMINATE
    assert (choice.slot, choice.blueprint, choice.parameters) == (
        candidate.slot,
        candidate.blueprint,
        candidate.parameters,
    )
    assert "due" in choice.reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": math.inf}, "finite, got inf"),
        ({"alpha": "x"}, "alpha must be a number"),
        ({"fine_tuning": 1.0}, "below 1, got 1.0"),
        ({"fine_tuning": math.nan}, "got nan"),
    ],
)
def test_arguments(options, message):
    with pytest.raises(InvalidArgument, match=message):
        policy(**options)
