"""How long a look-up in a library takes, and whether it survives that processes are killed.

Look-ups take turns with those in a dictionary and with one query by primary key in the same
database through Python's ``sqlite3``, so that a machine that slows down favours nobody. The time
that taking the time takes, some 0.1 us, is in all of them.
"""

import argparse
import hashlib
import multiprocessing
import os
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from esper_lightning.evidence import kills
from esper_lightning.evidence.report import table, write
from esper_lightning.leyline import Signer
from esper_lightning.urza import Library, rows
from esper_lightning.urza.content import Content
from esper_lightning.urza.database import Database
from esper_lightning.urza.library import DATABASE_NAME
from esper_lightning.urza.manifest import told

KIND = "compiled"

DICTIONARY, SQLITE, CACHED, COLD = "dictionary", "sqlite3, by primary key", "cached", "cold"
READ = "cached, and 4 KiB read and verified"
OPENING = "opening in a new process, file not in memory"
FIRST = "first of a new process"

_HOT = 1000
"""Names that are asked for again and again; fewer than are remembered."""

_CONTENTS = 256
_BATCH = 1000


class Lookup(msgspec.Struct, frozen=True, kw_only=True):
    """One way to look something up.

    Attributes:
        way: which.
        p50_us: median, in microseconds.
        p99_us: of a hundred, one is longer.
        num: how many were measured.
        over_dictionary: this median over the dictionary's.
        over_sqlite: this median over that of the query.
    """

    way: str
    p50_us: float
    p99_us: float
    num: int
    over_dictionary: float
    over_sqlite: float


def name(number: int) -> str:
    """A key as compiled artifacts have it."""
    return hashlib.sha256(b"%d" % number).hexdigest()


def fill(root: Path, signer: Signer, *, artifacts: int) -> None:
    """Store so many artifacts, as ``put`` does but many rows to a transaction."""
    with Library(root, signer=signer):
        content, database = Content(root), Database(root / DATABASE_NAME, busy_s=30.0)
    draw = random.Random(0)
    contents = [content.store(draw.randbytes(4096)) for _ in range(min(_CONTENTS, artifacts))]
    for first in range(0, artifacts, _BATCH):
        with database.writing() as connection:
            for number in range(first, min(first + _BATCH, artifacts)):
                about = {"blueprint": "conv_residual", "shape": [64, 16, 32, 32], "speed_up": 1.25}
                draft = rows.Draft(
                    kind=KIND,
                    name=name(number),
                    about=told({**about, "number": number}),
                    parents=(),
                    parts={"graph": contents[number % len(contents)]},
                    tags=(),
                )
                rows.add(connection, draft, signer)
    database.close()


def lookups(root: Path, key: bytes, *, artifacts: int, num: int, processes: int) -> list[Lookup]:
    """Measure all ways in turns.

    Args:
        root: of a library that :func:`fill` has filled.
        key: that it was filled with.
        artifacts: that are in it.
        num: how often each way; at most once for each artifact.
        processes: how many new ones are asked once.
    """
    dictionary = {(KIND, name(number)): number for number in range(artifacts)}
    num, signer, draw = min(num, artifacts), Signer(key), random.Random(1)
    hot = draw.sample(range(artifacts), min(_HOT, artifacts))
    plain = sqlite3.connect(root / DATABASE_NAME)
    with Library(root, signer=signer) as warm, Library(root, signer=signer) as cold:
        for number in hot:
            warm.get(KIND, name(number))

        def read(asked: str) -> None:
            artifact = warm.get(KIND, asked)
            assert artifact is not None
            artifact.read("graph")

        query = "SELECT manifest, signature FROM artifacts WHERE id = ?"
        ways: dict[str, Callable[[int, str], object]] = {
            DICTIONARY: lambda _, asked: dictionary[KIND, asked],
            SQLITE: lambda number, _: plain.execute(query, (number + 1,)).fetchone(),
            CACHED: lambda _, asked: warm.get(KIND, asked),
            READ: lambda _, asked: read(asked),
            COLD: lambda _, asked: cold.get(KIND, asked),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        fresh = draw.sample(range(artifacts), num)
        for turn in range(num):
            for way, look in ways.items():
                # What was never asked before is not remembered.
                number = hot[turn % len(hot)] if way in (CACHED, READ) else fresh[turn]
                asked = name(number)
                began = time.perf_counter()
                found = look(number, asked)
                seconds[way].append(time.perf_counter() - began)
                assert found is not None or way == READ
    plain.close()
    seconds |= {OPENING: [], FIRST: []}
    for _ in range(processes):
        opening, first = _in_new_process(root, key, name(draw.randrange(artifacts)))
        seconds[OPENING].append(opening)
        seconds[FIRST].append(first)
    return [_lookup(way, seconds) for way in seconds if seconds[way]]


def _lookup(way: str, seconds: dict[str, list[float]]) -> Lookup:
    p50, p99 = np.percentile(np.asarray(seconds[way]), [50, 99])
    return Lookup(
        way=way,
        p50_us=1e6 * float(p50),
        p99_us=1e6 * float(p99),
        num=len(seconds[way]),
        over_dictionary=float(p50) / median(seconds[DICTIONARY]),
        over_sqlite=float(p50) / median(seconds[SQLITE]),
    )


def _in_new_process(root: Path, key: bytes, asked: str) -> tuple[float, float]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    hearing, telling = context.Pipe(duplex=False)
    process = context.Process(target=_first, args=(root, key, asked, telling))
    process.start()
    telling.close()
    seconds: tuple[float, float] = hearing.recv()
    process.join()
    hearing.close()
    return seconds


def _first(root: Path, key: bytes, asked: str, telling: Connection) -> None:
    """In a process that has imported everything and opened nothing."""
    descriptor = os.open(root / DATABASE_NAME, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    began = time.perf_counter()
    with Library(root, signer=Signer(key)) as library:
        opened = time.perf_counter()
        found = library.get(KIND, asked)
        telling.send((opened - began, time.perf_counter() - opened))
        assert found is not None


def render(found: Sequence[Lookup]) -> str:
    """A Markdown table."""
    lines = [
        [
            each.way,
            f"{each.p50_us:.1f}",
            f"{each.p99_us:.1f}",
            str(each.num),
            f"{each.over_dictionary:.1f}",
            f"{each.over_sqlite:.2f}",
        ]
        for each in found
    ]
    return table(["look-up", "p50 us", "p99 us", "num", "over dictionary", "over sqlite3"], lines)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.evidence library")
    parser.add_argument("--artifacts", type=int, default=100_000, help="in the library")
    parser.add_argument("--lookups", type=int, default=5000, help="of each way")
    parser.add_argument("--processes", type=int, default=30, help="new ones, asked once each")
    parser.add_argument("--kills", type=int, default=0, help="of processes that store")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--out", type=Path, default=Path("outputs/evidence/library.json"))
    options = parser.parse_args(arguments)
    key = b"the key of this benchmark"
    figures: dict[str, object] = {}
    with TemporaryDirectory() as folder:
        if options.lookups:
            root = Path(folder) / "lookups"
            fill(root, Signer(key), artifacts=options.artifacts)
            found = lookups(
                root,
                key,
                artifacts=options.artifacts,
                num=options.lookups,
                processes=options.processes,
            )
            figures |= {"artifacts": options.artifacts, "lookups": found}
            print(render(found))
        if options.kills:
            survived = kills.run(Path(folder) / "kills", kills=options.kills, seed=options.seed)
            figures["kills"] = survived
            print(kills.render(survived))
    write(options.out, " ".join(["library", *arguments]), figures)
