"""Shares of runs of ``train.py``: what one machine carries out, wherever it is."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from esper_lightning.evidence.frontier.pool import Run, run_all
from esper_lightning.leyline import (
    DecodeError,
    EsperError,
    Event,
    RunEnded,
    RunSummary,
    decode,
)
from esper_lightning.nissa.journal import JOURNAL_NAME
from esper_lightning.nissa.versions import versions
from esper_lightning.simic.recording import FINISHED, SUMMARY_NAME

TRIES = 3
"""Of what is lost with a process or a machine."""

LONGEST_END = 4096
"""Bytes of the line that a journal ends with, at most."""


class OtherVersions(EsperError):
    """A machine has other versions of what a run's numbers depend on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Runs that one machine carries out.

    Attributes:
        train: path of ``train.py``.
        jobs: runs at a time.
        limit_s: seconds that one of them may take; None for any.
        runs: options of each, by folder.
        versions: of Python and packages, which that machine must have.
    """

    train: Path
    jobs: int
    limit_s: float | None
    runs: Mapping[Path, tuple[str, ...]]
    versions: Mapping[str, str]


class Machines(Protocol):
    """Carries out shares, wherever."""

    def __call__(self, shares: Sequence[Share], /) -> dict[Path, str]:
        """Why a run failed, by folder.

        A run that is neither in it nor done was lost, with a process or a machine.
        """


def carried_out(
    wanted: Mapping[Path, tuple[str, ...]],
    machines: Machines,
    *,
    train: Path,
    jobs: int,
    limit_s: float | None,
    size: int,
) -> dict[Path, str]:
    """Have runs carried out in shares; what is done already is not, what is lost is asked again.

    Args:
        wanted: options of each, by folder.
        machines: that carry them out.
        train: path of ``train.py``.
        jobs: runs at a time on one machine.
        limit_s: seconds that a run may take; None for any.
        size: runs of a share, at most.

    Returns:
        Why a run failed, by folder; all others are done.

    Raises:
        OtherVersions: a machine would come to other numbers.
    """
    failures: dict[Path, str] = {}
    own = versions()
    for _ in range(TRIES):
        left = _left(wanted, failures)
        if not left:
            break
        failures |= machines(
            [
                Share(
                    train=train,
                    jobs=jobs,
                    limit_s=limit_s,
                    runs={folder: wanted[folder] for folder in left[first : first + size]},
                    versions=own,
                )
                for first in range(0, len(left), size)
            ]
        )
    left = _left(wanted, failures)
    return failures | dict.fromkeys(left, f"it did not come to its end, {TRIES} times")


def _left(wanted: Iterable[Path], failures: Container[Path]) -> list[Path]:
    return [folder for folder in wanted if folder not in failures and not is_done(folder)]


def here(shares: Sequence[Share]) -> dict[Path, str]:
    """On this machine, one after the other."""
    return {folder: why for share in shares for folder, why in carry_out(share).items()}


def carry_out(share: Share) -> dict[Path, str]:
    """Carry out a share on this machine; what is done already is not done again.

    Returns:
        Why a run failed, by folder.

    Raises:
        OtherVersions: this machine would come to other numbers.
    """
    if (found := versions()) != share.versions:
        raise OtherVersions(
            f"runs are asked for by a machine with {_words(share.versions)}, this one has "
            f"{_words(found)}: they would not be comparable, install the same on both"
        )
    failures: dict[Path, str] = {}
    run_all(
        [
            Run(
                name=folder.name,
                needs=(),
                folder=folder,
                overrides=partial(tuple, options),
                fail=partial(failures.__setitem__, folder),
            )
            for folder, options in share.runs.items()
            if not is_done(folder)
        ],
        train=share.train,
        jobs=share.jobs,
        tell=_to_nobody,
        limit_s=share.limit_s,
    )
    return failures


def is_done(folder: Path) -> bool:
    """Whether a run came to its end there: its summary and its journal both tell so."""
    try:
        found: RunSummary = decode(
            (folder / SUMMARY_NAME).read_bytes(), RunSummary, what=str(folder)
        )
        last: Event = decode(_last_line(folder / JOURNAL_NAME), Event, what=str(folder))
    except (OSError, DecodeError):
        return False
    ended = isinstance(last, RunEnded) and last.run_id == found.run_id
    return ended and found.outcome == FINISHED


def _last_line(path: Path) -> bytes:
    """Of a file whose last lines are short, whatever its length."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LONGEST_END))
        return file.read().rstrip(b"\n").rpartition(b"\n")[2]


def _words(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(found.items()))


def _to_nobody(line: str) -> None:
    """A round tells what came of it."""
