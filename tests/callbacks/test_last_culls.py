"""What is culled shortly before the end is not in the network that is left."""

import pytest
from runs import Script, digits_run, plant, tell

from esper_lightning.kasmina import LifecycleRules
from esper_lightning.leyline import BlendSchedule, CommandKind, SeedStage


@pytest.mark.parametrize("culled", [2, 3, 4])
def test_a_cull_near_the_end_ramps_out_in_the_steps_that_are_left(culled: int) -> None:
    rules = LifecycleRules(blend=BlendSchedule(num_steps=1000))
    script = Script({0: [plant()], culled: [tell(CommandKind.CULL)]})
    _, kasmina, _ = digits_run(script, epochs=5, rules=rules)
    slot = kasmina.bed.slots["features.1"]
    assert slot.seed is None
    assert kasmina.bed.num_parameters() == kasmina.host_parameters
    if culled < 4:
        assert slot.record.stage is SeedStage.EMBARGOED, "the ramp was over by itself"


def test_a_run_that_stops_early_leaves_no_ghost() -> None:
    rules = LifecycleRules(blend=BlendSchedule(num_steps=1000))
    script = Script({0: [plant()], 2: [tell(CommandKind.CULL)]})
    _, kasmina, trainer = digits_run(script, epochs=-1, max_steps=20, rules=rules)
    assert trainer.global_step == 20
    assert kasmina.bed.slots["features.1"].seed is None
    assert kasmina.bed.num_parameters() == kasmina.host_parameters
