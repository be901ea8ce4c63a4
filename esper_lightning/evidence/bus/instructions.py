"""What a run pays for the bus in instructions, which are the same however busy the machine is.

Runs as those that are timed, each in a process of its own under valgrind, which counts what all
threads of the process execute from the second epoch to the last one: steps, validation, boundaries,
and the thread that sends. Valgrind makes a run some fifty times slower and the server not, so what
is done once in a while (heartbeats, trials to connect again) is counted too often: the ratio is an
upper bound.
"""

import gc
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from esper_lightning.evidence.bus import training
from esper_lightning.evidence.bus.servers import SlowProxy, started
from esper_lightning.evidence.report import table

NO_BUS = "no bus"

STATES = (training.NO_FAULT, training.HUNG, training.DEAD, training.FULL, training.SLOW)

PROGRAM = "callgrind_control"


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    Attributes:
        state: of the server, or that there is no bus.
        millions: of instructions, in an epoch.
        ratio: of this run's over those without the bus.
    """

    state: str
    millions: float
    ratio: float


def train(name: str, state: str, epochs: int) -> None:
    """One run, in the process that valgrind watches."""
    with (
        training.key_in_environment(),
        started(name) as server,
        closing(SlowProxy(server.socket)) as proxy,
        TemporaryDirectory() as folder,
    ):
        faults = training.faults(server, proxy)
        url = proxy.url if state == training.SLOW else server.url

        def begin() -> None:
            if state in faults:
                faults[state][0]()
            gc.collect()
            gc.disable()
            _switch("on")

        def end() -> None:
            _switch("off")
            if state in faults:
                faults[state][1]()

        training.train(
            Path(folder),
            epochs=epochs,
            examples=None,
            url=None if state == NO_BUS else url,
            begin=begin,
            end=end,
        )


def _switch(to: str) -> None:
    subprocess.run([PROGRAM, "-i", to, str(os.getpid())], check=True, stdout=subprocess.DEVNULL)


def count(name: str, state: str, epochs: int) -> int:
    """Instructions of a run from its second epoch to the last one."""
    valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no"]
    child = [sys.executable, "-m", "esper_lightning.evidence.bus.instructions"]
    run = subprocess.run(
        [*valgrind, f"--callgrind-out-file={os.devnull}", *child, name, state, str(epochs)],
        env={**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    found = re.search(r"Collected : (\d+)", run.stderr)
    assert found is not None, run.stderr
    return int(found[1])


def measure(name: str, *, epochs: int, states: Sequence[str] = STATES) -> list[Cost]:
    """A run without the bus, and one in each state of the server.

    Args:
        name: of the server.
        epochs: of a run, at least 3; two are not counted.
        states: of the server.
    """
    counted = {state: count(name, state, epochs) for state in (NO_BUS, *states)}
    return [
        Cost(
            state=state,
            millions=number / (epochs - 2) / 1e6,
            ratio=number / counted[NO_BUS],
        )
        for state, number in counted.items()
    ]


def render(found: Sequence[Cost]) -> str:
    """A Markdown table."""
    rows = [[each.state, f"{each.millions:.1f}", f"{each.ratio:.4f}"] for each in found]
    return table(["server", "instructions of an epoch, millions", "ratio"], rows)


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2], int(sys.argv[3]))
