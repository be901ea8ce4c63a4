"""Modules that return their own input: what is refused as a slot, and what is not."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from grown_networks import seed, slots_of
from torch import Tensor, nn

from esper_lightning import karn
from esper_lightning.kasmina import SeedSlot, insert_slots, possible_slots
from esper_lightning.leyline import SeedStage, SlotUnsuitable


class InPlace(nn.Module):
    """Works in place on what ``part`` returns, and reads what went in by its other name."""

    def __init__(self, part: nn.Module, *, writes: bool = True) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 6)
        self.part = part
        self.lin = nn.Linear(6, 6)
        self.writes = writes

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        h = self.part(x)
        if self.writes:
            h.add_(1.0)
        output: Tensor = x + self.lin(h.reshape(x.shape))
        return output


class View(nn.Module):
    """Returns a view of all of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :]


class Doubles(nn.Module):
    """Works in place, and keeps nothing for the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2.0)


class Drops(nn.Module):
    """A layer that leaves itself out of training steps."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x if self.training else x + self.lin(x)


X = torch.linspace(-1, 1, 20).view(4, 5)

PASSING: dict[str, Any] = {
    "Identity": nn.Identity,
    "Dropout(0)": lambda: nn.Dropout(0.0),
    "Dropout": nn.Dropout,
    "view": View,
    "Flatten": nn.Flatten,
    "Sequential": lambda: nn.Sequential(nn.Identity(), View()),
}


def heard(model: nn.Module, path: str, *, steps: int = 1) -> SeedSlot:
    """A slot after training steps, as a run without an example input meets it."""
    slot = insert_slots(model, [path], build=karn.build)[path]
    for _ in range(steps):
        slot.listen()
        F.mse_loss(model(X), torch.zeros(4, 6)).backward()
        slot.settle()
    return slot


@pytest.mark.parametrize("name", PASSING)
@pytest.mark.parametrize("probed", [True, False])
def test_a_module_that_returns_its_input_is_refused_and_not_listed(name: str, probed: bool) -> None:
    model = InPlace(PASSING[name]())
    assert "part" not in [slot.path for slot in possible_slots(model, lambda: model(X))]
    says = r"slot 'part': \w+ returns its own input, or a view of it, .* choose the module before"
    with pytest.raises(SlotUnsuitable, match=says):
        slots_of(model, ["part"], X) if probed else heard(model, "part")


def test_the_block_around_is_named() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(5, 5), nn.Identity()), nn.Linear(5, 2))
    with pytest.raises(SlotUnsuitable, match="block around it, such as '0'"):
        slots_of(model, ["0.1"], X)


def test_a_module_that_is_heard_in_inference_first_is_refused_in_training() -> None:
    model = InPlace(nn.Identity())
    slot = insert_slots(model, ["part"], build=karn.build)["part"]
    with torch.inference_mode():
        model(X)
    slot.listen()
    with pytest.raises(SlotUnsuitable, match="returns its own input, or a view"):
        model(X)


def test_an_activation_in_place_is_a_slot_where_nobody_writes_to_its_result() -> None:
    torch.manual_seed(0)
    plain = InPlace(nn.ReLU(inplace=True), writes=False)
    assert "part" in [slot.path for slot in possible_slots(plain, lambda: plain(X))]
    model = copy.deepcopy(plain)
    slot = heard(model, "part", steps=2)
    assert slot.record.mutates_input
    seed(slot, SeedStage.TRAINING, "parallel_mlp")
    assert torch.equal(model(X), plain(X))


@pytest.mark.parametrize("part", [Doubles, Drops])
def test_what_returns_its_input_to_a_host_that_writes_to_it_is_refused(part: Any) -> None:
    model = InPlace(part())
    says = (
        r"slot 'part': \w+ returns its own input.*the host writes to it.*inplace=False, or choose"
    )
    with pytest.raises(SlotUnsuitable, match=says):
        heard(model, "part")


def test_a_layer_that_leaves_itself_out_of_a_pass_is_a_slot() -> None:
    model = InPlace(Drops(), writes=False)
    assert "part" in [slot.path for slot in possible_slots(model, lambda: model(X))]
    heard(model, "part", steps=2)
