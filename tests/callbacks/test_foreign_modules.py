"""Somebody else's LightningModule: its optimiser, schedulers and hooks, and what Lightning adds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import CSVLogger
from runs import FREE, Plain, Script, plain_data, plain_trainer, plant, same, tell, weights
from torch import Tensor, nn
from torch.optim import lr_scheduler as schedulers

from esper_lightning.callbacks import Kasmina, Tamiyo
from esper_lightning.kasmina import LifecycleRules
from esper_lightning.leyline import (
    CommandKind,
    Incubation,
    SeedStage,
    SlotUnsuitable,
    UnsupportedOptimizer,
    UnsupportedTraining,
)
from esper_lightning.tamiyo import Never

LINES = {
    0: [plant("net.0", "parallel_mlp"), plant("net.2", "gated_mlp")],
    2: [tell(CommandKind.FOSSILIZE, "net.0"), tell(CommandKind.CULL, "net.2")],
}


def growth(lines: Any = None, **options: Any) -> list[Any]:
    kasmina = Kasmina(slots=["net.0", "net.2"], monitor="val_loss", rules=FREE, **options)
    return [kasmina, Tamiyo(risk=False, policy=Script(LINES if lines is None else lines))]


def fit(module: LightningModule, *, epochs: int = 4, ckpt_path: Any = None, **options: Any) -> Any:
    torch.manual_seed(0)
    callbacks = [*growth(), *options.pop("callbacks", ())]
    given = {"logger": False, "enable_checkpointing": False, **options}
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        **given,
    )
    trainer.fit(module, *plain_data(), ckpt_path=ckpt_path)
    return callbacks[0], trainer


def make(configure: Callable[[LightningModule], Any], **hooks: Any) -> Plain:
    torch.manual_seed(0)
    own = {"configure_optimizers": configure, **hooks}
    module: Plain = type("Foreign", (Plain,), own)()
    return module


def sgd(module: LightningModule) -> torch.optim.Optimizer:
    """The first two layers at one rate, what comes after at another."""
    net = module.get_submodule("net")
    first = [p for name, p in net.named_parameters() if name.startswith(("0.", "2."))]
    last = [p for name, p in net.named_parameters() if name.startswith("4.")]
    groups = [{"params": last, "lr": 0.05}, {"params": first, "lr": 0.02}]
    return torch.optim.SGD(groups, momentum=0.9)


def scheduled(scheduler: Callable[[Any], Any], **how: Any) -> Callable[[LightningModule], Any]:
    def configure(module: LightningModule) -> Any:
        optimizer = sgd(module)
        return [optimizer], [{"scheduler": scheduler(optimizer), **how}]

    return configure


def half(step: int) -> float:
    return 0.5**step


def slowly(step: int) -> float:
    return 0.9**step


SCHEDULED: dict[str, Callable[[LightningModule], Any]] = {
    "LambdaLR": scheduled(lambda o: schedulers.LambdaLR(o, [half, slowly])),
    "MultiplicativeLR": scheduled(
        lambda o: schedulers.MultiplicativeLR(o, [lambda _: 0.8, lambda _: 0.9])
    ),
    "OneCycleLR": scheduled(
        lambda o: schedulers.OneCycleLR(o, [0.1, 0.05], total_steps=24), interval="step"
    ),
    "CyclicLR": scheduled(
        lambda o: schedulers.CyclicLR(o, [0.01, 0.02], [0.1, 0.2], step_size_up=5), interval="step"
    ),
    "SequentialLR": scheduled(
        lambda o: schedulers.SequentialLR(
            o, [schedulers.LinearLR(o), schedulers.LambdaLR(o, [half, slowly])], milestones=[2]
        )
    ),
    "ChainedScheduler": scheduled(
        lambda o: schedulers.ChainedScheduler(
            [schedulers.ConstantLR(o, 0.5, 2), schedulers.ExponentialLR(o, 0.9)], o
        )
    ),
    "CosineAnnealingWarmRestarts": scheduled(
        lambda o: schedulers.CosineAnnealingWarmRestarts(o, T_0=2)
    ),
    "PolynomialLR": scheduled(lambda o: schedulers.PolynomialLR(o, total_iters=4)),
    "StepLR": scheduled(lambda o: schedulers.StepLR(o, 2, 0.5)),
    "MultiStepLR": scheduled(lambda o: schedulers.MultiStepLR(o, [1, 3], 0.5)),
}


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
@pytest.mark.parametrize("name", SCHEDULED)
def test_every_scheduler_resumes_where_it_was(tmp_path: Path, name: str) -> None:
    every = ModelCheckpoint(
        dirpath=tmp_path, filename="{epoch}", auto_insert_metric_name=False,
        save_top_k=-1, save_on_train_epoch_end=True,
    )  # fmt: skip
    straight = make(SCHEDULED[name])
    kasmina, trainer = fit(straight, callbacks=[every], enable_checkpointing=True)
    assert kasmina.bed.slots["net.0"].record.fossils
    rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
    # Both slots' own parameters are in the second group.
    assert rates == [rates[0], *[rates[1]] * 9]
    for epoch in (0, 1):
        resumed = make(SCHEDULED[name])
        _, again = fit(resumed, ckpt_path=str(tmp_path / f"{epoch}.ckpt"))
        assert same(weights(straight), weights(resumed))
        assert rates == [group["lr"] for group in again.optimizers[0].param_groups]


def test_a_plateau_scheduler_with_a_list_works() -> None:
    def configure(module: LightningModule) -> Any:
        optimizer = sgd(module)
        plateau = schedulers.ReduceLROnPlateau(
            optimizer, factor=0.1, patience=0, threshold=9.0, min_lr=[0.03, 1e-3]
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"},
        }

    _, trainer = fit(make(configure), epochs=6)
    rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
    assert rates == pytest.approx([0.03, *[1e-3] * 9])


# -- forms and refusals -----------------------------------------------------------------------

FORMS: dict[str, Callable[[LightningModule], Any]] = {
    "optimiser": sgd,
    "list": lambda m: [sgd(m)],
    "tuple": lambda m: (sgd(m),),
    "dictionary": lambda m: {"optimizer": sgd(m)},
    "list of dictionaries": lambda m: [{"optimizer": sgd(m)}],
    "two lists": lambda m: ([sgd(m)], []),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_that_lightning_takes_is_taken(form: str) -> None:
    kasmina, trainer = fit(make(FORMS[form]), epochs=1)
    assert len(trainer.optimizers[0].param_groups) == 2 + 4 * len(kasmina.bed.slots)
    assert kasmina.bed.slots["net.0"].seed is not None


@pytest.mark.parametrize(
    ("configure", "says"),
    [
        (lambda _: None, "returned NoneType without an optimiser; seeds need one to train"),
        (lambda m: [sgd(m), sgd(m)], "returned 2 optimisers .SGD, SGD., growth works with one"),
        (
            lambda m: ({"optimizer": sgd(m)}, {"optimizer": sgd(m)}),
            "returned 2 optimisers .*one optimiser a parameter group",
        ),
        (lambda m: m.early, "SGD was not created in configure_optimizers.* create the optimiser"),
    ],
    ids=["none", "several", "several dictionaries", "made elsewhere"],
)
def test_what_cannot_grow_is_refused_with_the_remedy(configure: Any, says: str) -> None:
    module = make(configure)
    module.early = sgd(module)
    with pytest.raises(UnsupportedOptimizer, match=says):
        fit(module)


def test_a_module_that_was_compiled_as_a_whole_is_refused() -> None:
    module = torch.compile(make(sgd), backend="eager")
    with pytest.raises(UnsupportedTraining, match="compiled as a whole.*compile blocks in it"):
        fit(module)


def test_a_submodule_that_is_compiled_around_slots_is_refused_whenever_it_happens() -> None:
    module = make(sgd)
    module.net.compile(backend="eager")
    with pytest.raises(SlotUnsuitable, match="slot 'net.0' lies inside 'net', .*block by block"):
        fit(module)
    late = make(sgd, on_fit_start=lambda self: None)
    late.setup = lambda stage: late.net.compile(backend="eager")
    with pytest.raises(SlotUnsuitable, match="slot 'net.0' lies inside 'net', .*block by block"):
        fit(late)


def test_a_module_that_is_compiled_inside_a_slot_grows() -> None:
    module = make(sgd)
    module.net[0].compile(backend="eager")
    kasmina, _ = fit(module)
    assert kasmina.bed.slots["net.0"].record.fossils


# -- a slot that is bypassed ------------------------------------------------------------------


class Encoded(Plain):
    """torch's encoder layer, which goes around its linear layers in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.last = nn.Linear(8, 10)
        self.net = nn.Sequential(nn.Unflatten(1, (8, 8)), self.encoder)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self._loss(batch)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", self._loss(batch))

    def _loss(self, batch: list[Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self.last(self.net(batch[0]).mean(1)), batch[1])


@pytest.mark.parametrize("sanity", [0, 2])
@pytest.mark.parametrize("part", ["linear1", "linear2"])
def test_a_slot_that_is_bypassed_in_validation_is_refused(part: str, sanity: int) -> None:
    path = f"encoder.layers.0.{part}"
    trainer = plain_trainer(
        [Kasmina(slots=[path], monitor="val_loss")], num_sanity_val_steps=sanity
    )
    said = rf"slot '{path}' is bypassed in validation, though training calls it.*layers\.0'"
    with pytest.raises(SlotUnsuitable, match=said):
        trainer.fit(Encoded(), *plain_data())
    assert trainer.global_step <= (0 if sanity else 6)


def test_weights_that_are_used_directly_are_told() -> None:
    path = "encoder.layers.0.self_attn.out_proj"
    trainer = plain_trainer([Kasmina(slots=[path], monitor="val_loss")])
    with pytest.raises(SlotUnsuitable, match="never calls slot .*its weights are used directly"):
        trainer.fit(Encoded(), *plain_data())


class Skips(Plain):
    """Skips every batch of its first epoch; later it calls its layers, or uses their weights."""

    def __init__(self, *, goes_around: bool = False) -> None:
        super().__init__()
        self.goes_around = goes_around

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        if self.current_epoch == 0:
            return None
        if self.goes_around:
            x, y = batch
            for index, layer in enumerate(self.net):
                is_linear = index % 2 == 0
                x = nn.functional.linear(x, layer.weight, layer.bias) if is_linear else layer(x)
            return nn.functional.cross_entropy(x, y)
        return super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:.*training_step.* returned .None")
def test_an_epoch_in_which_every_batch_is_skipped_says_so_and_the_run_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kasmina, trainer = fit(Skips())
    assert trainer.current_epoch == 4
    assert kasmina.bed.slots["net.0"].record.fossils
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert told == ["epoch 1 trained nothing: training_step returned None for every batch"]


@pytest.mark.filterwarnings("ignore:.*training_step.* returned .None")
def test_a_slot_that_is_bypassed_is_refused_after_an_epoch_that_trained_nothing() -> None:
    module = Skips(goes_around=True)
    with pytest.raises(SlotUnsuitable, match=r"'net.0' is bypassed in training, though valid"):
        fit(module)
    assert module.current_epoch == 1


def test_an_encoder_layer_as_a_whole_grows() -> None:
    kasmina = Kasmina(slots=["encoder.layers.0"], monitor="val_loss", rules=FREE)
    script = Script({0: [plant("encoder.layers.0", "parallel_mlp")]})
    plain_trainer([kasmina, Tamiyo(risk=False, policy=script)], epochs=2).fit(
        Encoded(), *plain_data()
    )
    assert kasmina.bed.slots["encoder.layers.0"].record.stage is SeedStage.PROBATIONARY


# -- beside growth ----------------------------------------------------------------------------


def clips_by_itself(
    self: LightningModule,
    optimizer: Any,
    gradient_clip_val: Any = None,
    gradient_clip_algorithm: Any = None,
) -> None:
    torch.nn.utils.clip_grad_norm_(self.parameters(), 1e-2)


@pytest.mark.parametrize("options", [{"gradient_clip_val": 0.02}, {"own": True}], ids=str)
def test_a_seed_in_isolation_stands_outside_of_every_clipping(options: dict[str, Any]) -> None:
    hooks = {"configure_gradient_clipping": clips_by_itself} if options.pop("own", False) else {}
    patient = LifecycleRules(min_ages={"TRAINING": 9})
    results = []
    for policy in (Never(), Script({0: [plant("net.0", "parallel_mlp")]})):
        module = make(sgd, **hooks)
        kasmina = Kasmina(
            slots=["net.0"], monitor="val_loss", rules=patient,
            incubation=Incubation.STRAIGHT_THROUGH,
        )  # fmt: skip
        callbacks = [kasmina, Tamiyo(risk=False, policy=policy)]
        torch.manual_seed(0)
        trainer = plain_trainer(callbacks, epochs=3, accumulate_grad_batches=2, **options)
        trainer.fit(module, *plain_data())
        state = weights(module)
        keep = {k: v for k, v in state.items() if ".seed." not in k and "_extra" not in k}
        results.append(keep)
    assert kasmina.bed.slots["net.0"].record.stage is SeedStage.TRAINING
    assert same(*results)


def test_growth_under_bfloat16_autocast() -> None:
    module = make(sgd)
    kasmina, _ = fit(module, precision="bf16-mixed")
    assert kasmina.bed.slots["net.0"].record.fossils
    assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_the_rates_of_slots_are_monitored_by_name(tmp_path: Path) -> None:
    monitor = LearningRateMonitor(logging_interval="epoch")
    logger = CSVLogger(tmp_path)
    module = make(SCHEDULED["StepLR"])
    callbacks = [*growth(), monitor]
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, logger=logger, callbacks=callbacks,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(module, *plain_data())
    names = list(monitor.lrs)
    assert len(names) == len(set(names)) == 10
    assert any("seed:net.0/decay" in name for name in names)


class Unfreeze(BaseFinetuning):
    """Freezes the first layer and lets it train from the second epoch on."""

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        self.freeze(pl_module.net[0])

    def finetune_function(
        self, pl_module: LightningModule, epoch: int, optimizer: torch.optim.Optimizer
    ) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.net[0], optimizer, lr=0.01)


def trained_only(module: LightningModule) -> Any:
    return torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.05)


@pytest.mark.filterwarnings("ignore:The provided params to be frozen already exist")
def test_layers_that_are_unfrozen_later_grow_too() -> None:
    module = make(trained_only)
    kasmina, trainer = fit(module, callbacks=[Unfreeze()])
    assert kasmina.bed.slots["net.0"].record.fossils
    held = [id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in module.parameters()), "each once"


def test_a_grown_module_is_validated_tested_and_asked(tmp_path: Path) -> None:
    module = make(
        sgd,
        test_step=lambda self, batch, _: self.log("test_loss", self.net(batch[0]).mean()),
        predict_step=lambda self, batch, _: self.net(batch[0]),
    )
    _, trainer = fit(module)
    path = tmp_path / "grown.ckpt"
    trainer.save_checkpoint(path)
    _, val = plain_data()
    expected = torch.cat(trainer.predict(module, val))
    measured = trainer.validate(module, val, verbose=False) + trainer.test(
        module, val, verbose=False
    )
    fresh = make(sgd, test_step=type(module).test_step, predict_step=type(module).predict_step)
    again = plain_trainer(growth())
    assert torch.equal(torch.cat(again.predict(fresh, val, ckpt_path=path)), expected)
    assert measured == again.validate(fresh, val, ckpt_path=path, verbose=False) + again.test(
        fresh, val, ckpt_path=path, verbose=False
    )
