"""The host's layers and their dataflow, as one training step shows them."""

import torch
from torch import Tensor, nn

from esper_lightning import karn
from esper_lightning.kasmina import HostLayers, LifecycleRules, SeedBed, insert_slots
from esper_lightning.kasmina.dataflow import MAX_LAYERS
from esper_lightning.leyline import GrownSeed


class Residual(nn.Module):
    """Two branches that meet, with operations that belong to no layer between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 8)
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 2)
        self.unused = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.stem(x))
        out: Tensor = self.head(h + self.second(self.act(self.first(h))))
        return out


def seen(network: nn.Module, x: Tensor) -> HostLayers:
    layers = HostLayers()
    layers.open(network)
    network(x)
    layers.close()
    return layers


def edges(layers: HostLayers) -> dict[str, tuple[str, ...]]:
    return {layer.path: layer.reads for layer in layers.found}


def test_edges_go_through_what_is_no_layer() -> None:
    assert edges(seen(Residual(), torch.randn(3, 4))) == {
        "stem": (),
        "first": ("stem",),
        "second": ("first",),
        "head": ("stem", "second"),
    }


def test_slots_are_layers_and_what_grows_in_them_is_not() -> None:
    network = Residual()
    before = edges(seen(network, torch.randn(3, 4)))
    slots = insert_slots(network, ["second"], build=karn.build)
    bed = SeedBed(network, slots, rules=LifecycleRules(), fits=lambda _: True)
    network(torch.randn(3, 4))  # tells the slot its shape
    bed.start_with([GrownSeed(slot="second", blueprint="parallel_mlp", parameters={})])
    assert slots["second"].branch_parameters()
    found = seen(network, torch.randn(3, 4))
    assert edges(found) == before
    assert [layer.module for layer in found.found] == ["Linear"] * 4
    assert [layer.num_parameters for layer in found.found] == [40, 72, 72, 18]


def test_modules_within_layers_read_what_their_holder_reads() -> None:
    block = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    network = nn.Sequential(nn.Linear(4, 4), block, nn.Linear(4, 1))
    insert_slots(network, ["1"], build=karn.build)
    assert edges(seen(network, torch.randn(2, 4))) == {
        "0": (),
        "1": ("0",),
        "1.0": ("0",),
        "1.2": ("1.0",),
        "2": ("1",),
    }


def test_nothing_is_touched_and_no_hook_stays() -> None:
    network, x = Residual(), torch.randn(3, 4)
    alone = network(x)
    state = torch.get_rng_state()
    layers = HostLayers()
    layers.open(network)
    watched = network(x)
    layers.close()
    assert torch.equal(alone, watched)
    assert torch.equal(state, torch.get_rng_state())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_without_gradients_nothing_is_known() -> None:
    with torch.no_grad():
        assert seen(Residual(), torch.randn(3, 4)).found == ()


def test_frozen_layers_are_there_and_say_nothing_of_what_they_read() -> None:
    network = Residual()
    network.stem.requires_grad_(False)
    assert edges(seen(network, torch.randn(3, 4)))["first"] == ()


def test_only_the_first_step_is_looked_at() -> None:
    network = Residual()
    layers = seen(network, torch.randn(3, 4))
    layers.open(network)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_a_deep_host_loses_its_deepest_layers_and_no_slot() -> None:
    blocks = [nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2))) for _ in range(40)]
    network = nn.Sequential(*blocks)
    slots = ["3.1.0", "7"]
    insert_slots(network, slots, build=karn.build)
    found = edges(seen(network, torch.randn(1, 2)))
    assert len(found) <= MAX_LAYERS
    assert set(slots) <= set(found)
    assert found["9.0"] == ("8.0",)  # through 8.1.0, which is left out
