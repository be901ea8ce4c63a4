"""Whether a process that is killed while it stores in a library loses or spoils anything.

One process after the other stores in the same library, and is killed by SIGKILL at a moment that
is drawn from a seed. After each, everything is checked that any of them was told is stored. A kill
leaves what the operating system has; it says nothing of a power cut.
"""

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
from scipy import stats

from esper_lightning.evidence.report import table
from esper_lightning.leyline import Signer
from esper_lightning.urza import Library, Part, Reference

_COMMON = b"what many artifacts hold" * 1000

_NAMES = 5

_MOST_BYTES = 200_000


class Kills(msgspec.Struct, frozen=True, kw_only=True):
    """What was found after all kills.

    Attributes:
        kills: how many processes were killed.
        stored: versions whose storing had returned before.
        unheard: versions that are whole though the kill came before their storing returned.
        lost: versions whose storing had returned, and that are not there or are others.
        damaged: versions that were accepted and cannot be read, or are not signed.
        within: kills that left something unfinished behind, so that they came within a storing.
        most_left: files that one kill left behind, at most; all were found as garbage.
        upper: with 95 % confidence, the share of kills that lose or spoil something is lower.
    """

    kills: int
    stored: int
    unheard: int
    lost: int
    damaged: int
    within: int
    most_left: int
    upper: float


Stored = tuple[Reference, dict[str, Part]]


def store_for_ever(root: Path, key: bytes, seed: int, told: Connection) -> None:
    """Store one artifact after the other, and tell of each when it is stored."""
    draw = random.Random(seed)
    told.send(None)
    library = Library(root, signer=Signer(key))
    while True:
        parts = {
            f"part{number}": draw.randbytes(int(_MOST_BYTES ** draw.random()))
            for number in range(draw.randint(0, 2))
        }
        if draw.random() < 0.5:
            parts["common"] = _COMMON
        name = f"name{draw.randrange(_NAMES)}"
        artifact = library.put("compiled", name, parts, about={"seed": seed}, tags=["newest"])
        told.send((artifact.reference, dict(artifact.parts)))


def kill_one(root: Path, key: bytes, seed: int, *, longest_s: float) -> list[Stored]:
    """Let a process store and kill it after at most ``longest_s``; what it said is stored."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    hearing, telling = context.Pipe(duplex=False)
    process = context.Process(target=store_for_ever, args=(root, key, seed, telling))
    process.start()
    telling.close()
    hearing.recv()
    deadline = time.monotonic() + random.Random(seed).uniform(0.0, longest_s)
    stored: list[Stored] = []
    while (left := deadline - time.monotonic()) > 0 and process.is_alive():
        if hearing.poll(left):
            stored.append(hearing.recv())
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"it ended by itself with {process.exitcode}"
    while True:  # what it told before it was killed
        try:
            stored.append(hearing.recv())
        except (EOFError, OSError):  # the end, between two messages or within one
            hearing.close()
            return stored


def run(root: Path, *, kills: int, seed: int = 0, longest_s: float = 1.0) -> Kills:
    """Kill so many processes.

    Args:
        root: of the library.
        kills: how many.
        seed: of the moments, and of what is stored.
        longest_s: how long a process may live, from before it opens the library.
    """
    key = b"the key of this benchmark"
    there: set[Reference] = set()
    stored: dict[Reference, dict[str, Part]] = {}
    lost: set[Reference] = set()
    damaged: set[Reference] = set()
    failed = within = most_left = 0
    for number in range(kills):
        fresh = dict(kill_one(root, key, seed * kills + number, longest_s=longest_s))
        stored.update(fresh)
        with Library(root, signer=Signer(key)) as library:
            left = library.collect_garbage(grace_s=0.0).files
            found = library.verify()
            assert not found.database, found.database
            spoilt = {*found.damaged, *found.unsigned}
            there = {entry.reference for entry in library.find()}
            missing = stored.keys() - there
            for reference, parts in fresh.items():
                if reference not in missing | spoilt and not _holds(library, reference, parts):
                    missing.add(reference)
        failed += bool((missing - lost) | (spoilt - damaged))
        lost |= missing
        damaged |= spoilt
        within += left > 0
        most_left = max(most_left, left)
    bound = stats.binomtest(failed, kills, alternative="less").proportion_ci(0.95, "exact").high
    return Kills(
        kills=kills,
        stored=len(stored),
        unheard=len(there - stored.keys()),
        lost=len(lost),
        damaged=len(damaged),
        within=within,
        most_left=most_left,
        upper=float(bound),
    )


def _holds(library: Library, reference: Reference, parts: dict[str, Part]) -> bool:
    artifact = library.get(reference.kind, reference.name, version=reference.version)
    return artifact is not None and artifact.parts == parts


def render(found: Kills) -> str:
    """A Markdown table."""
    header = [
        *("kills", "within a storing", "stored", "whole, unheard of"),
        *("lost", "damaged", "files left, at most", "share, below"),
    ]
    counts = (found.kills, found.within, found.stored, found.unheard, found.lost, found.damaged)
    cells = [*map(str, counts), str(found.most_left), f"{found.upper:.3f}"]
    return table(header, [cells])
