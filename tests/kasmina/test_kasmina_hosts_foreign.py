"""Hosts that this project never saw: slots and seeds in isolation change no bit of them."""

import copy
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from foreign_hosts import CASES, Case, Encoder, ResNet, Shared, image
from torch import Tensor, nn

from esper_lightning import karn
from esper_lightning.kasmina import (
    SeedSlot,
    insert_slots,
    lifecycle,
    possible_slots,
    probing,
    regraft,
)
from esper_lightning.kasmina.record import SeedRecord
from esper_lightning.leyline import (
    Attachment,
    BlendSchedule,
    GrownSeed,
    Incubation,
    InvalidArgument,
    SeedStage,
    SlotUnsuitable,
)

every_host = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def blueprints(slot: SeedSlot) -> dict[Attachment, str]:
    """For each way to attach, the first blueprint that fits and holds a matrix or kernel."""
    assert slot.record.shape is not None
    fits: dict[Attachment, str] = {}
    for blueprint in karn.fitting(slot.record.shape):
        if not blueprint.name.endswith("affine"):
            fits.setdefault(blueprint.branch.attachment, blueprint.name)
    return fits


def grafted(case: Case, model: nn.Module) -> dict[str, SeedSlot]:
    slots = insert_slots(model, case.paths, build=karn.build)
    with probing(model):
        model(case.x())
    return slots


def plant(slot: SeedSlot, stage: SeedStage, attachment: Attachment | None = None) -> None:
    fits = blueprints(slot)
    name = fits.get(attachment or Attachment.PARALLEL) or next(iter(fits.values()))
    branch = slot.construct(name, {}, rng_seed=3)
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter.add_(torch.full_like(parameter, 0.02))
    record = SeedRecord(
        blueprint=name,
        parameters={},
        incubation=Incubation.STRAIGHT_THROUGH,
        blend=BlendSchedule(),
        num_parameters=0,
        planted_epoch=0,
        planted_step=0,
        rng_seed=3,
        network_parameters_before=1,
        flops_before=None,
    )
    lifecycle.plant(slot, branch, record)
    slot.record.stage = stage
    slot.set_alpha(0.5)


def own(model: nn.Module) -> list[nn.Parameter]:
    slots = [module for module in model.modules() if isinstance(module, SeedSlot)]
    grown = {id(p) for slot in slots for p in slot.branch_parameters()}
    return [p for p in model.parameters() if id(p) not in grown]


@contextmanager
def layouts(model: nn.Module, into: list[Any]) -> Iterator[None]:
    """Strides of what every block of the host returns."""
    grown = {
        id(part)
        for slot in model.modules()
        if isinstance(slot, SeedSlot) and slot.seed is not None
        for part in slot.seed.modules()
    }
    handles = [
        module.register_forward_hook(
            lambda *seen: into.append(seen[2].stride()) if isinstance(seen[2], Tensor) else None
        )
        for module in model.modules()
        if id(module) not in grown and not isinstance(module, SeedSlot)
    ]
    yield
    for handle in handles:
        handle.remove()


def trace(model: nn.Module, x: Tensor) -> list[Any]:
    """Three steps in training mode: all that the host computes and keeps."""
    parameters = own(model)
    trained = [p for p in parameters if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05, momentum=0.9)
    seen: list[Any] = []
    torch.manual_seed(11)
    for step in range(3):
        optimizer.zero_grad()
        given = (x.clone() + 0.1 * step).requires_grad_(True)
        with layouts(model, strides := []):
            output = model(given * 1.0)
        output.square().sum().backward()
        seen += [output.detach().clone(), given.grad, strides]
        seen += [None if p.grad is None else p.grad.clone() for p in parameters]
        seen += [None if p.grad is None else p.grad.stride() for p in parameters]
        optimizer.step()
        seen += [p.detach().clone() for p in parameters]
        for module in model.modules():
            if isinstance(module, SeedSlot):
                module.settle()
    buffers = {n: b for n, b in model.named_buffers() if not n.endswith("alpha")}
    seen += [b.clone() for n, b in buffers.items() if ".seed." not in n]
    return [*seen, torch.get_rng_state()]


def differences(a: list[Any], b: list[Any]) -> int:
    return abs(len(a) - len(b)) + sum(
        not (torch.equal(one, two) if isinstance(one, Tensor) else one == two)
        for one, two in zip(a, b, strict=False)
    )


@every_host
def test_every_place_is_found_and_looking_changes_nothing(case: Case) -> None:
    model = case.make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = possible_slots(model, lambda: model(case.x()))
    modules = dict(model.named_modules(remove_duplicate=False))
    there = {id(modules[slot.path]) for slot in found}
    assert {id(modules[path]) for path in case.paths} <= there | {
        id(modules[path]) for path in case.paths if path.endswith("relu")
    }, "an activation that is used with maps of several sizes has no one shape"
    assert len(there) == len(found), "each module once"
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@every_host
@pytest.mark.parametrize("seed", [None, *Attachment], ids=str)
def test_slots_and_isolated_seeds_change_no_bit(case: Case, seed: Attachment | None) -> None:
    torch.manual_seed(0)
    plain = case.make()
    model = copy.deepcopy(plain)
    slots = grafted(case, model)
    if seed is not None:
        for slot in slots.values():
            plant(slot, SeedStage.TRAINING, seed)
    assert differences(trace(plain, case.x()), trace(model, case.x())) == 0
    if seed is not None:
        for slot in slots.values():
            assert slot.seed is not None
            learned = [p.grad for p in slot.seed.parameters() if p.grad is not None]
            assert any(bool(gradient.any()) for gradient in learned), slot.path


@every_host
def test_what_has_grown_returns_exactly_from_a_state_dict(case: Case) -> None:
    torch.manual_seed(0)
    model = case.make()
    slots = grafted(case, model)
    plain = model.eval()(case.x())
    for slot in slots.values():
        plant(slot, SeedStage.PROBATIONARY)
        seed = slot.seed
        assert seed is not None
        lifecycle.add_fossil(
            slot,
            copy.deepcopy(seed),
            GrownSeed(slot=slot.path, blueprint=slot.record.seed.blueprint),
        )
    grown = model.eval()(case.x())
    assert not torch.equal(plain, grown)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    fresh = case.make()
    regraft(fresh, state, build=karn.build)
    fresh.load_state_dict(state, strict=True)
    assert torch.equal(fresh.eval()(case.x()), grown)
    again = insert_slots(fresh, case.paths, build=karn.build)
    assert {path: slot.path for path, slot in again.items()} == {p: p for p in case.paths}


@pytest.mark.parametrize(
    "stage", [SeedStage.TRAINING, SeedStage.BLENDING, SeedStage.SHADOWING, SeedStage.PROBATIONARY]
)
@pytest.mark.parametrize("attachment", Attachment)
def test_channels_last_stays_channels_last(stage: SeedStage, attachment: Attachment) -> None:
    case = CASES["channels last"]
    model = case.make()
    slots = grafted(case, model)
    seen: list[Tensor] = []
    for slot in slots.values():
        plant(slot, stage, attachment)
        slot.register_forward_hook(lambda *called: seen.append(called[2]))
    model(case.x())
    assert len(seen) == len(slots)
    for output in seen:
        assert output.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (5, 5), (7, 9), (15, 11)])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_blueprint_fits_maps_of_any_size(height: int, width: int, batch: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(batch, 3, height, width)
    for stride in (1, 2, 3):
        base = nn.Conv2d(3, 5, 3, stride=stride, padding=1)
        model = nn.Sequential(base, nn.Flatten())
        slot = insert_slots(model, ["0"], build=karn.build)["0"]
        with probing(model):
            model(x)
        assert slot.record.shape is not None
        for blueprint in karn.fitting(slot.record.shape):
            slot.record.seed = None
            slot.seed = slot.construct(blueprint.name, {}, rng_seed=0)
            slot.record.stage = SeedStage.PROBATIONARY
            output = model(x)
            output.square().sum().backward()
            assert output.shape == base(x).flatten(1).shape
            assert torch.isfinite(output).all(), blueprint.name


# -- shared modules ---------------------------------------------------------------------------


def test_a_shared_module_is_listed_once_and_replaced_everywhere() -> None:
    model = Shared()
    x = image(2, 3, 6, 6)()
    listed = {slot.path: slot for slot in possible_slots(model, lambda: model(x))}
    assert "first" in listed
    assert not {"again", "blocks.1"} & set(listed)
    assert not listed["first"].suggested, "it is called three times"
    assert listed["blocks.0"].suggested
    slot = insert_slots(model, ["again"], build=karn.build)["again"]
    assert model.first is model.again is model.blocks[1] is slot
    assert slot.path == "again"
    assert sum(1 for module in model.modules() if isinstance(module, SeedSlot)) == 1
    assert next(iter(possible_slots(model, lambda: model(x)))).path == "first"


def test_a_shared_module_is_named_once() -> None:
    model = Shared()
    with pytest.raises(InvalidArgument, match="one module twice: 'first' and 'again' are the same"):
        insert_slots(model, ["first", "again"], build=karn.build)
    assert not any(isinstance(module, SeedSlot) for module in model.modules())


# -- what cannot be a slot --------------------------------------------------------------------


def test_a_list_that_nobody_calls_is_no_slot() -> None:
    model = Shared()
    with pytest.raises(SlotUnsuitable, match=r"ModuleList, which is never called; .*blocks\.0, bl"):
        insert_slots(model, ["blocks"], build=karn.build)


def test_what_computes_a_weight_is_no_slot() -> None:
    case = CASES["parametrised"]
    model = case.make()
    paths = [slot.path for slot in possible_slots(model, lambda: model(case.x()))]
    assert paths == ["weighted", "spectral", "orthogonal", "head"]
    with pytest.raises(InvalidArgument, match="is not a module of the host"):
        insert_slots(model, ["spectral.parametrizations.weight.0"], build=karn.build)


@pytest.mark.parametrize("how", ["in place", "wrapped", "itself"])
def test_what_was_compiled_as_a_whole_cannot_grow_inside(how: str) -> None:
    model: nn.Module = nn.Sequential(ResNet())
    path = "0.layer1.0"
    if how == "in place":
        model[0].compile(backend="eager")
    elif how == "wrapped":
        model[0] = torch.compile(model[0], backend="eager")
        path = "0._orig_mod.layer1.0"
    else:
        model.compile(backend="eager")
    said = r"slot '.*layer1\.0' lies inside .*compile.*block by block"
    with pytest.raises(SlotUnsuitable, match=said):
        insert_slots(model, [path], build=karn.build)
    model = ResNet()
    model.layer1[0].compile(backend="eager")
    insert_slots(model, ["layer1.0", "layer2.0"], build=karn.build)


def test_a_scripted_module_cannot_grow_inside() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch 2.13 says so, 2.8 does not
        inner = torch.jit.script(nn.Sequential(nn.Linear(3, 3)))
    model = nn.Sequential(inner, nn.Linear(3, 3))
    with pytest.raises(SlotUnsuitable, match="lies inside '0', which was made a ScriptModule"):
        insert_slots(model, ["0.0"], build=karn.build)


def test_a_block_that_returns_a_tuple_is_told() -> None:
    model = Encoder()
    slots = insert_slots(model, ["encoder.layers.0.self_attn"], build=karn.build)
    assert slots
    with pytest.raises(SlotUnsuitable, match="MultiheadAttention returns tuple, .* one tensor"):
        model(image(2, 5, 8)())
