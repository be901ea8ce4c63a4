"""What compiling ahead gains and costs: compiled over eager for each blueprint, and planting."""

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from esper_lightning import karn
from esper_lightning.evidence.report import table, write
from esper_lightning.leyline import FeatureKind, FeatureMap, SlotShape
from esper_lightning.tezzeret import Outcome, Recipe, Stock, Workshop, recipe_for
from esper_lightning.tezzeret.outcome import KIND
from esper_lightning.urza import Library


def _slot(kind: FeatureKind, *sizes: int) -> SlotShape:
    feature_map = FeatureMap(kind, sizes)
    return SlotShape(feature_map, feature_map)


SHAPES = (
    (_slot(FeatureKind.SPATIAL, 16, 16, 16), 64),
    (_slot(FeatureKind.TOKENS, 64, 64), 16),
    (_slot(FeatureKind.VECTOR, 128), 256),
)
"""Slots, with the rows of a batch; a blueprint is measured in the first one that it fits."""

PLANTED = ("parallel_conv", "conv_residual", "token_attention", "mlp_residual", "channel_affine")
"""What is planted to measure latencies."""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Planting one blueprint, in milliseconds: medians, over as many plantings.

    Attributes:
        blueprint: its name.
        construction: building the branch alone.
        eager: building it, and asking the stock, which knows nothing of it.
        cached: the same where the stock has its code at hand.
        cold: the same where the library is opened, its signature and digests verified and the code
            loaded first; what a fresh process would add if it did not do so ahead.
        first_cold: the very first time in the process, with what torch then imports.
        compile_s: seconds that it took to compile, check and measure.
    """

    blueprint: str
    construction: float
    eager: float
    cached: float
    cold: float
    first_cold: float
    compile_s: float


def recipes(names: Sequence[str]) -> list[Recipe]:
    """One recipe for each blueprint that is named; for every production one where none is."""
    chosen = [karn.get(name) for name in names] if names else karn.query()
    found = []
    for blueprint in chosen:
        shape, batch = next(pair for pair in SHAPES if blueprint.fits(pair[0]))
        found.append(recipe_for(blueprint, shape, batch=batch))
    return found


def speedups(library: Library, asked: Sequence[Recipe], *, limit: int) -> list[Outcome]:
    """The outcome of each recipe; what the library knows is not made again."""
    outcomes: dict[str, Outcome] = {}
    with Workshop(library, limit=limit, timeout=600) as workshop:
        futures = {workshop.submit(each): str(each) for each in asked}
        for future, name in track(list(futures.items()), "compiling", console=Console(stderr=True)):
            outcomes[name] = future.result()
    return [outcomes[str(each)] for each in asked]


def latency(asked: Recipe, *, folder: Path, repeats: int) -> Latency:
    """Plant one blueprint over and over, with what was compiled kept whatever it gains."""
    with Workshop(Library(folder), timeout=600, min_speedup=0.0) as workshop:
        outcome = workshop.make(asked)

    def build(stock: Stock | None) -> None:
        asked.build()
        if stock is not None:
            stock.take(asked)

    def cold() -> Stock:
        stock = Stock(Library(folder))
        stock.prefetch(asked)
        build(stock)
        return stock

    began = time.perf_counter()
    known = cold()
    first = 1e3 * (time.perf_counter() - began)
    unknown = Stock(Library(folder.with_name(f"{folder.name}-empty")))
    return Latency(
        blueprint=asked.blueprint,
        construction=_median(lambda: build(None), repeats),
        eager=_median(lambda: build(unknown), repeats),
        cached=_median(lambda: build(known), repeats),
        cold=_median(cold, max(3, repeats // 10)),
        first_cold=first,
        compile_s=outcome.seconds,
    )


def _median(act: Callable[[], Any], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - began)
    return 1e3 * float(np.median(seconds))


class Kills(msgspec.Struct, frozen=True, kw_only=True):
    """What SIGKILLs did to a process that compiles and stores.

    Attributes:
        kills: how many there were.
        kept: outcomes that were in the library afterwards.
        lost: of those that the process had told of, how many were not.
        damaged: of those that are there, how many were not intact.
        left_running: children that outlived the process by five seconds.
        bound: 95 % upper bound of the probability that a kill loses or damages something, where
            none did.
    """

    kills: int
    kept: int
    lost: int
    damaged: int
    left_running: int
    bound: float


_WORK = """
import sys, torch
from esper_lightning.evidence.compiling import recipes
from esper_lightning.tezzeret import Workshop
from esper_lightning.urza import Library
torch.set_num_threads(1)
with Workshop(Library(sys.argv[1]), min_speedup=0.0, timeout=600) as workshop:
    for asked in recipes(sys.argv[2:]):
        workshop.make(asked)
        print(asked, flush=True)
"""


def kill(folder: Path, *, kills: int, seed: int, longest: float) -> Kills:
    """Kill a process that compiles every blueprint, at random moments, and look at what is left."""
    drawn = random.Random(seed)
    told: set[str] = set()
    left = 0
    for _ in track(range(kills), "killing", console=Console(stderr=True)):
        work = subprocess.Popen(
            [sys.executable, "-c", _WORK, str(folder)], stdout=subprocess.PIPE, text=True
        )
        try:
            work.wait(drawn.uniform(0, longest))
        except subprocess.TimeoutExpired:
            children = _children(work.pid)
            work.send_signal(signal.SIGKILL)
            time.sleep(5)
            left += sum(_runs(child) for child in children)
        assert work.stdout is not None
        told |= set(work.stdout.read().splitlines())
        work.wait()
    library = Library(folder)
    damaged = len(library.verify().damaged)
    kept = set()
    for entry in library.find(KIND):
        artifact = library.get(KIND, entry.reference.name)
        if artifact is not None:
            kept.add(str(msgspec.convert(artifact.about["recipe"], Recipe)))
    return Kills(
        kills=kills,
        kept=len(kept),
        lost=len(told - kept),
        damaged=damaged,
        left_running=left,
        bound=1 - 0.05 ** (1 / kills) if kills else 1.0,
    )


def _children(process: int) -> list[int]:
    command = ["pgrep", "-P", str(process)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return [int(child) for child in told.stdout.split()]


def _runs(process: int) -> bool:
    command = ["ps", "-o", "stat=", "-p", str(process)]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return bool(told) and not told.startswith("Z")


def render(
    asked: Sequence[Recipe], outcomes: Sequence[Outcome], latencies: Sequence[Latency]
) -> str:
    """Two Markdown tables."""
    rows = [
        [
            made.blueprint,
            f"{made.shape.output}, batch {made.batch}",
            *("-" if f is None else f"{f:.2f}" for f in (out.eager_ms, out.compiled_ms)),
            "-" if not out.speedup else f"{out.speedup:.2f}",
            "compiled" if out.is_compiled else "eager",
        ]
        for made, out in zip(asked, outcomes, strict=True)
    ]
    header = ["blueprint", "slot", "eager ms", "compiled ms", "eager / compiled", "runs"]
    planted = [
        [
            each.blueprint,
            *(f"{value:.3f}" for value in (each.construction, each.eager, each.cached)),
            *(f"{value:.0f}" for value in (each.cold, each.first_cold)),
            f"{each.compile_s:.0f}",
        ]
        for each in latencies
    ]
    columns = ["blueprint", "construction", "eager", "cached", "cold", "first cold", "compile, s"]
    return f"{table(header, rows)}\n\n{table(columns, planted)}\n\nMilliseconds but for the last."


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.evidence compiling")
    parser.add_argument("--blueprints", nargs="*", default=[], help="all production ones without")
    parser.add_argument("--planted", nargs="*", default=list(PLANTED), help="for latencies")
    parser.add_argument("--repeats", type=int, default=200, help="plantings of each")
    parser.add_argument("--limit", type=int, default=1, help="processes at a time")
    parser.add_argument("--kills", type=int, default=0, help="SIGKILLs; 0 measures speed instead")
    parser.add_argument(
        "--longest", type=float, default=30.0, help="seconds before a kill, at most"
    )
    parser.add_argument("--root", type=Path, help="keep the library; without, a temporary one")
    parser.add_argument("--out", type=Path, default=Path("outputs/evidence/compiling.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with TemporaryDirectory() as temporary:
        folder = options.root or Path(temporary) / "library"
        command = " ".join(["compiling", *arguments])
        if options.kills:
            killed = kill(folder, kills=options.kills, seed=0, longest=options.longest)
            write(options.out, command, killed)
            print(json.dumps(msgspec.to_builtins(killed), indent=2))
            return
        asked = recipes(options.blueprints)
        outcomes = speedups(Library(folder), asked, limit=options.limit)
        planted = Path(temporary) / "planted"
        latencies = (
            [
                latency(each, folder=planted, repeats=options.repeats)
                for each in recipes(options.planted)
            ]
            if options.planted
            else []
        )
        write(options.out, command, {"outcomes": outcomes, "latencies": latencies})
        print(render(asked, outcomes, latencies))
