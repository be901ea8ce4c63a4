"""What is an alarm, who is blamed for it, and what is a warning."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from governed_runs import Gardener, train
from lightning.pytorch import seed_everything
from runs import (
    FREE,
    Plain,
    Script,
    listen,
    plain_data,
    plain_trainer,
    plant,
    tell,
)

from esper_lightning.callbacks import Governor, Kasmina, Tamiyo
from esper_lightning.kasmina import LifecycleRules
from esper_lightning.leyline import (
    AlarmLevel,
    BlendSchedule,
    CommandKind,
    Decision,
    Incubation,
    Intervention,
)


def test_a_seed_that_turns_bad_as_it_ramps_out_goes_at_once() -> None:
    lines = {
        0: [plant(blueprint="LateNaN")],
        2: [tell(CommandKind.CULL)],
        7: [plant(blueprint="LateNaN")],
        8: [plant()],
    }
    trainer, kasmina, events = train(Script(lines), epochs=10)
    (stepped_in,) = [event for event in events if isinstance(event, Intervention)]
    assert (stepped_in.epoch, stepped_in.restored) == (3, 2)
    assert stepped_in.suspects == ("features.1",)
    (removal,) = [e for e in events if isinstance(e, Decision) and e.policy == "governor"]
    assert removal.command.kind is CommandKind.EMERGENCY
    (refused,) = [e.refused for e in events if isinstance(e, Decision) and e.refused]
    assert "in quarantine in slot 'features.1'" in refused
    assert "blamed for an epoch that was undone" in refused
    record = kasmina.bed.slots["features.1"].record
    assert record.quarantined == ["LateNaN"]
    assert record.seed is not None
    assert record.seed.blueprint == "parallel_conv", "the slot is free again"
    assert torch.isfinite(trainer.callback_metrics["val/loss"])


@pytest.mark.parametrize("incubation", Incubation, ids=lambda mode: mode.value)
def test_a_seed_that_is_bad_in_evaluation_only_is_found(incubation: Incubation) -> None:
    trainer, kasmina, events = train(Gardener("EvalNaN"), incubation=incubation)
    (stepped_in,) = [event for event in events if isinstance(event, Intervention)]
    assert stepped_in.alarm == "the objective is nan"
    assert stepped_in.suspects == ("features.1",)
    assert stepped_in.restored == stepped_in.epoch - 1
    assert kasmina.bed.slots["features.1"].record.quarantined == ["EvalNaN"]
    assert torch.isfinite(trainer.callback_metrics["val/loss"])


class Unmeasured(Plain):
    """Its objective gets better after planting; at some epochs it is NaN."""

    def __init__(self, epochs: Sequence[int]) -> None:
        super().__init__()
        self.epochs = epochs

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.net(batch[0])
        usual = 1.0 if self.current_epoch < 2 else 0.5
        self.log("val_loss", float("nan") if self.current_epoch in self.epochs else usual)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_an_objective_that_is_not_finite_without_growth_is_a_warning_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kasmina = Kasmina(slots=["net.0"], monitor="val_loss")
    callbacks = [kasmina, Tamiyo(risk=False, policy=Script({})), Governor()]
    plain_trainer(callbacks, epochs=5).fit(Unmeasured([1, 2, 3]), *plain_data())
    events = listen(kasmina)
    assert not [event for event in events if isinstance(event, Intervention)]
    told = [record.message for record in caplog.records if "val_loss is nan" in record.message]
    assert len(told) == 1
    assert told[0].startswith("epoch 1: ")
    assert [value is None for value in kasmina.bed.history] == [False, True, True, True, False]


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("judge_gain", [True, False])
def test_no_gate_passes_on_an_objective_that_is_not_finite(judge_gain: bool) -> None:
    def last_gate(epochs: Sequence[int]) -> Any:
        seed_everything(0, verbose=False)
        policy = Script({1: [plant("net.0", "parallel_mlp")]})
        gates = replace(FREE.gates, judge_gain=judge_gain)
        rules = replace(FREE, gates=gates)
        kasmina = Kasmina(slots=["net.0"], monitor="val_loss", rules=rules)
        plain_trainer([kasmina, Tamiyo(risk=False, policy=policy)], epochs=7).fit(
            Unmeasured(epochs), *plain_data()
        )
        return policy.states[-1].slots[0].gate

    assert last_gate([]).passed
    failed = last_gate([6])
    assert [measured.name for measured in failed.failures] == ["objectives that are not finite"]


class Steep(Plain):
    """For one epoch its gradient, and nothing else, is 100 times what it was."""

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss + 99 * (loss - loss.detach()) if self.current_epoch == 4 else loss


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize(
    ("culled_at", "num_steps", "told"),
    [
        (None, 7, [CommandKind.CULL]),
        (3, 7, [CommandKind.EMERGENCY]),
        (3, 5, []),  # its ramp is over
    ],
)
def test_a_suspect_is_culled_and_one_that_ramps_out_removed(
    culled_at: int | None, num_steps: int, told: list[CommandKind]
) -> None:
    seed_everything(0, verbose=False)
    lines = {0: [plant("net.0", "parallel_mlp")]}
    if culled_at is not None:
        lines[culled_at] = [tell(CommandKind.CULL, "net.0")]
    rules = LifecycleRules(blend=BlendSchedule(num_steps=num_steps))
    kasmina = Kasmina(slots=["net.0"], monitor="val_loss", rules=rules)
    callbacks = [kasmina, Tamiyo(risk=False, policy=Script(lines)), Governor()]
    plain_trainer(callbacks, epochs=6).fit(Steep(), *plain_data())
    events = listen(kasmina)
    (stepped_in,) = [event for event in events if isinstance(event, Intervention)]
    assert (stepped_in.level, stepped_in.suspects) == (AlarmLevel.MINOR, ("net.0",))
    removals = [e for e in events if isinstance(e, Decision) and e.policy == "governor"]
    assert [(e.command.kind, e.refused) for e in removals] == [(kind, "") for kind in told]
    assert kasmina.bed.slots["net.0"].record.seed is None
