"""Schedulers of somebody's own beside the groups of slots."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from runs import FREE, Plain, Script, plain_data, plain_trainer, plant
from torch.optim import lr_scheduler as schedulers

from esper_lightning.callbacks import Kasmina, Tamiyo
from esper_lightning.leyline import InvalidArgument


class Scheduled(Plain):
    """Two parameter groups and a scheduler."""

    def __init__(self, scheduler: Callable[[torch.optim.Optimizer], Any]) -> None:
        super().__init__()
        self._scheduler = scheduler

    def configure_optimizers(self) -> Any:
        groups = [{"params": self.net[4].parameters()}, {"params": self.net[:4].parameters()}]
        optimizer = torch.optim.SGD(groups, lr=0.1)
        return [optimizer], [self._scheduler(optimizer)]


def fit(scheduler: Callable[[torch.optim.Optimizer], Any]) -> Trainer:
    kasmina = Kasmina(slots=["net.0", "net.2"], monitor="val_loss", rules=FREE)
    tamiyo = Tamiyo(risk=False, policy=Script({0: [plant("net.0", "parallel_mlp")]}))
    trainer = plain_trainer([kasmina, tamiyo], epochs=2)
    trainer.fit(Scheduled(scheduler), *plain_data())
    return trainer


class Factors(schedulers.LRScheduler):
    """Somebody's own: one factor for each group."""

    def __init__(self, optimizer: torch.optim.Optimizer, factors: list[float], how: str) -> None:
        self.factors, self.how = factors, how
        if how == "checks" and len(factors) != len(optimizer.param_groups):
            raise ValueError("one factor for each group")
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        if self.how == "indexes":
            return [rate * self.factors[n] for n, rate in enumerate(self.base_lrs)]
        strict = self.how == "strict"
        return [r * f for r, f in zip(self.base_lrs, self.factors, strict=strict)]


def factored(factors: list[float], how: str) -> Any:
    return lambda optimizer: Factors(optimizer, factors, how)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("strict", "failed .ValueError: zip"),
        ("checks", "failed .ValueError: one factor for each group"),
        ("indexes", "failed .IndexError: list index out of range"),
        ("silent", "gave 2 rates for 10 groups"),
    ],
)
def test_a_scheduler_of_ones_own_without_a_rate_for_slots_is_told(how: str, said: str) -> None:
    says = rf"scheduler Factors {said}.*8 groups of slots after the 2 of the module's own.*LambdaLR"
    with pytest.raises(InvalidArgument, match=says):
        fit(factored([1.0, 0.5], how))


def test_a_scheduler_of_ones_own_with_a_rate_for_each_group_grows() -> None:
    trainer = fit(factored([1.0, *[0.5] * 9], "strict"))
    assert "get_lr" not in vars(trainer.lr_scheduler_configs[0].scheduler)
    rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
    assert rates == [rates[0], *[rates[1]] * 9]


def test_what_else_goes_wrong_in_configure_optimizers_is_raised_as_it_is() -> None:
    with pytest.raises(ValueError, match="^Expected positive integer"):
        fit(lambda o: schedulers.OneCycleLR(o, 0.1, total_steps=-1))

    def wrong(optimizer: torch.optim.Optimizer) -> Any:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="^mine$"):
        fit(wrong)
