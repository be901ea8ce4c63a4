"""The slot: no jump when something grows, its state travels, and it is a good citizen."""

import copy
import io
import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from seedlings import Host, batches, build, command, make_bed, moment
from torch import Tensor, nn

from esper_lightning.kasmina import LifecycleRules, SeedBed, SeedSlot, insert_slots, regraft
from esper_lightning.kasmina.parameter_groups import add_slot_groups
from esper_lightning.leyline import (
    CommandKind,
    DecodeError,
    Incubation,
    SeedStage,
    SlotUnsuitable,
)
from esper_lightning.leyline.commands import BlendSchedule

LIVE = (
    SeedStage.TRAINING,
    SeedStage.BLENDING,
    SeedStage.SHADOWING,
    SeedStage.PROBATIONARY,
    SeedStage.FOSSILIZED,
)


def step(bed: SeedBed, optimizer: torch.optim.Optimizer, *, number: int = 0) -> None:
    x, y = batches(1, seed=number)[0]
    optimizer.zero_grad()
    F.cross_entropy(bed.network(x), y).backward()
    optimizer.step()


def put(bed: SeedBed, stage: SeedStage, *, alpha: float) -> SeedSlot:
    """Place a trained seed in ``stage`` by hand, moves without gates."""
    slot = bed.slots["mix"]
    while slot.record.stage is not stage:
        after = {
            SeedStage.TRAINING: SeedStage.BLENDING,
            SeedStage.BLENDING: SeedStage.SHADOWING,
            SeedStage.SHADOWING: SeedStage.PROBATIONARY,
            SeedStage.PROBATIONARY: SeedStage.FOSSILIZED,
        }[slot.record.stage]
        bed._move(slot, after, moment(0), "by hand")
    if stage is SeedStage.BLENDING:
        slot.set_alpha(alpha)
    return slot


def grown(blueprint: str = "conv", *, incubation: Incubation = Incubation.STRAIGHT_THROUGH):
    torch.manual_seed(0)
    bed, optimizer = make_bed(Host(), incubation=incubation)
    bed.apply(command(CommandKind.GERMINATE, blueprint=blueprint), moment(0))
    for number in range(3):
        step(bed, optimizer, number=number)
    bed.network.eval()
    return bed, optimizer


@pytest.mark.parametrize("incubation", Incubation)
@pytest.mark.parametrize("blueprint", ["conv", "parallel"])
def test_germination_and_insertion_change_no_output(blueprint: str, incubation: Incubation) -> None:
    torch.manual_seed(0)
    bed, _ = make_bed(Host(), incubation=incubation, second_passes=True)
    bed.network.eval()
    x, _ = batches(1)[0]
    before = bed.network(x)
    bed.apply(command(CommandKind.GERMINATE, blueprint=blueprint), moment(0))
    assert torch.equal(bed.network(x), before)


@pytest.mark.parametrize("blueprint", ["conv", "parallel", "loud"])
def test_the_start_of_blending_changes_no_output(blueprint: str) -> None:
    bed, _ = grown(blueprint)
    x, _ = batches(1)[0]
    before = bed.network(x)
    put(bed, SeedStage.BLENDING, alpha=0.0)
    assert torch.equal(bed.network(x), before)


@pytest.mark.parametrize("blueprint", ["conv", "parallel", "loud"])
def test_after_the_ramp_no_move_changes_the_output(blueprint: str) -> None:
    bed, _ = grown(blueprint)
    put(bed, SeedStage.BLENDING, alpha=1.0)
    x, _ = batches(1)[0]
    before = bed.network(x)
    for stage in (SeedStage.SHADOWING, SeedStage.PROBATIONARY, SeedStage.FOSSILIZED):
        put(bed, stage, alpha=1.0)
        assert torch.equal(bed.network(x), before), stage


def test_culling_a_seed_that_never_blended_leaves_the_host() -> None:
    bed, _ = grown()
    x, _ = batches(1)[0]
    before = bed.network(x)
    bed.apply(command(CommandKind.CULL), moment(0))
    assert torch.equal(bed.network(x), before)
    assert bed.slots["mix"].seed is None


def test_only_a_coupled_seed_sends_gradients_to_the_host() -> None:
    for stage, coupled in (
        (SeedStage.BLENDING, False),
        (SeedStage.SHADOWING, False),
        (SeedStage.PROBATIONARY, True),
        (SeedStage.FOSSILIZED, True),
    ):
        bed, _ = grown("loud")
        slot = put(bed, stage, alpha=0.5)
        branch = slot.seed if slot.seed is not None else slot.fossils[0]
        seen: list[bool] = []
        branch.register_forward_pre_hook(
            lambda _, args, seen=seen: seen.append(args[0].requires_grad)
        )
        bed.network.train()
        bed.network(batches(1)[0][0])
        assert seen == [coupled], stage


@pytest.mark.parametrize("stage", LIVE, ids=lambda stage: stage.name)
@pytest.mark.parametrize("blueprint", ["conv", "parallel"])
def test_a_fresh_host_takes_the_state_of_a_grown_one(blueprint: str, stage: SeedStage) -> None:
    bed, _ = grown(blueprint)
    slot = put(bed, stage, alpha=0.5)
    file = io.BytesIO()
    torch.save(bed.network.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    fresh = Host().eval()
    rng = torch.get_rng_state()
    regraft(fresh, state, build=build)
    fresh.load_state_dict(state, strict=True)
    assert torch.equal(torch.get_rng_state(), rng)
    x, _ = batches(1)[0]
    assert torch.equal(fresh(x), bed.network(x))
    again = fresh.get_submodule("mix")
    assert isinstance(again, SeedSlot)
    assert again.record.stage is slot.record.stage
    assert again.record.fossils == slot.record.fossils
    assert torch.equal(again.alpha, slot.alpha)


def test_a_restored_slot_trains_on_bit_for_bit() -> None:
    bed, optimizer = grown("polluter")
    put(bed, SeedStage.BLENDING, alpha=0.5)
    bed.network.train()
    state = copy.deepcopy(bed.network.state_dict())
    moments = copy.deepcopy(optimizer.state_dict())
    fresh = Host()
    regraft(fresh, state, build=build)
    fresh.load_state_dict(state)
    other = torch.optim.AdamW(fresh.parameters(), lr=0.01)
    slots = insert_slots(fresh, ["mix"], build=build)
    add_slot_groups(other, slots)
    again = SeedBed(fresh, slots, rules=LifecycleRules(), fits=lambda _: True)
    again.bind(other)
    other.load_state_dict(moments)
    for b, o in ((bed, optimizer), (again, other)):
        torch.manual_seed(5)
        for number in range(3):
            step(b, o, number=number)
    for a, b in zip(bed.network.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": 99}, "version 99"),
        ({"version": 2, "stage": "DREAMING", "age": "old", "seed": {"of": 1}}, "version 2"),
        ({"version": "1.1", "shape": None}, "version '1.1'"),
        ({"version": None}, "no version"),
    ],
)
def test_a_record_of_another_version_is_refused_whatever_is_in_it(
    change: dict[str, Any], told: str
) -> None:
    bed, _ = grown()
    state = bed.network.state_dict()
    record = json.loads(state["mix._extra_state"].numpy().tobytes())
    state["mix._extra_state"] = as_tensor(json.dumps(record | change))
    fresh = Host()
    insert_slots(fresh, ["mix"], build=build)
    with pytest.raises(DecodeError, match=f"'mix' has {told}; this release reads version 1; load"):
        fresh.load_state_dict(state)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ("{}", "has no version"),
        ("[1]", "is not valid"),
        ('{"version": 1', "is not complete JSON"),
        ('{"version": 1, "age": "old"}', r"is not valid: .*\$.age"),
    ],
)
def test_what_is_no_record_is_refused(record: str, told: str) -> None:
    bed, _ = grown()
    state = {**bed.network.state_dict(), "mix._extra_state": as_tensor(record)}
    with pytest.raises(DecodeError, match=f"record of slot 'mix' {told}"):
        bed.network.load_state_dict(state)


def as_tensor(record: str) -> Tensor:
    return torch.frombuffer(bytearray(record.encode()), dtype=torch.uint8)


def test_the_slot_is_a_good_citizen() -> None:
    host = Host()
    weight = host.mix.weight
    (slot,) = insert_slots(host, ["mix"], build=build).values()
    assert slot.base_layer.weight is weight
    assert slot.weight is weight
    assert slot.out_channels == 6
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = slot.no_such_thing
    assert copy.deepcopy(slot).weight.shape == weight.shape
    assert "UNKNOWN" in repr(slot)
    bed, _ = grown()
    put(bed, SeedStage.BLENDING, alpha=0.25)
    assert "BLENDING, seed=conv, alpha=0.25" in repr(bed.network)
    put(bed, SeedStage.FOSSILIZED, alpha=1.0)
    assert "FOSSILIZED, fossils=conv" in repr(bed.network)


def test_a_module_without_one_tensor_in_and_out_is_refused_by_name() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    host = nn.Sequential(nn.Linear(3, 3), Pair())
    insert_slots(host, ["1"], build=build)
    with pytest.raises(SlotUnsuitable, match="slot '1': Pair returns tuple"):
        host(torch.randn(2, 3))


def test_alpha_moves_with_the_step_and_not_with_the_epoch() -> None:
    torch.manual_seed(0)
    rules = LifecycleRules(blend=BlendSchedule(curve="linear", num_steps=8))
    bed, _ = make_bed(Host(), rules=rules)
    bed.apply(command(CommandKind.GERMINATE), moment(0))
    slot = put(bed, SeedStage.BLENDING, alpha=0.0)
    seen = []
    for number in range(10):
        bed.watch.before_step(moment(0).step + number)
        seen.append(float(slot.alpha))
    assert seen == [0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.0]


def test_a_dormant_slot_returns_what_the_module_returns() -> None:
    host = Host().eval()
    x, _ = batches(1)[0]
    before = host(x)
    insert_slots(host, ["mix", "block"], build=build)
    assert torch.equal(host(x), before)
    assert torch.equal(host(x), before)
