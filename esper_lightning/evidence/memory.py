"""Whether planting and culling leaves anything behind: a thousand times in one network."""

import argparse
import gc
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esper_lightning import karn
from esper_lightning.evidence.report import table, write
from esper_lightning.kasmina import (
    GateRules,
    LifecycleRules,
    Moment,
    SeedBed,
    add_slot_groups,
    insert_slots,
    probing,
)
from esper_lightning.leyline import (
    AdaptationCommand,
    CommandKind,
    Incubation,
    Objective,
    SeedStage,
)
from esper_lightning.tolaria.hosts import CNN

SLOT = "features.1"
BLUEPRINTS = ("parallel_conv", "conv_residual", "squeeze_excite", "channel_affine")


class Census(msgspec.Struct, frozen=True, kw_only=True):
    """What there is after so many cycles.

    Attributes:
        cycles: seeds that were planted and culled.
        rss_mib: resident memory of the process.
        tensors: alive.
        modules: alive.
        held: entries in the optimiser's state, and tensors in its groups.
        record_bytes: of the slot's record in a checkpoint; it lists what was culled.
    """

    cycles: int
    rss_mib: float
    tensors: int
    modules: int
    held: tuple[int, int]
    record_bytes: int


class Cycles:
    """A small network in which one seed after the other is planted, trained and culled.

    Args:
        incubation: how they are raised; all but direct ones are culled in TRAINING.
    """

    def __init__(self, *, incubation: Incubation = Incubation.DIRECT) -> None:
        torch.manual_seed(0)
        self.network = CNN(input_shape=(1, 8, 8), num_classes=10)
        slots = insert_slots(self.network, [SLOT], build=karn.build)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.01)
        add_slot_groups(self.optimizer, slots)
        self.bed = SeedBed(
            self.network,
            slots,
            rules=LifecycleRules(embargo=1, gates=GateRules(price_per_parameter=0.0)),
            incubation=incubation,
            fits=lambda _: True,
        )
        self.bed.bind(self.optimizer)
        self.slot = slots[SLOT]
        self._x, self._y = torch.randn(16, 1, 8, 8), torch.randint(0, 10, (16,))
        with probing(self.network):
            self.network(self._x)
        self.epoch = -1
        self.cycles = 0
        self._close()

    def cycle(self) -> None:
        """Plant, train for a step, cull, and rest until the slot is dormant again."""
        self._give(CommandKind.GERMINATE, BLUEPRINTS[self.cycles % len(BLUEPRINTS)])
        self._close()
        self._give(CommandKind.EMERGENCY)
        while self.slot.record.stage is not SeedStage.DORMANT:
            self._close()
        self.cycles += 1

    def census(self) -> Census:
        """Count what is alive, garbage collected first."""
        gc.collect()
        # Not isinstance: it asks lazy modules of other packages for attributes and imports them.
        kinds = [type(thing) for thing in gc.get_objects()]
        state = self.optimizer.state
        groups = self.optimizer.param_groups
        return Census(
            cycles=self.cycles,
            rss_mib=_resident_mib(),
            tensors=sum(issubclass(kind, Tensor) for kind in kinds),
            modules=sum(issubclass(kind, nn.Module) for kind in kinds),
            held=(len(state), sum(len(group["params"]) for group in groups)),
            record_bytes=self.slot.get_extra_state().numel(),
        )

    def _close(self) -> None:
        """One epoch of one step, and its boundary."""
        self.epoch += 1
        self.bed.watch.start_epoch()
        self.bed.watch.before_step(self.epoch)
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.network(self._x), self._y)
        loss.backward()  # type: ignore[no-untyped-call]
        self.bed.watch.after_backward()
        self.bed.watch.before_optimizer_step(self.epoch)
        self.optimizer.step()
        self.bed.watch.after_step(loss.detach())
        self.bed.close_epoch(self._moment())

    def _give(self, kind: CommandKind, blueprint: str = "") -> None:
        command = AdaptationCommand(
            id=f"{self.epoch}", run_id="memory", kind=kind, slot=SLOT, blueprint=blueprint
        )
        self.bed.apply(command, self._moment())

    def _moment(self) -> Moment:
        objective = Objective(name="val/loss", value=1.0)
        return Moment(run_id="memory", epoch=self.epoch, step=self.epoch + 1, objective=objective)


def run(
    *,
    cycles: int,
    looks: int,
    incubation: Incubation = Incubation.DIRECT,
    seen: Callable[[Census], None] = lambda _: None,
) -> list[Census]:
    """Take ``looks`` at evenly spaced points; the first after a tenth, when caches are warm."""
    life = Cycles(incubation=incubation)
    first = max(cycles // 10, 2 * len(BLUEPRINTS))
    points = {first + (cycles - first) * look // max(looks - 1, 1) for look in range(looks)}
    found = []
    while life.cycles < max(points):
        life.cycle()
        if life.cycles in points:
            found.append(life.census())
            seen(found[-1])
    return found


def render(found: Sequence[Census]) -> str:
    """A Markdown table."""
    rows = [
        [
            f"{census.cycles:,}",
            f"{census.rss_mib:.1f}",
            str(census.tensors),
            str(census.modules),
            f"{census.held[0]} / {census.held[1]}",
            f"{census.record_bytes:,}",
        ]
        for census in found
    ]
    header = ["cycles", "RSS MiB", "tensors", "modules", "optimiser state / held", "record bytes"]
    return table(header, rows)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.evidence memory")
    parser.add_argument("--cycles", type=int, default=1000, help="seeds planted and culled")
    parser.add_argument("--looks", type=int, default=5, help="lines of the table")
    parser.add_argument(
        "--incubation",
        type=Incubation,
        choices=[Incubation.DIRECT, Incubation.STRAIGHT_THROUGH],
        default=Incubation.DIRECT,
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/evidence/memory.json"))
    options = parser.parse_args(arguments)
    found = run(cycles=options.cycles, looks=options.looks, incubation=options.incubation)
    write(options.out, " ".join(["memory", *arguments]), found)
    print(render(found))


def _resident_mib() -> float:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status names no VmRSS; this needs Linux")
