"""What people get wrong with data, hosts and modules, and what they are told."""

from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from runs import FREE, Plain, Script, digits_run, plain_data, plain_trainer, plant
from torch import Tensor, nn

from esper_lightning.callbacks import Kasmina, Tamiyo
from esper_lightning.callbacks.requirements import check_supported
from esper_lightning.kasmina import GateRules, LifecycleRules
from esper_lightning.leyline import (
    BlendSchedule,
    InvalidArgument,
    NonFiniteTraining,
    SlotUnsuitable,
    UnknownSlot,
    UnsupportedOptimizer,
    UnsupportedTraining,
)
from esper_lightning.tamiyo import Never
from esper_lightning.tolaria import TensorDataModule


def test_a_host_that_returns_a_tuple() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            h = self.block(x.flatten(1))
            return h, h

    with pytest.raises(InvalidArgument, match="host Pair returned tuple; Tolaria needs one tensor"):
        digits_run(Never(), host=Pair(), slots=["block"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"slots": 5}, "slots must be 'auto' or a list of module paths, got 5"),
        ({"slots": {"net.2"}}, "slots must be 'auto' or a list"),
        ({"monitor": ""}, "monitor must name a logged metric, got ''"),
        ({"monitor": None}, "monitor must name a logged metric, got None"),
        ({"loss": "x"}, "loss must be a function, got 'x'"),
        ({"build": "x"}, "build must be a function, got 'x'"),
        ({"rules": {}}, "rules must be LifecycleRules, got {}"),
    ],
)
def test_arguments_of_a_wrong_type(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        Kasmina(**options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"blend": "cosine"}, "blend must be of type BlendSchedule, got 'cosine'"),
        ({"gates": {}}, "gates must be of type GateRules"),
        ({"min_ages": "x"}, "min_ages must be of type Mapping"),
        ({"min_ages": {"TRAINING": True}}, "ages whole epochs"),
        ({"seed": None}, "seed must be a whole number, got None"),
        ({"shadow_share": 0.0}, "shadow_share must be above 0 and at most 1, got 0.0"),
        ({"shadow_share": float("nan")}, "shadow_share must be above 0"),
        ({"monitor_every": 0}, "monitor_every must be a whole number of at least 1"),
        ({"max_violations": None}, "max_violations must be a whole number of at least 1"),
    ],
)
def test_rules_of_a_wrong_type(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        LifecycleRules(**options)


@pytest.mark.parametrize("steps", [0, 2.5, float("nan"), "3", None])
def test_a_blend_of_no_whole_number_of_steps(steps: Any) -> None:
    with pytest.raises(InvalidArgument, match="blend num_steps must be a whole number"):
        BlendSchedule(num_steps=steps)


@pytest.mark.parametrize("options", [{"window": 1.5}, {"window": 0}, {"max_dropped": None}])
def test_gate_rules_of_a_wrong_type(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(options))):
        GateRules(**options)


def test_a_slot_where_nothing_fits() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flatten = nn.Flatten()
            self.head = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.flatten(x))

    class Scalar(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.squash = nn.Flatten(0)
            self.head = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.squash(x).view(len(x), -1))

    with pytest.raises(SlotUnsuitable, match="found no block"):
        digits_run(Never(), host=Flat())
    with pytest.raises(SlotUnsuitable, match="slot 'squash' output is .* a slot carries"):
        digits_run(Never(), host=Scalar(), slots=["squash"])


def test_nan_in_the_data_is_found_before_training() -> None:
    x, y = torch.randn(20, 3), torch.randint(0, 2, (20,))
    x[7, 1] = float("nan")
    data = TensorDataModule(train=(x, y), val=(x[:5].clone(), y[:5]), test=(x[5:6], y[5:6]))
    with pytest.raises(InvalidArgument, match="1 of 20 .* not finite, the first at index 7"):
        data.setup("fit")


def test_nan_in_somebody_elses_data_stops_the_run_and_says_so() -> None:
    class Broken(Plain):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) * float("nan")

    trainer = plain_trainer([Kasmina(slots=["net.0"], monitor="val_loss")])
    with pytest.raises(NonFiniteTraining, match="NaN or infinity in the data"):
        trainer.fit(Broken(), *plain_data())


def test_slots_by_themselves_need_an_example() -> None:
    with pytest.raises(InvalidArgument, match="set self.example_input_array in the module"):
        plain_trainer([Kasmina()]).fit(Plain(), *plain_data())


def test_an_unknown_slot_of_somebody_elses_module() -> None:
    with pytest.raises(UnknownSlot, match=r"'net\.7' is not a module of the host.*net\.0"):
        plain_trainer([Kasmina(slots=["net.7"])]).fit(Plain(), *plain_data())
    with pytest.raises(UnknownSlot, match="root 'hots' is not a submodule; there are \\['net'\\]"):
        plain_trainer([Kasmina(slots=["0"], root="hots")]).fit(Plain(), *plain_data())


def test_tamiyo_without_kasmina() -> None:
    with pytest.raises(InvalidArgument, match="one Kasmina callback is needed, the Trainer has 0"):
        plain_trainer([Tamiyo(policy=Never())]).fit(Plain(), *plain_data())


def test_a_metric_that_nobody_logs_is_named() -> None:
    trainer = plain_trainer([Kasmina(slots=["net.0"], monitor="val/los")], epochs=1)
    with pytest.warns(UserWarning, match="monitors 'val/los', which was not logged.*val_loss"):
        trainer.fit(Plain(), *plain_data())


def test_an_optimiser_that_cannot_grow_is_refused_with_the_reason() -> None:
    class Second(Plain):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters())

    with pytest.raises(UnsupportedOptimizer, match="LBFGS does not work with growth: .* flat"):
        plain_trainer([Kasmina(slots=["net.0"])]).fit(Second(), *plain_data())


def test_an_optimiser_that_was_made_elsewhere_is_refused_with_the_remedy() -> None:
    class Early(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.early = torch.optim.AdamW(self.parameters(), lr=0.01)

        def configure_optimizers(self) -> Any:
            return self.early

    with pytest.raises(UnsupportedOptimizer, match="create the optimiser inside"):
        plain_trainer([Kasmina(slots=["net.0"])]).fit(Early(), *plain_data())


def test_manual_optimisation_is_refused() -> None:
    module = Plain()
    module.automatic_optimization = False
    with pytest.raises(UnsupportedTraining, match="automatic"):
        plain_trainer([Kasmina(slots=["net.0"])]).fit(module, *plain_data())


def test_a_live_seed_of_another_run_is_refused() -> None:
    module = Plain()
    first = [
        Kasmina(slots=["net.0"], monitor="val_loss", rules=FREE),
        Tamiyo(risk=False, policy=Script({0: [plant("net.0", "parallel_mlp")]})),
    ]
    plain_trainer(first, epochs=2).fit(module, *plain_data())
    with pytest.raises(InvalidArgument, match="hold live seeds of an earlier run"):
        plain_trainer([Kasmina(slots=["net.0"])]).fit(module, *plain_data())


@pytest.mark.parametrize("sharded", [FSDPStrategy, ModelParallelStrategy])
def test_strategies_that_split_parameters_are_refused(
    sharded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = plain_trainer([Kasmina(slots=["net.0"])])
    strategy = sharded()  # a Trainer takes it on a machine with CUDA devices only
    monkeypatch.setattr(trainer._accelerator_connector, "strategy", strategy)
    says = f"{sharded.__name__} splits parameters.* use strategy='ddp', which"
    with pytest.raises(UnsupportedTraining, match=says):
        check_supported(trainer, Plain())
