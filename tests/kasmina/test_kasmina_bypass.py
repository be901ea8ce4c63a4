"""Slots that the host calls in one phase of a run and goes around in another."""

import pytest
import torch
from seedlings import build
from torch import Tensor, nn

from esper_lightning.kasmina import Phase, PhaseCalls, insert_slots
from esper_lightning.leyline import SlotUnsuitable


class Shortcut(nn.Module):
    """Uses the layer's weight without calling it, in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.layer(x)
        return nn.functional.linear(x, self.layer.weight, self.layer.bias)


def test_the_refusal_stands_however_often_it_is_asked_for() -> None:
    host = Shortcut()
    calls = PhaseCalls(insert_slots(host, ["layer"], build=build))
    x = torch.randn(2, 4)
    calls.begin(Phase.TRAINING)
    host(x)
    calls.end(Phase.TRAINING)
    host.eval()
    for _ in range(2):
        calls.begin(Phase.VALIDATION)
        host(x)
        with pytest.raises(SlotUnsuitable, match="bypassed in validation, though training calls"):
            calls.end(Phase.VALIDATION)


def test_a_slot_that_is_always_called_is_watched_no_longer() -> None:
    host = nn.Sequential(nn.Linear(4, 4))
    slots = insert_slots(host, ["0"], build=build)
    calls = PhaseCalls(slots)
    for phase in Phase:
        calls.begin(phase)
        assert "forward" in vars(slots["0"])
        host(torch.randn(2, 4))
        assert "forward" not in vars(slots["0"])
        calls.end(phase)
    calls.begin(Phase.TRAINING)
    assert "forward" not in vars(slots["0"])
