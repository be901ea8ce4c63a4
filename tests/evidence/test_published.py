"""Growth beside published methods: that those are run as they are meant, and what is told."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from esper_lightning.evidence.__main__ import main
from esper_lightning.evidence.flops import flops_of
from esper_lightning.evidence.published import command
from esper_lightning.evidence.published.convolutions import GrowingResNet
from esper_lightning.evidence.published.hosts import GrowingHost
from esper_lightning.evidence.published.methods import METHODS, ReLU, grow
from esper_lightning.evidence.published.mlp import GrowingMLP
from esper_lightning.evidence.published.runs import Plan, train
from esper_lightning.tolaria import Digits

DATA = Digits(subset=256)
HOSTS: Sequence[GrowingHost] = (GrowingMLP(), GrowingResNet(), GrowingResNet(whole_kernels=True))
GOALS = {GrowingMLP: (14, 14), GrowingResNet: (3, 6, 12)}

pytestmark = pytest.mark.filterwarnings("ignore:Using the pseudo-inverse")  # of gromo, for TINY


def _parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("host", HOSTS)
def test_both_are_the_same_network(host: GrowingHost) -> None:
    ours, theirs = host.ours(DATA), host.theirs(DATA, host.thin)
    assert host.widths_in(theirs) == host.thin
    # Norms come in another order, and layers with other names.
    assert sorted(tuple(each.shape) for each in ours.parameters()) == sorted(
        tuple(each.shape) for each in theirs.parameters()
    )
    assert flops_of(lambda: ours(DATA.example_input())) == flops_of(
        lambda: theirs(DATA.example_input())
    )


@pytest.mark.parametrize("host", HOSTS)
def test_the_widths_of_a_size_are_the_nearest(host: GrowingHost) -> None:
    for widths in (host.thin, GOALS[type(host)]):
        size = _parameters(host.theirs(DATA, widths))
        assert host.widths_of(DATA, size) == widths
        assert host.widths_of(DATA, size + 5) == widths


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("host", HOSTS)
def test_neurons_are_added_until_the_size_is_reached(host: GrowingHost, method: str) -> None:
    goal = GOALS[type(host)]
    plan = Plan(epochs=4, widths=host.thin, goal=goal, method=method)
    assert list(plan.events) == [1, 2]
    grown = train(DATA, host, plan, seed=0)
    assert grown.parameters == _parameters(host.theirs(DATA, goal))
    static = train(DATA, host, Plan(epochs=4, widths=goal, goal=goal, method=None), seed=0)
    assert static.parameters == grown.parameters
    # Statistics, and the line search of TINY, are on the bill: more than three epochs of the final
    # size and one of the thin one, which is more than training alone.
    thin = Plan(epochs=4, widths=host.thin, goal=host.thin, method=None)
    small = train(DATA, host, thin, seed=0)
    assert grown.flops > (3 * static.flops + small.flops) / 4


@pytest.mark.parametrize("host", HOSTS)
def test_neurons_of_gradmax_change_nothing_at_birth(host: GrowingHost) -> None:
    torch.manual_seed(0)
    net = host.theirs(DATA, host.thin)
    x = DATA.example_input()
    # In both modes: BatchNorm leaves a channel of zeros at zero.
    net.train()
    before_in_training: Tensor = net(x)
    before: Tensor = net.eval()(x)
    for layer, thin in enumerate(host.thin):
        assert grow(net, DATA, layer=layer, neurons=2, method="GradMax") > 0
        assert host.widths_in(net)[layer] == thin + 2
    torch.testing.assert_close(net(x), before, atol=1e-5, rtol=1e-5)
    net.train()
    torch.testing.assert_close(net(x), before_in_training, atol=1e-5, rtol=1e-5)


def test_newborn_neurons_of_gradmax_can_learn() -> None:
    x = torch.zeros(3, requires_grad=True)
    ReLU()(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0, 1.0]


def test_newborn_channels_of_gradmax_can_learn() -> None:
    torch.manual_seed(0)
    host = GrowingResNet()
    net = host.theirs(DATA, host.thin)
    grow(net, DATA, layer=0, neurons=2, method="GradMax")
    net.train()
    x, y = next(iter(DATA.train_dataloader()))
    torch.autograd.backward(nn.functional.cross_entropy(net(x), y))
    newborn = net.stages[0][0].first_layer.layer.weight.grad[host.thin[0] :]
    assert newborn.abs().amax(dim=(1, 2, 3)).min() > 0


def test_tiny_lowers_the_loss_at_once() -> None:
    torch.manual_seed(0)
    host = GrowingResNet()
    net = host.theirs(DATA, host.thin)

    @torch.no_grad()
    def loss() -> float:
        net.eval()
        return sum(
            nn.functional.cross_entropy(net(x), y, reduction="sum").item()
            for x, y in DATA.train_dataloader()
        )

    before = loss()
    grow(net, DATA, layer=2, neurons=2, method="TINY")
    assert loss() < before


def _command(out: Path, *more: str) -> Sequence[str]:
    return ["published", "--seeds", "1", "--out", str(out), *more]


@pytest.mark.parametrize("host", command.HOSTS)
def test_the_command(
    host: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "published.json"
    if host == "resnet":
        few = {"digits": lambda _, seed: Digits(subset=256, seed=seed)}
        monkeypatch.setattr(command, "TASKS", few)
    # No fewer epochs: they have fewer events, of which each adds at most 16 channels to a block.
    main(_command(out, "--host", host))
    figures = json.loads(out.read_text())["figures"]
    ours, *theirs = figures
    assert [each["way"] for each in theirs] == ["TINY", "GradMax", "that size from scratch"]
    for each in theirs:
        assert each["parameters"] == pytest.approx(ours["parameters"], rel=0.1)
        assert each["ours_minus_this"] is not None
    assert "| GradMax | 1 |" in capsys.readouterr().out
