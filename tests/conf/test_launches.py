"""Runs that start more than one process or more than one run, from the command line."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from esper_lightning.leyline import RunSummary, SeedStage, StageChanged, decode
from esper_lightning.nissa.journal import read_journal

TRAIN = Path(__file__).parents[2] / "train.py"
SMALL = (
    "trainer.max_epochs=3",
    "data.subset=96",
    "trainer.log_every_n_steps=1",
    "print_config=false",
)
UNDRAWN = ("callbacks.growth_figure=null",)

pytestmark = pytest.mark.slow


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )


def launch(folder: Path, *words: str) -> str:
    process = start(folder, str(TRAIN), *words, *SMALL)
    out, err = process.communicate()
    assert process.returncode == 0, err[-3000:]
    return out


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
    told = launch(
        tmp_path, "trainer=ddp_sim", "kasmina=none", "test=false", f"hydra.run.dir={tmp_path}/run"
    )
    assert "val/loss" in told
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()
    assert "train/loss" in (tmp_path / "run/csv/metrics.csv").read_text()


def _has_grown_as_one(run: Path, told: str) -> None:
    """Every event, row and line once, whichever rank would have written it."""
    events = read_journal(run / "events.jsonl")
    germinated = [
        event.slot
        for event in events
        if isinstance(event, StageChanged) and event.after is SeedStage.GERMINATED
    ]
    assert len(germinated) == len(set(germinated)) > 0
    summary = decode((run / "summary.json").read_bytes(), RunSummary)
    assert summary.host_training_flops is not None
    assert summary.training_flops > summary.host_training_flops
    assert summary.host_flops_per_sample is not None
    samples = summary.host_training_flops / summary.host_flops_per_sample
    assert samples == pytest.approx(3 * 96)
    assert 0 < summary.test["test/acc"] <= 1
    assert told.count("files are in") == 1
    assert told.count("epoch 2/3:") == 1


GROWING = ("tamiyo=periodic", "tamiyo.policy.period=1", "tamiyo.policy.start=1")


def test_two_processes_grow_one_network(tmp_path: Path) -> None:
    run = tmp_path / "run"
    told = launch(tmp_path, "trainer=ddp_sim", f"hydra.run.dir={run}", *GROWING)
    _has_grown_as_one(run, told)


def test_two_nodes_grow_one_network(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = ("-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1")
    nodes = [
        start(
            tmp_path,
            *torchrun,
            f"--node_rank={rank}",
            "--master_addr=127.0.0.1",
            f"--master_port={port}",
            *(str(TRAIN), *SMALL, "trainer=ddp_sim", "trainer.devices=1", "+trainer.num_nodes=2"),
            *(f"hydra.run.dir={run}", *GROWING),
        )
        for rank in range(2)
    ]
    told = [node.communicate() for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], told[0][1][-3000:]
    _has_grown_as_one(run, told[0][0] + told[1][0])


def test_a_sweep_starts_no_processes(tmp_path: Path) -> None:
    asked = ("--multirun", "trainer=ddp_sim", "seed=1,2", f"hydra.sweep.dir={tmp_path}/sweep")
    process = start(tmp_path, str(TRAIN), *asked, *SMALL)
    _, err = process.communicate()
    assert process.returncode != 0
    assert "with --multirun a run cannot start its 2 processes" in err


def test_help_lists_the_groups(tmp_path: Path) -> None:
    told = launch(tmp_path, "--help")
    for word in ("hparams_search: digits_optuna", "debug: default, fdr", "kasmina: default, none"):
        assert word in told
