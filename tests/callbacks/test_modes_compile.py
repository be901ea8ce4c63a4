"""Blocks of a host that are compiled one by one, beside slots: nothing is compiled again."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from interrupted_runs import LENIENT
from lightning.pytorch import Callback, LightningModule, Trainer
from runs import Plain, Script, listen, moves, plain_data, plain_trainer, plant, tell
from torch import Tensor, nn
from torch._dynamo import lookup_backend

from esper_lightning.callbacks import Kasmina, Tamiyo
from esper_lightning.kasmina import LifecycleRules
from esper_lightning.leyline import BlendSchedule, CommandKind, Incubation

RULES = LifecycleRules(blend=BlendSchedule(num_steps=9), embargo=1, gates=LENIENT)
LINES = {
    1: [plant("net.0", "parallel_mlp"), plant("net.2", "gated_mlp")],
    8: [tell(CommandKind.FOSSILIZE, "net.0"), tell(CommandKind.CULL, "net.2")],
}
ALL = ("net.0", "net.1", "net.2")


class Block(nn.Module):
    """In Python of its own: of an ``nn.Sequential`` compiled in place torch compiles nothing."""

    def __init__(self, size: int, to: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, to)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x))


class Blocks(Plain):
    """Three blocks and a head. What it logs says that growth has paid."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(Block(64, 6), Block(6, 6), Block(6, 6), nn.Linear(6, 10))

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.net(batch[0])
        self.log("val_loss", torch.tensor(1.0 if self.current_epoch < 3 else 0.1))


class Compiles:
    """A backend that counts, and hands the graph to another one."""

    def __init__(self, backend: str) -> None:
        self.count = 0
        self._backend: Any = lookup_backend(backend)

    def __call__(self, graph: Any, inputs: list[Tensor]) -> Callable[..., Any]:
        self.count += 1
        compiled: Callable[..., Any] = self._backend(graph, inputs)
        return compiled


class ByEpoch(Callback):
    """How often each block was compiled by the start of each epoch, and alpha in each step."""

    def __init__(self, counters: dict[str, Compiles]) -> None:
        self.counters = counters
        self.counts: list[dict[str, int]] = []
        self.alphas: set[float] = set()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.counts.append({path: each.count for path, each in self.counters.items()})

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.alphas.add(float(pl_module.net[0].alpha))


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def grow(backend: str, incubation: Incubation) -> tuple[Kasmina, ByEpoch, Blocks]:
    torch.manual_seed(0)
    module = Blocks()
    counters = {path: Compiles(backend) for path in ALL}
    for path, counter in counters.items():
        module.get_submodule(path).compile(backend=counter)
    kasmina = Kasmina(
        slots=["net.0", "net.2"], monitor="val_loss", rules=RULES, incubation=incubation
    )
    seen = ByEpoch(counters)
    trainer = plain_trainer([Tamiyo(risk=False, policy=Script(LINES)), kasmina, seen], epochs=13)
    trainer.fit(module, *plain_data())
    return kasmina, seen, module


def check(backend: str, incubation: Incubation) -> None:
    kasmina, seen, module = grow(backend, incubation)
    assert {"FOSSILIZED"} <= set(moves(listen(kasmina), "net.0"))
    assert {"CULLED"} <= set(moves(listen(kasmina), "net.2"))
    after_first = seen.counts[1]
    assert all(count > 0 for count in after_first.values()), "it was compiled at all"
    assert seen.counts[-1] == after_first
    if incubation is Incubation.STRAIGHT_THROUGH:
        assert len(seen.alphas) > 6, "alpha has moved"
    assert torch.isfinite(module.net(torch.randn(3, 64))).all()


@pytest.mark.parametrize("incubation", [Incubation.DIRECT, Incubation.STRAIGHT_THROUGH])
def test_no_block_is_compiled_again_in_a_whole_life(incubation: Incubation) -> None:
    check("eager", incubation)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_so_it_is_with_the_compiler_that_is_used() -> None:
    check("inductor", Incubation.STRAIGHT_THROUGH)


def test_compiled_blocks_train_the_same_network() -> None:
    _, _, compiled = grow("eager", Incubation.STRAIGHT_THROUGH)
    torch.manual_seed(0)
    eager = Blocks()
    kasmina = Kasmina(
        slots=["net.0", "net.2"],
        monitor="val_loss",
        rules=RULES,
        incubation=Incubation.STRAIGHT_THROUGH,
    )
    plain_trainer([Tamiyo(risk=False, policy=Script(LINES)), kasmina], epochs=13).fit(
        eager, *plain_data()
    )
    ours, theirs = compiled.state_dict(), eager.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if not name.endswith("_extra_state"):
            assert torch.allclose(ours[name], value, atol=1e-5), name
