"""Resuming, evaluating, and what a sweeper is told."""

import json
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hydra.utils import instantiate
from launching import composed
from torch.distributed.constants import default_pg_timeout

from esper_lightning.conf.request import objective
from esper_lightning.leyline import InvalidArgument, UnsupportedTraining

pytestmark = [
    pytest.mark.usefixtures("nothing_stays"),
    # A resumed run keeps its best checkpoint in its own folder.
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]

GROWING = (
    "host=mlp",
    "data.subset=160",
    "tamiyo=periodic",
    "tamiyo.policy.start=1",
    "tamiyo.policy.trial=1",
    "kasmina.rules.gates.price_per_parameter=0",
    "kasmina.rules.gates.price_per_flop=0",
    "trainer.log_every_n_steps=1",
    "print_config=false",
    "callbacks=best",
    "callbacks.live_table=null",
    "callbacks.growth_figure=null",
)

STOPPING = "+callbacks.stop={_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:val/loss}"
SECOND = "+callbacks.second={_target_:lightning.pytorch.callbacks.ModelCheckpoint,monitor:val/acc}"
BRANCH = "kasmina.fossils=[{slot: layers.0, blueprint: parallel_mlp}]"


@pytest.fixture(scope="module")
def finished(entry: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose network has grown."""
    folder = tmp_path_factory.mktemp("finished")
    asked = (BRANCH, "trainer.max_epochs=4")
    cfg = composed(*GROWING, *asked, output_dir=folder)
    results = entry.train(cfg)
    (folder / "results.json").write_text(json.dumps(results))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["parameters"] > summary["host_parameters"], "it did not grow"
    return folder


def test_a_grown_checkpoint_is_evaluated_as_its_run_was(
    entry: ModuleType, finished: Path, tmp_path: Path
) -> None:
    ckpt = f"ckpt_path={finished}/checkpoints/last.ckpt"
    results = entry.train(composed(*GROWING, "train=false", ckpt, output_dir=tmp_path))
    before = json.loads((finished / "results.json").read_text())
    for name in ("val/loss", "val/acc", "test/loss", "test/acc"):
        assert results[name] == pytest.approx(before[name], abs=1e-6), name
    assert not (tmp_path / "checkpoints").exists()


def test_a_fit_is_resumed(entry: ModuleType, finished: Path, tmp_path: Path) -> None:
    ckpt = f"ckpt_path={finished}/checkpoints/last.ckpt"
    entry.train(composed(*GROWING, "trainer.max_epochs=5", ckpt, output_dir=tmp_path))
    before = json.loads((finished / "summary.json").read_text())
    after = json.loads((tmp_path / "summary.json").read_text())
    assert (after["run_id"], after["epochs"]) == (before["run_id"], 5)


def test_the_best_checkpoint_is_evaluated_when_asked_for(
    entry: ModuleType, finished: Path, tmp_path: Path
) -> None:
    asked = (BRANCH, "trainer.max_epochs=4", "evaluate=best")
    results = entry.train(composed(*GROWING, *asked, output_dir=tmp_path))
    best = torch.load(finished / "checkpoints/best.ckpt", weights_only=True)
    scores = [
        state["best_model_score"] for state in best["callbacks"].values() if "monitor" in state
    ]
    assert results["val/loss"] == pytest.approx(min(s.item() for s in scores if s is not None))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train=false", "train=false evaluates a checkpoint: give one"),
        ("ckpt_path=nowhere.ckpt", "ckpt_path=nowhere.ckpt: there is no such file"),
        ("evaluate=best", r"exactly one ModelCheckpoint.*got 0 \[\]: add callbacks=best"),
        (f"evaluate=best {STOPPING}", "exactly one ModelCheckpoint with a monitor, got 0"),
        (f"evaluate=best callbacks=best {SECOND}", r"2 \['callbacks.best', 'callbacks.second'\]"),
        ("evaluate=first", "must be last or best, got 'first'"),
        ("optimized_metric=test/acc", "must not be what the result is measured with"),
    ],
)
def test_what_cannot_be_done_is_refused_before_training(
    entry: ModuleType, tmp_path: Path, override: str, says: str
) -> None:
    with pytest.raises(InvalidArgument, match=says):
        entry.train(composed(*override.split(" "), output_dir=tmp_path))
    assert not any(tmp_path.iterdir())


def test_a_sweeper_gets_the_metric_or_the_names_of_those_that_are() -> None:
    results = {"val/acc": 0.5, "val/loss": 1.0, "test/acc": 0.4}
    assert objective(results, "val/acc") == 0.5
    assert objective(results, None) is None
    with pytest.raises(InvalidArgument, match=r"'val/acc', 'val/loss'\]"):
        objective(results, "val_acc")


@pytest.mark.parametrize("name", ["ddp", "ddp_sim"])
def test_processes_do_not_wait_for_ever_for_one_that_died_at_the_start(
    name: str, tmp_path: Path
) -> None:
    cfg = composed(f"trainer={name}", "trainer.strategy.timeout.minutes=2", output_dir=tmp_path)
    assert instantiate(cfg.trainer.strategy)._timeout == timedelta(minutes=2)
    cfg = composed(f"trainer={name}", output_dir=tmp_path)
    assert instantiate(cfg.trainer.strategy)._timeout < default_pg_timeout


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_processes_that_cannot_hand_a_grown_network_back_are_refused(
    entry: ModuleType, tmp_path: Path, strategy: str
) -> None:
    asked = ("trainer=ddp_sim", f"trainer.strategy={strategy}", "print_config=false")
    with pytest.raises(
        UnsupportedTraining, match="to a network that has not grown; use strategy='d"
    ):
        entry.train(composed(*asked, output_dir=tmp_path))


@pytest.mark.parametrize(
    ("trainer", "says"), [("gpu", "gpu backend|CUDA"), ("mps", "mps backend|MPS")]
)
def test_a_device_that_is_not_there_is_named(
    entry: ModuleType, tmp_path: Path, trainer: str, says: str
) -> None:
    there = {"gpu": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if there[trainer]:
        pytest.skip("this machine has one")
    with pytest.raises(Exception, match=says):
        entry.train(composed(f"trainer={trainer}", "print_config=false", output_dir=tmp_path))


def test_a_package_that_is_missing_is_named(
    entry: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else find(name)
    )
    with pytest.raises(
        InvalidArgument, match=r"logger.wandb needs.*'wandb'.*esper-lightning\[wandb\]"
    ):
        entry.train(composed("logger=wandb", "print_config=false", output_dir=tmp_path))
