"""Growth beside published methods: that those are run as they are meant, and what is told."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from esper_lightning.evidence.__main__ import main
from esper_lightning.evidence.published import METHODS, Plan, ReLU, train, width_of
from esper_lightning.tolaria import MLP, Digits

DATA = Digits(subset=256)

pytestmark = pytest.mark.filterwarnings("ignore:Using the pseudo-inverse")  # of gromo, for TINY


def _parameters(width: int) -> int:
    host = MLP(input_shape=DATA.input_shape, num_classes=10, width=width)
    return sum(parameter.numel() for parameter in host.parameters())


def test_the_width_of_a_size_is_the_nearest() -> None:
    for width in (1, 8, 33):
        assert width_of(DATA, _parameters(width)) == width
        assert width_of(DATA, _parameters(width) + 5) == width


@pytest.mark.parametrize("method", METHODS)
def test_neurons_are_added_until_the_size_is_reached(method: str) -> None:
    plan = Plan(width=8, epochs=6, parameters=_parameters(14), method=method)
    assert list(plan.events) == [1, 2, 3]
    grown = train(DATA, plan, seed=0)
    assert grown.parameters == _parameters(14)
    static = train(DATA, Plan(width=14, epochs=6, parameters=0, method=None), seed=0)
    assert static.parameters == grown.parameters
    # Statistics, and the line search of TINY, are on the bill.
    small = train(DATA, Plan(width=8, epochs=6, parameters=0, method=None), seed=0)
    assert grown.flops > (static.flops + small.flops) / 2


def test_newborn_neurons_of_gradmax_can_learn() -> None:
    x = torch.zeros(3, requires_grad=True)
    ReLU()(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0, 1.0]


def _command(out: Path, *more: str) -> Sequence[str]:
    return ["published", "--seeds", "1", "--epochs", "8", "--out", str(out), *more]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "published.json"
    main(_command(out))
    figures = json.loads(out.read_text())["figures"]
    ours, *theirs = figures
    assert [each["way"] for each in theirs] == ["TINY", "GradMax", "that size from scratch"]
    for each in theirs:
        assert each["parameters"] == pytest.approx(ours["parameters"], rel=0.1)
        assert each["ours_minus_this"] is not None
    assert "| GradMax | 1 |" in capsys.readouterr().out
