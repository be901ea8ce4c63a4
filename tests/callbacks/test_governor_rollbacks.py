"""What a rollback restores, what goes on, and who may ask for one."""

from typing import Any

import pytest
import torch
from governed_runs import Poison, Weights, train
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from runs import (
    Plain,
    Script,
    digits_run,
    listen,
    plain_data,
    plain_trainer,
    plant,
    same,
    tell,
)
from torch.optim import lr_scheduler

from esper_lightning.callbacks import Governor, Kasmina, Tamiyo
from esper_lightning.leyline import (
    CommandKind,
    Decision,
    Intervention,
)
from esper_lightning.tamiyo import Choice
from esper_lightning.tolaria import Constant, HealthRules, Newcomer, is_finite


class Adapter(Plain):
    """Saves what it trains only, as modules around a large frozen network do."""

    def __init__(self) -> None:
        super().__init__()
        self.strict_loading = False
        self.net[4].requires_grad_(False)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        held = super().state_dict(*args, **kwargs)
        return {name: value for name, value in held.items() if not name.startswith("net.4")}


class Averaging(Plain):
    """A running mean of the inputs that is in no ``state_dict``, and that one batch spoils."""

    average: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(64), persistent=False)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        spoilt = self.current_epoch == 2 and batch_idx == 1
        self.average = 0.9 * self.average + batch[0].mean(0) * (float("nan") if spoilt else 0.1)
        return super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize(("kind", "poisoned"), [(Adapter, [2]), (Averaging, [])])
def test_what_a_module_leaves_out_of_its_state_dict_is_restored(
    kind: type[Plain], poisoned: list[int]
) -> None:
    seed_everything(0, verbose=False)
    module, kasmina = kind(), Kasmina(slots=["net.0"], monitor="val_loss")
    policy = Script({0: [plant("net.0", "parallel_mlp")]})
    callbacks = [kasmina, Tamiyo(risk=False, policy=policy), Governor(), Poison(poisoned)]
    plain_trainer(callbacks, epochs=4).fit(module, *plain_data())
    stepped_in = [e for e in listen(kasmina) if isinstance(e, Intervention)]
    assert [(event.epoch, event.restored) for event in stepped_in] == [(2, 1)]
    assert is_finite(module)


def back(**parameters: Any) -> Choice:
    return Choice(kind=CommandKind.ROLLBACK, reason="told to", parameters=parameters)


def test_a_controller_may_ask_for_a_rollback() -> None:
    lines = {
        2: [plant()],
        3: [back(), tell(CommandKind.CULL)],
        5: [tell(CommandKind.CULL)],
        6: [back(boundaries=2)],
        8: [back(boundaries=5)],
    }
    weights, script = Weights(), Script(lines)
    _, kasmina, events = train(script, callbacks=[weights], epochs=10)
    told = [event for event in events if isinstance(event, Intervention)]
    assert [(event.epoch, event.restored) for event in told] == [(3, 2), (6, 4), (8, 2)]
    assert told[0].alarm == "asked for: told to"
    refused = [e.refused for e in events if isinstance(e, Decision) and e.refused]
    assert refused == ["the network was rolled back here"]
    was = weights.by_epoch
    assert same(was[3], was[2])
    assert same(was[6], was[4]), "across a cull"
    assert not same(was[7], was[6])
    assert kasmina.bed.history[3] is None
    assert kasmina.bed.history[5:9] == [None] * 4
    assert [state.epoch for state in script.states] == [*range(10)], "epochs go on"


class Rates(Callback):
    """Each step's learning rates, of the groups that hold something, by name."""

    def __init__(self) -> None:
        self.by_step: list[dict[str, float]] = []

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        groups = [group for group in optimizer.param_groups if group["params"]]
        self.by_step.append({str(g.get("name", "host")): g["lr"] for g in groups})


@pytest.mark.parametrize(
    ("lines", "steps_lost"),
    [
        ({0: [plant()], 3: [back()]}, 5),
        ({0: [plant()], 3: [tell(CommandKind.FOSSILIZE)], 5: [back(boundaries=3)]}, 15),
        ({0: [plant()], 2: [tell(CommandKind.CULL)], 5: [back(boundaries=4)]}, 20),
    ],
    ids=["in its life", "across a fossilisation", "across a cull"],
)
def test_the_first_step_after_a_rollback_has_the_seeds_own_rate(
    lines: dict[int, list[Choice]], steps_lost: int
) -> None:
    """A seed's warm-up goes on where it was; the factor of the host is 1 all along."""
    told, undisturbed = Rates(), Rates()
    plain = {"tolaria": {"schedule": Constant(), "newcomer": Newcomer(warmup_steps=60)}}
    digits_run(Script({0: [plant()]}), epochs=6, callbacks=[undisturbed], **plain)
    governed = [told, Governor(rules=HealthRules(max_rollbacks=9))]
    digits_run(Script(lines), epochs=8, callbacks=governed, **plain)
    after = 5 * (max(lines) + 1)
    expected = undisturbed.by_step[after - steps_lost : after - steps_lost + 4]
    assert expected[0] != expected[1]
    assert told.by_step[after : after + 4] == expected


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("kind", ["one cycle", "by group", "exponential", "plateau"])
def test_schedulers_of_others_go_on_over_a_rollback(kind: str) -> None:
    class Scheduled(Plain):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
            made: Any = {
                "one cycle": lambda: lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=99),
                "by group": lambda: lr_scheduler.LambdaLR(optimizer, [lambda n: 0.9**n]),
                "exponential": lambda: lr_scheduler.ExponentialLR(optimizer, 0.9),
                "plateau": lambda: lr_scheduler.ReduceLROnPlateau(optimizer, patience=0),
            }[kind]()
            plan = {"scheduler": made, "interval": "step", "monitor": "val_loss"}
            if kind == "plateau":
                plan["interval"] = "epoch"
            return {"optimizer": optimizer, "lr_scheduler": plan}

    seed_everything(0, verbose=False)
    rates = Rates()
    lines = {1: [plant("net.0", "parallel_mlp")], 4: [back(boundaries=2)]}
    kasmina = Kasmina(slots=["net.0"], monitor="val_loss")
    callbacks = [kasmina, Tamiyo(risk=False, policy=Script(lines)), Governor(), rates]
    plain_trainer(callbacks, epochs=7).fit(Scheduled(), *plain_data())
    assert len({len(step) for step in rates.by_step}) == 2
    assert all(len(set(step.values())) == 1 for step in rates.by_step), "all as the host's"


def test_a_rollback_comes_first_seldom_and_from_a_governor() -> None:
    lines: dict[int, list[Choice]] = {epoch: [back()] for epoch in range(1, 4)}
    lines[4] = [plant(), back()]
    governor = Governor(rules=HealthRules(max_rollbacks=2))
    _, _, events = train(Script(lines), governor=governor, epochs=7)
    refused = [e.refused for e in events if isinstance(e, Decision) and e.refused]
    assert len(refused) == 2
    assert "2 rollbacks in the last 10 epochs (epochs [1, 2]) are the most allowed" in refused[0]
    assert "comes after commands for slots ['features.1'], which it would undo" in refused[1]
    _, kasmina, _ = digits_run(Script({1: [back()]}))
    assert [e.refused for e in listen(kasmina) if isinstance(e, Decision)] == [
        "ROLLBACK needs a Governor, which keeps what to go back to; add the callback"
    ]
