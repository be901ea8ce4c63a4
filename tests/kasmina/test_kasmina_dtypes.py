"""Blocks whose output has another dtype than their weights: what grows there fits all the same."""

import copy
from pathlib import Path

import pytest
import torch
from grown_networks import fossil, imported, seed, slots_of
from torch import Tensor, nn

from esper_lightning import karn
from esper_lightning.kasmina import SeedSlot, save_program, save_source
from esper_lightning.leyline import SeedStage

STAGES = (SeedStage.TRAINING, SeedStage.BLENDING, SeedStage.SHADOWING, SeedStage.PROBATIONARY)


class Widens(nn.Module):
    """Weights in one dtype, output in another."""

    def __init__(self, *, inner: torch.dtype, outer: torch.dtype) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6).to(inner)
        self.outer = outer

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.to(self.linear.weight.dtype)).to(self.outer)


class Host(nn.Module):
    """Everything around the block has the dtype of what it returns."""

    def __init__(self, inner: torch.dtype, outer: torch.dtype) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 6).to(outer)
        self.block = Widens(inner=inner, outer=outer)
        self.head = nn.Linear(6, 3).to(outer)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.embed(x)))


PAIRS = [
    (torch.float32, torch.float64),
    (torch.float64, torch.float32),
    (torch.float32, torch.bfloat16),
]


def names(slot: SeedSlot) -> list[str]:
    assert slot.record.shape is not None
    return [row.name for row in karn.fitting(slot.record.shape)]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_a_seed_learns_and_changes_no_dtype(
    pair: tuple[torch.dtype, torch.dtype], stage: SeedStage
) -> None:
    torch.manual_seed(0)
    plain = Host(*pair)
    x = torch.randn(4, 5).to(pair[1])
    probe = slots_of(copy.deepcopy(plain), ["block"], x)["block"]
    for blueprint in names(probe):
        model = copy.deepcopy(plain)
        slot = slots_of(model, ["block"], x)["block"]
        seed(slot, stage, blueprint, alpha=0.5)
        output = model(x)
        assert output.dtype == plain(x).dtype
        if stage is SeedStage.TRAINING:
            assert torch.equal(output, plain(x))
        output.square().sum().backward()
        assert slot.seed is not None
        learned = [p.grad for p in slot.seed.parameters()]
        assert any(g is not None and bool(g.any()) for g in learned), blueprint
        assert {p.dtype for p in slot.seed.parameters()} == {pair[0]}


@pytest.mark.parametrize("blueprint", ["mlp_residual", "parallel_mlp"])
def test_autocast_meets_float64(blueprint: str) -> None:
    torch.manual_seed(0)
    model, x = Host(torch.float32, torch.float64), torch.randn(4, 5).double()
    slot = slots_of(model, ["block"], x)["block"]
    seed(slot, SeedStage.PROBATIONARY, blueprint)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(x).dtype == torch.float64
    x = torch.randn(4, 6)
    half = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2))
    slot = slots_of(half, ["0"], x)["0"]
    seed(slot, SeedStage.PROBATIONARY, blueprint)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert half(x).dtype == torch.bfloat16


@pytest.mark.parametrize("blueprint", ["mlp_residual", "parallel_mlp"])
def test_it_leaves_as_it_is(blueprint: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Host(torch.float32, torch.float64), torch.randn(4, 5).double()
    fossil(slots_of(model, ["block"], x)["block"], blueprint)
    model.eval()
    written = imported(save_source(model, x, tmp_path / "source")).build().eval()
    assert torch.equal(written(x), model(x))
    path = save_program(model, x, tmp_path / "network.pt2")
    assert torch.allclose(torch.export.load(path).module()(x), model(x))
