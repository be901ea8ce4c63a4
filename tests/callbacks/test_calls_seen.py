"""How slots are called is seen in a first step; what a policy may plant is told without a trace."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled_runs import SLOT, Ahead
from lightning.pytorch import Callback, LightningModule, Trainer
from runs import FREE, Plain, Script, digits_run, listen, plain_data, plain_trainer
from torch import Tensor, nn

from esper_lightning.callbacks import Kasmina, Tamiyo, Tezzeret
from esper_lightning.callbacks.calls_seen import CallsSeen, Seen
from esper_lightning.karn import build
from esper_lightning.kasmina import insert_slots
from esper_lightning.leyline import CommandKind, Decision, SystemState
from esper_lightning.tamiyo import Choice, Heuristic, Periodic, Policy, RandomPolicy

# How slots are called


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_calls_are_seen_as_they_are(channels_last: bool, dtype: torch.dtype) -> None:
    host = Convolutions().to(dtype)
    slots = insert_slots(host, ["first", "second"], build=build)
    seen = CallsSeen(slots)
    x = torch.randn(7, 3, 8, 8, dtype=dtype)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    host(x)
    assert seen.inputs == {}, "it is not open"
    seen.open()
    with torch.no_grad():
        host(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        host(x)
    assert seen.inputs == {}, "neither of which could run compiled"
    host(x)
    known: Any = {
        "rows": 7,
        "dtype": str(dtype)[6:],
        "device": "cpu",
        "channels_last": channels_last,
    }
    assert seen.inputs["first"] == Seen(**known, requires_grad=False)
    assert seen.outputs["first"] == seen.inputs["second"] == Seen(**known, requires_grad=True)
    assert not any(slot._forward_hooks for slot in slots.values())
    host(x[:2])
    assert seen.inputs["first"].rows == 7


def test_what_is_seen_under_frozen_layers_needs_no_gradient() -> None:
    host = Convolutions()
    host.first.requires_grad_(False)
    seen = CallsSeen(insert_slots(host, ["second"], build=build))
    seen.open()
    host(torch.randn(2, 3, 8, 8))
    assert not seen.inputs["second"].requires_grad
    assert seen.outputs["second"].requires_grad


def test_what_is_not_called_is_looked_at_when_it_is_opened_again() -> None:
    host = Convolutions()
    slots = insert_slots(host, ["first", "second"], build=build)
    seen = CallsSeen(slots)
    seen.open()
    x = host.first(torch.randn(2, 3, 8, 8))
    seen.open()
    assert not slots["first"]._forward_hooks
    assert slots["second"]._forward_hooks
    seen.close()
    host.second(x)
    assert [*seen.inputs] == ["first"]
    seen.open()
    host.second(x)
    assert [*seen.inputs] == ["first", "second"]
    assert not slots["second"]._forward_hooks


class Hooks(Callback):
    """How many forward hooks the slot has, in each batch of each phase."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def note(self, phase: str, module: LightningModule) -> None:
        slot = module.get_submodule(SLOT)
        self.seen.append((phase, len(slot._forward_hooks)))

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.note("sanity check" if trainer.sanity_checking else "validation", pl_module)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.note("training", pl_module)


def test_a_run_has_hooks_in_its_first_step_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", "the key of these tests")
    hooks = Hooks()
    grower = Kasmina(slots=[SLOT], monitor="val_loss", rules=FREE)
    listed = [grower, Tamiyo(risk=False, policy=Ahead({})), Tezzeret(library=tmp_path), hooks]
    options: Any = {"deterministic": False, "num_sanity_val_steps": 2}
    plain_trainer(listed, epochs=2, **options).fit(Plain(), *plain_data())
    assert {phase for phase, _ in hooks.seen} == {"sanity check", "training", "validation"}
    assert [hooks.seen[0], *[seen for seen in hooks.seen if seen[1]]] == [
        ("sanity check", 0),
        ("training", 2),  # to see how it is called, and what it reads
    ]


# What a policy may plant


class Asked(Callback):
    """Asks the policy, twice, whenever it is about to decide."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.candidates: list[Choice] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for each in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(each, Kasmina):
                each.subscribe(self.hear)

    def hear(self, event: Any) -> None:
        if isinstance(event, SystemState):
            before = self.policy.state_dict()
            found = self.policy.candidates(event)
            assert self.policy.candidates(event) == found
            assert self.policy.state_dict() == before
            self.candidates += found


POLICIES: dict[str, Callable[[], Policy]] = {
    "heuristic": lambda: Heuristic(min_epoch=1, latest_fraction=0.2),
    "periodic": lambda: Periodic(start=1, period=2, blueprints=["parallel_conv", "low_rank"]),
    "random": lambda: RandomPolicy(action_rate=0.9),
}


@pytest.mark.parametrize("name", POLICIES)
def test_to_ask_a_policy_changes_nothing(name: str) -> None:
    decided = []
    planted: set[Any] = set()
    for asking in (False, True):
        policy = POLICIES[name]()
        asked = Asked(policy)
        _, kasmina, _ = digits_run(policy, epochs=5, callbacks=[asked] if asking else [])
        decisions = [event for event in listen(kasmina) if isinstance(event, Decision)]
        commands = [(each.epoch, each.command) for each in decisions]
        decided.append(
            [(e, c.kind, c.slot, c.blueprint, c.parameters, c.reason) for e, c in commands]
        )
        planted = {
            (command.slot, command.blueprint)
            for _, command in commands
            if command.kind is CommandKind.GERMINATE
        }
    assert decided[0] == decided[1]
    assert all(choice.kind is CommandKind.GERMINATE for choice in asked.candidates)
    assert planted
    assert planted <= {(choice.slot, choice.blueprint) for choice in asked.candidates}


def test_a_policy_that_cannot_tell_names_nothing() -> None:
    policy = Script({})
    state: Any = None
    assert policy.candidates(state) == []
