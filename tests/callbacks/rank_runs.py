"""Runs of several processes that train one network, for processes of their own.

Each function is one process's part; what it returns is compared with what the others return.
"""

import functools
import hashlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import torch
from drawn_commands import Anything
from interrupted_runs import LENIENT, Saves
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.strategies import DDPStrategy
from runs import Script, listen, plant, tell
from torch import Tensor, nn

from esper_lightning import karn
from esper_lightning.callbacks import Governor, Kasmina, Tamiyo
from esper_lightning.kasmina import Branch, LifecycleRules, Ranks, second_passes
from esper_lightning.leyline import (
    Attachment,
    BlendSchedule,
    CommandKind,
    Incubation,
    Intervention,
    ParameterValue,
    SlotShape,
    StageChanged,
    encode,
)
from esper_lightning.tamiyo import Choice
from esper_lightning.tolaria import HealthRules, TensorDataModule, Tolaria

A, B = "0", "4"
EPOCHS = 12
ROWS = 71
"""A number that neither 2 nor 4 divides; the last batch of an epoch is a small one."""
RULES = LifecycleRules(blend=BlendSchedule(num_steps=5), embargo=1, max_fossils=1, gates=LENIENT)
LINES: Mapping[Incubation, Mapping[int, Sequence[Any]]] = {
    Incubation.DIRECT: {
        0: [plant(A, "parallel_mlp")],
        1: [plant(B, "normed")],
        3: [tell(CommandKind.FOSSILIZE, A), tell(CommandKind.PAUSE, B)],
        4: [tell(CommandKind.RESUME, B)],
        5: [tell(CommandKind.CULL, B)],
        7: [tell(CommandKind.PRUNE, A)],
    },
    **{
        apart: {
            0: [plant(A, "parallel_mlp")],
            1: [plant(B, "normed")],
            8: [tell(CommandKind.FOSSILIZE, A), tell(CommandKind.CULL, B)],
            9: [tell(CommandKind.PRUNE, A)],
        }
        for apart in (Incubation.STRAIGHT_THROUGH, Incubation.SHADOW)
    },
}


class Normed(Branch):
    """Has running statistics, and draws from its stream in every pass; zero at birth."""

    attachment: ClassVar[Attachment] = Attachment.SERIES

    def __init__(self, shape: SlotShape) -> None:
        super().__init__()
        features = shape.output.features
        self.norm, self.last = nn.BatchNorm1d(features), nn.Linear(features, features)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(nn.functional.dropout(self.norm(x), 0.3, self.training))


class Spoils(Normed):
    """Emits NaN after a while."""

    left = 9

    def forward(self, x: Tensor) -> Tensor:
        self.left -= self.training
        return super().forward(x) * (float("nan") if self.left < 0 else 1.0)


def build(name: str, parameters: Mapping[str, ParameterValue], shape: SlotShape) -> Branch:
    own = {"normed": Normed, "spoils": Spoils}
    return own[name](shape) if name in own else karn.build(name, parameters, shape)


class Digests(Callback):
    """What the network and its optimiser are after every boundary, in a few bytes."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.add(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.add(trainer, pl_module)

    def add(self, trainer: Trainer, module: LightningModule) -> None:
        digest = hashlib.sha256()
        moments = trainer.optimizers[0].state_dict()["state"]
        tensors = {**module.state_dict(), "": torch.zeros(0)}
        for number, state in sorted(moments.items()):
            tensors |= {f"{number}.{name}": torch.as_tensor(v) for name, v in state.items()}
        for name, tensor in tensors.items():
            digest.update(name.encode() + tensor.detach().numpy().tobytes())
        self.all.append(digest.hexdigest())


class Classifier(Tolaria):
    """Without anything random or statistical, unless asked for."""

    def __init__(self, *, noisy: bool = True, optimizer: Any = None) -> None:
        norm = [nn.BatchNorm1d(6), nn.Dropout(0.2)] if noisy else [nn.Identity(), nn.Identity()]
        host = nn.Sequential(
            nn.Linear(5, 6), *norm, nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)
        )
        super().__init__(host=host, num_classes=3, optimizer=optimizer)


class Foreign(Classifier):
    """Logs what each rank thinks of its own shard, as somebody else's module may."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.host(batch[0])
        self.log("val/loss", torch.tensor(1.0 + self.global_rank * self.current_epoch))


def data(rows: int = ROWS, *, batch_size: int = 8) -> TensorDataModule:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows + 17, 5, generator=generator)
    y = (x[:, :3] + x[:, 1:4]).argmax(1)
    train, val = (x[:rows].clone(), y[:rows]), (x[rows:].clone(), y[rows:])
    return TensorDataModule(
        train=train, val=val, test=(x[:4].clone(), y[:4]), batch_size=batch_size
    )


def fit(
    lines: Mapping[int, Sequence[Any]],
    *,
    module: LightningModule | None = None,
    incubation: Incubation = Incubation.DIRECT,
    callbacks: Sequence[Callback] = (),
    policy: Script | None = None,
    ckpt_path: Path | None = None,
    datamodule: TensorDataModule | None = None,
    rules: LifecycleRules = RULES,
    **options: Any,
) -> dict[str, Any]:
    """One process's part of a run, and what is left of it."""
    seed_everything(0 if ckpt_path is None else 99, verbose=False)
    module = module or Classifier()
    kasmina = Kasmina(slots=[A, B], root="host", incubation=incubation, rules=rules, build=build)
    digests = Digests()
    size = int(os.environ["RANKS"])
    several: dict[str, Any] = {"strategy": "ddp", "devices": size} if size > 1 else {"devices": 1}
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[
            Tamiyo(risk=False, policy=policy or Script(lines)),
            kasmina,
            digests,
            *callbacks,
        ],
        **{"max_epochs": EPOCHS, "enable_checkpointing": False, **several, **options},
    )
    events = listen(kasmina)
    trainer.fit(module, datamodule=datamodule or data(), ckpt_path=ckpt_path)
    changes = [e for e in events if isinstance(e, StageChanged)]
    return {
        "digests": digests.all,
        "stages": [(e.epoch, e.slot, e.after.name) for e in changes],
        "weights": {name: value.clone() for name, value in module.state_dict().items()},
        "interventions": [str(e) for e in events if isinstance(e, Intervention)],
        "records": [encode(slot.record) for slot in kasmina.bed.slots.values()],
        "flops": kasmina.costs.total,
        "samples": kasmina.costs.num_samples,
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
    }


# What is done together


def stages(incubation: Incubation, folder: Path, **options: Any) -> dict[str, Any]:
    """Every stage, with an epoch that no number of ranks divides."""
    return fit(LINES[incubation], incubation=incubation, **options)


def accumulated(folder: Path) -> dict[str, Any]:
    return stages(
        Incubation.STRAIGHT_THROUGH, folder, accumulate_grad_batches=2, gradient_clip_val=0.1
    )


def halved(folder: Path) -> dict[str, Any]:
    return stages(Incubation.SHADOW, folder, precision="bf16-mixed")


def optioned(folder: Path) -> dict[str, Any]:
    """The options of DDP that change what its hooks on parameters do."""
    strategies = [
        DDPStrategy(gradient_as_bucket_view=True),
        DDPStrategy(static_graph=True),
        DDPStrategy(find_unused_parameters=True, broadcast_buffers=False),
    ]
    told = [stages(Incubation.STRAIGHT_THROUGH, folder, strategy=each) for each in strategies]
    return {"runs": told}


def isolated(incubation: Incubation | None, folder: Path) -> dict[str, Any]:
    """The host with seeds that stay in isolation, or alone."""
    lines = {} if incubation is None else {0: [plant(A, "parallel_mlp")], 1: [plant(B, "normed")]}
    rules = LifecycleRules(min_ages={"TRAINING": 8}, gates=LENIENT)
    told = fit(lines, incubation=incubation or Incubation.DIRECT, rules=rules, max_epochs=6)
    host = {n: v for n, v in told["weights"].items() if "base_layer" in n or ".slot" not in n}
    left_out = (".seed.", "_extra_state", ".alpha")
    told["host"] = {n: v for n, v in host.items() if not any(part in n for part in left_out)}
    return told


def as_one(folder: Path) -> dict[str, Any]:
    """Batches of 16 for all ranks together, and a network that treats each example by itself.

    In double precision: sums of single precision differ by their order, and a ReLU whose input is
    within that of 0 makes more of it.
    """
    size = int(os.environ["RANKS"])
    sgd = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    lines = {0: [plant(A, "parallel_mlp")], 1: [plant(B, "gated_mlp")]}
    return fit(
        {**lines, 6: [tell(CommandKind.FOSSILIZE, A)]},
        module=Classifier(noisy=False, optimizer=sgd),
        datamodule=data(64, batch_size=16 // size),
        precision="64-true",
    )


def governed(folder: Path) -> dict[str, Any]:
    lines = {0: [plant(A, "parallel_mlp")], 2: [plant(B, "spoils")]}
    return fit(lines, callbacks=[Governor(rules=HealthRules())])


def taken_back(folder: Path) -> dict[str, Any]:
    """Rollbacks by command: across a graft, a fossilisation and a cull."""
    back = Choice(kind=CommandKind.ROLLBACK, reason="told to", parameters={"boundaries": 2})
    lines = {
        0: [plant(A, "parallel_mlp")],
        1: [plant(B, "normed")],
        2: [back],
        4: [tell(CommandKind.FOSSILIZE, A)],
        5: [back],
        7: [tell(CommandKind.CULL, A)],
        8: [back],
    }
    return fit(lines, callbacks=[Governor()])


def drawn(folder: Path) -> dict[str, Any]:
    """Any commands in any order."""
    rules = HealthRules(max_rollbacks=9)
    return {
        "runs": [
            fit(
                {},
                policy=Anything(seed, slots=[A, B], blueprints=["normed", "parallel_mlp"]),
                incubation=[*Incubation][seed % 3],
                callbacks=[Governor(rules=rules)],
                max_epochs=18,
            )
            for seed in range(6)
        ]
    }


def resumed(folder: Path) -> dict[str, Any]:
    """Without a stop; with one, from within an epoch, at its end, and in mid-ramp."""
    run = functools.partial(stages, Incubation.STRAIGHT_THROUGH, folder)
    straight = run(callbacks=[Saves(folder)], enable_checkpointing=True)
    points = ("1-within", "3-end", "4-within", "8-end", "9-within", "10-end")
    straight["after"] = {point: run(ckpt_path=folder / f"{point}.ckpt") for point in points}
    return straight


def foreign(folder: Path) -> dict[str, Any]:
    """Metrics that differ by rank, and a policy that looks at them."""
    return stages(Incubation.DIRECT, folder, module=Foreign())


def violated(folder: Path) -> dict[str, Any]:
    """The last rank alone sees that a seed disturbs the host."""
    seen = [A] if int(os.environ["LOCAL_RANK"]) == int(os.environ["RANKS"]) - 1 else []
    rules = LifecycleRules(monitor_every=1, gates=LENIENT)
    with mock.patch.object(second_passes, "disturbing", return_value=seen):
        return fit(
            {0: [plant(A, "parallel_mlp")]}, incubation=Incubation.STRAIGHT_THROUGH, rules=rules
        )


def spoken(folder: Path) -> dict[str, Any]:
    """What ranks tell each other, of every type of tensor; a fit leaves the process group."""
    fit({}, max_epochs=1)
    ranks, rank = Ranks(), int(os.environ["LOCAL_RANK"])
    averaged = [
        torch.full((2, 3), float(rank)),
        torch.tensor(rank, dtype=torch.bfloat16),
        torch.full((2,), complex(rank, 2 * rank)),
        torch.zeros(0),
        torch.full((3, 2), float(rank)).t(),
    ]
    taken = [
        torch.tensor([rank == 0, False]),
        torch.tensor(7 + rank),
        torch.full((2,), complex(1, rank)),
        torch.full((2, 2), 1.0 + rank).t(),
    ]
    ranks.average(averaged)
    ranks.take_from_first(taken)
    return {"averaged": averaged, "taken": taken, "gathered": ranks.gather({"rank": rank})}


class Fails(Script):
    def decide(self, state: Any) -> Any:
        if state.epoch == 2:
            raise ZeroDivisionError("a policy with a mistake")
        return []


def mistaken(folder: Path) -> dict[str, Any]:
    return _error(lambda: fit({}, policy=Fails({})))


class Acts(Callback):
    """Does something on the last rank alone."""

    def __init__(self, act: Callable[[Trainer], object]) -> None:
        self.act = act

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 3 and trainer.global_rank == trainer.world_size - 1:
            self.act(trainer)


def disagreeing(folder: Path) -> dict[str, Any]:
    def act(trainer: Trainer) -> None:
        kasmina = next(c for c in trainer.callbacks if isinstance(c, Kasmina))  # type: ignore[attr-defined]
        kasmina.bed.slots[A].record.paused_at = 0

    return _error(lambda: fit({0: [plant(A, "parallel_mlp")]}, callbacks=[Acts(act)]))


def broken(folder: Path) -> dict[str, Any]:
    def act(trainer: Trainer) -> None:
        raise ZeroDivisionError("this rank alone")

    return _error(lambda: fit({}, callbacks=[Acts(act)]))


def dying(folder: Path) -> dict[str, Any]:
    return _error(lambda: fit({}, callbacks=[Acts(lambda _: os.kill(os.getpid(), 9))]))


def _error(run: Callable[[], object]) -> dict[str, Any]:
    try:
        run()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"error": ""}


RUNS: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    **{f"stages-{kind.value}": functools.partial(stages, kind) for kind in Incubation},
    **{f"isolated-{kind.value}": functools.partial(isolated, kind) for kind in LINES},
    "isolated-none": functools.partial(isolated, None),
    "accumulated": accumulated,
    "optioned": optioned,
    "halved": halved,
    "as_one": as_one,
    "governed": governed,
    "taken_back": taken_back,
    "drawn": drawn,
    "resumed": resumed,
    "foreign": foreign,
    "violated": violated,
    "spoken": spoken,
    "mistaken": mistaken,
    "disagreeing": disagreeing,
    "broken": broken,
    "dying": dying,
}


def part(rank: int, size: int, port: int, folder: Path, names: Sequence[str]) -> None:
    """One process's part of runs that come one after the other; leaves what each returned."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in names:
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "NODE_RANK": "0",
            "LOCAL_RANK": str(rank),
            "RANKS": str(size),
        }
        place = folder / name
        place.mkdir(exist_ok=True)
        torch.save(RUNS[name](place), place / f"rank{rank}.pt")
