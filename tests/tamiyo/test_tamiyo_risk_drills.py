"""Drills: each level is raised, shows its reaction, and is left again."""

import pytest
from growing_run import slot
from risky_run import NOOP, TRUSTED, Drill, choose, done, level, plant, refused, resumed

from esper_lightning.leyline import CommandKind, FossilState, RiskLevel, SeedStage, SeedState
from esper_lightning.tamiyo import Choice

KINDS = CommandKind


def seed(name: str, stage: SeedStage = SeedStage.PROBATIONARY, **values) -> SeedState:
    return slot(name, stage, **values)


def rules(kind: CommandKind, *names: str):
    return lambda state: [Choice(kind=kind, slot=name, reason="a rule") for name in names]


def test_green_lets_everything_pass():
    drill = Drill().quiet(5)
    choices = [plant("a"), plant("b", "wide_residual_block"), choose(KINDS.CULL, "c")]
    reviewed = drill.at(slot("a"), slot("b"), seed("c"), choices=choices)
    assert level(reviewed) is RiskLevel.GREEN
    assert done(reviewed) == [("GERMINATE", "a"), ("GERMINATE", "b"), ("CULL", "c")]
    assert reviewed[0].risk is not None
    assert reviewed[0].risk.reason == "no signal is high"
    assert done(drill.at(choices=[NOOP])) == [("NOOP", "")]


def test_the_choice_to_do_no_more_passes_behind_what_is_done():
    drill = Drill().quiet(9)
    wanted = [plant("b"), plant("c"), NOOP]
    reviewed = drill.at(choices=wanted)
    assert level(reviewed) is RiskLevel.GREEN
    assert done(reviewed) == [("GERMINATE", "b"), ("GERMINATE", "c"), ("NOOP", "")]
    assert refused(reviewed) == []
    drill.at(loss=1.05)
    reviewed = drill.at(loss=1.05, choices=wanted)
    assert done(reviewed) == [("GERMINATE", "b"), ("NOOP", "")]
    assert refused(reviewed) == [("GERMINATE", "c")]
    rolled_back = Drill(rollbacks=0).at(choices=[choose(KINDS.ROLLBACK), NOOP])
    assert done(rolled_back) == [("ROLLBACK", "")]  # nothing follows it
    assert refused(rolled_back) == [("NOOP", "")]


def test_it_is_last_behind_what_the_rules_do():
    drill = Drill(fallback=rules(KINDS.CULL, "b")).quiet(9)
    slots = slot("a"), seed("b"), seed("c")
    drill.at(*slots, loss=1.3)
    reviewed = drill.at(*slots, loss=1.3, choices=[choose(KINDS.CULL, "b"), NOOP, NOOP])
    assert done(reviewed) == [("CULL", "b"), ("NOOP", "")]
    assert refused(reviewed) == [("NOOP", "")]


def test_drill_yellow_reduces_and_recovers():
    drill = Drill().quiet(9)
    wanted = [plant("a", "parallel_conv"), plant("b"), plant("c")]
    drill.at(loss=1.05)
    reviewed = drill.at(loss=1.05, choices=wanted)
    assert level(reviewed) is RiskLevel.YELLOW
    assert done(reviewed) == [("GERMINATE", "b")]
    assert refused(reviewed) == [("GERMINATE", "a"), ("GERMINATE", "c")]
    assert "not among the blueprints of the lowest risk" in reviewed[0].refused
    assert "one seed is planted at a boundary" in reviewed[2].refused
    assert "performance" in reviewed[0].risk.reason
    assert [level(drill.at(choices=wanted)) for _ in range(3)] == [
        RiskLevel.YELLOW,
        RiskLevel.YELLOW,
        RiskLevel.GREEN,
    ]
    assert len(done(drill.at(choices=wanted))) == 3


def test_drill_orange_falls_back_to_rules_and_recovers():
    drill = Drill(fallback=rules(KINDS.CULL, "b", "c")).quiet(9)
    slots = slot("a"), seed("b"), seed("c"), seed("d")
    choices = [
        plant("a"),
        choose(KINDS.FOSSILIZE, "b"),
        choose(KINDS.CULL, "c"),
        choose(KINDS.CULL, "d"),
    ]
    drill.at(*slots, loss=1.3)
    reviewed = drill.at(*slots, loss=1.3, choices=choices)
    assert level(reviewed) is RiskLevel.ORANGE
    assert done(reviewed) == [("CULL", "c"), ("CULL", "b")]
    assert refused(reviewed) == [("GERMINATE", "a"), ("FOSSILIZE", "b"), ("CULL", "d")]
    assert reviewed[2].reason == "the policy says so"  # where the rules agree, it is the policy's
    assert reviewed[4].reason.startswith("a rule; risk ORANGE: performance 0.")
    assert [level(drill.at()) for _ in range(3)] == [
        RiskLevel.ORANGE,
        RiskLevel.ORANGE,
        RiskLevel.GREEN,
    ]
    assert refused(drill.at(*slots, choices=choices)) == []


def test_drill_red_pauses_what_is_in_isolation_and_recovers():
    drill = Drill().quiet(9)
    growing, coupled = seed("a", SeedStage.TRAINING), seed("b")
    drill.at(growing, coupled, loss=1.8)
    reviewed = drill.at(growing, coupled, slot("c"), loss=1.8, choices=[plant("c")])
    assert level(reviewed) is RiskLevel.RED
    assert done(reviewed) == [("PAUSE", "a")]
    assert refused(reviewed) == [("GERMINATE", "c")]
    paused = seed("a", SeedStage.TRAINING, paused=True)
    for _ in range(2):
        reviewed = drill.at(paused, coupled, choices=[choose(KINDS.RESUME, "a")])
        assert level(reviewed) is RiskLevel.RED
        assert done(reviewed) == [("NOOP", "")]
        assert refused(reviewed) == [("RESUME", "a")]
    reviewed = drill.at(paused, coupled)
    assert level(reviewed) is RiskLevel.GREEN
    assert done(reviewed) == [("RESUME", "a")]
    assert refused(reviewed) == [("NOOP", "")]
    assert done(drill.at(growing, coupled)) == [("NOOP", "")]


def test_drill_critical_undoes_the_bad_epochs_once_and_becomes_conservative():
    drill = Drill(rollbacks=0).quiet(9)
    slots = seed("a"), seed("b", SeedStage.TRAINING), slot("c")
    swung = drill.at(*slots, loss=9.0)
    assert level(swung) is RiskLevel.ORANGE  # one swing is no reason to undo anything
    reviewed = drill.at(*slots, loss=9.0, choices=[plant("c"), choose(KINDS.CULL, "a")])
    assert level(reviewed) is RiskLevel.CRITICAL
    assert done(reviewed) == [("ROLLBACK", "")]
    assert reviewed[0].kind is KINDS.ROLLBACK  # nothing may come before it
    assert reviewed[0].parameters == {"boundaries": 2}
    assert refused(reviewed) == [("GERMINATE", "c"), ("CULL", "a")]
    assert reviewed[0].risk.conservative
    assert "conservative mode: the level was CRITICAL" in reviewed[0].risk.reason

    after = drill.at(*slots, rollbacks=1)  # the level is held; nothing is undone again
    assert level(after) is RiskLevel.CRITICAL
    assert done(after) == [("PAUSE", "b")]
    assert after[-1].risk.signals["lifecycle"] == 0  # its own rollback is no incident

    again = drill.at(*slots, loss=float("nan"), rollbacks=1)
    assert done(again) == [("EMERGENCY", "a"), ("PAUSE", "b")]  # so soon, the suspect goes instead
    levels = [level(drill.at(rollbacks=1)) for _ in range(3)]
    assert levels == [RiskLevel.CRITICAL, RiskLevel.CRITICAL, RiskLevel.GREEN]


def test_critical_without_a_governor_removes_what_acts_on_the_output():
    drill = Drill(fallback=rules(KINDS.FOSSILIZE, "a")).quiet(9)
    slots = (
        seed("a"),
        seed("b", SeedStage.BLENDING),
        seed("c", SeedStage.SHADOWING),
        seed("d", SeedStage.TRAINING),
        seed("e", paused=True),
    )
    drill.at(*slots, loss=9.0)
    reviewed = drill.at(*slots, loss=9.0, choices=[choose(KINDS.FOSSILIZE, "a")])
    assert done(reviewed) == [
        ("EMERGENCY", "a"),
        ("EMERGENCY", "b"),
        ("EMERGENCY", "c"),
        ("PAUSE", "d"),
        ("EMERGENCY", "e"),
    ]
    assert refused(reviewed) == [("FOSSILIZE", "a")]


def test_the_host_alone_is_never_rolled_back():
    drill = Drill(rollbacks=0).quiet(6)
    reviewed = drill.at(loss=float("nan"))
    assert level(reviewed) is RiskLevel.CRITICAL
    assert done(reviewed) == [("NOOP", "")]
    fossil = FossilState(
        blueprint="adapter", parameters={}, num_parameters=9, planted_epoch=1, fossilized_epoch=4
    )
    drill = Drill(rollbacks=0).quiet(6)
    reviewed = drill.at(slot("a", fossils=(fossil,)), loss=float("nan"))
    assert done(reviewed) == [("ROLLBACK", "")]  # what grew not long ago can have done it
    drill = Drill(rollbacks=0).quiet(6)
    reviewed = drill.at(seed("a", SeedStage.CULLED), loss=float("nan"))
    assert done(reviewed) == [("ROLLBACK", "")]  # and so can what ramps out


@pytest.mark.parametrize("loss", [1.1, 1.3, 1.8, 9.0, float("nan")])
def test_nothing_stops_the_settling_of_seeds_at_the_last_boundary(loss):
    drill = Drill(rollbacks=0, fallback=rules(KINDS.CULL, "d")).quiet(9)
    slots = seed("a"), seed("b", SeedStage.TRAINING), slot("c"), seed("d", paused=True)
    choices = [choose(KINDS.FOSSILIZE, "a"), choose(KINDS.CULL, "b"), plant("c")]
    drill.at(*slots, loss=loss)
    drill.engine.mode.enter("a drill")
    reviewed = drill.at(*slots, loss=loss, max_epochs=11, choices=choices)
    assert level(reviewed) > RiskLevel.GREEN
    assert {("FOSSILIZE", "a"), ("CULL", "b")} <= set(done(reviewed))
    assert not {"PAUSE", "ROLLBACK", "EMERGENCY", "RESUME"} & {kind for kind, _ in done(reviewed)}
    if level(reviewed) >= RiskLevel.ORANGE:
        assert ("CULL", "d") in done(reviewed)  # what the policy forgot is settled by rule
    pausing = [choose(KINDS.PAUSE, "b"), choose(KINDS.ROLLBACK)]
    reviewed = Drill(rollbacks=0).at(*slots, max_epochs=1, choices=pausing)
    assert refused(reviewed) == [("PAUSE", "b"), ("ROLLBACK", "")]


def test_a_boundary_that_comes_twice_is_assessed_once():
    drill = Drill(rollbacks=0).quiet(9)
    drill.at(seed("a"), loss=float("nan"))
    drill.epoch -= 1  # the run ended here, which nobody knew before
    before = drill.engine.state_dict()
    reviewed = drill.at(
        seed("a"), loss=float("nan"), max_epochs=10, choices=[choose(KINDS.CULL, "a")]
    )
    assert level(reviewed) is RiskLevel.CRITICAL
    assert done(reviewed) == [("CULL", "a")]
    assert drill.engine.state_dict() == before


def test_what_is_not_legal_is_refused_at_every_level():
    choices = [
        choose(KINDS.CULL, "a"),
        choose(KINDS.CULL, "nowhere"),
        choose(KINDS.ROLLBACK),
        choose(KINDS.CULL, "b"),
        choose(KINDS.FOSSILIZE, "b"),
    ]
    reviewed = Drill().at(slot("a"), seed("b"), choices=choices)
    assert done(reviewed) == [("CULL", "b")]
    assert len(refused(reviewed)) == 4
    assert done(Drill().at(choices=[])) == [("NOOP", "")]


def test_what_a_policy_refused_itself_stays_refused_for_its_own_reason():
    mine = Choice(kind=KINDS.CULL, slot="b", reason="why", refused="late")
    reviewed = Drill().at(seed("b"), choices=[mine, choose(KINDS.FOSSILIZE, "b")])
    assert [choice.refused for choice in reviewed] == ["late", ""]


def test_a_resumed_engine_goes_on_as_the_uninterrupted_one():
    losses = [*[None] * 8, 1.6, 1.6, None, 9.0, 9.0, None, 1.3, None, None, None, None, None]
    one, other = Drill(rollbacks=0), Drill(rollbacks=0)
    growing = seed("a", SeedStage.TRAINING), seed("b", gradient_norm=0.5), slot("c")
    for loss in losses:
        other.engine = resumed(other.engine)
        expected = one.at(*growing, loss=loss, choices=[plant("c")])
        assert other.at(*growing, loss=loss, choices=[plant("c")]) == expected
    assert one.engine.state_dict() == other.engine.state_dict()


def test_only_the_ten_of_the_lowest_risk_are_trusted():
    assert len(TRUSTED) == 10
    assert "parallel_conv" not in TRUSTED


def test_a_rollback_that_the_policy_asked_for_is_no_incident():
    drill = Drill(rollbacks=0).quiet(3)
    assert done(drill.at(choices=[choose(KINDS.ROLLBACK)])) == [("ROLLBACK", "")]
    assert drill.at(rollbacks=1)[0].risk.signals["lifecycle"] == 0
    assert drill.at(rollbacks=2)[0].risk.signals["lifecycle"] > 0.3


def test_the_fallback_is_asked_once_at_every_boundary():
    asked = []

    def fallback(state):
        asked.append(state.epoch)
        return []

    Drill(fallback=fallback).quiet(4)
    assert asked == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", [KINDS.PAUSE, KINDS.NOOP])
def test_of_the_fallback_only_the_judgement_of_seeds_counts(kind):
    slots = ("",) if kind is KINDS.NOOP else ("a", "b")
    drill = Drill(fallback=rules(kind, *slots)).quiet(6)
    drill.at(seed("a"), slot("b"), loss=9.0)
    reviewed = drill.at(seed("a", legal=tuple(KINDS)), slot("b"))
    assert level(reviewed) is RiskLevel.ORANGE
    assert done(reviewed) == [("NOOP", "")]


def test_only_a_network_that_became_worse_is_undone():
    drill = Drill(rollbacks=0).quiet(6)
    dropping = seed("a"), seed("b", SeedStage.TRAINING, dropped_gradients=10)
    assert done(drill.at(*dropping)) == [("PAUSE", "b")]
    drill = Drill(rollbacks=0).quiet(6)
    reviewed = drill.at(seed("a"), rollbacks=9)  # the governor's, who sees to it
    assert level(reviewed) is RiskLevel.RED
    reviewed = drill.at(seed("a", num_culls=3, isolation_violations=9), rollbacks=18)
    assert reviewed[0].risk.signals["lifecycle"] > 0.95
    assert done(reviewed) == [("NOOP", "")]
