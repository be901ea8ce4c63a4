"""Growth under a real Trainer: the loop, its promises, and modules of other people."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    EarlyStopping,
    ModelCheckpoint,
    ModelSummary,
    StochasticWeightAveraging,
)
from runs import (
    FREE,
    Plain,
    Script,
    digits_run,
    listen,
    moves,
    plain_data,
    plain_trainer,
    plant,
    same,
    tell,
    weights,
)
from torch import nn

from esper_lightning.callbacks import GrowthFigure, Journal, Kasmina, LiveTable, Summary, Tamiyo
from esper_lightning.kasmina import FlopMeter, LifecycleRules
from esper_lightning.leyline import (
    CommandKind,
    Decision,
    Incubation,
    RunEnded,
    RunStarted,
    SeedStage,
    SystemState,
    UnsupportedTraining,
)
from esper_lightning.tamiyo import Heuristic, Never
from esper_lightning.tolaria import CNN, Constant, Tolaria

GROW = {0: [plant(), plant("features.2")], 2: [tell(CommandKind.FOSSILIZE)]}


def test_the_whole_loop_grows_and_tells_what_it_did() -> None:
    model, kasmina, trainer = digits_run(Script(GROW), epochs=4)
    events = listen(kasmina)
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunEnded)
    assert events[-1].outcome == "finished"
    assert moves(events) == ["DORMANT", "GERMINATED", "PROBATIONARY", "FOSSILIZED", "DORMANT"]
    states = [event for event in events if isinstance(event, SystemState)]
    assert [state.epoch for state in states] == [0, 1, 2, 3]
    assert states[0].num_parameters == states[0].host_parameters
    assert states[1].num_parameters > states[1].host_parameters
    assert states[1].flops is not None
    assert states[0].flops is not None
    assert states[1].flops > states[0].flops == states[1].host_flops
    assert states[0].slot("features.1").pressure is not None
    decisions = [event for event in events if isinstance(event, Decision)]
    assert [decision.command.kind.name for decision in decisions] == [
        "GERMINATE",
        "GERMINATE",
        "FOSSILIZE",
    ]
    assert all(decision.command.reason == "told to" for decision in decisions)
    assert "val/loss" in trainer.callback_metrics
    assert trainer.callback_metrics["growth/parameters"] == kasmina.bed.num_parameters()
    held = sum(p.numel() for g in trainer.optimizers[0].param_groups for p in g["params"])
    assert held == sum(p.numel() for p in model.parameters())


def test_the_same_seed_gives_the_same_weights_twice() -> None:
    first, _, _ = digits_run(Script(GROW))
    second, _, _ = digits_run(Script(GROW))
    other, _, _ = digits_run(Script(GROW), seed=1)
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(other))


def test_observers_change_nothing(tmp_path: Path) -> None:
    alone, _, _ = digits_run(Script(GROW))
    observers = [Journal(), Summary(), GrowthFigure(), LiveTable(), ModelSummary(max_depth=3)]
    watched, _, _ = digits_run(
        Script(GROW),
        callbacks=[*observers, ModelCheckpoint(dirpath=tmp_path)],
        default_root_dir=tmp_path,
        enable_checkpointing=True,
        enable_progress_bar=True,
        enable_model_summary=True,
    )
    assert same(weights(alone), weights(watched))
    files = {path.name for path in tmp_path.iterdir()}
    assert {"events.jsonl", "summary.json", "growth.png", "growth.svg"} <= files


def test_counting_operations_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, _, _ = digits_run(Script(GROW))
    monkeypatch.setattr(FlopMeter, "begin", lambda *_: None)
    monkeypatch.setattr(FlopMeter, "end", lambda *_: None)
    uncounted, _, _ = digits_run(Script(GROW))
    assert same(_without_records(weights(counted)), _without_records(weights(uncounted)))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("incubation", [Incubation.STRAIGHT_THROUGH, Incubation.SHADOW])
@pytest.mark.parametrize("clip", ["norm", "value"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_seed_in_training_leaves_the_host_bit_identical(
    optimizer: str, clip: str, incubation: Incubation, precision: str
) -> None:
    make: Any = {
        "adamw": None,
        "sgd": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9),
    }[optimizer]
    patient = LifecycleRules(min_ages={"TRAINING": 9})
    common: dict[str, Any] = {
        "rules": patient,
        "incubation": incubation,
        "precision": precision,
        "tolaria": {"optimizer": make},
        "gradient_clip_val": 0.05,
        "gradient_clip_algorithm": clip,
        "accumulate_grad_batches": 2,
        "slots": ["features.1"],
    }
    alone, _, _ = digits_run(Never(), **common)
    grown, kasmina, _ = digits_run(Script({0: [plant()]}), **common)
    slot = kasmina.bed.slots["features.1"]
    assert slot.record.stage is SeedStage.TRAINING
    assert slot.seed is not None
    assert slot.sample_output(slot.seed) is not None
    assert slot.sample_output(slot.seed)[0].abs().sum() > 0, "it has learned something"
    host = {name: value for name, value in weights(grown).items() if ".seed." not in name}
    assert same(_without_records(host), _without_records(weights(alone)))


def test_the_order_of_callbacks_does_not_matter() -> None:
    first, _, _ = digits_run(Script(GROW))
    turned, _, _ = digits_run(Script(GROW), reverse=True)
    assert same(weights(first), weights(turned))


def test_a_refused_command_is_recorded_and_training_goes_on() -> None:
    lines = {
        0: [plant(expansion=99.0), tell(CommandKind.CULL, "features.2")],
        1: [plant("nowhere")],
        2: [plant(), plant()],
    }
    _, kasmina, _ = digits_run(Script(lines))
    refused = [e.refused for e in listen(kasmina) if isinstance(e, Decision)]
    assert "expansion" in refused[0]
    assert "99" in refused[0]
    assert "stage DORMANT cannot take CULL; allowed: GERMINATE, NOOP" in refused[1]
    assert "'nowhere' is not a slot" in refused[2]
    assert refused[3] == ""
    assert "already had a command" in refused[4]


def test_early_stopping_lets_the_policy_settle() -> None:
    stop = EarlyStopping("val/loss", patience=0, min_delta=10.0, check_on_train_epoch_end=False)
    policy = Script({0: [plant()]})
    digits_run(policy, epochs=9, callbacks=[stop])
    assert policy.states[-1].epoch < 8
    assert policy.states[-1].max_epochs == policy.states[-1].epoch + 1


def test_without_validation_the_objective_is_missing_and_nothing_breaks() -> None:
    policy = Script({})
    digits_run(policy, epochs=3, check_val_every_n_epoch=2)
    assert [state.objective.value is None for state in policy.states] == [True, False, True]
    assert "val/loss" not in policy.states[0].metrics
    assert "train/loss" in policy.states[0].metrics


def test_a_checkpoint_loads_with_all_that_has_grown(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(dirpath=tmp_path, filename="last", save_on_train_epoch_end=True)
    model, _, _ = digits_run(
        Script(GROW), epochs=3, callbacks=[checkpoint], enable_checkpointing=True
    )
    host = CNN(input_shape=(1, 8, 8), num_classes=10, width=3)
    again = Tolaria.load_from_checkpoint(
        tmp_path / "last.ckpt", host=host, num_classes=10, weights_only=True
    )
    x = torch.randn(5, 1, 8, 8)
    model.eval()
    again.eval()
    assert torch.equal(model(x), again(x))
    assert same(weights(model), weights(again))


RESUMED = {
    0: [plant()],
    1: [plant("features.0", "conv_residual")],
    3: [tell(CommandKind.CULL, "features.0")],
    4: [tell(CommandKind.FOSSILIZE)],
}


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
@pytest.mark.parametrize("incubation", Incubation)
def test_a_resumed_run_ends_where_the_uninterrupted_one_does(
    tmp_path: Path, incubation: Incubation
) -> None:
    every = ModelCheckpoint(
        dirpath=tmp_path / "all",
        filename="{epoch}",
        auto_insert_metric_name=False,
        save_top_k=-1,
        save_on_train_epoch_end=True,
    )
    straight, _, _ = digits_run(
        Script(RESUMED),
        incubation=incubation,
        epochs=6,
        callbacks=[every],
        enable_checkpointing=True,
    )
    for stop in (0, 1, 3, 4):
        resumed, _, _ = digits_run(
            Script(RESUMED),
            incubation=incubation,
            epochs=6,
            ckpt_path=str(tmp_path / "all" / f"{stop}.ckpt"),
        )
        assert same(weights(straight), weights(resumed)), f"resumed after epoch {stop}"


def test_two_callbacks_make_somebody_elses_module_grow() -> None:
    torch.manual_seed(0)
    module = Plain()
    kasmina = Kasmina(slots=["net.0", "net.2"], monitor="val_loss", rules=FREE)
    lines = {
        0: [plant("net.0", "parallel_mlp"), plant("net.2", "gated_mlp")],
        3: [tell(CommandKind.FOSSILIZE, "net.0"), tell(CommandKind.CULL, "net.2")],
    }
    trainer = plain_trainer([kasmina, Tamiyo(risk=False, policy=Script(lines))])
    before = sum(p.numel() for p in module.parameters())
    trainer.fit(module, *plain_data())
    assert sum(p.numel() for p in module.parameters()) > before
    assert moves(listen(kasmina), "net.0")[-2:] == ["FOSSILIZED", "DORMANT"]
    assert moves(listen(kasmina), "net.2")[-2:] == ["CULLED", "EMBARGOED"]
    fossil = kasmina.bed.slots["net.0"].fossils
    assert all(id(p) in map(id, _held(trainer)) for p in fossil.parameters())
    assert "configure_optimizers" not in vars(module), "its own hooks are back"
    with torch.no_grad():
        module.net(torch.randn(3, 64))


def _without_records(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if not name.endswith("_extra_state")}


def _held(trainer: Trainer) -> list[nn.Parameter]:
    return [p for group in trainer.optimizers[0].param_groups for p in group["params"]]


def test_the_heuristic_makes_somebody_elses_module_grow() -> None:
    torch.manual_seed(0)
    module = Plain()
    kasmina = Kasmina(slots=["net.0", "net.2"], monitor="val_loss")
    trainer = plain_trainer([Tamiyo(policy=Heuristic()), kasmina], epochs=16)
    trainer.fit(module, *plain_data(rows=2048, batch_size=64))
    assert any(slot.fossils for slot in kasmina.bed.slots.values())
    assert kasmina.bed.num_parameters() > kasmina.host_parameters


@pytest.mark.parametrize("scheduler", ["one_cycle", "lambda", "cosine"])
def test_somebody_elses_scheduler_goes_on(scheduler: str) -> None:
    class Scheduled(Plain):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
            make: Any = {
                "one_cycle": lambda: torch.optim.lr_scheduler.OneCycleLR(
                    optimizer, max_lr=0.02, total_steps=36
                ),
                "lambda": lambda: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.5),
                "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=36),
            }[scheduler]
            return [optimizer], [{"scheduler": make(), "interval": "step"}]

    torch.manual_seed(0)
    module = Scheduled()
    kasmina = Kasmina(slots=["net.0"], monitor="val_loss", rules=FREE)
    trainer = plain_trainer(
        [kasmina, Tamiyo(risk=False, policy=Script({0: [plant("net.0", "parallel_mlp")]}))]
    )
    trainer.fit(module, *plain_data())
    rates = {group["lr"] for group in trainer.optimizers[0].param_groups}
    assert len(rates) == 1, "seeds follow the schedule of group 0"


def test_a_module_without_growth_trains_as_if_kasmina_were_not_there() -> None:
    def run(callbacks: list[Callback]) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        module = Plain()
        plain_trainer(callbacks).fit(module, *plain_data())
        return {k.replace(".base_layer", ""): v for k, v in weights(module).items()}

    bare = run([])
    dormant = run([Kasmina(slots=["net.0", "net.2"], monitor="val_loss")])
    assert same(bare, {name: dormant[name] for name in bare})


def test_the_summary_of_a_network_shows_slots_fossils_and_seeds() -> None:
    model, _, _ = digits_run(Script(GROW), epochs=3)
    text = str(ModelSummary(max_depth=-1)._summary(_fitted(model), model))
    assert "host.features.1.base_layer" in text
    assert "host.features.1.fossils.0" in text
    assert "SeedSlot" in text
    assert "fossils=parallel_conv" in repr(model)
    assert "PROBATIONARY, seed=parallel_conv" in repr(model)


def _fitted(model: Tolaria) -> Trainer:
    trainer = model.trainer
    assert isinstance(trainer, Trainer)
    return trainer


@pytest.mark.parametrize("incubation", Incubation)
def test_growth_works_in_mixed_precision(incubation: Incubation) -> None:
    lines = {0: [plant(), plant("features.2", "conv_residual")]}
    _, kasmina, _ = digits_run(Script(lines), incubation=incubation, precision="bf16-mixed")
    assert not [e for e in listen(kasmina) if isinstance(e, Decision) and e.refused]
    assert all(
        slot.seed is not None for path, slot in kasmina.bed.slots.items() if path != "features.0"
    )


def test_a_fit_that_failed_leaves_the_module_fit_for_another() -> None:
    class Fails(Plain):
        broken = True

        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            if self.broken and self.trainer.current_epoch == 1:
                raise RuntimeError("broken")
            return super().training_step(batch, batch_idx)

    module = Fails()
    kasmina = Kasmina(slots=["net.0"], monitor="val_loss")
    with pytest.raises(RuntimeError, match="broken"):
        plain_trainer([kasmina]).fit(module, *plain_data())
    assert "configure_optimizers" not in vars(module)
    assert isinstance(listen(kasmina)[-1], RunEnded)
    module.broken = False
    trainer = plain_trainer([Kasmina(slots=["net.0"], monitor="val_loss")], epochs=2)
    trainer.fit(module, *plain_data())
    names = [group.get("name") for group in trainer.optimizers[0].param_groups]
    assert len(names) == len(set(names)) == 5


def test_early_stopping_as_it_comes_leaves_no_live_seed() -> None:
    stop = EarlyStopping("val/loss", patience=0, min_delta=10.0)
    _, kasmina, trainer = digits_run(
        Heuristic(min_epoch=1, latest_fraction=0.05, min_remaining=1), epochs=30, callbacks=[stop]
    )
    assert trainer.current_epoch < 30
    assert not kasmina.bed.has_live_seeds()


@pytest.mark.filterwarnings("ignore:.*returned `None`")
def test_steps_without_a_backward_pass_cost_nothing_and_tell_nothing() -> None:
    class Skips(Plain):
        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> Any:
            return None if batch_idx % 2 == 0 else super().training_step(batch, batch_idx)

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
            return -1 if batch_idx == 4 else None

    kasmina = Kasmina(slots=["net.0"], monitor="val_loss")
    plain_trainer([kasmina], epochs=2).fit(Skips(), *plain_data())
    assert kasmina.costs.host_per_sample == 2 * (2 * (64 * 6 + 6 * 6 + 6 * 10)) + 2 * (
        6 * 6 + 6 * 10
    )
    assert kasmina.costs.total == kasmina.costs.host_per_sample * 32 * 2 * 2
    assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()


def test_weight_averaging_is_refused() -> None:
    averaging = StochasticWeightAveraging(swa_lrs=0.01)
    with pytest.raises(UnsupportedTraining, match="StochasticWeightAveraging keeps a copy"):
        plain_trainer([Kasmina(slots=["net.0"]), averaging]).fit(Plain(), *plain_data())


def test_max_steps_and_min_epochs_tell_the_policy_its_horizon() -> None:
    policy = Script({})
    digits_run(policy, epochs=-1, max_steps=13, tolaria={"schedule": Constant()})
    assert [state.max_epochs for state in policy.states] == [3, 3, 3]
    assert policy.states[0].steps_per_epoch == 5
    policy = Script({})
    stop = EarlyStopping("val/loss", patience=0, min_delta=10.0, check_on_train_epoch_end=False)
    digits_run(policy, epochs=9, min_epochs=4, callbacks=[stop])
    assert [state.max_epochs for state in policy.states] == [9, 9, 9, 4]
