"""Whoever looks at the optimiser's groups sees all of them; only its own step sees fewer."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateFinder
from runs import FREE, Plain, Script, plain_data, plain_trainer, plant
from torch.optim import Optimizer

from esper_lightning.callbacks import Kasmina, Tamiyo

GROUPS = 1 + 4


def kasmina() -> Kasmina:
    return Kasmina(slots=["net.2"], monitor="val_loss", rules=FREE)


class Onlooker(Callback):
    def __init__(self) -> None:
        self.seen: set[int] = set()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        self.seen.add(len(optimizer.param_groups))

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.seen.add(len(trainer.optimizers[0].param_groups))


class Skipping(Plain):
    """Every second step of its optimiser is left out, as a loss scaler does after an overflow."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        if batch_idx % 2 == 0:
            optimizer.step(closure=optimizer_closure)
            return
        plugin = self.trainer.strategy.precision_plugin
        plugin._wrap_closure(self, optimizer.optimizer, optimizer_closure)


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
@pytest.mark.parametrize("before", [True, False])
def test_others_see_all_groups_also_where_a_step_is_left_out(before: bool) -> None:
    onlooker = Onlooker()
    grower = kasmina()
    script = Tamiyo(risk=False, policy=Script({0: [plant("net.2", "parallel_mlp")]}))
    order = [onlooker, grower, script] if before else [grower, script, onlooker]
    trainer = plain_trainer(order, epochs=3)
    trainer.fit(Skipping(), *plain_data())
    assert onlooker.seen == {GROUPS}
    rates = {round(group["lr"], 9) for group in trainer.optimizers[0].param_groups}
    assert len(rates) == 1, "the scheduler reached every group"


def test_the_optimisers_own_step_sees_only_what_holds_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: set[int] = set()
    original = torch.optim.AdamW._init_group

    def counting(self: Any, group: Any, *rest: Any) -> Any:
        seen.add(len(self.param_groups))
        return original(self, group, *rest)

    monkeypatch.setattr(torch.optim.AdamW, "_init_group", counting)
    plain_trainer([kasmina()], epochs=1).fit(Plain(), *plain_data())
    assert seen == {1}


def test_a_step_that_fails_leaves_all_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Any, group: Any, *rest: Any) -> Any:
        raise KeyError("the step failed")

    monkeypatch.setattr(torch.optim.AdamW, "_init_group", failing)
    trainer = plain_trainer([kasmina()], epochs=1)
    with pytest.raises(KeyError, match="the step failed"):
        trainer.fit(Plain(), *plain_data())
    assert len(trainer.optimizers[0].param_groups) == GROUPS


def test_evaluating_a_checkpoint_rewinds_no_bill(tmp_path: Any) -> None:
    early = tmp_path / "early.ckpt"

    class Save(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(early)

    grower, module = kasmina(), Plain()
    trainer = plain_trainer([grower, Save()], epochs=3)
    trainer.fit(module, *plain_data())
    spent, samples = grower.costs.total, grower.costs.num_samples
    trainer.validate(module, plain_data()[1], ckpt_path=early, verbose=False)
    assert (grower.costs.total, grower.costs.num_samples) == (spent, samples)


@pytest.mark.filterwarnings("ignore")
def test_a_tuner_may_try_steps_before_the_fit(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tuned(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.lr = 0.01

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=self.lr)

    monkeypatch.chdir(tmp_path)
    finder = LearningRateFinder(num_training_steps=5, early_stop_threshold=None)
    trainer = plain_trainer([finder, kasmina()], epochs=1, default_root_dir=tmp_path)
    trainer.fit(Tuned(), *plain_data())
    assert finder.optimal_lr is not None
    assert len(finder.optimal_lr.results["lr"]) == 5
    assert trainer.state.finished
    assert trainer.current_epoch == 1
