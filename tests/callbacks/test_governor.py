"""Bad epochs are undone and their seeds found, in a real Trainer."""

from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch
from bad_seeds import BAD
from governed_runs import EPOCHS, Gardener, Poison, train
from interrupted_runs import Finished, differences, run
from lightning.pytorch import Callback, LightningModule, Trainer

from esper_lightning.callbacks import Governor
from esper_lightning.leyline import (
    AlarmLevel,
    Incubation,
    Intervention,
    InvalidArgument,
    SeedStage,
    StageChanged,
    SystemState,
)
from esper_lightning.tolaria import HealthRules


@pytest.fixture(scope="module")
def alone() -> float:
    trainer, _, events = train(None)
    assert not any(isinstance(event, Intervention) for event in events)
    return float(trainer.callback_metrics["val/loss"])


@pytest.fixture(scope="module")
def most(alone: float) -> float:
    """The worst that the host alone reaches where one of its epochs was undone, whichever."""
    runs = [train(None, callbacks=[Poison([epoch])])[0] for epoch in range(1, EPOCHS - 1)]
    reached = [float(trainer.callback_metrics["val/loss"]) for trainer in runs]
    limit = mean(reached) + 3 * stdev(reached)
    assert alone < limit < 1.25 * alone, "an epoch costs something, and chance not much more"
    return limit


ROLLED_BACK = {
    ("nan_emitter", "direct"),
    ("nan_emitter", "shadow"),
    ("gradient_blocker", "direct"),
    ("gradient_blocker", "shadow"),
    ("label_memoriser", "direct"),
    ("label_memoriser", "straight_through"),
    ("label_memoriser", "shadow"),
    ("scale_drift", "direct"),
    ("scale_drift", "straight_through"),
    ("scale_drift", "shadow"),
}
"""Where the governor has to step in. In the others gates or isolation are enough, or the seed, bad
as it is, does no harm to this host."""


UNDISTURBED = {
    ("nan_emitter", Incubation.STRAIGHT_THROUGH),
    ("rng_polluter", Incubation.STRAIGHT_THROUGH),
}
"""Where isolation lets nothing at all reach the host before the seed is gone."""


@pytest.mark.slow
@pytest.mark.parametrize("incubation", Incubation, ids=lambda mode: mode.value)
@pytest.mark.parametrize("blueprint", BAD)
def test_a_bad_seed_costs_little_and_is_found(
    blueprint: str, incubation: Incubation, alone: float, most: float
) -> None:
    trainer, kasmina, events = train(Gardener(blueprint), incubation=incubation)
    final = float(trainer.callback_metrics["val/loss"])
    assert final < most
    stepped_in = [event for event in events if isinstance(event, Intervention)]
    culled = [e for e in events if isinstance(e, StageChanged) and e.after is SeedStage.CULLED]
    if blueprint == "rng_polluter":
        assert "it draws random numbers in evaluation" in culled[0].reason
        assert kasmina.bed.slots["features.1"].record.quarantined == [blueprint]
    if (blueprint, incubation) in UNDISTURBED:
        assert final == alone
    assert bool(stepped_in) == ((blueprint, incubation.value) in ROLLED_BACK)
    for intervention in stepped_in:
        assert intervention.level is AlarmLevel.SEVERE
        assert intervention.suspects == ("features.1",)
        assert intervention.restored == intervention.epoch - 1
        (gone,) = [event for event in culled if event.epoch == intervention.epoch]
        assert gone.blueprint == blueprint
        assert gone.reason == intervention.alarm
        assert kasmina.bed.slots["features.1"].record.quarantined == [blueprint]


def test_nobody_is_blamed_for_what_the_host_did() -> None:
    trainer, _, events = train(None, callbacks=[Poison([2])], epochs=5)
    (stepped_in,) = [event for event in events if isinstance(event, Intervention)]
    assert (stepped_in.epoch, stepped_in.restored, stepped_in.suspects) == (2, 1, ())
    states = [event.epoch for event in events if isinstance(event, SystemState)]
    assert states == [0, 1, 3, 4], "nothing is decided on an epoch that was undone"
    assert torch.isfinite(trainer.callback_metrics["val/loss"])


def test_a_run_that_is_well_is_the_same_with_and_without_a_governor() -> None:
    watched = train(Gardener("none_planted"), epochs=2)[1].bed.network.state_dict()

    class Absent(Governor):
        def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
            """Registers nowhere."""

        on_train_start = Callback.on_train_start
        on_train_epoch_start = Callback.on_train_epoch_start
        on_train_batch_start = Callback.on_train_batch_start
        on_before_optimizer_step = Callback.on_before_optimizer_step

    free = train(Gardener("none_planted"), epochs=2, governor=Absent())[1].bed.network.state_dict()
    assert watched.keys() == free.keys()
    assert all(torch.equal(watched[name], free[name]) for name in watched)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"snapshots": 0}, "snapshots must be a whole number"), ({"rules": {}}, "HealthRules")],
)
def test_arguments_that_mean_nothing_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        Governor(**arguments)


def test_its_memory_is_in_the_checkpoint() -> None:
    governor = Governor(rules=HealthRules(window=2))
    train(None, governor=governor, epochs=3, callbacks=[Poison([1])])
    other = Governor(rules=HealthRules(window=2))
    other.load_state_dict(governor.state_dict())
    for name in ("health", "rollbacks", "in_a_row"):
        assert other.state_dict()[name] == governor.state_dict()[name]
    assert other.state_dict()["rollbacks"] == [1]


def test_evaluating_a_checkpoint_rewinds_nothing(tmp_path: Path) -> None:
    governor = Governor()
    trainer, _, _ = train(None, governor=governor, epochs=2)
    told = governor.state_dict()
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    held = torch.load(tmp_path / "end.ckpt", weights_only=True)
    held["callbacks"]["Governor"]["rollbacks"] = [7]
    torch.save(held, tmp_path / "end.ckpt")
    trainer.validate(
        trainer.lightning_module, datamodule=trainer.datamodule, ckpt_path=tmp_path / "end.ckpt"
    )
    assert governor.state_dict()["rollbacks"] == told["rollbacks"] == []


@pytest.mark.parametrize("incubation", Incubation, ids=lambda each: each.value)
def test_a_governed_run_resumes_exactly(tmp_path: Path, incubation: Incubation) -> None:
    def governed(**where: Any) -> Finished:
        return run(incubation, "adamw", governor=Governor(), callbacks=[Poison([6])], **where)

    whole = governed(save_in=tmp_path)
    assert whole.left["governor"]["rollbacks"] == [6]
    for name in ("2-within", "3-end", "5-end", "5-within", "6-within", "7-end", "7-within"):
        rest = governed(ckpt_path=tmp_path / f"{name}.ckpt")
        assert differences(whole, rest) == [], name
