"""Whose options a slot's groups have: those of the group of its own parameters."""

from collections.abc import Callable

import pytest
import torch
from seedlings import Host, build
from torch.optim import Optimizer

from esper_lightning.kasmina import add_slot_groups, insert_slots

MakeOptimizer = Callable[[Host], Optimizer]


def spread(**rates: float) -> MakeOptimizer:
    """A group for each of the named modules of the host, with its rate."""

    def make(host: Host) -> Optimizer:
        return torch.optim.AdamW(
            [
                {"params": list(host.get_submodule(name).parameters()), "lr": rate}
                for name, rate in rates.items()
            ],
            weight_decay=0.3,
        )

    return make


def rates_of(
    make: MakeOptimizer, caplog: pytest.LogCaptureFixture, *paths: str
) -> tuple[dict[str, float], list[str]]:
    """Rates of the slots' groups, and what was said about them."""
    host = Host()
    slots = insert_slots(host, list(paths), build=build)
    optimizer = make(host)
    caplog.clear()
    with caplog.at_level("INFO"):
        add_slot_groups(optimizer, slots)
    rates = {group.get("name"): group["lr"] for group in optimizer.param_groups}
    return (
        {path: rates[f"seed:{path}/decay"] for path in paths},
        [record.getMessage() for record in caplog.records],
    )


def test_a_seed_takes_the_options_of_its_slots_own_group(caplog: pytest.LogCaptureFixture) -> None:
    make = spread(head=0.5, block=0.1, mix=0.2)
    rates, said = rates_of(make, caplog, "mix", "block", "block.0")
    assert rates == {"mix": 0.2, "block": 0.1, "block.0": 0.1}
    assert said == []


def test_parameters_in_no_group_take_the_first_and_it_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rates, said = rates_of(spread(head=0.5, mix=0.2), caplog, "block", "act", "mix")
    assert rates == {"block": 0.5, "act": 0.5, "mix": 0.2}
    assert [line.split(":")[0] for line in said] == ["slot 'block'", "slot 'act'"]
    assert "parameter group 0 of 2 holds 0 of its 48 parameters" in said[0]


def test_parameters_in_several_groups_take_the_one_with_most(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rates, said = rates_of(
        lambda host: torch.optim.AdamW(
            [
                {"params": list(host.head.parameters()), "lr": 0.5},
                {"params": list(host.block[1].parameters()), "lr": 0.1},
                {"params": list(host.block[0].parameters()), "lr": 0.2},
            ]
        ),
        caplog,
        "block",
    )
    assert rates == {"block": 0.2}
    assert len(said) == 1
    assert "parameter group 2 of 3 holds 40 of its 48 parameters" in said[0]


def test_a_backbone_that_is_frozen_by_its_rate_can_grow(caplog: pytest.LogCaptureFixture) -> None:
    rates, said = rates_of(spread(block=0.0, mix=0.2, head=0.5), caplog, "block", "mix")
    assert rates == {"block": 0.2, "mix": 0.2}
    assert len(said) == 1
    rates, _ = rates_of(spread(block=0.0, head=0.0), caplog, "block")
    assert rates == {"block": 0.0}, "nothing trains: nor do seeds"


def test_rates_that_are_tensors_are_not_shared() -> None:
    host = Host()
    optimizer = torch.optim.AdamW(host.parameters(), lr=torch.tensor(0.01))
    add_slot_groups(optimizer, insert_slots(host, ["mix"], build=build))
    rates = [group["lr"] for group in optimizer.param_groups]
    assert len({id(rate) for rate in rates}) == len(rates) == 5
    rates[0].fill_(0.5)
    assert float(rates[1]) == pytest.approx(0.01)
