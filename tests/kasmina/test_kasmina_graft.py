"""Where a host can grow, and slots put there without changing what it computes."""

import copy
from collections import OrderedDict
from typing import Any

import pytest
import torch
from seedlings import build
from torch import Tensor, nn
from trunks import IMAGE, Block, Trunk, Wrapped, grow, names, trace

from esper_lightning.kasmina import (
    SeedSlot,
    auto_slots,
    insert_slots,
    possible_slots,
)
from esper_lightning.leyline import (
    FeatureKind,
    InvalidArgument,
    PossibleSlot,
    SlotShape,
    SlotUnsuitable,
    UnknownSlot,
)


def found(model: nn.Module, x: Tensor = IMAGE) -> dict[str, PossibleSlot]:
    return {slot.path: slot for slot in possible_slots(model, lambda: model(x))}


def suggested(model: nn.Module, x: Tensor = IMAGE) -> list[str]:
    return [path for path, slot in found(model, x).items() if slot.suggested]


def anything(_: SlotShape) -> bool:
    return True


# -- where a host can grow --------------------------------------------------------------------


def test_every_module_from_one_feature_map_to_another_is_possible() -> None:
    slots = found(Trunk())
    assert list(slots) == [
        "stem",
        "blocks.0",
        "blocks.0.conv",
        "blocks.0.norm",
        "blocks.1",
        "blocks.1.conv",
        "blocks.1.norm",
        "norm",
        "head",
    ]
    stem = slots["stem"]
    assert (stem.module, stem.num_parameters) == ("Conv2d", 4 * 9 + 4)
    assert str(stem.shape) == "spatial 1x8x8 -> spatial 4x8x8"
    assert str(slots["head"].shape) == "vector 4 -> vector 3"
    assert slots["blocks.0"].module == "Block"


def test_blocks_are_suggested_and_heads_norms_and_dropout_are_not() -> None:
    assert suggested(Trunk()) == ["stem", "blocks.0", "blocks.1"]


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (Wrapped, "net."),
        (lambda net: Wrapped(Wrapped(net)), "net.net."),
        (lambda net: nn.Sequential(net), "0."),
        (lambda net: nn.Sequential(nn.Identity(), Wrapped(net)), "1.net."),
    ],
    ids=["wrapped", "twice", "sequential", "both"],
)
def test_what_only_wraps_a_trunk_is_looked_through(wrap: Any, prefix: str) -> None:
    expected = [f"{prefix}{path}" for path in ("stem", "blocks.0", "blocks.1")]
    assert suggested(wrap(Trunk())) == expected


def test_a_sequence_is_a_container_and_may_be_named_as_a_whole() -> None:
    model = nn.Sequential(
        OrderedDict(
            features=nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.LayerNorm(8)),
            head=nn.Linear(8, 2),
        )
    )
    x = torch.randn(3, 4)
    assert suggested(model, x) == ["features.0", "features.2"]
    assert str(found(model, x)["features"].shape) == "vector 4 -> vector 8"


def test_modules_that_are_not_called_with_one_tensor_of_one_shape_are_impossible() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.once = nn.Linear(4, 4)
            self.twice = nn.Linear(4, 4)
            self.never = nn.Linear(4, 4)
            self.recurrent = nn.GRU(4, 4, batch_first=True)
            self.embedding = nn.Embedding(9, 4)
            self.flat = nn.Flatten(0, 1)
            self.alias = self.aliased = nn.Linear(4, 4)
            self.bypassed = nn.Linear(4, 4)
            self.sized = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            h = self.embedding(x)
            h, _ = self.recurrent(h)
            h = self.twice(self.twice(self.once(h)))
            h = nn.functional.linear(self.aliased(h), self.bypassed.weight)
            output: Tensor = self.flat(self.sized(h)) + self.sized(h[:, :1]).sum()
            return output.sum(0)

    slots = found(Odd(), torch.zeros(2, 5, dtype=torch.long))
    assert list(slots) == ["once", "twice", "alias"], "flat returns a view of its input"
    assert [path for path, slot in slots.items() if slot.suggested] == ["once", "alias"]
    assert slots["once"].shape.input.kind is FeatureKind.TOKENS


def test_inputs_by_keyword_are_inputs() -> None:
    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 5)
            self.head = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.head(input=self.first(input=x))
            return output

    assert suggested(Keyword(), torch.randn(2, 4)) == ["first"]


@pytest.mark.parametrize("training", [True, False])
def test_looking_leaves_the_model_as_it_was(training: bool) -> None:
    model = Trunk().train(training)
    model.norm.eval()
    before = trace(model)
    found(model)
    assert trace(model) == before
    assert all(not module._forward_hooks for module in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_looking_leaves_the_model_as_it_was_after_an_error() -> None:
    model = Trunk()
    before = trace(model)
    with pytest.raises(RuntimeError, match="expected input"):
        possible_slots(model, lambda: model(torch.zeros(2, 3, 8, 8)))
    assert trace(model) == before


def test_auto_takes_what_is_suggested_and_fits() -> None:
    model = Trunk()
    assert auto_slots(model, lambda: model(IMAGE), fits=anything) == suggested(model)
    same = auto_slots(
        model, lambda: model(IMAGE), fits=lambda s: s.input.features == s.output.features
    )
    assert same == ["blocks.0", "blocks.1"]


def test_auto_without_a_block_lists_what_can_be_named() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(SlotUnsuitable, match="possible slots to name: 0, 1"):
        auto_slots(model, lambda: model(torch.randn(2, 4)), fits=anything)
    nothing = nn.Identity()
    with pytest.raises(SlotUnsuitable, match="possible slots to name: none"):
        auto_slots(nothing, lambda: nothing(torch.randn(2, 4)), fits=anything)


def test_auto_takes_a_module_that_occurs_in_several_places_once() -> None:
    """A block that is an attribute and in a list, too."""

    class Aliased(Trunk):
        def __init__(self) -> None:
            super().__init__()
            self.first = self.blocks[0]

    model = Aliased()
    paths = auto_slots(model, lambda: model(IMAGE), fits=anything)
    assert paths == ["stem", "blocks.0", "blocks.1"]
    slots = insert_slots(model, paths, build=build)
    assert model.first is model.blocks[0] is slots["blocks.0"]


def test_a_model_with_slots_is_seen_as_its_host() -> None:
    model = Trunk()
    before = [slot.path for slot in possible_slots(model, lambda: model(IMAGE))]
    paths = suggested(model)
    insert_slots(model, [*paths, "blocks.1.conv", "head"], build=build)
    after = found(model)
    assert list(after) == before
    assert after["stem"].module == "Conv2d"
    assert [path for path, slot in after.items() if slot.suggested] == paths


# -- putting slots there ----------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_slots_without_seeds_change_nothing(training: bool) -> None:
    plain = Trunk().train(training)
    model = copy.deepcopy(plain)
    parameters = [id(p) for p in model.parameters()]
    rng = torch.get_rng_state()
    slots = insert_slots(model, ["blocks.1", "stem", "head"], build=build)
    assert list(slots) == ["blocks.1", "stem", "head"]
    assert torch.equal(torch.get_rng_state(), rng)
    assert [id(p) for p in model.parameters()] == parameters
    outputs = []
    for net in (plain, model):
        torch.manual_seed(0)
        outputs.append(net(IMAGE))
        outputs[-1].sum().backward()
    assert torch.equal(*outputs)
    for a, b in zip(plain.parameters(), model.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad)
    for path, slot in slots.items():
        assert model.get_submodule(path) is slot
        assert slot.path == path
        assert slot.training == training
        assert isinstance(slot.base_layer, type(plain.get_submodule(path)))


def test_a_slot_keeps_the_mode_of_its_module() -> None:
    model = Trunk()
    model.blocks[0].eval()
    slots = insert_slots(model, ["blocks.0", "blocks.1"], build=build)
    assert not slots["blocks.0"].training
    assert slots["blocks.1"].training


@pytest.mark.parametrize(
    ("paths", "kind", "says"),
    [
        ("blocks.0", InvalidArgument, "slots must be 'auto' or a list of module paths"),
        ([], InvalidArgument, "list of module paths .* got \\[\\]"),
        (None, InvalidArgument, "list of module paths .* got None"),
        (5, InvalidArgument, "list of module paths .* got 5"),
        ([3], InvalidArgument, "list of module paths .* got \\[3\\]"),
        ([["stem"]], InvalidArgument, "list of module paths .* got \\[\\['stem'\\]\\]"),
        (["stem", "head", "stem"], InvalidArgument, "a path twice: \\['stem', 'head', 'stem'\\]"),
        (["stem", ""], UnknownSlot, "slot '' is not a module of the host"),
        (["stem", "block.1"], UnknownSlot, "did you mean 'blocks.1' or .*Modules: stem, blocks, "),
        (["stem", "blocks.2"], UnknownSlot, "slot 'blocks.2' .* did you mean 'blocks.1' or"),
        (["stem", "zzz"], UnknownSlot, "slot 'zzz' is not a module of the host. Modules: stem"),
        (["stem", "stem.weight"], UnknownSlot, "slot 'stem.weight' is not a module"),
        (["stem", "shared", "again"], InvalidArgument, "'shared' and 'again' are the same Block"),
        (["stem", "blocks"], SlotUnsuitable, "ModuleList, which is never called.* blocks.0, blo"),
    ],
)
def test_a_wrong_path_is_told_and_nothing_is_changed(
    paths: Any, kind: type[Exception], says: str
) -> None:
    model = Trunk()
    model.shared = model.again = Block(4)
    before = trace(model)
    with pytest.raises(kind, match=says):
        insert_slots(model, paths, build=build)
    assert trace(model) == before
    assert not any(isinstance(module, SeedSlot) for module in model.modules())


def test_an_error_lists_every_path_of_the_host_and_none_of_the_slots() -> None:
    model = Trunk()
    host = [name for name in names(model) if name]
    grow(insert_slots(model, ["blocks.0", "blocks.0.conv"], build=build), model)
    with pytest.raises(UnknownSlot, match=f"Modules: {', '.join(host)}$"):
        insert_slots(model, ["blocks.0.fossils.0"], build=build)


def test_slots_that_are_there_stay() -> None:
    model = Trunk()
    first = insert_slots(model, ["stem", "blocks.0"], build=build)
    again = insert_slots(model, ["blocks.0", "blocks.1", "stem"], build=build)
    assert again["stem"] is first["stem"]
    assert again["blocks.0"] is first["blocks.0"]
    assert list(again) == ["blocks.0", "blocks.1", "stem"]
    assert sum(isinstance(module, SeedSlot) for module in model.modules()) == 3
