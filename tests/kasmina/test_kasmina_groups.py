"""Groups that are made once: empty they cost nothing, and seeds come and go without a trace."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from seedlings import Host, batches, build
from torch import Tensor, nn
from torch.optim import Optimizer

from esper_lightning.kasmina import SeedSlot, SlotGroups, add_slot_groups, insert_slots, probing
from esper_lightning.kasmina import lifecycle as stages
from esper_lightning.kasmina.parameter_groups import PLANTED_AT
from esper_lightning.kasmina.record import SeedRecord
from esper_lightning.leyline import (
    BlendSchedule,
    GrownSeed,
    Incubation,
    SeedStage,
    UnsupportedOptimizer,
)

MakeOptimizer = Callable[..., Optimizer]

OPTIMIZERS: dict[str, MakeOptimizer] = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01, weight_decay=0.1),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01, weight_decay=0.1),
    "adamw, foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "adamw, fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "sgd, fused": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def grafted(
    make: MakeOptimizer, *, paths: Iterable[str] = ("mix",)
) -> tuple[Host, dict[str, SeedSlot], SlotGroups]:
    torch.manual_seed(0)
    host = Host()
    optimizer = make(host.parameters())
    slots = insert_slots(host, list(paths), build=build)
    add_slot_groups(optimizer, slots)
    with probing(host):
        host(batches(1)[0][0])
    return host, slots, SlotGroups(optimizer, slots)


def plant(slot: SeedSlot, *, stage: SeedStage = SeedStage.PROBATIONARY, rng_seed: int = 1) -> None:
    branch = slot.construct("loud", {}, rng_seed=rng_seed)
    record = SeedRecord(
        blueprint="loud",
        parameters={},
        incubation=Incubation.STRAIGHT_THROUGH,
        blend=BlendSchedule(),
        num_parameters=0,
        planted_epoch=0,
        planted_step=7,
        rng_seed=rng_seed,
        network_parameters_before=1,
        flops_before=None,
    )
    stages.plant(slot, branch, record)
    slot.record.stage = stage


def fossilize(slot: SeedSlot, groups: SlotGroups) -> nn.Module:
    groups.fossilize(slot.path)
    branch = slot.seed
    assert branch is not None
    stages.add_fossil(slot, branch, GrownSeed(slot=slot.path, blueprint="loud"))
    stages.remove_seed(slot)
    slot.record.stage = SeedStage.DORMANT
    return branch


def train(host: nn.Module, optimizer: Optimizer, *, steps: int = 2) -> None:
    for x, y in batches(steps):
        optimizer.zero_grad()
        F.cross_entropy(host(x), y).backward()
        optimizer.step()


def named(groups: SlotGroups) -> dict[str, dict[str, Any]]:
    return {g["name"]: g for g in groups.optimizer.param_groups if "name" in g}


def held(groups: SlotGroups, *, owner: str = "") -> list[nn.Parameter]:
    return [
        parameter
        for name, group in named(groups).items()
        if name.startswith(owner)
        for parameter in group["params"]
    ]


def state_of(optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> list[Any]:
    """Optimiser state as it is now, to compare with what it is later."""
    return [copy.deepcopy(optimizer.state.get(parameter)) for parameter in parameters]


def same(one: list[Any], other: list[Any]) -> bool:
    def equal(a: Any, b: Any) -> bool:
        if isinstance(a, Tensor):
            return torch.equal(a, b)
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
        return bool(a == b)

    return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))


@every_optimizer
def test_every_slot_has_four_empty_groups_with_the_options_of_the_first(
    make: MakeOptimizer,
) -> None:
    _, _, groups = grafted(make, paths=("mix", "block"))
    first, *rest = groups.optimizer.param_groups
    assert [group["name"] for group in rest] == [
        f"{owner}:{path}/{decay}"
        for path in ("mix", "block")
        for owner in ("seed", "fossil")
        for decay in ("decay", "no_decay")
    ]
    for group in rest:
        assert group["params"] == []
        assert group[PLANTED_AT] is None
        for option in first.keys() - {"params"}:
            if option == "weight_decay" and group["name"].endswith("no_decay"):
                assert group[option] == 0.0
            else:
                assert group[option] == first[option], option


def test_a_host_with_groups_of_its_own_keeps_them() -> None:
    def make(_: object) -> Optimizer:
        return torch.optim.AdamW(
            [
                {"params": [weights[0]], "lr": 0.5, "name": "mine"},
                {"params": [weights[1]], "lr": 0.1, "weight_decay": 0.3, "name": "others"},
            ]
        )

    weights = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(3))]
    _, _, groups = grafted(make)
    own, slots_ = groups.optimizer.param_groups[:2], groups.optimizer.param_groups[2:]
    assert [(g["name"], g["lr"], g["params"]) for g in own] == [
        ("mine", 0.5, [weights[0]]),
        ("others", 0.1, [weights[1]]),
    ]
    assert {group["lr"] for group in slots_} == {0.5}


@every_optimizer
def test_empty_groups_change_no_bit_of_training(make: MakeOptimizer) -> None:
    torch.manual_seed(0)
    alone = Host()
    optimizer = make(alone.parameters())
    host, _, groups = grafted(make, paths=("mix", "block"))
    for model, used in ((alone, optimizer), (host, groups.optimizer)):
        torch.manual_seed(1)
        train(model, used, steps=3)
    for a, b in zip(alone.parameters(), host.parameters(), strict=True):
        assert torch.equal(a, b)
    assert same(
        state_of(optimizer, alone.parameters()), state_of(groups.optimizer, host.parameters())
    )


def test_branches_that_are_there_leave_the_groups_of_the_host() -> None:
    host, slots, groups = grafted(OPTIMIZERS["adamw"])
    plant(slots["mix"])
    fossil = fossilize(slots["mix"], groups)
    plant(slots["mix"], rng_seed=2)
    seed = slots["mix"].seed
    assert seed is not None
    optimizer = torch.optim.AdamW(host.parameters(), lr=0.01)
    add_slot_groups(optimizer, slots)
    again = SlotGroups(optimizer, slots)
    again.refill(slots)
    grown = {id(p) for p in (*fossil.parameters(), *seed.parameters())}
    assert not grown & {id(p) for p in optimizer.param_groups[0]["params"]}
    everything = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(everything) == sorted(id(p) for p in host.parameters())


def test_an_optimizer_without_the_groups_of_a_slot_is_refused() -> None:
    host, slots, groups = grafted(OPTIMIZERS["adamw"])
    bare = torch.optim.AdamW(host.parameters())
    with pytest.raises(UnsupportedOptimizer, match=r"AdamW has no .* for the slots \['mix'\]"):
        SlotGroups(bare, slots)
    with pytest.raises(UnsupportedOptimizer, match=r"for the slots \['block'\]; create"):
        SlotGroups(groups.optimizer, ["mix", "block"])


@every_optimizer
def test_a_seed_joins_trains_and_leaves_with_its_state(make: MakeOptimizer) -> None:
    host, slots, groups = grafted(make)
    own = list(groups.optimizer.param_groups[0]["params"])
    train(host, groups.optimizer)
    plant(slots["mix"])
    seed = slots["mix"].seed
    assert seed is not None
    before = state_of(groups.optimizer, own)
    groups.join("mix", seed, 11)
    assert same(state_of(groups.optimizer, own), before)
    by_name = named(groups)
    matrices = [p for p in seed.parameters() if p.ndim >= 2]
    others = [p for p in seed.parameters() if p.ndim < 2]
    assert matrices
    assert others
    assert by_name["seed:mix/decay"]["params"] == matrices
    assert by_name["seed:mix/no_decay"]["params"] == others
    assert by_name["seed:mix/decay"][PLANTED_AT] == by_name["seed:mix/no_decay"][PLANTED_AT] == 11
    assert groups.num_held("mix") == len(list(seed.parameters()))

    born = [p.detach().clone() for p in seed.parameters()]
    train(host, groups.optimizer)
    assert all(groups.optimizer.state.get(p) for p in seed.parameters())
    assert all(not torch.equal(a, b) for a, b in zip(born, seed.parameters(), strict=True))

    before = state_of(groups.optimizer, own)
    groups.leave("mix")
    assert same(state_of(groups.optimizer, own), before)
    assert not any(p in groups.optimizer.state for p in seed.parameters())
    assert groups.num_held("mix") == 0
    assert held(groups) == []
    assert all(group[PLANTED_AT] is None for group in named(groups).values())
    stages.remove_seed(slots["mix"])
    train(host, groups.optimizer)


@every_optimizer
def test_a_fossil_keeps_the_state_of_its_seed(make: MakeOptimizer) -> None:
    host, slots, groups = grafted(make)
    own = list(groups.optimizer.param_groups[0]["params"])
    plant(slots["mix"])
    seed = slots["mix"].seed
    assert seed is not None
    groups.join("mix", seed, 0)
    train(host, groups.optimizer)
    before = state_of(groups.optimizer, [*own, *seed.parameters()])
    fossil = fossilize(slots["mix"], groups)
    assert fossil is seed
    assert same(state_of(groups.optimizer, [*own, *seed.parameters()]), before)
    assert groups.num_held("mix") == 0
    by_name = named(groups)
    assert by_name["fossil:mix/decay"]["params"] == [p for p in seed.parameters() if p.ndim >= 2]
    assert by_name["fossil:mix/no_decay"]["params"] == [p for p in seed.parameters() if p.ndim < 2]
    assert by_name["seed:mix/decay"][PLANTED_AT] is None
    train(host, groups.optimizer)


def test_a_second_fossil_comes_after_the_first() -> None:
    _, slots, groups = grafted(OPTIMIZERS["adamw"])
    grown: list[nn.Module] = []
    for rng_seed in (1, 2):
        plant(slots["mix"], rng_seed=rng_seed)
        seed = slots["mix"].seed
        assert seed is not None
        groups.join("mix", seed, rng_seed)
        grown.append(fossilize(slots["mix"], groups))
    expected = [p for branch in grown for p in branch.parameters() if p.ndim >= 2]
    assert named(groups)["fossil:mix/decay"]["params"] == expected


def test_slots_do_not_touch_each_other() -> None:
    host, slots, groups = grafted(OPTIMIZERS["adamw"], paths=("mix", "block"))
    for path, slot in slots.items():
        plant(slot)
        assert slot.seed is not None
        groups.join(path, slot.seed, 3)
    train(host, groups.optimizer)
    other = slots["block"].seed
    assert other is not None
    before = state_of(groups.optimizer, other.parameters())
    groups.leave("mix")
    assert groups.num_held("mix") == 0
    assert groups.num_held("block") == len(list(other.parameters()))
    assert same(state_of(groups.optimizer, other.parameters()), before)


def test_biases_norms_and_scales_of_a_seed_do_not_decay() -> None:
    def make(parameters: Any) -> Optimizer:
        return torch.optim.SGD(parameters, lr=0.1, weight_decay=0.5)

    _, slots, groups = grafted(make)
    plant(slots["mix"])
    seed = slots["mix"].seed
    assert seed is not None
    with torch.no_grad():
        for parameter in seed.parameters():
            parameter.fill_(1.0)
    groups.join("mix", seed, 0)
    for parameter in seed.parameters():
        parameter.grad = torch.zeros_like(parameter)
    groups.optimizer.step()
    for parameter in seed.parameters():
        expected = 0.95 if parameter.ndim >= 2 else 1.0
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, expected))


@every_optimizer
def test_the_state_of_an_optimizer_finds_its_parameters_in_a_rebuilt_network(
    make: MakeOptimizer,
) -> None:
    host, slots, groups = grafted(make, paths=("mix", "block"))
    plant(slots["mix"])
    assert slots["mix"].seed is not None
    groups.join("mix", slots["mix"].seed, 3)
    train(host, groups.optimizer)
    fossilize(slots["mix"], groups)
    for path, slot in slots.items():
        plant(slot, rng_seed=5)
        assert slot.seed is not None
        groups.join(path, slot.seed, 7)
    train(host, groups.optimizer)

    fresh, rebuilt, again = grafted(make, paths=("mix", "block"))
    fresh.load_state_dict(host.state_dict())
    again.refill(rebuilt)
    again.optimizer.load_state_dict(copy.deepcopy(groups.optimizer.state_dict()))
    assert same(
        state_of(again.optimizer, fresh.parameters()),
        state_of(groups.optimizer, host.parameters()),
    )
    assert {name: group[PLANTED_AT] for name, group in named(again).items()} == {
        name: group[PLANTED_AT] for name, group in named(groups).items()
    }
    for model, used in ((host, groups), (fresh, again)):
        torch.manual_seed(5)
        train(model, used.optimizer, steps=3)
    for a, b in zip(host.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b)


def test_seeds_come_and_go_after_an_optimizer_was_restored() -> None:
    """Loading a state_dict replaces the optimiser's groups by others."""
    host, slots, groups = grafted(OPTIMIZERS["adamw"], paths=("mix", "block"))
    for path, slot in slots.items():
        plant(slot)
        assert slot.seed is not None
        groups.join(path, slot.seed, 1)
    train(host, groups.optimizer)
    groups.optimizer.load_state_dict(copy.deepcopy(groups.optimizer.state_dict()))

    left = slots["mix"].seed
    assert left is not None
    groups.leave("mix")
    stages.remove_seed(slots["mix"])
    assert not any(p in groups.optimizer.state for p in left.parameters())
    fossil = fossilize(slots["block"], groups)
    assert sorted(map(id, held(groups))) == sorted(map(id, fossil.parameters()))
    plant(slots["mix"], rng_seed=2)
    seed = slots["mix"].seed
    assert seed is not None
    groups.join("mix", seed, 9)
    born = [p.detach().clone() for p in seed.parameters()]
    with groups.without_seeds():
        assert held(groups, owner="seed:") == []
    train(host, groups.optimizer)
    assert all(not torch.equal(a, b) for a, b in zip(born, seed.parameters(), strict=True))


@pytest.mark.parametrize("stage", [SeedStage.GERMINATED, SeedStage.CULLED])
def test_a_seed_that_does_not_train_is_not_in_the_groups(stage: SeedStage) -> None:
    _, slots, groups = grafted(OPTIMIZERS["adamw"])
    plant(slots["mix"], stage=stage)
    groups.refill(slots)
    assert held(groups) == []


def with_seed_and_fossil() -> tuple[Host, dict[str, SeedSlot], SlotGroups]:
    host, slots, groups = grafted(OPTIMIZERS["adamw"])
    for rng_seed in (1, 2):
        plant(slots["mix"], rng_seed=rng_seed)
        assert slots["mix"].seed is not None
        groups.join("mix", slots["mix"].seed, 0)
        if rng_seed == 1:
            fossilize(slots["mix"], groups)
    return host, slots, groups


def contents(groups: SlotGroups) -> list[list[int]]:
    return [[id(p) for p in group["params"]] for group in groups.optimizer.param_groups]


def test_without_seeds_hides_live_seeds_alone() -> None:
    host, slots, groups = with_seed_and_fossil()
    before = contents(groups)
    assert slots["mix"].seed is not None
    live = {id(p) for p in slots["mix"].seed.parameters()}
    with groups.without_seeds():
        inside = [identity for group in contents(groups) for identity in group]
    assert contents(groups) == before
    assert sorted(inside) == sorted(id(p) for p in host.parameters() if id(p) not in live)


def test_without_seeds_their_gradients_are_set_aside() -> None:
    """Some clip the parameters of the network, not those of the optimiser."""
    host, slots, groups = with_seed_and_fossil()
    x, y = batches(1)[0]
    F.cross_entropy(host(x), y).backward()
    assert slots["mix"].seed is not None
    held_back = [p for p in slots["mix"].seed.parameters() if p.grad is not None]
    before = [p.grad.clone() for p in held_back]
    assert before
    with groups.without_seeds():
        torch.nn.utils.clip_grad_norm_(host.parameters(), 1e-3)
    assert all(torch.equal(p.grad, g) for p, g in zip(held_back, before, strict=True))


def test_without_seeds_gives_them_back_after_an_error() -> None:
    _, _, groups = with_seed_and_fossil()
    before = contents(groups)
    with pytest.raises(ZeroDivisionError), groups.without_seeds():
        raise ZeroDivisionError
    assert contents(groups) == before


def test_the_host_is_clipped_as_if_there_were_no_seed() -> None:
    host, slots, groups = with_seed_and_fossil()
    x, y = batches(1)[0]
    F.cross_entropy(host(x), y).backward()
    assert slots["mix"].seed is not None
    seed_gradients = [p.grad for p in slots["mix"].seed.parameters() if p.grad is not None]
    assert seed_gradients
    before = [gradient.clone() for gradient in seed_gradients]
    with groups.without_seeds():
        held_now = [p for group in groups.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(held_now, 1e-3)
    assert all(torch.equal(a, b) for a, b in zip(seed_gradients, before, strict=True))
    clipped = torch.stack([p.grad.norm() for p in held_now if p.grad is not None]).norm()
    assert float(clipped) <= 1e-3 * (1 + 1e-4)
