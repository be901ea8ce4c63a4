import math

import pytest
from growing_run import slot, state
from risky_run import Drill, level

from esper_lightning.leyline import (
    FossilState,
    Hardware,
    InvalidArgument,
    Objective,
    RiskLevel,
    SeedStage,
    Services,
    Signal,
)
from esper_lightning.tamiyo import GrowthBudget
from esper_lightning.tamiyo.risk import RiskEngine, RiskRules
from esper_lightning.tamiyo.risk.gradients import Gradients
from esper_lightning.tamiyo.risk.latency import Latency
from esper_lightning.tamiyo.risk.lifecycle import Lifecycle
from esper_lightning.tamiyo.risk.performance import Performance
from esper_lightning.tamiyo.risk.resources import resources
from esper_lightning.tamiyo.risk.thresholds import LEAST, MOST, Track, thresholds

SECONDS = Services(step_s=0.01, boundary_s=0.01)


def seed(name: str = "a", stage: SeedStage = SeedStage.TRAINING, **values):
    return slot(name, stage, **values)


def measured(signal, *states) -> list[float | None]:
    readings = [signal.observe(each) for each in states]
    return [None if reading is None else reading.score for reading in readings]


def scores(*values: float | None, mode: str = "min") -> list[float | None]:
    return measured(
        Performance(),
        *(state(objective=Objective(name="val/x", mode=mode, value=value)) for value in values),
    )


# -- performance ----------------------------------------------------------------------------------


def test_a_missing_objective_is_absent_and_one_that_is_not_finite_is_the_worst():
    assert scores(1.0, 0.9, None, math.nan, math.inf) == [None, None, None, 1.0, 1.0]
    assert scores(1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, None)[6:] == [0.0, None]


def test_a_worsening_is_measured_against_what_was_gained_and_against_its_own_size():
    falling = [2.3, 1.2, 0.7, 0.5, *[0.4] * 8]
    doubled, lost = scores(*falling, 0.8, 0.8)[-1], scores(*falling, 2.3)[-1]
    assert 0.35 < doubled < 0.5
    assert 0.45 < lost <= 0.5  # it may come back by itself
    assert scores(*falling, 2.3, 2.3)[-1] > 0.9
    assert scores(*falling, 2.3, 0.4)[-1] == 0
    hard = [2.3, 2.2, 2.1, 2.05, 2.0, 2.0, 2.0, 2.0]
    assert scores(*hard, 2.3, 2.3)[-1] < 0.5  # all of the little that was gained
    tiny = [2.3, 0.1, 0.01, 0.001, 0.001, 0.001, 0.001, 0.001]
    assert scores(*tiny, 0.01, 0.01)[-1] < 0.1  # ten times as much of almost nothing


def test_a_collapse_does_not_become_what_later_values_are_compared_with():
    falling = [2.3, 1.2, 0.7, 0.5, *[0.4] * 8]
    found = scores(*falling, *[2.3] * 30)[len(falling) :]
    assert all(score is not None and score > 0.9 for score in found[1:16])
    assert found[-1] == 0  # but the run goes on: in the end it is what the run is now


def test_a_metric_that_is_maximised_worsens_when_it_falls():
    rising = [0.1, 0.5, 0.8, 0.85, 0.88, 0.9, 0.9, 0.9]
    assert scores(*rising, 0.92, mode="max")[-1] == 0
    assert scores(*rising, 0.1, 0.1, mode="max")[-1] > 0.85


def test_it_tells_the_objective_as_it_was_measured():
    for mode, values, told in (
        ("min", [-1.0, *[-2.0] * 8, -1.5], "val/x went from -2 to -1.5"),
        ("max", [-4.0, *[-2.0] * 8, -3.0], "val/x went from -2 to -3"),
        ("max", [0.1, *[0.5] * 8, 0.25], "val/x went from 0.5 to 0.25"),
        ("min", [1.0, *[-2.0] * 8, -2.0], "val/x is -2, within what is usual"),
    ):
        signal = Performance()
        readings = [
            signal.observe(state(objective=Objective(name="val/x", mode=mode, value=value)))
            for value in values
        ]
        assert readings[-1] is not None
        assert readings[-1].what == told


def test_another_objective_begins_anew():
    signal = Performance()
    loss = [state(objective=Objective(name="val/loss", value=0.1)) for _ in range(8)]
    other = [state(objective=Objective(name="val/error", value=90.0)) for _ in range(8)]
    assert measured(signal, *loss, *other)[6:] == [0.0, 0.0, *[None] * 6, 0.0, 0.0]


def test_a_noisy_objective_is_allowed_its_noise():
    noise = [0.3, -0.25, 0.1, -0.3, 0.28, -0.1, 0.22, -0.28, 0.05, -0.2]
    noisy = [1.0 + wobble for wobble in noise]
    calm = [1.0 + wobble / 100 for wobble in noise]
    assert scores(2.3, *noisy, 1.45, 1.45)[-1] < 0.1
    assert scores(2.3, *calm, 1.45, 1.45)[-1] > 0.3


# -- gradients ------------------------------------------------------------------------------------


def test_dropped_gradients_score_by_their_share():
    states = [state(seed(dropped_gradients=dropped)) for dropped in (None, 0, 1, 5, 10)]
    assert measured(Gradients(), *states) == pytest.approx([None, 0, 0.316, 0.707, 1], abs=1e-3)


def test_a_gradient_is_compared_with_those_of_the_same_seed_in_the_same_stage():
    def at(norm, **values):
        return state(seed(gradient_norm=norm, **values))

    usual = [at(0.5), at(0.4), at(0.6)]
    assert measured(Gradients(), *usual, at(60.0))[-1] == pytest.approx(2 / 3)
    assert measured(Gradients(), *usual, at(0.0))[-1] == 0.4
    assert measured(Gradients(), *usual, at(math.nan))[-1] == 0.85
    assert measured(Gradients(), *usual, at(None))[-1] is None
    assert measured(Gradients(), *usual, at(50.0, cohort=4))[-1] is None
    assert measured(Gradients(), *usual, at(50.0, stage=SeedStage.BLENDING))[-1] is None


def test_the_hosts_gradient_at_a_slot_is_watched_without_a_seed():
    usual = [state(slot(pressure=each)) for each in (0.1, 0.1, 0.1)]
    assert measured(Gradients(), *usual, state(slot(pressure=100.0)))[-1] == 1.0


# -- resources ------------------------------------------------------------------------------------


def test_a_budget_that_is_used_up_is_no_risk_and_one_exceeded_is():
    budget = GrowthBudget(max_growth=1.0, max_flops_growth=1.0)
    assert resources(state(), None) is None
    for parameters, flops, expected in ((2000, 2.0, 0), (2500, 2.0, 0.5), (2000, 4.0, 1.0)):
        now = state(num_parameters=parameters, host_flops=1.0, flops=flops)
        reading = resources(now, budget)
        assert reading is not None
        assert reading.score == pytest.approx(expected)
    assert resources(state(num_parameters=10**9), GrowthBudget(max_growth=None)) is None


def test_memory_is_compared_with_what_the_device_has():
    def share(memory):
        reading = resources(state(hardware=Hardware(device="cuda", memory_bytes=memory)), None)
        return None if reading is None else reading.score

    assert share(None) is None
    assert share(16_000 * 10) == 0
    assert share(16_000 / 0.75) == pytest.approx(0.5)
    assert share(16_000) == 1


# -- latency --------------------------------------------------------------------------------------


def test_steps_that_slow_down_score_unless_the_network_grew():
    def at(step_s, flops=100.0, boundary_s=None):
        services = Services(step_s=step_s, boundary_s=boundary_s)
        return state(flops=flops, host_flops=100.0, services=services)

    usual = [at(0.01)] * 8
    assert measured(Latency(), *usual, at(0.16))[-1] == 0  # once
    assert measured(Latency(), *usual, at(0.16), at(0.16))[-1] == 1
    assert measured(Latency(), *usual, *[at(0.04, flops=400.0)] * 2)[-1] == 0
    assert measured(Latency(), *[at(None, boundary_s=5.0)] * 3) == [None, None, 0.5]


def test_a_deterministic_engine_reads_nothing_that_a_clock_told():
    def levels(**options):
        drill = Drill(RiskEngine(**options))
        seen = [drill.at(services=SECONDS) for _ in range(8)]
        slow = Services(step_s=10.0, boundary_s=60.0, bus="open", waiting=9, dropped=9)
        seen += [drill.at(services=slow) for _ in range(4)]
        return seen

    blind = Drill(RiskEngine())
    assert levels(deterministic=True) == [blind.at() for _ in range(12)]
    assert all(Signal.LATENCY not in each[0].risk.signals for each in levels())
    assert level(levels(deterministic=False)[-1]) is RiskLevel.ORANGE  # it plants no more


# -- lifecycle ------------------------------------------------------------------------------------


def test_the_first_boundary_has_nothing_to_be_compared_with():
    assert measured(Lifecycle(), state(slot(num_culls=9), rollbacks=3)) == [None]


def test_culls_in_a_row_add_up_until_something_is_kept():
    culls = [state(slot(num_culls=number)) for number in range(6)]
    found = measured(Lifecycle(), *culls)
    assert found[1] == pytest.approx(0.12)
    assert found[2] < found[3] < found[4] < found[5]
    assert found[3] < 0.35 < found[5]
    fossil = FossilState(
        blueprint="x", parameters={}, num_parameters=1, planted_epoch=1, fossilized_epoch=2
    )
    kept = state(slot(num_culls=5, fossils=(fossil,)))
    assert measured(Lifecycle(), *culls, kept)[-1] == 0


def test_incidents_fade():
    violated = [state(seed(isolation_violations=number)) for number in (0, 1)]
    found = measured(Lifecycle(), *violated, *[state(slot())] * 12)
    assert found[1] == pytest.approx(0.4)
    assert found[1:] == sorted(found[1:], reverse=True)
    assert found[-1] == 0


def test_the_violations_of_another_seed_are_all_new():
    states = [
        state(seed(isolation_violations=number, cohort=cohort))
        for number, cohort in ((2, 1), (2, 1), (1, 2))
    ]
    assert measured(Lifecycle(), *states) == pytest.approx([None, 0, 0.4])


def test_a_rollback_by_the_governor_plants_nothing_for_a_while_and_two_are_red():
    drill = Drill(rollbacks=0).quiet(3)
    culled = slot("a", num_culls=1, quarantined=("around",))
    assert level(drill.at(culled, rollbacks=1)) is RiskLevel.ORANGE
    again = slot("a", num_culls=2, quarantined=("around", "behind"))
    assert level(drill.at(again, rollbacks=2)) is RiskLevel.RED
    levels = [level(drill.at(again, rollbacks=2)) for _ in range(14)]
    assert levels == sorted(levels, reverse=True)
    assert levels[-1] is RiskLevel.GREEN


# -- thresholds -----------------------------------------------------------------------------------


def test_thresholds_follow_the_noise_within_bounds():
    assert thresholds([0.0] * 32) == LEAST
    noisy = thresholds([0.1, 0.3] * 16)
    assert all(LEAST[each] <= noisy[each] <= MOST[each] for each in LEAST)
    assert noisy[RiskLevel.YELLOW] > LEAST[RiskLevel.YELLOW]
    assert list(noisy.values()) == sorted(noisy.values())
    assert thresholds([0.0, 0.6] * 16) == MOST


def test_no_history_disarms_a_level():
    track = Track()
    for score in [0.2, 1.0, 0.0] * 40:
        track.observe(score, calm=3)
    assert track.observe(1.0, calm=3) is RiskLevel.CRITICAL
    for _ in range(60):
        track.observe(0.8, calm=3)
    assert track.level >= RiskLevel.RED


def test_harm_that_lasts_is_not_taken_for_noise():
    track = Track()
    for _ in range(40):
        track.observe(0.65, calm=3)
    assert track.observe(0.62, calm=3) is RiskLevel.ORANGE


def test_a_level_rises_at_once_and_falls_after_calm_boundaries():
    track = Track()
    assert track.observe(0.55, calm=3) is RiskLevel.ORANGE
    held = [0.42, 0.3, 0.3, 0.42, 0.3, 0.3]  # above 0.8 * 0.5 before three were calm
    levels = []
    for score in held:
        track.observe(score, calm=3)
        levels.append(track.level)
    assert levels == [RiskLevel.ORANGE] * 6
    track.observe(0.3, calm=3)
    assert track.level is RiskLevel.YELLOW  # 0.3 is above 0.8 * 0.35
    for _ in range(3):
        track.observe(0.1, calm=3)
    assert track.level is RiskLevel.GREEN


def test_what_is_not_measured_is_no_calm_but_is_forgotten_in_time():
    track = Track()
    track.observe(0.75, calm=3)
    levels = []
    for _ in range(6):
        track.observe(None, calm=3)
        levels.append(track.level)
    assert levels == [RiskLevel.RED] * 5 + [RiskLevel.GREEN]


@pytest.mark.parametrize("name", ["calm", "pause_limit", "rollback_every", "stay", "greens"])
def test_rules_that_cannot_be_met_are_refused(name):
    with pytest.raises(InvalidArgument, match=name):
        RiskRules(**{name: 0})


def test_arguments_of_another_kind_are_refused():
    with pytest.raises(InvalidArgument, match="rules must be RiskRules"):
        RiskEngine({"calm": 3})
    with pytest.raises(InvalidArgument, match="deterministic"):
        RiskEngine(deterministic="yes")
    with pytest.raises(InvalidArgument, match="budget"):
        RiskRules(budget=4.0)
