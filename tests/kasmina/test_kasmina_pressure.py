"""How much the loss pulls at every slot's module."""

import pytest
import torch
from seedlings import build
from torch import Tensor, nn

from esper_lightning.kasmina import insert_slots
from esper_lightning.kasmina.pressure import Pressure


def rms(module: nn.Module) -> float:
    found = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    return float(found.square().mean().sqrt())


def backward(net: nn.Module, x: Tensor) -> None:
    net.zero_grad()
    net(x).square().mean().backward()


def test_the_mean_over_observations_of_each_slots_root_mean_square() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2), nn.Linear(2, 2))
    slots = insert_slots(net, ["0", "2"], build=build)
    pressure = Pressure(slots)
    seen: dict[str, list[float]] = {"0": [], "2": []}
    for _ in range(3):
        backward(net, torch.randn(4, 3))
        pressure.observe()
        for path, slot in slots.items():
            seen[path].append(rms(slot.base_layer))
    for path, values in seen.items():
        assert pressure.mean(path) == pytest.approx(sum(values) / 3, rel=1e-5)


def test_a_slot_without_gradients_is_not_measured_and_spoils_no_other() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))
    slots = insert_slots(net, ["0", "1", "2"], build=build)
    pressure = Pressure(slots)
    pressure.observe()
    assert [pressure.mean(path) for path in slots] == [None, None, None]
    slots["0"].base_layer.requires_grad_(False)
    backward(net, torch.randn(4, 3))
    pressure.observe()
    first = rms(slots["2"].base_layer)
    assert pressure.mean("0") is None
    assert pressure.mean("2") == pytest.approx(first, rel=1e-5)
    slots["0"].base_layer.requires_grad_(True)
    backward(net, torch.randn(4, 3))
    pressure.observe()
    second = rms(slots["2"].base_layer)
    assert pressure.mean("0") == pytest.approx(rms(slots["0"].base_layer), rel=1e-5)
    assert pressure.mean("2") == pytest.approx((first + second) / 2, rel=1e-5)
