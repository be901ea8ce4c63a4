"""What going back costs, to a snapshot in memory and to a checkpoint, beside copying the tensors.

The network is the eight convolutions of ``overhead``, as wide as is asked for, with three seeds,
after one step of AdamW. It goes back to itself, and across what is done to all three seeds: before
they were planted, fossilised, culled. One thread.
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
from esper_lightning.kasmina import (
    GateRules,
    LifecycleRules,
    Moment,
    SeedBed,
    add_slot_groups,
    insert_slots,
)
from esper_lightning.leyline import AdaptationCommand, CommandKind, Objective, SeedStage
from esper_lightning.tolaria import Snapshot

PLANTED = ("3", "9", "15")

ACROSS = ("nothing", "graft", "fossilisation", "cull")
"""What happened between the snapshot and the moment of going back to it."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds, medians.

    Attributes:
        across: what is undone, one of :data:`ACROSS`.
        parameters: of the network that is gone back to.
        copy_ms: copying weights and optimiser state into tensors that are there.
        take_ms: a snapshot.
        fast_ms: going back to it.
        full_ms: going back to a checkpoint, reading it from memory included.
        fast_ratio: of the time to go back over the time to copy, measured in turns.
    """

    across: str
    parameters: int
    copy_ms: float
    take_ms: float
    fast_ms: float
    full_ms: float
    fast_ratio: Interval


def planted(width: int) -> tuple[SeedBed, Optimizer, Snapshot]:
    """A network with three live seeds, after a training step, and what it was before them."""
    torch.manual_seed(0)
    network = convolutions(width)
    optimizer = AdamW(network.parameters(), lr=1e-3)
    slots = insert_slots(network, CONVOLUTIONS, build=karn.build)
    add_slot_groups(optimizer, slots)
    gates = GateRules(price_per_parameter=0.0, price_per_flop=0.0, judge_gain=False, window=1)
    bed = SeedBed(network, slots, rules=LifecycleRules(gates=gates), fits=lambda _: True)
    bed.bind(optimizer)
    _train(bed, optimizer, _moment(0))
    before = Snapshot.take(network, optimizer, epoch=0, step=0)
    _command(bed, CommandKind.GERMINATE, blueprint="parallel_conv")
    _train(bed, optimizer, _moment(1))
    return bed, optimizer, before


def _moment(epoch: int) -> Moment:
    objective = Objective(name="loss", value=1.0)
    return Moment(run_id="benchmark", epoch=epoch, step=epoch, objective=objective)


def _command(bed: SeedBed, kind: CommandKind, *, blueprint: str = "") -> None:
    for slot in PLANTED:
        command = AdaptationCommand(
            id=f"{kind.name} {slot}",
            run_id="benchmark",
            kind=kind,
            slot=slot,
            blueprint=blueprint,
        )
        bed.apply(command, _moment(1))


def _train(bed: SeedBed, optimizer: Optimizer, moment: Moment) -> None:
    """An epoch of one step."""
    inputs, classes = torch.randn(4, 3, 8, 8), torch.randint(0, 10, (4,))
    bed.watch.start_epoch()
    bed.watch.before_step(moment.step)
    loss = F.cross_entropy(bed.network(inputs), classes)
    loss.backward()  # type: ignore[no-untyped-call]
    bed.watch.after_backward()
    bed.watch.before_optimizer_step(moment.step)
    optimizer.step()
    bed.watch.after_step(loss.detach())
    bed.close_epoch(moment)


def _undone(bed: SeedBed, optimizer: Optimizer, before: Snapshot, across: str) -> list[Snapshot]:
    """What is gone back to, and from where."""
    now = Snapshot.take(bed.network, optimizer, epoch=1, step=0)
    if across == "nothing":
        return [now, now]
    if across == "graft":
        return [before, now]
    if across == "cull":
        _command(bed, CommandKind.CULL)
        bed.end()  # not after a ramp
    else:
        while bed.slots[PLANTED[0]].record.stage is not SeedStage.PROBATIONARY:
            _train(bed, optimizer, _moment(2))
        now = Snapshot.take(bed.network, optimizer, epoch=1, step=0)
        _command(bed, CommandKind.FOSSILIZE)
    return [now, Snapshot.take(bed.network, optimizer, epoch=2, step=0)]


def run(*, width: int, rounds: int, across: str = "nothing") -> Cost:
    """Measure everything in turns.

    Args:
        width: of the convolutions.
        rounds: how often.
        across: what is undone.
    """
    torch.set_num_threads(1)
    bed, optimizer, before = planted(width)
    network = bed.network
    snapshot, after = _undone(bed, optimizer, before, across)
    snapshot.restore(network, bed, optimizer, step=0)
    saved = io.BytesIO()
    states = {"state_dict": network.state_dict(), "optimizer_states": [optimizer.state_dict()]}
    torch.save({"epoch": 0, "global_step": 0, **states}, saved)
    tensors = [*network.state_dict().values()]
    tensors += [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    sources = [tensor.detach().clone() for tensor in tensors]
    targets = [torch.empty_like(tensor) for tensor in sources]

    def copy() -> None:
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)

    def full() -> None:
        saved.seek(0)
        loaded = torch.load(saved, weights_only=True)
        read = Snapshot.read(loaded, epoch=0, beside=snapshot)
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
            after.restore(network, bed, optimizer, step=0)  # again what is to be undone
            began = time.perf_counter()
            action()
            if number:  # the first is a warm-up
                seconds[name].append(time.perf_counter() - began)
    snapshot.restore(network, bed, optimizer, step=0)
    return Cost(
        across=across,
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
            cost.across,
            f"{cost.parameters:,}",
            *(f"{ms:.1f}" for ms in (cost.copy_ms, cost.take_ms, cost.fast_ms, cost.full_ms)),
            str(cost.fast_ratio),
        ]
        for cost in costs
    ]
    times = ["copy ms", "snapshot ms", "fast ms", "full ms"]
    header = ["across", "parameters", *times, "fast / copy [95 %]"]
    return table(header, rows)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.evidence rollback")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 125, 400])
    parser.add_argument("--across", nargs="+", default=ACROSS, choices=ACROSS)
    parser.add_argument("--rounds", type=int, default=40, help="how often each is measured")
    parser.add_argument("--out", type=Path, default=Path("outputs/evidence/rollback.json"))
    options = parser.parse_args(arguments)
    costs = [
        run(width=width, rounds=options.rounds, across=across)
        for width in options.widths
        for across in options.across
    ]
    write(options.out, " ".join(["rollback", *arguments]), costs)
    print(render(costs))
