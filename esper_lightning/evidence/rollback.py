"""What going back costs, to a snapshot in memory and to a checkpoint, beside copying the tensors.

The network is the eight convolutions of ``overhead``, as wide as is asked for, with three seeds,
after one step of AdamW. One thread.
"""

import argparse
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import AdamW, Optimizer

from esper_lightning import karn
from esper_lightning.evidence.intervals import Interval, bootstrap, ratios
from esper_lightning.evidence.overhead import CONVOLUTIONS, convolutions
from esper_lightning.evidence.report import table, write
from esper_lightning.kasmina import LifecycleRules, Moment, SeedBed, add_slot_groups, insert_slots
from esper_lightning.leyline import AdaptationCommand, CommandKind, Objective
from esper_lightning.tolaria import Snapshot

PLANTED = ("3", "9", "15")


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds, medians.

    Attributes:
        parameters: of the network.
        copy_ms: copying weights and optimiser state into tensors that are there.
        take_ms: a snapshot.
        fast_ms: going back to it.
        full_ms: going back to a checkpoint, reading it from memory included.
        fast_ratio: of the time to go back over the time to copy, measured in turns.
    """

    parameters: int
    copy_ms: float
    take_ms: float
    fast_ms: float
    full_ms: float
    fast_ratio: Interval


def grown(width: int) -> tuple[SeedBed, Optimizer]:
    """A network with three live seeds, after a training step."""
    torch.manual_seed(0)
    network = convolutions(width)
    optimizer = AdamW(network.parameters(), lr=1e-3)
    slots = insert_slots(network, CONVOLUTIONS, build=karn.build)
    add_slot_groups(optimizer, slots)
    bed = SeedBed(network, slots, rules=LifecycleRules(), fits=lambda _: True)
    bed.bind(optimizer)
    inputs, classes = torch.randn(4, 3, 8, 8), torch.randint(0, 10, (4,))
    network(inputs)
    moment = Moment(run_id="benchmark", epoch=0, step=0, objective=Objective(name="loss"))
    bed.wake(moment)
    for slot in PLANTED:
        command = AdaptationCommand(
            id=slot,
            run_id="benchmark",
            kind=CommandKind.GERMINATE,
            slot=slot,
            blueprint="parallel_conv",
        )
        bed.apply(command, moment)
    F.cross_entropy(network(inputs), classes).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return bed, optimizer


def run(*, width: int, rounds: int) -> Cost:
    """Measure everything in turns.

    Args:
        width: of the convolutions.
        rounds: how often.
    """
    torch.set_num_threads(1)
    bed, optimizer = grown(width)
    network = bed.network
    snapshot = Snapshot.take(network, optimizer, epoch=0, step=0)
    saved = io.BytesIO()
    states = {"state_dict": network.state_dict(), "optimizer_states": [optimizer.state_dict()]}
    torch.save({"epoch": 0, "global_step": 0, **states}, saved)
    tensors = [*network.state_dict().values()]
    tensors += [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    there = [tensor.detach().clone() for tensor in tensors]

    def copy() -> None:
        for target, source in zip(there, tensors, strict=True):
            target.copy_(source.detach())

    def full() -> None:
        saved.seek(0)
        read = Snapshot.read(torch.load(saved, weights_only=True))
        read.restore(network, bed, optimizer, step=0)

    actions: dict[str, Callable[[], object]] = {
        "copy": copy,
        "take": lambda: Snapshot.take(network, optimizer, epoch=0, step=0),
        "fast": lambda: snapshot.restore(network, bed, optimizer, step=0),
        "full": full,
    }
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds + 1):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            if number:  # the first is a warm-up
                seconds[name].append(time.perf_counter() - began)
    return Cost(
        parameters=bed.num_parameters(),
        copy_ms=1e3 * median(seconds["copy"]),
        take_ms=1e3 * median(seconds["take"]),
        fast_ms=1e3 * median(seconds["fast"]),
        full_ms=1e3 * median(seconds["full"]),
        fast_ratio=bootstrap(ratios(seconds["fast"], seconds["copy"])),
    )


def render(costs: Sequence[Cost]) -> str:
    """A Markdown table."""
    rows = [
        [
            f"{cost.parameters:,}",
            *(f"{ms:.1f}" for ms in (cost.copy_ms, cost.take_ms, cost.fast_ms, cost.full_ms)),
            str(cost.fast_ratio),
        ]
        for cost in costs
    ]
    header = ["parameters", "copy ms", "snapshot ms", "fast ms", "full ms", "fast / copy [95 %]"]
    return table(header, rows)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.evidence rollback")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 125, 400])
    parser.add_argument("--rounds", type=int, default=40, help="how often each is measured")
    parser.add_argument("--out", type=Path, default=Path("outputs/evidence/rollback.json"))
    options = parser.parse_args(arguments)
    costs = [run(width=width, rounds=options.rounds) for width in options.widths]
    write(options.out, " ".join(["rollback", *arguments]), costs)
    print(render(costs))
