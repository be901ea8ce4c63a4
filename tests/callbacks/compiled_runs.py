"""Runs with a library of compiled code, which tests fill as they need."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import torch.nn.functional as F
from interrupted_runs import LENIENT
from lightning.pytorch import Callback, Trainer
from runs import FREE, Plain, Script, plain_data, plain_trainer, plant, tell, weights
from torch import Tensor, nn

from esper_lightning.callbacks import Kasmina, Tamiyo, Tezzeret
from esper_lightning.kasmina import LifecycleRules
from esper_lightning.leyline import BlendSchedule, CommandKind, SystemState
from esper_lightning.tamiyo import Choice, Policy
from esper_lightning.tezzeret import Outcome, Recipe, Stock, key, this_machine
from esper_lightning.tezzeret.bundle import CODE, LIBRARIES
from esper_lightning.tezzeret.outcome import KIND
from esper_lightning.urza import Library

COMPILED = Outcome(is_compiled=True, reason="1.50 times as fast as eager", speedup=1.5)
EAGER = Outcome(is_compiled=False, reason="0.80 times as fast as eager, 1.05 is asked")
SLOT = "net.2"
SEED = plant(SLOT, "parallel_mlp", expansion=1.0)
STAGES = LifecycleRules(blend=BlendSchedule(num_steps=9), embargo=1, gates=LENIENT)
LIFE = {1: [SEED], 8: [tell(CommandKind.FOSSILIZE, SLOT)]}


class Ahead(Script):
    """Tells from the beginning what it may plant."""

    def __init__(self, lines: Any, ahead: list[Choice] | None = None) -> None:
        super().__init__(lines)
        self.ahead = [SEED] if ahead is None else ahead

    def candidates(self, state: SystemState) -> list[Choice]:
        return self.ahead


class Paying(Plain):
    """Logs that growth has paid, so that every gate passes."""

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))
        self.log("paid", torch.tensor(1.0 if self.current_epoch < 3 else 0.1))


class Inline:
    """In place of threads: what is submitted is done at once."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.shut = False

    def submit(self, work: Callable[..., None], *args: Any) -> None:
        work(*args)

    def shutdown(self, **_: Any) -> None:
        self.shut = True


class Function:
    """Stands in for loaded code: eager, and counts its calls by the epoch."""

    def __init__(self) -> None:
        self.calls = 0

    def guard_check(self, branch: nn.Module, x: Tensor) -> bool:
        return True

    def fn(self, branch: nn.Module, x: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = branch(x)
        return out


def run(
    tezzeret: Tezzeret | None,
    policy: Policy | None = None,
    *,
    module: Callable[[], Plain] = Plain,
    epochs: int = 4,
    callbacks: tuple[Callback, ...] = (),
    kasmina: Kasmina | None = None,
    ckpt_path: Path | None = None,
    **options: Any,
) -> tuple[Plain, Kasmina, Trainer]:
    torch.manual_seed(0)
    made = module()
    grower = kasmina or Kasmina(slots=[SLOT], monitor="val_loss", rules=FREE)
    listed = [grower, Tamiyo(risk=False, policy=policy or Ahead({1: [SEED]})), *callbacks]
    trainer = plain_trainer(
        listed + ([] if tezzeret is None else [tezzeret]),
        epochs=epochs,
        **{"deterministic": False, **options},
    )
    trainer.fit(made, *plain_data(), ckpt_path=ckpt_path)
    return made, grower, trainer


def trained(module: nn.Module) -> dict[str, Tensor]:
    """Weights, without what slots remember."""
    return {name: w for name, w in weights(module).items() if not name.endswith("_extra_state")}


def asked_in(tezzeret: Tezzeret, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Recipe]:
    """What a run looks up in its library."""
    found: list[Recipe] = []
    prefetch = Stock.prefetch

    def noting(self: Stock, asked: Recipe) -> bool:
        found.append(asked)
        return prefetch(self, asked)

    with monkeypatch.context() as patch:
        patch.setattr(Stock, "prefetch", noting)
        run(tezzeret, **options)
    return found


def keep(library: Library, recipes: list[Recipe], outcome: Outcome) -> None:
    parts = {CODE: b"code", LIBRARIES: b"libraries"} if outcome.is_compiled else {}
    for asked in recipes:
        name = key(asked, this_machine(asked.device))
        library.put(KIND, name, parts, about=msgspec.to_builtins(outcome))
