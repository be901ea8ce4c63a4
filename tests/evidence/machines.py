"""What tests of several machines share: small assignments, processes of their runs, no machines."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from frontier_rows import summary

from esper_lightning.evidence.frontier.process import LOG_NAME
from esper_lightning.evidence.rollouts.families import COMMON
from esper_lightning.evidence.rollouts.shares import Share
from esper_lightning.leyline import RunEnded, encode
from esper_lightning.nissa.journal import JOURNAL_NAME
from esper_lightning.simic.recording import FINISHED, SUMMARY_NAME
from esper_lightning.simic.rollouts import Assignment, Pair, RolloutTask, drawn_by
from esper_lightning.tamiyo.learned.stored import CLONED

ROOT = Path(__file__).parents[2]
TRAIN = ROOT / "train.py"

TASK = RolloutTask(
    name="small",
    options=(*COMMON, "host=mlp", "host.width=4", "data.subset=64", "trainer.max_epochs=6"),
)


END = RunEnded(run_id="r", epoch=10, step=100, outcome=FINISHED)


def leave(folder: Path) -> None:
    """What a run leaves that came to its end."""
    folder.mkdir(parents=True)
    (folder / SUMMARY_NAME).write_bytes(encode(summary(test=0.9)))
    start = msgspec.structs.replace(END, outcome="not that " + 5000 * "x")
    (folder / JOURNAL_NAME).write_bytes(b"".join(encode(each) + b"\n" for each in (start, END)))


class Given:
    """Machines that lose runs and fail runs, each time as many as is said.

    A run that ended well leaves what tells so.
    """

    def __init__(self, *, losing: Sequence[int] = (), failing: Sequence[int] = ()) -> None:
        self._losing, self._failing = list(losing), list(failing)
        self.asked: list[list[Share]] = []

    def __call__(self, shares: Sequence[Share]) -> dict[Path, str]:
        self.asked.append(list(shares))
        folders = [folder for share in shares for folder in share.runs]
        failed = folders[: self._failing.pop(0) if self._failing else 0]
        lost = self._losing.pop(0) if self._losing else 0
        for folder in folders[len(failed) + lost :]:
            leave(folder)
        return dict.fromkeys(failed, "as told")

    @property
    def num_asked(self) -> list[int]:
        return [sum(len(share.runs) for share in shares) for shares in self.asked]


def assignments(num: int, *, more: tuple[str, ...] = ()) -> list[Assignment]:
    """On the same task and seed, with other draws."""
    return [
        Assignment(task=TASK, seed=7, deciding=(*drawn_by(CLONED, seed=draw), *more))
        for draw in range(num)
    ]


def told(pair: Pair | None) -> list[bytes]:
    """The records but for the names of the runs, which are drawn."""
    assert pair is not None
    records = [(folder / "events.jsonl").read_bytes() for folder in (pair.run, pair.twin)]
    return [each.replace(run_id_of(each), b"") for each in records]


def run_id_of(record: bytes) -> bytes:
    found = re.search(rb'"run_id":"(\w+)"', record)
    assert found is not None
    return found[1]


def processes_of_runs(folder: Path) -> Iterator[int]:
    """Processes that write the log of a run below this folder, by /proc."""
    logs = {str(log) for log in folder.rglob(LOG_NAME)}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "fd" / "1") in logs:
                yield int(process.name)
        except OSError:
            continue


def ancestor(process: int, wanted: Callable[[str], bool]) -> int | None:
    """The nearest process above whose command line is wanted."""
    while process > 1:
        try:
            line = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            if wanted(line):
                return process
            status = Path(f"/proc/{process}/status").read_text()
        except OSError:
            return None
        found = re.search(r"^PPid:\s+(\d+)$", status, re.MULTILINE)
        process = int(found[1]) if found else 0
    return None
