"""Widening a host: that it computes the same, and that the command tells what it measured."""

import json
from pathlib import Path

import pytest
import torch

from esper_lightning.evidence.__main__ import main
from esper_lightning.evidence.widening import Plan, train, widened
from esper_lightning.tolaria import CNN, Digits


def _trained(width: int) -> CNN:
    torch.manual_seed(width)
    net = CNN(input_shape=(1, 8, 8), num_classes=10, width=width)
    net(torch.randn(64, 1, 8, 8))  # running statistics of its own
    return net


def test_the_wider_network_computes_the_same_and_all_of_it_can_learn() -> None:
    narrow, x = _trained(4).eval(), torch.randn(8, 1, 8, 8)
    wide = widened(narrow, _trained(7)).eval()
    torch.testing.assert_close(wide(x), narrow(x), rtol=1e-5, atol=1e-6)
    wide(x).square().sum().backward()
    grads = [wide.features[1].conv.weight.grad, wide.head.weight.grad]
    assert all(grad is not None for grad in grads)
    assert wide.features[1].conv.weight.grad[:4, 4:].abs().sum() > 0, "old ones may read new ones"
    assert wide.head.weight.grad[:, 8:].abs().sum() > 0


def test_growing_costs_what_its_two_networks_cost() -> None:
    data = Digits(subset=64)
    narrow, wide = (train(data, Plan(width, 2), seed=0).flops for width in (2, 5))
    grown = train(data, Plan(2, 2, 1, 5), seed=0).flops
    assert grown == pytest.approx((narrow + wide) / 2)
    assert train(data, Plan(2, 2), seed=0) == train(data, Plan(2, 2), seed=0)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "widening.json"
    main(["widening", "--epochs", "2", "--seeds", "2", "--out", str(out)])
    figures = json.loads(out.read_text())["figures"]
    assert [figure["epochs"] for figure in figures] == [2, 2, 1, 2, 2]
    assert figures[3]["gflops"] == pytest.approx(figures[4]["gflops"])
    assert "width 4, widened to 8 after 1" in capsys.readouterr().out
