"""A slot is to its host what the module was that it wraps."""

import copy

import torch
from foreign_hosts import CASES
from grown_networks import fossil, slots_of
from torch import nn

from esper_lightning.kasmina import SeedSlot


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
