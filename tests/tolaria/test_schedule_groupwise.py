import io
import logging

import pytest
import torch
from torch import nn

from esper_lightning.leyline import InvalidArgument
from esper_lightning.tolaria.schedule import (
    Constant,
    Cosine,
    GroupwiseLR,
    Newcomer,
    WarmupStableDecay,
)

TOTAL = 100
NAMES = ["host/decay", "host/no_decay"] + [
    f"{owner}:features.1/{decay}" for owner in ("seed", "fossil") for decay in ("decay", "no_decay")
]
SEED, FOSSIL = 2, 4


def make(lr: float = 0.1, total_steps: int = TOTAL, **policies):
    """An optimiser with two host groups and the four empty groups of one slot."""
    torch.manual_seed(0)
    groups = [{"name": name, "params": [], "planted_at": None} for name in NAMES]
    groups[0]["params"] = [nn.Parameter(torch.randn(3, 3))]
    groups[1]["params"] = [nn.Parameter(torch.randn(3))]
    optimizer = torch.optim.AdamW(groups, lr=lr)
    return optimizer, GroupwiseLR(optimizer, total_steps=total_steps, **policies)


def train(optimizer, scheduler, steps: int) -> list[list[float]]:
    """Rates with which each step was taken."""
    used = []
    for _ in range(steps):
        optimizer.zero_grad()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.sin(parameter.detach() + scheduler.last_epoch)
        used.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return used


def plant(optimizer, scheduler) -> None:
    for group, shape in zip(optimizer.param_groups[SEED:FOSSIL], [(3, 3), (3,)], strict=True):
        group["params"] = [nn.Parameter(torch.ones(shape))]
        group["planted_at"] = scheduler.last_epoch


def fossilize(optimizer) -> None:
    for source, target in zip(
        optimizer.param_groups[SEED:FOSSIL], optimizer.param_groups[FOSSIL:], strict=True
    ):
        target["params"] = [*target["params"], *source["params"]]
        source["params"], source["planted_at"] = [], None


def weights(optimizer) -> list[torch.Tensor]:
    return [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]


def saved(*stateful) -> list:
    """States after a round trip through a file that only takes plain data."""
    file = io.BytesIO()
    torch.save([each.state_dict() for each in stateful], file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("policy", [WarmupStableDecay(), Cosine(warmup=0.1), Constant()])
def test_the_host_follows_its_policy_from_the_first_step_to_the_last(policy):
    optimizer, scheduler = make(host=policy)
    used = train(optimizer, scheduler, TOTAL)
    assert [rates[0] for rates in used] == [0.1 * policy(step, TOTAL) for step in range(TOTAL)]
    assert all(rates[0] == rates[1] for rates in used)
    assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups]


def test_every_group_has_its_own_initial_rate():
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(2)]
    groups = [{"name": "a", "params": parameters[:1]}, {"name": "b", "params": parameters[1:]}]
    groups[1]["lr"] = 0.5
    optimizer = torch.optim.SGD(groups, lr=0.1)
    GroupwiseLR(optimizer, total_steps=10, host=Constant(warmup=0.2))
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.25]
    assert [group["initial_lr"] for group in optimizer.param_groups] == [0.1, 0.5]


def test_a_group_that_fills_late_warms_up_without_any_call_here():
    optimizer, scheduler = make(host=Constant(), newcomer=Newcomer(warmup_steps=4))
    train(optimizer, scheduler, 30)
    plant(optimizer, scheduler)
    used = train(optimizer, scheduler, 6)
    assert [rates[SEED] for rates in used] == [0.025, 0.05, 0.1 * 0.75, 0.1, 0.1, 0.1]
    assert all(rates[SEED] == rates[SEED + 1] for rates in used)
    assert {rates[0] for rates in used} == {0.1}


@pytest.mark.parametrize("own_horizon", [False, True])
def test_an_empty_group_shows_the_rate_a_seed_would_begin_with(own_horizon):
    host, newcomer = Cosine(), Newcomer(multiplier=2.0, own_horizon=own_horizon)
    optimizer, scheduler = make(host=host, newcomer=newcomer)
    train(optimizer, scheduler, 40)
    shown = optimizer.param_groups[SEED]["lr"]
    assert shown == 0.1 * newcomer(host, step=40, planted_at=40, total_steps=TOTAL)
    plant(optimizer, scheduler)
    scheduler.refresh()
    assert optimizer.param_groups[SEED]["lr"] == shown


def test_a_second_seed_in_the_same_slot_warms_up_again():
    optimizer, scheduler = make(host=Constant(), newcomer=Newcomer(warmup_steps=4))
    plant(optimizer, scheduler)
    assert [rates[SEED] for rates in train(optimizer, scheduler, 5)][-1] == 0.1
    for group in optimizer.param_groups[SEED:FOSSIL]:
        group["params"], group["planted_at"] = [], None
    train(optimizer, scheduler, 3)
    plant(optimizer, scheduler)
    assert train(optimizer, scheduler, 1)[0][SEED] == 0.025


@pytest.mark.parametrize("multiplier", [1.0, 2.0, 0.3])
def test_fossilisation_does_not_change_the_rate_of_a_seed_past_its_warm_up(multiplier):
    optimizer, scheduler = make(newcomer=Newcomer(warmup_steps=5, multiplier=multiplier))
    train(optimizer, scheduler, 10)
    plant(optimizer, scheduler)
    train(optimizer, scheduler, 20)
    assert optimizer.param_groups[FOSSIL]["lr"] == optimizer.param_groups[SEED]["lr"]
    fossilize(optimizer)
    for rates in train(optimizer, scheduler, TOTAL - 30):
        assert rates[FOSSIL] == rates[FOSSIL + 1] == pytest.approx(multiplier * rates[0])


def test_with_the_default_newcomer_a_fossil_has_exactly_the_rate_of_the_host():
    optimizer, scheduler = make()
    used = train(optimizer, scheduler, TOTAL)
    assert all(rates[FOSSIL] == rates[0] for rates in used)


def test_no_rate_depends_on_how_often_or_when_it_is_asked():
    optimizer, scheduler = make()
    train(optimizer, scheduler, 10)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert scheduler.get_lr() == scheduler.get_lr() == rates
    scheduler.refresh()
    assert [group["lr"] for group in optimizer.param_groups] == rates
    assert scheduler.last_epoch == 10


@pytest.mark.parametrize("stop", [5, 31, 50])
def test_a_resumed_run_ends_with_the_same_weights(stop):
    def run(optimizer, scheduler, first, last):
        used = []
        for step in range(first, last):
            if step == 30:
                plant(optimizer, scheduler)
            if step == 45:
                fossilize(optimizer)
            used += train(optimizer, scheduler, 1)
        return used

    def policies():
        return {"newcomer": Newcomer(multiplier=2.0, own_horizon=True)}

    straight = make(**policies())
    expected = run(*straight, 0, 70)

    before = make(**policies())
    used = run(*before, 0, stop)
    states = saved(*before)
    resumed = make(**policies())
    for group, other in zip(resumed[0].param_groups, before[0].param_groups, strict=True):
        group["params"] = [nn.Parameter(p.detach().clone()) for p in other["params"]]
    for each, state in zip(resumed, states, strict=True):
        each.load_state_dict(state)
    assert used + run(*resumed, stop, 70) == expected
    for ours, theirs in zip(weights(resumed[0]), weights(straight[0]), strict=True):
        assert torch.equal(ours, theirs)
    assert resumed[1].state_dict() == straight[1].state_dict()


def test_its_state_is_plain_data():
    _, scheduler = make()
    assert scheduler.state_dict() == {
        "last_epoch": 0,
        "total_steps": TOTAL,
        "last_lr": scheduler.get_last_lr(),
    }
    assert all(type(rate) is float for rate in scheduler.state_dict()["last_lr"])


def test_a_run_can_be_prolonged(caplog):
    optimizer, scheduler = make()
    train(optimizer, scheduler, 80)
    states = saved(optimizer, scheduler)
    optimizer, scheduler = make(total_steps=1000)
    optimizer.load_state_dict(states[0])
    with caplog.at_level(logging.WARNING):
        scheduler.load_state_dict(states[1])
    assert "planned for 100 steps, this one is for 1000" in caplog.text
    train(optimizer, scheduler, 1)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_the_state_of_another_layout_is_refused():
    _, scheduler = make()
    state = scheduler.state_dict()
    with pytest.raises(InvalidArgument, match="has 4 parameter groups, the optimiser has 6"):
        scheduler.load_state_dict({**state, "last_lr": state["last_lr"][:4]})


def test_another_hand_is_named_once_per_group_and_overruled(caplog):
    optimizer, scheduler = make(host=Constant())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            optimizer.param_groups[0]["lr"] = 7.0
            optimizer.param_groups[FOSSIL]["lr"] = 8.0
            train(optimizer, scheduler, 1)
            assert {optimizer.param_groups[index]["lr"] for index in (0, FOSSIL)} == {0.1}
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "'host/decay' was set to 7.0 by another hand, the schedule had set 0.1" in messages[0]
    assert "'fossil:features.1/decay' was set to 8.0" in messages[1]


def test_an_undisturbed_run_warns_of_nothing(caplog):
    optimizer, scheduler = make()
    with caplog.at_level(logging.WARNING):
        train(optimizer, scheduler, 20)
        plant(optimizer, scheduler)
        train(optimizer, scheduler, 30)
        fossilize(optimizer)
        train(optimizer, scheduler, TOTAL - 50)
    assert caplog.records == []


def test_a_rollback_of_the_optimiser_does_not_rewind_the_rates(caplog):
    optimizer, scheduler = make()
    train(optimizer, scheduler, 10)
    early = optimizer.state_dict()
    train(optimizer, scheduler, 75)
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(early)
    assert [group["lr"] for group in optimizer.param_groups] != rates
    with caplog.at_level(logging.WARNING):
        scheduler.refresh()
        assert [group["lr"] for group in optimizer.param_groups] == rates
        train(optimizer, scheduler, 1)
    assert caplog.records == []


def test_training_past_the_plan_is_said_once(caplog):
    optimizer, scheduler = make()
    with caplog.at_level(logging.WARNING):
        train(optimizer, scheduler, TOTAL)
        assert caplog.records == []
        train(optimizer, scheduler, 5)
    assert [record.getMessage() for record in caplog.records] == [
        "training goes on after the 100 steps that learning rates were planned for; "
        "the host's factor stays at 0"
    ]
    assert optimizer.param_groups[0]["lr"] == 0


@pytest.mark.parametrize("name", [{}, {"name": "late"}])
def test_a_group_that_somebody_adds_later_is_adopted(name):
    optimizer, scheduler = make(host=WarmupStableDecay(warmup=0.0))
    train(optimizer, scheduler, 5)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "lr": 0.4, **name})
    assert [rates[-1] for rates in train(optimizer, scheduler, 2)] == [0.4, 0.4]
    train(optimizer, scheduler, 78)
    assert optimizer.param_groups[-1]["lr"] == 0.4 * WarmupStableDecay()(85, TOTAL)


@pytest.mark.parametrize("planted_at", [None, 1000])
def test_a_seed_without_a_sound_planting_step_is_refused(planted_at):
    optimizer, scheduler = make()
    plant(optimizer, scheduler)
    optimizer.param_groups[SEED]["planted_at"] = planted_at
    rates = [group["lr"] for group in optimizer.param_groups]
    message = f"'seed:features.1/decay' holds a seed planted at step {planted_at}, .* set 'planted"
    with pytest.raises(InvalidArgument, match=message):
        train(optimizer, scheduler, 1)
    assert [group["lr"] for group in optimizer.param_groups] == rates


@pytest.mark.parametrize("total_steps", [0, -1, float("inf"), 2.5])
def test_an_open_ended_run_is_refused(total_steps):
    with pytest.raises(InvalidArgument, match="total_steps must be a positive integer"):
        make(total_steps=total_steps)


def test_a_rate_that_is_a_tensor_is_refused():
    with pytest.raises(InvalidArgument, match="'host/decay' is a tensor"):
        make(lr=torch.tensor(0.1))


def test_stepping_before_the_optimiser_is_noticed():
    _, scheduler = make()
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        scheduler.step()
