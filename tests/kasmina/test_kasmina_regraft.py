"""Slots within slots, and a fresh host that takes the state of a grown one."""

import copy
import io
import pickle
from collections import OrderedDict
from typing import Any

import pytest
import torch
from seedlings import Host, build
from torch import Tensor, nn
from trunks import IMAGE, Trunk, Wrapped, grow, names, trace

from esper_lightning.kasmina import (
    SeedSlot,
    insert_slots,
    regraft,
)

NESTED = ["blocks", "blocks.0", "blocks.0.0"]


def nested() -> nn.Sequential:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
    return nn.Sequential(
        OrderedDict(blocks=nn.Sequential(inner, nn.Conv2d(4, 4, 1)), pool=nn.AvgPool2d(8))
    )


@pytest.mark.parametrize("order", [NESTED, NESTED[::-1], [NESTED[1], NESTED[0], NESTED[2]]])
def test_slots_may_lie_within_slots_in_any_order(order: list[str]) -> None:
    model, plain = nested(), nested()
    slots = insert_slots(model, order, build=build)
    assert list(slots) == order
    assert torch.equal(model(IMAGE), plain(IMAGE))
    outer, middle, inner = (slots[path] for path in NESTED)
    assert model.blocks is outer
    assert outer.base_layer.get_submodule("0") is middle
    assert middle.base_layer.get_submodule("0") is inner
    assert isinstance(inner.base_layer, nn.Conv2d)
    assert [slot.path for slot in (outer, middle, inner)] == NESTED
    assert all(slot.record.shape is not None for slot in slots.values())
    again = insert_slots(model, NESTED, build=build)
    assert all(again[path] is slots[path] for path in NESTED)


def test_an_inner_slot_may_come_later_than_an_outer_one() -> None:
    model, plain = nested(), nested()
    outer = insert_slots(model, ["blocks"], build=build)["blocks"]
    inner = insert_slots(model, ["blocks.0.0", "blocks"], build=build)["blocks.0.0"]
    assert inner.path == "blocks.0.0"
    assert outer.base_layer.get_submodule("0.0") is inner
    assert torch.equal(model(IMAGE), plain(IMAGE))


# -- putting them into a fresh model ----------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "paths"),
    [
        (Trunk, ["stem"]),
        (Trunk, ["blocks.1", "blocks.0", "norm"]),
        (nested, NESTED),
        (nested, ["blocks.0.1", "pool"]),
        (lambda: Wrapped(nested()), [f"net.{path}" for path in NESTED]),
        (Host, ["mix", "act", "block.2"]),
    ],
    ids=["one", "list", "nested", "without parameters", "nested and wrapped", "in place"],
)
def test_a_fresh_model_takes_the_state_of_a_grown_one_exactly(make: Any, paths: list[str]) -> None:
    model = make().eval()
    slots = insert_slots(model, paths, build=build)
    plain = model(IMAGE)
    grow(slots, model)
    assert not torch.equal(model(IMAGE), plain)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)

    fresh = make().eval()
    regraft(fresh, state, build=build)
    fresh.load_state_dict(state, strict=True)
    assert torch.equal(fresh(IMAGE), model(IMAGE))
    rebuilt = {m.path: m for m in fresh.modules() if isinstance(m, SeedSlot)}
    assert rebuilt.keys() == slots.keys()
    assert names(fresh) == names(model)
    assert insert_slots(fresh, paths, build=build) == {path: rebuilt[path] for path in paths}


def test_regraft_leaves_slots_that_are_there_and_adds_those_that_are_not() -> None:
    model = nested().eval()
    slots = insert_slots(model, NESTED, build=build)
    grow(slots, model)
    fresh = nested().eval()
    there = insert_slots(fresh, ["blocks"], build=build)["blocks"]
    regraft(fresh, model.state_dict(), build=build)
    fresh.load_state_dict(model.state_dict(), strict=True)
    assert fresh.blocks is there
    assert torch.equal(fresh(IMAGE), model(IMAGE))
    everything = names(fresh)
    regraft(fresh, model.state_dict(), build=build)
    assert names(fresh) == everything


def test_regraft_of_a_state_without_slots_changes_nothing() -> None:
    model = Trunk()
    state = Trunk().state_dict()
    before = trace(model)
    regraft(model, state, build=build)
    assert trace(model) == before


def test_other_modules_may_have_extra_state() -> None:
    class Counter(nn.Linear):
        def get_extra_state(self) -> Tensor:
            return torch.tensor([3])

        def set_extra_state(self, state: Tensor) -> None:
            assert state.tolist() == [3]

    def make() -> nn.Sequential:
        return nn.Sequential(Counter(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))

    model, fresh = make(), make()
    insert_slots(model, ["1"], build=build)
    regraft(fresh, model.state_dict(), build=build)
    fresh.load_state_dict(model.state_dict(), strict=True)
    assert [type(module).__name__ for module in fresh] == ["Counter", "SeedSlot", "Linear"]


def test_a_host_may_call_its_own_modules_base_layer() -> None:
    """As the layers of PEFT do."""

    def make() -> nn.Module:
        model = nn.Sequential(OrderedDict(base_layer=Wrapped(Trunk())))
        return model.eval()

    model, fresh = make(), make()
    paths = ["base_layer.net.stem", "base_layer.net.blocks.0"]
    slots = insert_slots(model, paths, build=build)
    grow(slots, model)
    regraft(fresh, model.state_dict(), build=build)
    fresh.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(fresh(IMAGE), model(IMAGE))


def test_a_grafted_host_can_be_pickled_and_copied_after_a_probe() -> None:
    model = Trunk().eval()
    grow(insert_slots(model, ["stem", "blocks.0"], build=build), model)
    expected = model(IMAGE).detach()
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(again(IMAGE), expected)
