"""A newer policy takes over if it proves itself, and goes as soon as it does not."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from growing_run import legal_at
from scripted_policies import (
    BAD,
    GOOD,
    NAME,
    Script,
    Scripted,
    Shelf,
    at,
    marks,
    reloading,
    run,
    told,
)

from esper_lightning.leyline import (
    CommandKind,
    InvalidArgument,
    PolicyStep,
    Risk,
    RiskLevel,
    SystemState,
)
from esper_lightning.tamiyo import Choice, Policy
from esper_lightning.tamiyo.reload import Reloading
from esper_lightning.tamiyo.reload.history import RECORDED
from esper_lightning.tamiyo.reload.reloading import KEPT, MAX_LOOKS, MAX_REASON, MAX_TOLD


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def risk(level: RiskLevel) -> Risk:
    return Risk(level=level, reason="the gradient jumps")


def test_without_updates_it_decides_as_its_policy(shelf: Shelf) -> None:
    policy, alone = reloading(shelf), Scripted(Script(mark="own"))
    assert policy.name == NAME
    assert [policy.decide(at(epoch)) for epoch in range(40)] == [
        alone.decide(at(epoch)) for epoch in range(40)
    ]
    assert policy.changes() == []


@pytest.mark.parametrize("does", GOOD)
def test_a_newer_one_decides_from_the_boundary_at_which_it_comes(shelf: Shelf, does: str) -> None:
    policy = reloading(shelf, version=3)
    assert run(policy, range(5)) == ["own"] * 5
    shelf.offer(4, Script(mark="new", does=does))
    choices = policy.decide(at(5))
    assert marks(choices) == "new"
    assert {each.policy_version for each in choices} == {4}
    (change,) = policy.changes()
    assert (change.run_id, change.epoch, change.policy) == ("run", 5, NAME)
    assert (change.step, change.before, change.after) == (PolicyStep.INSTALLED, 3, 4)
    assert (change.offered, change.reason) == (4, "new")
    assert run(policy, range(6, 20)) == ["new"] * 14
    assert policy.changes() == []


def test_the_highest_of_those_that_came_is_taken(shelf: Shelf) -> None:
    policy = reloading(shelf)
    for version in (2, 9, 4):
        shelf.offer(version, Script(mark=str(version)))
    assert run(policy, range(3)) == ["9"] * 3
    assert len(shelf.loaded) == 1
    assert told(policy.changes()) == [(0, "installed", 9)]


@pytest.mark.parametrize("conduct", BAD)
def test_who_misbehaves_on_trial_is_refused(shelf: Shelf, conduct: str) -> None:
    policy = reloading(shelf)
    run(policy, range(5))
    update = shelf.offer(1, Script(mark="bad", does=conduct, since=3))
    assert run(policy, range(5, 8)) == ["own"] * 3
    shelf.offer_again(update, update)
    assert run(policy, range(8, 10)) == ["own"] * 2
    (change,) = policy.changes()
    assert told([change]) == [(5, "refused", 1)]
    assert (change.before, change.after) == (None, None)
    assert change.reason.startswith("on trial, at epoch 3: ")
    assert any(text in change.reason for text in BAD[conduct][1].split("|"))
    (bad,) = shelf.loaded
    assert bad.closed


@pytest.mark.parametrize("conduct", BAD)
@pytest.mark.parametrize("since", [5, 7, 30], ids=["at once", "watched", "long after"])
def test_who_turns_bad_goes_before_it_has_decided_anything(
    shelf: Shelf, conduct: str, since: int
) -> None:
    policy = reloading(shelf)
    run(policy, range(4))
    shelf.offer(1, Script(mark="good"))
    run(policy, range(4, 5))
    shelf.offer(2, Script(mark="bad", does=conduct, since=since))
    decided = [policy.decide(at(epoch)) for epoch in range(5, 35)]
    assert [marks(each) for each in decided] == ["bad"] * (since - 5) + ["good"] * (35 - since)
    for epoch, choices in enumerate(decided, start=5):
        legal_at(at(epoch), choices)
    changes = policy.changes()
    assert told(changes) == [(4, "installed", 1), (5, "installed", 2), (since, "rolled_back", 2)]
    assert (changes[-1].before, changes[-1].after) == (2, 1)
    assert any(text in changes[-1].reason for text in BAD[conduct][1].split("|"))


def test_a_broken_one_does_not_hide_the_good_one_below_it(shelf: Shelf) -> None:
    policy = reloading(shelf)
    run(policy, range(2))
    for version in (5, 6):
        shelf.offer(version, Script(mark=str(version)))
    for mark in ("one", "two"):
        shelf.offer(7, Script(mark=mark))
    shelf.offer(8, None)
    assert run(policy, range(2, 5)) == ["6"] * 3
    assert told(policy.changes()) == [(2, "installed", 6), (2, "refused", 8), (2, "refused", 7)]
    shelf.offer(7, Script(mark="7"))  # a number that was looked at is used up
    assert run(policy, range(5, 7)) == ["6"] * 2


def test_what_was_refused_or_taken_out_never_comes_back_nor_does_what_is_below(
    shelf: Shelf,
) -> None:
    policy = reloading(shelf)
    taken_out = shelf.offer(5, Script(mark="bad", does="raises", since=2))
    run(policy, range(4))
    refused = shelf.offer(8, Script(mark="bad", does="raises"))
    run(policy, range(4, 6))
    policy.changes()
    lower = shelf.offer(7, Script(mark="lower"))
    shelf.offer_again(taken_out, refused)
    assert run(policy, range(6, 9)) == ["own"] * 3
    (change,) = policy.changes()
    assert told([change]) == [(6, "refused", 7)]
    assert change.reason == "it is version 7; 8 was here already"
    for _ in range(3):  # each is recorded once
        shelf.offer_again(taken_out, refused, lower)
        run(policy, range(9, 10))
    assert policy.changes() == []
    shelf.offer(9, Script(mark="higher"))
    assert run(policy, range(10, 12)) == ["higher"] * 2


def test_one_that_cannot_be_loaded_is_refused_and_says_why(shelf: Shelf) -> None:
    policy = reloading(shelf)
    shelf.offer(1, None)
    run(policy, range(1))
    shelf.offer(2, Script(mark="x", does="what nobody knows"))
    run(policy, range(1, 2))
    shelf.offer(3, Script(mark="x", name="another"))
    run(policy, range(2, 3))
    shelf.offer(4, Script(mark="x"), name="another")
    assert run(policy, range(3, 5)) == ["own"] * 2
    changes = policy.changes()
    assert told(changes) == [(epoch, "refused", epoch + 1) for epoch in range(4)]
    for change, why in zip(
        changes,
        [
            "KeyError",
            "nobody knows how to do",
            "what was loaded is the policy 'another'",
            "it is of the policy 'another'; 'scripted' decides here",
        ],
        strict=True,
    ):
        assert why in change.reason


def test_a_version_that_two_different_ones_claim_is_refused(shelf: Shelf) -> None:
    policy = reloading(shelf)
    shelf.offer(4, Script(mark="one"))
    shelf.offer(4, Script(mark="two"))
    assert run(policy, range(3)) == ["own"] * 3
    (change,) = policy.changes()
    assert told([change]) == [(0, "refused", 4)]
    assert change.reason == "2 different ones have its version"
    assert shelf.loaded == []


def test_it_is_tried_on_the_last_boundaries_in_their_order_and_knows_them_then(
    shelf: Shelf,
) -> None:
    policy = reloading(shelf)
    run(policy, range(50))
    shelf.offer(1, Script(mark="new"))
    run(policy, range(50, 52))
    (new,) = shelf.loaded
    assert new.epochs == [*range(50 - RECORDED, 50), 50, 51]


def test_the_one_before_learns_what_it_has_missed(shelf: Shelf) -> None:
    policy = reloading(shelf)
    run(policy, range(3))
    shelf.offer(1, Script(mark="good"))
    run(policy, range(3, 5))
    shelf.offer(2, Script(mark="bad", does="raises", since=8))
    run(policy, range(5, 10))
    good, _ = shelf.loaded
    assert good.epochs == list(range(10))


def test_whoever_fails_in_turn_leaves_the_run_to_its_own_policy(shelf: Shelf) -> None:
    policy = reloading(shelf)
    for version in range(1, 6):
        shelf.offer(version, Script(mark=str(version), does="raises", since=10))
        assert run(policy, range(version, version + 1)) == [str(version)]
    assert [each.closed for each in shelf.loaded] == [True, True, True, False, False]
    assert run(policy, range(10, 12)) == ["own"] * 2
    assert told(policy.changes())[-2:] == [(10, "rolled_back", 5), (10, "rolled_back", 4)]
    assert KEPT == 3


def test_what_the_runs_own_policy_raises_ends_the_run(shelf: Shelf) -> None:
    policy = reloading(shelf, does="raises")
    with pytest.raises(ZeroDivisionError):
        policy.decide(at(0))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("boundaries", [1, 2, 3])
@pytest.mark.parametrize("level", [RiskLevel.ORANGE, RiskLevel.CRITICAL])
def test_a_new_one_under_which_the_risk_rises_goes(
    shelf: Shelf, level: RiskLevel, boundaries: int, when: str
) -> None:
    policy = reloading(shelf)
    run(policy, range(5))
    shelf.offer(1, Script(mark="new"))
    end = 5 + boundaries
    assert run(policy, range(5, end)) == ["new"] * boundaries
    policy.heed(risk(level))
    if when == "after":  # the boundary is decided again
        assert marks(policy.decide(at(end - 1))) == "own"
        expected = end - 1
    else:
        expected = end
    assert run(policy, range(end, end + 3)) == ["own"] * 3
    changes = policy.changes()
    assert told(changes) == [(5, "installed", 1), (expected, "rolled_back", 1)]
    assert changes[-1].reason.startswith(f"risk {level.name} {boundaries} boundaries after")
    assert changes[-1].reason.endswith("the gradient jumps")


def test_the_risk_is_not_held_against_who_has_been_there_for_longer(shelf: Shelf) -> None:
    policy = reloading(shelf, watch=2)
    shelf.offer(1, Script(mark="new"))
    run(policy, range(3))
    policy.heed(risk(RiskLevel.CRITICAL))
    assert run(policy, range(3, 6)) == ["new"] * 3


def test_a_little_risk_is_held_against_nobody(shelf: Shelf) -> None:
    policy = reloading(shelf)
    shelf.offer(1, Script(mark="new"))
    for epoch in range(5):
        policy.heed(risk(RiskLevel.YELLOW))
        assert run(policy, range(epoch, epoch + 1)) == ["new"]


def test_while_the_risk_is_high_nothing_new_is_looked_at(shelf: Shelf) -> None:
    policy = reloading(shelf)
    shelf.offer(1, Script(mark="new"))
    policy.heed(risk(RiskLevel.RED))
    assert run(policy, range(4)) == ["own"] * 4
    policy.heed(risk(RiskLevel.GREEN))
    assert run(policy, range(4, 6)) == ["new"] * 2
    assert told(policy.changes()) == [(4, "installed", 1)]


def test_the_same_boundary_counts_once(shelf: Shelf) -> None:
    policy = reloading(shelf)
    for epoch in (0, 1, 1, 2):
        policy.decide(at(epoch))
    shelf.offer(1, Script(mark="new"))
    policy.decide(at(3))
    assert shelf.loaded[0].epochs == [0, 1, 2, 3]


def test_who_cannot_be_asked_for_candidates_goes(shelf: Shelf) -> None:
    policy = reloading(shelf)
    assert [each.blueprint for each in policy.candidates(at(0))] == ["around"]
    shelf.offer(1, Script(mark="new", offers=False))
    assert run(policy, range(2)) == ["new"] * 2
    assert policy.candidates(at(1)) == []
    assert run(policy, range(2, 3)) == ["own"]
    change = policy.changes()[-1]
    assert told([change]) == [(2, "rolled_back", 1)]
    assert "nothing to offer" in change.reason


class Forgetful(Scripted):
    """Its memory is no plain data."""

    def state_dict(self) -> dict[str, object]:
        return {"epochs": object()}


class Locked(Scripted):
    """It does not know its own memory again."""

    def load_state_dict(self, state: object) -> None:
        raise InvalidArgument("this is not mine")


@pytest.mark.parametrize("kind", [Forgetful, Locked])
def test_a_memory_that_would_not_survive_a_checkpoint_is_refused(
    shelf: Shelf, kind: type[Scripted]
) -> None:
    policy = Reloading(
        Scripted(Script(mark="own")), source=shelf, load=lambda update: kind(Script(mark="new"))
    )
    shelf.offer(1, Script(mark="new"))
    assert run(policy, range(3)) == ["own"] * 3
    assert told(policy.changes()) == [(0, "refused", 1)]
    policy.state_dict()


class Drawing(Policy):
    """Draws from whatever generator is there, wherever it can."""

    name = NAME

    def __init__(self) -> None:
        self._draw()

    def decide(self, state: SystemState) -> list[Choice]:
        self._draw()
        return [Choice(kind=CommandKind.NOOP, reason="drew")]

    def candidates(self, state: SystemState) -> list[Choice]:
        self._draw()
        return []

    def _draw(self) -> None:
        random.random()
        np.random.rand()
        torch.rand(3)


def test_a_loaded_policy_disturbs_no_random_numbers(shelf: Shelf) -> None:
    def numbers(offers: bool) -> list[float]:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        policy = Reloading(
            Scripted(Script(mark="own")), source=shelf, load=lambda update: Drawing()
        )
        if offers:
            shelf.offer(1, None)
        for epoch in range(3):
            policy.decide(at(epoch))
            policy.candidates(at(epoch))
        assert len(policy.changes()) == offers
        return [random.random(), float(np.random.rand()), float(torch.rand(1))]

    assert numbers(True) == numbers(False)


def test_a_flood_costs_a_few_looks_and_leaves_a_short_record(shelf: Shelf) -> None:
    policy = reloading(shelf, version=20_000)
    for version in range(1, 10_001):
        shelf.offer(version, None)
    assert run(policy, range(2)) == ["own"] * 2
    changes = policy.changes()
    assert len(changes) == MAX_TOLD + 1
    assert changes[-1].reason.startswith("and 9992 more, the last of them: it is version 10000")
    for version in range(30_001, 40_001):
        shelf.offer(version, Script(mark="bad", does="raises", since=1 if version % 2 else 0))
    assert run(policy, range(2, 5)) == ["own"] * 3
    assert len(shelf.loaded) == MAX_LOOKS
    assert told(policy.changes()) == [(2, "refused", 40_000 - look) for look in range(MAX_LOOKS)]


def test_what_it_says_of_others_words_is_short(shelf: Shelf) -> None:
    policy = reloading(shelf)
    shelf.offer(1, Script(mark="x", name="n" * 100_000))
    shelf.offer(1, Script(mark="x"), name="m" * 100_000)
    run(policy, range(1))
    changes = policy.changes()
    assert len(changes) == 2
    assert all(len(each.reason) <= MAX_REASON for each in changes)


def test_five_hundred_updates_of_any_conduct(shelf: Shelf) -> None:
    """No bad one decides anything; each is recorded once."""
    draws = random.Random(4)
    policy = reloading(shelf)
    bad: set[int] = set()
    for epoch in range(500):
        does = draws.choice([*BAD, *GOOD])
        shelf.offer(epoch + 1, Script(mark=str(epoch), does=does, since=draws.randint(0, 500)))
        if does in BAD:
            bad.add(epoch + 1)
        choices = policy.decide(at(epoch))
        for choice in choices:
            if choice.slot and not choice.refused:
                assert choice.kind in at(epoch).slot(choice.slot).legal
        policy.candidates(at(epoch))
    steps: dict[int, list[PolicyStep]] = {}
    for change in policy.changes():
        steps.setdefault(change.offered, []).append(change.step)
    assert len(steps) == 500
    ends = {PolicyStep.REFUSED, PolicyStep.ROLLED_BACK}
    assert all(sum(step in ends for step in taken) <= 1 for taken in steps.values())
    gone = {version for version, taken in steps.items() if ends & set(taken)}
    assert gone <= bad
    assert len(gone) > 150


@pytest.mark.parametrize("options", [{"watch": 0}, {"watch": True}, {"version": 0}])
def test_a_number_that_cannot_be_is_refused(shelf: Shelf, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(options))):
        reloading(shelf, **options)


def test_closing_lets_go_of_all(shelf: Shelf) -> None:
    own = Scripted(Script(mark="own"))
    policy = Reloading(own, source=shelf, load=shelf.load)
    shelf.offer(1, Script(mark="new"))
    run(policy, range(1))
    policy.close()
    assert own.closed
    assert shelf.loaded[0].closed
