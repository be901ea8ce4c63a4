"""The arms of the comparison, run and tabulated."""

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from esper_lightning.evidence.arms import run_seed
from esper_lightning.evidence.table import render


def main(arguments: Sequence[str]) -> None:
    """Run the arms and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m esper_lightning.evidence compare",
        description="Host alone, a static network of the grown size, and the grown network.",
    )
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for every arm")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--train", type=Path, default=Path("train.py"), help="path of train.py")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("outputs/evidence"),
        help="runs that are there already are not repeated",
    )
    options = parser.parse_args(arguments)
    if not options.train.is_file():
        parser.error(f"{options.train} is not there; run from the repository or give --train")
    one = partial(
        run_seed,
        train=options.train,
        directory=options.directory.resolve(),
        overrides=options.overrides,
    )
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = [row for found in pool.map(one, options.seeds) for row in found]
    print(render(rows))
