"""Runs that start more than one process or more than one run, from the command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from esper_lightning.leyline import RunSummary, decode

ROOT = Path(__file__).parents[2]
SMALL = (
    "trainer.max_epochs=1",
    "data.subset=96",
    "trainer.log_every_n_steps=1",
    "print_config=false",
)
UNDRAWN = ("callbacks.growth_figure=null",)

pytestmark = pytest.mark.slow


def launch(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words, *SMALL],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_a_search_by_optuna_maximises_the_metric(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    search = ("--multirun", "hparams_search=digits_optuna", "hydra.sweeper.n_trials=2")
    launch(tmp_path, *search, *UNDRAWN, f"hydra.sweep.dir={tmp_path}/sweep")
    summaries = [
        decode(path.read_bytes(), RunSummary) for path in tmp_path.glob("sweep/*/summary.json")
    ]
    found = yaml.safe_load((tmp_path / "sweep/optimization_results.yaml").read_text())
    assert len(summaries) == 2
    assert found["best_value"] == max(s.validation["val/acc"] for s in summaries)
    assert set(found["best_params"]) >= {"optimizer.lr", "host.width"}
    assert all(s.test == {} for s in summaries), "a search does not look at test"


def test_runs_side_by_side(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    jobs = ("--multirun", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=1,2")
    launch(tmp_path, *jobs, *UNDRAWN, "test=false", f"hydra.sweep.dir={tmp_path}/sweep")
    paths = sorted(tmp_path.glob("sweep/*/summary.json"))
    assert [decode(path.read_bytes(), RunSummary).seed for path in paths] == [1, 2]


def test_the_host_alone_trains_in_two_processes(tmp_path: Path) -> None:
    done = launch(
        tmp_path, "trainer=ddp_sim", "kasmina=none", "test=false", f"hydra.run.dir={tmp_path}/run"
    )
    assert "val/loss" in done.stdout
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()
    assert "train/loss" in (tmp_path / "run/csv/metrics.csv").read_text()


def test_help_lists_the_groups(tmp_path: Path) -> None:
    told = launch(tmp_path, "--help").stdout
    for word in ("hparams_search: digits_optuna", "debug: default, fdr", "kasmina: default, none"):
        assert word in told
