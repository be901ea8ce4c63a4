"""Optimisers that others create have the slots' groups from birth; schedulers never notice."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from seedlings import Host, batches, build
from torch import nn
from torch.optim import Optimizer
from torch.optim import lr_scheduler as schedulers
from torch.optim.swa_utils import SWALR

from esper_lightning.kasmina import (
    SeedSlot,
    SlotGroups,
    insert_slots,
    probing,
    slot_groups_in_new_optimizers,
)
from esper_lightning.kasmina.schedulers import PER_GROUP
from esper_lightning.leyline import InvalidArgument, SeedStage, UnsupportedOptimizer

MakeScheduler = Callable[[Optimizer], Any]


def sequential(optimizer: Optimizer) -> schedulers.SequentialLR:
    parts = [
        schedulers.LinearLR(optimizer, start_factor=0.1, total_iters=3),
        schedulers.CosineAnnealingLR(optimizer, T_max=5),
    ]
    return schedulers.SequentialLR(optimizer, parts, milestones=[3])


def chained(optimizer: Optimizer) -> schedulers.ChainedScheduler:
    return schedulers.ChainedScheduler(
        [
            schedulers.ConstantLR(optimizer, factor=0.5, total_iters=2),
            schedulers.ExponentialLR(optimizer, gamma=0.9),
        ],
        optimizer,
    )


SCHEDULERS: dict[str, MakeScheduler] = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda step: 0.9**step),
    "MultiplicativeLR": lambda o: schedulers.MultiplicativeLR(o, lambda _: 0.9),
    "StepLR": lambda o: schedulers.StepLR(o, step_size=2, gamma=0.5),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, milestones=[2, 4], gamma=0.5),
    "ConstantLR": lambda o: schedulers.ConstantLR(o, factor=0.5, total_iters=3),
    "LinearLR": lambda o: schedulers.LinearLR(o, start_factor=0.2, total_iters=4),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, gamma=0.8),
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o, total_iters=6, power=2.0),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, T_max=6),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, T_0=3),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, max_lr=0.1, total_steps=10),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, base_lr=0.01, max_lr=0.1, step_size_up=3),
    "ReduceLROnPlateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=0, min_lr=1e-3),
    "SequentialLR": sequential,
    "ChainedScheduler": chained,
    "SWALR": lambda o: SWALR(o, swa_lr=0.05, anneal_epochs=4),
}

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9),
}


def grafted() -> tuple[Host, dict[str, SeedSlot]]:
    torch.manual_seed(0)
    host = Host()
    slots = insert_slots(host, ["mix", "block"], build=build)
    with probing(host):
        host(batches(1)[0][0])
    return host, slots


def plant(slot: SeedSlot, groups: SlotGroups) -> None:
    slot.seed = slot.construct("loud", {}, rng_seed=1)
    slot.record.stage = SeedStage.PROBATIONARY
    groups.join(slot.path, slot.seed, 3)


def run(
    host: nn.Module,
    optimizer: Optimizer,
    scheduler: Any,
    *,
    steps: int = 8,
    grow: Callable[[int], None] = lambda _: None,
) -> list[list[float]]:
    """Rates of all groups after each step."""
    rates = []
    for step, (x, _) in enumerate(batches(steps)):
        grow(step)
        optimizer.zero_grad()
        loss = host(x).square().mean()
        loss.backward()
        optimizer.step()
        plateau = isinstance(scheduler, schedulers.ReduceLROnPlateau)
        scheduler.step(*([1.0] if plateau else []))
        rates.append([group["lr"] for group in optimizer.param_groups])
    return rates


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("make_scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_every_scheduler_works_with_groups_that_fill_and_empty(
    make_scheduler: MakeScheduler, make_optimizer: Callable[..., Optimizer]
) -> None:
    torch.manual_seed(0)
    alone = Host()
    optimizer = make_optimizer(alone.parameters())
    expected = run(alone, optimizer, make_scheduler(optimizer))

    host, slots = grafted()
    with slot_groups_in_new_optimizers(slots):
        optimizer = make_optimizer(host.parameters())
        scheduler = make_scheduler(optimizer)
    groups = SlotGroups(optimizer, slots)

    def grow(step: int) -> None:
        if step == 2:
            plant(slots["mix"], groups)
        if step == 5:
            groups.leave("mix")
            slots["mix"].seed = None
            slots["mix"].record.stage = SeedStage.DORMANT
            plant(slots["block"], groups)

    rates = run(host, optimizer, scheduler, grow=grow)
    assert len(optimizer.param_groups) == 9
    for (own,), all_groups in zip(expected, rates, strict=True):
        assert all_groups == [own] * 9
    assert len({own for (own,) in expected}) > 1, "this schedule must move"


@pytest.mark.parametrize("make_scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_every_scheduler_is_restored_with_groups_that_filled(make_scheduler: MakeScheduler) -> None:
    def prepared() -> tuple[Host, dict[str, SeedSlot], Optimizer, Any]:
        host, slots = grafted()
        with slot_groups_in_new_optimizers(slots):
            optimizer = torch.optim.SGD(host.parameters(), lr=0.02, momentum=0.9)
            return host, slots, optimizer, make_scheduler(optimizer)

    host, slots, optimizer, scheduler = prepared()
    plant(slots["mix"], SlotGroups(optimizer, slots))
    run(host, optimizer, scheduler, steps=4)
    fresh, rebuilt, other, again = prepared()
    plant(rebuilt["mix"], SlotGroups(other, rebuilt))
    fresh.load_state_dict(
        {k: v for k, v in host.state_dict().items() if not k.endswith("_extra_state")}, strict=False
    )
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    again.load_state_dict(copy.deepcopy(scheduler.state_dict()))
    rates = []
    for model, optim, schedule in ((host, optimizer, scheduler), (fresh, other, again)):
        torch.manual_seed(5)
        rates.append(run(model, optim, schedule, steps=4))
    assert rates[0] == rates[1]
    for a, b in zip(host.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "name",
    [
        "ASGD",
        "Adadelta",
        "Adafactor",
        "Adagrad",
        "Adam",
        "AdamW",
        "Adamax",
        "NAdam",
        "RAdam",
        "RMSprop",
        "Rprop",
        "SGD",
    ],
)
def test_other_optimizers_of_torch_take_seeds(name: str) -> None:
    host, slots = grafted()
    with slot_groups_in_new_optimizers(slots):
        optimizer = getattr(torch.optim, name)(host.parameters())
    groups = SlotGroups(optimizer, slots)
    scheduler = schedulers.ConstantLR(optimizer)
    run(host, optimizer, scheduler, steps=2)
    plant(slots["mix"], groups)
    seed = slots["mix"].seed
    assert seed is not None
    born = [p.detach().clone() for p in seed.parameters()]
    run(host, optimizer, scheduler, steps=2)
    assert all(not torch.equal(a, b) for a, b in zip(born, seed.parameters(), strict=True))
    groups.leave("mix")
    assert not any(p in optimizer.state for p in seed.parameters())


def test_an_optimizer_may_know_its_parameters_by_name() -> None:
    host, slots = grafted()
    with slot_groups_in_new_optimizers(slots):
        optimizer = torch.optim.AdamW(host.named_parameters())
    plant(slots["mix"], SlotGroups(optimizer, slots))
    run(host, optimizer, schedulers.ConstantLR(optimizer), steps=2)


# -- one entry for each group -----------------------------------------------------------------


def decays(rate: float) -> Callable[[int], float]:
    return lambda step: rate**step


def factors(rate: float) -> Callable[[int], float]:
    return lambda _: rate


def listed_chain(optimizer: Optimizer) -> schedulers.SequentialLR:
    parts = [
        schedulers.LambdaLR(optimizer, [decays(0.9), decays(0.5)]),
        schedulers.MultiplicativeLR(optimizer, [factors(0.8), factors(0.6)]),
    ]
    return schedulers.SequentialLR(optimizer, parts, milestones=[3])


LISTED: dict[str, MakeScheduler] = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, [decays(0.9), decays(0.5)]),
    "LambdaLR, a tuple by name": lambda o: schedulers.LambdaLR(
        optimizer=o, lr_lambda=(decays(0.9), decays(0.5))
    ),
    "MultiplicativeLR": lambda o: schedulers.MultiplicativeLR(o, [factors(0.9), factors(0.7)]),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(
        o, [0.1, 0.02], total_steps=10, base_momentum=[0.8, 0.7], max_momentum=[0.9, 0.95]
    ),
    "CyclicLR": lambda o: schedulers.CyclicLR(
        o,
        base_lr=[0.01, 0.001],
        max_lr=[0.1, 0.02],
        step_size_up=3,
        base_momentum=[0.8, 0.7],  # type: ignore[arg-type]
        max_momentum=[0.9, 0.95],  # type: ignore[arg-type]
    ),
    "ReduceLROnPlateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=0, min_lr=[1e-3, 1e-4]),
    "SWALR": lambda o: SWALR(o, swa_lr=[0.05, 0.01], anneal_epochs=4),  # type: ignore[arg-type]
    "SequentialLR": listed_chain,
    "ChainedScheduler": lambda o: schedulers.ChainedScheduler(
        [
            schedulers.LambdaLR(o, [decays(0.9), decays(0.5)]),
            schedulers.ExponentialLR(o, gamma=0.9),
        ],
        o,
    ),
}
every_list = pytest.mark.parametrize("make_scheduler", LISTED.values(), ids=LISTED)


def two_groups(host: Host) -> list[dict[str, Any]]:
    """The block and the head at one rate, the module ``mix`` at another."""
    mine = [p for name, p in host.named_parameters() if not name.startswith("mix.")]
    others = [p for name, p in host.named_parameters() if name.startswith("mix.")]
    return [{"params": mine, "lr": 0.02}, {"params": others, "lr": 0.004}]


@every_list
def test_a_list_for_the_modules_own_groups_serves_the_slots_too(
    make_scheduler: MakeScheduler,
) -> None:
    torch.manual_seed(0)
    alone = Host()
    optimizer = torch.optim.SGD(two_groups(alone), momentum=0.9)
    expected = run(alone, optimizer, make_scheduler(optimizer))
    host, slots = grafted()
    with slot_groups_in_new_optimizers(slots):
        optimizer = torch.optim.SGD(two_groups(host), momentum=0.9)
        scheduler = make_scheduler(optimizer)
    rates = run(host, optimizer, scheduler)
    for own, all_groups in zip(expected, rates, strict=True):
        # Four groups of "mix", whose parameters are in the second group, then four of "block".
        assert all_groups == [*own, *[own[1]] * 4, *[own[0]] * 4]
    assert len({tuple(own) for own in expected}) > 1, "this schedule must move"
    momenta = [group["momentum"] for group in optimizer.param_groups]
    assert momenta == [*momenta[:2], *[momenta[1]] * 4, *[momenta[0]] * 4]


@every_list
def test_a_scheduler_with_lists_is_restored_exactly(make_scheduler: MakeScheduler) -> None:
    def prepared() -> tuple[Host, dict[str, SeedSlot], Optimizer, Any]:
        host, slots = grafted()
        with slot_groups_in_new_optimizers(slots):
            optimizer = torch.optim.SGD(two_groups(host), momentum=0.9)
            return host, slots, optimizer, make_scheduler(optimizer)

    host, slots, optimizer, scheduler = prepared()
    plant(slots["mix"], SlotGroups(optimizer, slots))
    run(host, optimizer, scheduler, steps=4)
    fresh, rebuilt, other, again = prepared()
    plant(rebuilt["mix"], SlotGroups(other, rebuilt))
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    again.load_state_dict(copy.deepcopy(scheduler.state_dict()))
    assert run(host, optimizer, scheduler, steps=5) == run(fresh, other, again, steps=5)


def test_a_list_for_all_groups_stays_as_it_is() -> None:
    host, slots = grafted()
    with slot_groups_in_new_optimizers(slots):
        optimizer = torch.optim.SGD(host.parameters(), lr=0.1)
        each = [decays(1.0 - number / 10) for number in range(len(optimizer.param_groups))]
        scheduler = schedulers.LambdaLR(optimizer, each)
    assert scheduler.lr_lambdas == each


def test_a_list_of_another_length_is_told_in_the_modules_own_numbers() -> None:
    host, slots = grafted()
    said = "LambdaLR lr_lambda has 3 entries, .* 2 parameter groups of its own .and 8 of slots"
    with slot_groups_in_new_optimizers(slots):
        optimizer = torch.optim.SGD(two_groups(host))
        with pytest.raises(InvalidArgument, match=said):
            schedulers.LambdaLR(optimizer, [decays(0.9)] * 3)


def test_a_group_that_the_module_adds_comes_before_those_of_slots() -> None:
    host, slots = grafted()
    first, second = two_groups(host)
    with slot_groups_in_new_optimizers(slots):
        optimizer = torch.optim.SGD([first])
        optimizer.add_param_group(second)
        scheduler = schedulers.LambdaLR(optimizer, [decays(0.9), decays(0.5)])
    assert [group["lr"] for group in optimizer.param_groups] == [
        *[0.02, 0.004],
        *[0.004] * 4,
        *[0.02] * 4,
    ]
    assert len(scheduler.lr_lambdas) == 10
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    assert len(optimizer.param_groups) == 11, "later it is torch's own again"


# -- what is refused --------------------------------------------------------------------------


class OwnLBFGS(torch.optim.LBFGS):
    """A subclass cannot grow either."""


class Muon(torch.optim.SGD):
    """Refused by its name: torch 2.8 has none yet."""


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (torch.optim.LBFGS, "LBFGS does not work with growth: it holds one flat parameter vector"),
        (OwnLBFGS, "OwnLBFGS does not work with growth: it cannot take new parameters"),
        (torch.optim.SparseAdam, "SparseAdam .* only sparse gradients"),
        (Muon, "Muon .* only matrices.*; use AdamW"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_grow_is_refused_with_the_reason(
    make: Callable[..., Optimizer], says: str
) -> None:
    host, slots = grafted()
    original = Optimizer.__init__
    with pytest.raises(UnsupportedOptimizer, match=says), slot_groups_in_new_optimizers(slots):
        make(host.parameters())
    assert Optimizer.__init__ is original
    make(host.parameters())


def test_muon_of_torch_is_refused_with_our_reason() -> None:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    host, slots = grafted()
    with (
        pytest.raises(UnsupportedOptimizer, match="Muon .* only matrices"),
        slot_groups_in_new_optimizers(slots),
    ):
        torch.optim.Muon(host.parameters())


# -- nothing is left behind -------------------------------------------------------------------


def test_outside_of_the_context_optimizers_are_torchs_own() -> None:
    host, slots = grafted()
    original = Optimizer.__init__
    theirs = [vars(cls)["__init__"] for cls in PER_GROUP] + [Optimizer.add_param_group]
    with slot_groups_in_new_optimizers(slots):
        assert Optimizer.__init__ is not original
        first = torch.optim.SGD(host.parameters(), lr=0.1)
    assert Optimizer.__init__ is original
    assert len(first.param_groups) == 9
    assert len(torch.optim.SGD(host.parameters(), lr=0.1).param_groups) == 1
    assert theirs == [vars(cls)["__init__"] for cls in PER_GROUP] + [Optimizer.add_param_group]
    with pytest.raises(ZeroDivisionError), slot_groups_in_new_optimizers(slots):
        raise ZeroDivisionError
    assert Optimizer.__init__ is original


def test_an_error_of_the_optimizer_itself_is_its_own() -> None:
    _, slots = grafted()
    original = Optimizer.__init__
    with (
        pytest.raises(ValueError, match="empty parameter list"),
        slot_groups_in_new_optimizers(slots),
    ):
        torch.optim.SGD([], lr=0.1)
    assert Optimizer.__init__ is original


def test_without_slots_nothing_is_added() -> None:
    host = Host()
    with slot_groups_in_new_optimizers({}):
        optimizer = torch.optim.AdamW(host.parameters())
    assert len(optimizer.param_groups) == 1
