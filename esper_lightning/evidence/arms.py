"""The arms of the comparison, each a run of ``train.py`` with overrides."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from esper_lightning.leyline import EsperError, RunSummary, decode

ARMS = ("host alone", "static, grown size", "grown")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one arm."""

    arm: str
    seed: int
    summary: RunSummary


class RunFailed(EsperError):
    """A run of ``train.py`` that did not end well."""


def run_seed(
    seed: int, *, train: Path, directory: Path, overrides: Sequence[str] = ()
) -> list[Row]:
    """All arms for one seed, one after the other.

    The static network begins with every branch that the grown one ended with, freshly initialised,
    and trains as long.

    Args:
        seed: of data order, weights and seeds in every arm.
        train: path of ``train.py``.
        directory: where the runs are written; a run that is there already is not repeated.
        overrides: for every arm.

    Raises:
        RunFailed: with the end of the run's output.
    """

    def run(arm: str, *more: str) -> RunSummary:
        folder = directory / f"{arm.replace(', ', '_').replace(' ', '_')}_{seed}"
        path = folder / "summary.json"
        if not path.is_file():
            told = [f"hydra.run.dir={folder}", f"seed={seed}", "callbacks.live_table=null"]
            command = [sys.executable, str(train), *told, *more, *overrides]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                end = (done.stderr or done.stdout).strip()[-2000:]
                raise RunFailed(f"{arm}, seed {seed}, ended with {done.returncode}:\n{end}")
        summary: RunSummary = decode(path.read_bytes(), RunSummary, what=str(path))
        return summary

    grown = run("grown", "tamiyo=heuristic")
    shape = directory / f"grown_{seed}" / "summary.json"
    summaries = {
        "host alone": run("host alone", "tamiyo=never"),
        "static, grown size": run("static, grown size", "tamiyo=never", f"kasmina.fossils={shape}"),
        "grown": grown,
    }
    return [Row(arm=arm, seed=seed, summary=summaries[arm]) for arm in ARMS]
