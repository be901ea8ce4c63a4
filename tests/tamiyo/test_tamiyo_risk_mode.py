"""Conservative mode and the pause quota."""

import pytest
from growing_run import slot
from risky_run import Drill, choose, done, level, plant, refused, resumed

from esper_lightning.leyline import CommandKind, InvalidArgument, RiskLevel, SeedStage
from esper_lightning.tamiyo.risk import ConservativeMode, RiskEngine, RiskRules

NAN = float("nan")
KINDS = CommandKind


def is_conservative(choices) -> bool:
    return choices[0].risk.conservative


def growing(**values):
    return slot("a", SeedStage.TRAINING, **values)


# -- conservative mode ----------------------------------------------------------------------------


def test_drill_conservative_mode_is_entered_at_critical_and_left_by_rule():
    drill = Drill().quiet(6)
    assert is_conservative(drill.at(loss=NAN))
    held = [drill.at() for _ in range(4)]
    assert [level(each) for each in held] == [
        RiskLevel.CRITICAL,
        RiskLevel.CRITICAL,
        RiskLevel.GREEN,
        RiskLevel.GREEN,
    ]
    assert all(is_conservative(each) for each in held)
    wanted = [plant("a"), plant("b"), plant("c", "parallel_conv")]
    reviewed = drill.at(choices=wanted[::-1])
    assert not is_conservative(reviewed)  # its stay is over, and the third GREEN one in a row
    assert len(done(reviewed)) == 3


def test_in_conservative_mode_green_plants_no_more_than_yellow():
    drill = Drill().quiet(3)
    drill.engine.mode.enter("three forged messages in a row")
    reviewed = drill.at(choices=[plant("a", "parallel_conv"), plant("b"), plant("c")])
    assert level(reviewed) is RiskLevel.GREEN
    assert done(reviewed) == [("GERMINATE", "b")]
    assert "three forged messages in a row" in reviewed[0].risk.reason
    assert "conservative mode" in reviewed[2].refused


def test_two_rises_to_red_within_a_window_enter_it():
    drill = Drill().quiet(9)
    twice = [drill.at(loss=1.8) for _ in range(2)]
    assert level(twice[-1]) is RiskLevel.RED
    calm = [drill.at() for _ in range(4)]
    assert level(calm[-1]) is RiskLevel.GREEN
    again = [drill.at(loss=1.8) for _ in range(2)]
    assert level(again[-1]) is RiskLevel.RED
    seen = [is_conservative(each) for each in (*twice, *calm, *again)]
    assert seen == [False] * 7 + [True]

    mode = ConservativeMode(RiskRules(red_window=6))
    for boundary in range(20):
        mode.observe(RiskLevel.RED if boundary % 6 == 0 else RiskLevel.GREEN, critical=False)
    assert not mode.active  # too far apart
    mode = ConservativeMode(RiskRules())
    for _ in range(9):
        mode.observe(RiskLevel.RED, critical=False)
    assert not mode.active  # one long RED rose once


def test_the_rises_that_entered_it_do_not_enter_it_again():
    mode = ConservativeMode(RiskRules(red_window=20, stay=1, greens=1))
    red, green = RiskLevel.RED, RiskLevel.GREEN
    active = []
    for seen in [red, green, red, green, red, green, red]:
        mode.observe(seen, critical=False)
        active.append(mode.active)
    assert active == [False, False, True, False, False, False, True]


def test_the_least_stay_doubles_with_each_entry_up_to_a_bound():
    mode = ConservativeMode(RiskRules(stay=2, greens=1))
    lasted = []
    for _ in range(6):
        mode.enter("a drill")
        boundaries = 0
        while mode.active:
            mode.observe(RiskLevel.GREEN, critical=False)
            boundaries += 1
        lasted.append(boundaries)
    assert lasted == [2, 4, 8, 16, 16, 16]


def test_it_is_not_left_before_enough_green_boundaries_in_a_row():
    mode = ConservativeMode(RiskRules(stay=1, greens=3))
    mode.enter("a drill")
    for seen in [RiskLevel.GREEN, RiskLevel.GREEN, RiskLevel.YELLOW] * 5:
        mode.observe(seen, critical=False)
    assert mode.active
    for _ in range(3):
        mode.observe(RiskLevel.GREEN, critical=False)
    assert not mode.active
    assert mode.reason == ""


def test_it_is_entered_for_a_reason():
    with pytest.raises(InvalidArgument, match="reason"):
        RiskEngine().mode.enter("")


def test_it_survives_a_resumption():
    drill = Drill()
    drill.at()
    drill.engine.mode.enter("a drill")
    drill.engine = resumed(drill.engine)
    assert drill.engine.mode.reason == "a drill"
    assert is_conservative(drill.at())


@pytest.mark.parametrize(
    "saved",
    [
        {},
        {"memory": {}, "mode": {}, "more": 1},
        {"memory": {"tracks": {}}, "mode": {}},
        {"memory": {"epoch": "two"}, "mode": {}},
        {"memory": {}, "mode": {"entries": "many"}},
    ],
)
def test_what_was_not_saved_by_it_is_refused_and_changes_nothing(saved):
    drill = Drill().quiet(6)
    drill.at(loss=NAN)
    before = drill.engine.state_dict()
    with pytest.raises(InvalidArgument):
        drill.engine.load_state_dict(saved)
    assert drill.engine.state_dict() == before


# -- pauses ---------------------------------------------------------------------------------------


def test_a_seed_that_was_not_at_fault_goes_on_when_its_quota_is_used_up():
    drill = Drill(RiskEngine(RiskRules(pause_limit=2))).quiet(6)
    assert done(drill.at(growing(), loss=NAN)) == [("PAUSE", "a")]
    assert done(drill.at(growing(paused=True), loss=NAN)) == [("NOOP", "")]
    reviewed = drill.at(growing(paused=True), loss=NAN)
    assert done(reviewed) == [("RESUME", "a")]
    assert "paused at 2 boundaries, 2 at most" in reviewed[-1].reason
    assert done(drill.at(growing(), loss=NAN)) == [("NOOP", "")]  # and is not paused again


@pytest.mark.parametrize("fault", [{"isolation_violations": 1}, {"dropped_gradients": 2}])
def test_one_that_was_at_fault_is_culled(fault):
    drill = Drill(RiskEngine(RiskRules(pause_limit=1))).quiet(6)
    drill.at(growing(**fault), loss=NAN)
    assert done(drill.at(growing(paused=True))) == [("CULL", "a")]


def test_the_quota_is_a_seeds_own():
    drill = Drill(RiskEngine(RiskRules(pause_limit=1))).quiet(6)
    drill.at(growing(paused=True, cohort=1))
    assert done(drill.at(growing(cohort=1), loss=NAN)) == [("NOOP", "")]
    assert done(drill.at(growing(cohort=8), loss=NAN)) == [("PAUSE", "a")]


def test_the_quota_holds_for_a_policy_too():
    drill = Drill(RiskEngine(RiskRules(pause_limit=2)))
    pause = [choose(KINDS.PAUSE, "a")]
    assert done(drill.at(growing(), choices=pause)) == [("PAUSE", "a")]
    assert done(drill.at(growing(paused=True))) == [("NOOP", "")]  # the policy's own business
    assert done(drill.at(growing(paused=True))) == [("RESUME", "a")]
    assert refused(drill.at(growing(), choices=pause)) == [("PAUSE", "a")]


def test_what_a_policy_paused_is_not_resumed_because_the_level_fell():
    drill = Drill().quiet(6)
    drill.at(growing(paused=True), loss=NAN)
    assert done(drill.at(growing(paused=True))) == [("NOOP", "")]


def test_a_pause_of_another_hand_is_not_taken_for_ones_own():
    drill = Drill(RiskEngine(RiskRules(pause_limit=9))).quiet(6)
    assert done(drill.at(growing(), loss=NAN)) == [("PAUSE", "a")]
    held = [drill.at(growing(paused=True)) for _ in range(3)]
    assert [done(each) for each in held] == [[("NOOP", "")], [("NOOP", "")], [("RESUME", "a")]]
    drill.at(growing(), choices=[choose(KINDS.PAUSE, "a")])
    assert done(drill.at(growing(paused=True))) == [("NOOP", "")]
