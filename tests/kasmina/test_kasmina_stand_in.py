"""A slot is to its host what the module was that it wraps."""

import copy
import io
import pickle

import pytest
import torch
from foreign_hosts import CASES
from grown_networks import fossil, seed, slots_of
from torch import Tensor, nn

from esper_lightning.kasmina import SeedSlot
from esper_lightning.kasmina.export.plain import plain
from esper_lightning.leyline import SeedStage


def test_attributes_items_and_truth_are_those_of_the_module() -> None:
    host = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Identity())
    inner = host[0]
    slot = slots_of(host, ["0"], torch.randn(2, 3))["0"]
    assert host[0] is slot
    assert slot[0] is inner[0]
    assert len(slot) == 2
    assert slot[0].out_features == 4
    assert bool(slots_of(nn.Sequential(nn.Linear(2, 2)), ["0"], torch.randn(1, 2))["0"])


def test_a_copy_of_a_slot_around_a_module_that_copies_itself_is_a_slot() -> None:
    case = CASES["parametrised"]
    host = case.make()
    for slot in slots_of(host, case.paths, case.x()).values():
        fossil(slot)
    twin = copy.deepcopy(host)
    slots = [module for module in twin.modules() if isinstance(module, SeedSlot)]
    assert [slot.path for slot in slots] == list(case.paths)
    assert torch.equal(twin.eval()(case.x()), host.eval()(case.x()))


class Tempered(nn.Module):
    """Divides by a temperature that its owner sets."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.weight = nn.Parameter(torch.ones(4))
        self.register_buffer("shift", torch.zeros(4))
        self.norm = nn.LayerNorm(4)
        self.temperature = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x) * self.weight + self.shift) / self.temperature


class Owner(nn.Module):
    """Heats its block up by itself, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Tempered()
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        self.block.temperature = 2.0**self.steps
        self.block.last_norm = float(x.norm())
        return self.block(x)


def owners(*, grown: bool = False) -> tuple[Owner, Owner]:
    """The same twice, the second with a slot around its block."""
    torch.manual_seed(0)
    bare = Owner()
    slotted = copy.deepcopy(bare)
    slot = slots_of(slotted, ["block"], torch.randn(2, 4))["block"]
    slotted.steps = 0
    if grown:
        seed(slot, SeedStage.TRAINING, "parallel_mlp")
    return bare, slotted


@pytest.mark.parametrize("grown", [False, True])
def test_what_a_host_writes_in_its_block_reaches_the_block(grown: bool) -> None:
    bare, slotted = owners(grown=grown)
    x = torch.randn(3, 4)
    for _ in range(3):
        assert torch.equal(bare(x), slotted(x))
    slot = slotted.block
    assert slot.base_layer.temperature == slot.temperature == 8.0
    assert slot.base_layer.last_norm == float(x.norm())
    assert "last_norm" not in vars(slot)
    del slot.last_norm
    assert not hasattr(slot.base_layer, "last_norm")


@pytest.mark.parametrize("grown", [False, True])
def test_tensors_and_modules_that_are_written_are_those_of_the_module(grown: bool) -> None:
    _, slotted = owners(grown=grown)
    slot = slotted.block
    keys = set(slotted.state_dict())
    slot.weight = nn.Parameter(torch.full((4,), 3.0))
    slot.shift = torch.ones(4)
    slot.norm = nn.Identity()
    slot.register_buffer("mean", torch.zeros(4))
    slot.register_parameter("gain", nn.Parameter(torch.zeros(1)))
    slot.add_module("after", nn.Linear(4, 2))
    base = slot.base_layer
    assert base.weight is slot.weight
    assert torch.equal(base.shift, torch.ones(4))
    assert isinstance(base.norm, nn.Identity)
    assert {"mean", "gain", "after"} <= {n for n, _ in base.named_children()} | {
        n for n, _ in (*base.named_buffers(), *base.named_parameters())
    }
    there = set(slotted.state_dict())
    assert keys - there == {"block.base_layer.norm.weight", "block.base_layer.norm.bias"}
    assert all(name.startswith("block.base_layer.") for name in there - keys)
    with pytest.raises(TypeError, match="cannot assign"):
        slot.weight = torch.zeros(4)
    del slot.gain
    assert not hasattr(base, "gain")
    with pytest.raises(AttributeError, match="never"):
        del slot.never


def test_what_is_the_slots_own_stays_its_own() -> None:
    _, slotted = owners()
    slot = slotted.block
    slot.trust_radius = 0.5
    slot.sample = None
    assert not {"trust_radius", "sample", "path", "record", "alpha"} & set(vars(slot.base_layer))
    slotted.double()
    assert slot.alpha.dtype == slot.weight.dtype == torch.float64
    sequence = nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
    inner = slots_of(sequence, ["0"], torch.randn(2, 3))["0"]
    inner[1] = nn.Tanh()
    assert isinstance(inner.base_layer[1], nn.Tanh)
    del inner[0]
    assert len(inner.base_layer) == 1


def test_modes_reach_the_module_and_frozen_parts_of_it_stay_frozen() -> None:
    bare = nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), nn.Linear(3, 2))
    bare[0][1].eval()
    slot = slots_of(bare, ["0"], torch.randn(2, 3))["0"]
    assert [module.training for module in slot.base_layer.modules()] == [True, True, False]
    bare.eval()
    assert not any(module.training for module in bare.modules())
    bare.train()
    assert all(module.training for module in bare.modules())
    slot.training = False
    assert [module.training for module in slot.base_layer.modules()] == [False, True, True]


@pytest.mark.parametrize("grown", [False, True])
def test_copies_and_pickles_write_to_their_own_module(grown: bool) -> None:
    _, slotted = owners(grown=grown)
    file = io.BytesIO()
    torch.save(slotted, file)
    file.seek(0)
    copies = [
        copy.deepcopy(slotted),
        pickle.loads(pickle.dumps(slotted)),
        torch.load(file, weights_only=False),
    ]
    for twin in copies:
        twin.block.temperature = 0.5
        assert twin.block.base_layer.temperature == 0.5
        assert slotted.block.temperature != 0.5
        twin.load_state_dict(slotted.state_dict())


def test_a_slot_whose_block_is_written_is_compiled_and_exported() -> None:
    bare, slotted = owners()
    x = torch.randn(3, 4)
    slotted.block.compile(backend="eager")
    for _ in range(2):
        assert torch.allclose(bare(x), slotted(x))
    grown = owners()[1]
    fossil(grown.block)
    settled = plain(grown)
    assert not isinstance(settled.block, SeedSlot)
    assert torch.allclose(settled(x), grown(x))
    assert settled.block.base_layer.temperature == 2.0
    program = torch.export.export(slots_of(nn.Sequential(Tempered()), ["0"], x)["0"], (x,))
    assert program.module()(x).shape == (3, 4)
