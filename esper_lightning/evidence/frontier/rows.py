"""What is kept of a run: one row, written when it has finished."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

import msgspec

from esper_lightning.leyline import RunSummary, SystemState, decode, encode
from esper_lightning.nissa.journal import JOURNAL_NAME, read_journal

SUMMARY_NAME = "summary.json"


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """The end of an epoch that was kept.

    Attributes:
        epoch: counted from 0.
        flops: training FLOPs spent so far.
        val: validation accuracy, 0 to 1.
        objective: what gates look at.
    """

    epoch: int
    flops: float
    val: float
    objective: float | None = None


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What G4 made of a seed at a boundary.

    Attributes:
        epoch: that had ended.
        slot: of the seed.
        planted: epoch after which its cohort was planted.
        gain: the relative gain of its cohort, estimated.
        rent: the gain that was asked for.
    """

    epoch: int
    slot: str
    planted: int
    gain: float
    rent: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one arm.

    Attributes:
        task, arm: names.
        seed: of weights, data order and seeds.
        overrides: of ``train.py``, without the folder of the run.
        commit: of the code, empty where it is in no repository; ``+`` behind it: with changes.
        summary: what the run reached and what it cost; versions are in it.
        curve: validation by epoch.
        judgements: what G4 said, in order.
    """

    task: str
    arm: str
    seed: int
    overrides: tuple[str, ...]
    commit: str
    summary: RunSummary
    curve: tuple[Point, ...]
    judgements: tuple[Judgement, ...] = ()

    @property
    def key(self) -> tuple[str, str, int]:
        """Task, arm and seed."""
        return self.task, self.arm, self.seed


def read_run(
    folder: Path, *, task: str, arm: str, seed: int, overrides: Iterable[str], commit: str
) -> Row:
    """The row of a finished run, from what it left in its folder.

    Raises:
        DecodeError: a file is damaged.
        FileNotFoundError: the run did not finish.
    """
    path = folder / SUMMARY_NAME
    states = [e for e in read_journal(folder / JOURNAL_NAME) if isinstance(e, SystemState)]
    return Row(
        task=task,
        arm=arm,
        seed=seed,
        overrides=tuple(overrides),
        commit=commit,
        summary=decode(path.read_bytes(), RunSummary, what=str(path)),
        curve=tuple(
            Point(
                epoch=state.epoch,
                flops=state.total_flops,
                val=state.metrics["val/acc"],
                objective=state.objective.value,
            )
            for state in states
            if state.total_flops is not None and "val/acc" in state.metrics
        ),
        judgements=tuple(
            Judgement(
                epoch=state.epoch,
                slot=slot.slot,
                planted=slot.cohort,
                gain=slot.gain,
                rent=slot.rent,
            )
            for state in states
            for slot in state.slots
            if slot.cohort is not None and slot.gain is not None and slot.rent is not None
        ),
    )


def append(path: Path, row: Row) -> None:
    """Add a row to a file, durably."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(encode(row) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[Row]:
    """The rows of a file, the latest of each run; none where there is no file.

    A last line that is incomplete, because the benchmark was killed while writing it, is cut off.

    Raises:
        DecodeError: another line is damaged.
    """
    if not path.is_file():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    rows: list[Row] = [
        decode(line, Row, what=f"{path}, line {number}")
        for number, line in enumerate(whole.splitlines(), start=1)
    ]
    return list({row.key: row for row in rows}.values())


def commit_of(folder: Path) -> str:
    """The commit of the repository around ``folder``, with ``+`` where files were changed."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return ""
