"""Networks on which something has grown, for tests of export."""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from packaging.version import Version
from torch import Tensor, nn

from esper_lightning import karn
from esper_lightning.kasmina import SeedSlot, insert_slots, lifecycle, probing
from esper_lightning.kasmina.record import SeedRecord
from esper_lightning.leyline import BlendSchedule, GrownSeed, Incubation, SeedStage

IS_EARLY = Version(torch.__version__) < Version("2.13")
# What an early torch cannot export, and why.
UNAVAILABLE = {
    ("spectral_conv", "source"): "it takes the size of an FFT as a number only",
    ("dynamic_conv", "program"): "its export bounds a batch that is folded into the channels",
}


def is_available(blueprint: str, form: str) -> bool:
    """Whether this torch can export the blueprint in this form."""
    return not (IS_EARLY and (blueprint, form) in UNAVAILABLE)


def skip_unless_available(blueprint: str, form: str) -> None:
    """Skip where this torch cannot export the blueprint in this form."""
    if not is_available(blueprint, form):
        pytest.skip(f"torch 2.8: {UNAVAILABLE[blueprint, form]}")


def slots_of(network: nn.Module, paths: Sequence[str], example: Any) -> dict[str, SeedSlot]:
    """Slots that know their shapes."""
    slots = insert_slots(network, list(paths), build=karn.build)
    with probing(network):
        network(*example) if isinstance(example, tuple) else network(example)
    return slots


def branch(slot: SeedSlot, blueprint: str, parameters: Mapping[str, Any]) -> Any:
    """With weights that matter."""
    built = slot.construct(blueprint, parameters, rng_seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(parameter))
    return built


def fossil(slot: SeedSlot, blueprint: str = "", **parameters: Any) -> None:
    """A fossil more; of the first parallel blueprint that fits where none is named."""
    assert slot.record.shape is not None
    names = [row.name for row in karn.fitting(slot.record.shape)]
    name = blueprint or next((n for n in names if n in ("parallel_conv", "parallel_mlp")), names[0])
    record = GrownSeed(slot=slot.path, blueprint=name, parameters=parameters)
    lifecycle.add_fossil(slot, branch(slot, name, parameters), record)


def seed(slot: SeedSlot, stage: SeedStage, blueprint: str, *, alpha: float = 1.0) -> None:
    """A live seed."""
    record = SeedRecord(
        blueprint=blueprint,
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
    lifecycle.plant(slot, branch(slot, blueprint, {}), record)
    slot.record.stage = stage
    slot.set_alpha(alpha)


def imported(path: Path) -> ModuleType:
    """A written ``network.py``."""
    spec = importlib.util.spec_from_file_location(f"written_{abs(hash(path))}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    dont, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = dont
    return module


def trained(network: nn.Module, x: Tensor, *, steps: int = 3) -> list[Tensor]:
    """Outputs and gradients of the input of a few steps; then an output in eval mode."""
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.001)
    seen: list[Tensor] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network.train()
        for step in range(steps):
            optimizer.zero_grad()
            given = (x.clone() + 0.1 * step).requires_grad_(True)
            output = network(given * 1.0)
            output.square().mean().backward()
            assert given.grad is not None
            seen += [output.detach().clone(), given.grad]
            optimizer.step()
    with torch.no_grad():
        seen.append(network.eval()(x.clone()))
    assert all(bool(each.isfinite().all()) for each in seen)
    return seen


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Bit for bit."""
    return len(one) == len(other) and all(map(torch.equal, one, other))
