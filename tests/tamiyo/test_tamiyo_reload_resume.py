"""A resumed run decides as the uninterrupted one, whoever decided when it was saved."""

import json
from typing import Any

import pytest
from scripted_policies import NAME, Script, Scripted, Shelf, at, reloading, run, saved, told

from esper_lightning.leyline import InvalidArgument, PolicyChanged, Risk, RiskLevel
from esper_lightning.tamiyo import Choice
from esper_lightning.tamiyo.reload import PolicyRefused, Reloading

END = 24

OFFERS = {
    3: (1, Script(mark="first", does="culls")),
    6: (2, Script(mark="second", does="raises", since=8)),
    10: (3, Script(mark="refused", does="value NaN")),
    11: (3, Script(mark="refused again")),
    13: (4, Script(mark="fourth", does="plants")),
    17: (5, Script(mark="fifth", does="two NOOPs", since=23)),
}
"""By epoch. At 14 the risk is high, too."""


def story(policy: Reloading, shelf: Shelf, epochs: range) -> list[tuple[Any, ...]]:
    """What is decided at each boundary, and what changes there."""
    happened = []
    for epoch in epochs:
        if epoch in OFFERS:
            shelf.offer(*OFFERS[epoch])
        choices: list[Choice] = policy.decide(at(epoch))
        changes: list[PolicyChanged] = policy.changes()
        happened.append((epoch, choices, changes))
        level = RiskLevel.ORANGE if epoch == 14 else RiskLevel.GREEN
        policy.heed(Risk(level=level))
    return happened


def test_the_story_has_every_turn() -> None:
    shelf = Shelf()
    happened = story(reloading(shelf), shelf, range(END))
    marks = [choices[0].reason.split()[0] for _, choices, _ in happened]
    assert marks == [
        *["own"] * 3,
        *["first"] * 3,
        *["second"] * 2,
        *["first"] * 5,
        *["fourth"] * 2,
        *["first"] * 2,
        *["fifth"] * 6,
        "first",
    ]


@pytest.mark.parametrize("cut", range(1, END))
def test_a_resumed_run_decides_as_the_uninterrupted_one(cut: int) -> None:
    shelf = Shelf()
    uninterrupted = reloading(shelf)
    story(uninterrupted, shelf, range(cut))
    checkpoint = saved(uninterrupted)
    resumed = reloading(shelf)
    resumed.load_state_dict(checkpoint)
    assert resumed.name == NAME
    assert resumed.version == uninterrupted.version
    assert saved(resumed) == checkpoint
    expected = story(uninterrupted, shelf, range(cut, END))
    assert story(resumed, shelf, range(cut, END)) == expected


def test_a_state_that_it_did_not_save_changes_nothing() -> None:
    shelf = Shelf()
    shelf.offer(1, Script(mark="new"))
    policy = reloading(shelf)
    run(policy, range(4))
    before = saved(policy)
    own, new = before["policies"]
    for wrong in (
        {},
        {"epochs": [1]},  # of the policy alone
        before | {"policies": []},
        before | {"policies": [new, own]},
        before | {"policies": [own, own]},
        before | {"policies": [own, new | {"state": {"spells": 1}}]},
        before | {"policies": [own | {"state": {"spells": 1}}, new]},
        before | {"policies": [own, new | {"update": new["update"] | {"version": 0}}]},
        before | {"newest": "high"},
        before | {"history": [{"type": "state"}]},
        before | {"spells": 1},
    ):
        with pytest.raises((InvalidArgument, PolicyRefused)):
            policy.load_state_dict(wrong)
        assert saved(policy) == before


def test_where_the_one_that_decided_is_gone_resuming_says_so() -> None:
    shelf = Shelf()
    shelf.offer(7, Script(mark="new"))
    policy = reloading(shelf)
    run(policy, range(4))
    with pytest.raises(PolicyRefused, match="version 7 of the policy 'scripted' decided when"):
        reloading(Shelf()).load_state_dict(saved(policy))


def test_where_the_one_before_is_gone_resuming_goes_on_without(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shelf, other = Shelf(), Shelf()
    policy = reloading(shelf)
    for version in (1, 2):
        script = Script(mark=str(version), does="raises", since=9)
        shelf.offer(version, script)
        run(policy, range(version, version + 1))
    other.offer(2, script)
    other.poll()
    resumed = Reloading(Scripted(Script(mark="own")), source=other, load=other.load)
    resumed.load_state_dict(saved(policy))
    assert "version 1 cannot be gone back to: KeyError" in caplog.text
    assert run(resumed, range(3, 5)) == ["2"] * 2
    assert run(resumed, range(9, 11)) == ["own"] * 2
    assert told(resumed.changes()) == [(9, "rolled_back", 2)]


def test_a_checkpoint_holds_a_long_run_in_a_bounded_state() -> None:
    policy = reloading(Shelf())
    run(policy, range(60))
    size = len(json.dumps(policy.state_dict()))
    run(policy, range(60, 120))
    assert len(json.dumps(policy.state_dict())) < 1.2 * size
