"""Each logger in its local form: metrics, settings, events and the figure arrive on disk."""

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from launching import composed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("nothing_stays"),
    # Of these packages: of comet_ml's use of sentry_sdk, and of aim's and mlflow's of sqlalchemy.
    pytest.mark.filterwarnings("ignore:.*sentry_sdk.Hub"),
    pytest.mark.filterwarnings("ignore:.*noload.* loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:.*declarative_base.* function is now available"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket"),
]

GROWING = (
    "tamiyo=periodic",
    "tamiyo.policy.start=1",
    "host=mlp",
    "data.subset=96",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "tags=[dev,offline]",
    "print_config=false",
    "callbacks.live_table=null",
)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory and a home in which no logger has any business."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder / "home"))
    # What wandb keeps for all runs of a user.
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    # Reports of errors in the packages themselves, which go to a server.
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("COMET_ERROR_TRACKING_ENABLE", "false")
    yield folder
    left = [path for path in folder.rglob("*") if path.is_file()]
    assert left == []


@pytest.fixture
def run(entry: ModuleType, tmp_path: Path, elsewhere: Path) -> Callable[..., Path]:
    """One short growing run with the given overrides; returns its folder."""

    def run(*overrides: str) -> Path:
        entry.train(composed(*GROWING, *overrides, output_dir=tmp_path / "run"))
        return tmp_path / "run"

    return run


def test_csv(run: Callable[..., Path]) -> None:
    folder = run("logger=csv") / "csv"
    assert "val/loss" in (folder / "metrics.csv").read_text()
    told = (folder / "hparams.yaml").read_text()
    assert "optimizer/lr: 0.01" in told
    assert "host_parameters: " in told
    assert "task_name: train" in told
    assert "offline" in told


def test_tensorboard(run: Callable[..., Path]) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run("logger=tensorboard") / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert "val/loss" in tags["scalars"]
    assert tags["images"] == ["growth"]
    lines = [
        event.tensor_proto.string_val[0].decode()
        for event in events.Tensors("growth_events/text_summary")
    ]
    assert any("DORMANT -> GERMINATED" in line for line in lines)
    assert any("hparams" in name for name in events.summary_metadata)


def test_wandb_offline(run: Callable[..., Path]) -> None:
    wandb = pytest.importorskip("wandb")
    folder = run("logger=wandb", "logger.wandb.offline=true")
    # The end of a run does not wait for wandb's process to have written it; the end of Python does.
    wandb.teardown()
    (records,) = folder.glob("wandb/offline-run-*/*.wandb")
    written = records.read_bytes()
    for word in (b"val/loss", b"optimizer/lr", b"host_parameters", b"offline", b"growth_events"):
        assert word in written
    media = {path.suffix for path in folder.glob("wandb/offline-run-*/files/media/**/*.*")}
    assert media == {".png", ".json"}


def test_mlflow(run: Callable[..., Path]) -> None:
    mlflow = pytest.importorskip("mlflow")
    folder = run("logger=mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("train")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert "val/loss" in found.data.metrics
    assert found.data.params["optimizer/lr"] == "0.01"
    assert found.data.params["tags"] == "['dev', 'offline']"
    assert found.data.tags["task_name"] == "train"
    names = {path.name for path in folder.glob("mlflow/*/artifacts/**/*") if path.is_file()}
    assert {"growth.png", "growth_events.tsv"} <= names


def test_comet_offline(run: Callable[..., Path]) -> None:
    pytest.importorskip("comet_ml")
    folder = run("logger=comet", "logger.comet.online=false")
    (archive,) = folder.glob("comet/*.zip")
    with zipfile.ZipFile(archive) as zipped:
        written = b"".join(zipped.read(name) for name in zipped.namelist())
    for word in (b"val/loss", b"optimizer/lr", b"DORMANT -> GERMINATED", b"offline", b"PNG"):
        assert word in written


def test_neptune_offline(run: Callable[..., Path]) -> None:
    pytest.importorskip("neptune")
    folder = run("logger=neptune")
    assert os.environ.get("NEPTUNE_DATA_DIRECTORY") is None
    written = b"".join(p.read_bytes() for p in folder.glob("neptune/offline/**/*") if p.is_file())
    for word in (b"val", b"optimizer", b"DORMANT -> GERMINATED", b"offline", b"growth"):
        assert word in written


def test_aim(run: Callable[..., Path]) -> None:
    pytest.importorskip("aim")
    from aim.storage.rockscontainer import RocksContainer

    folder = run("logger=aim") / ".aim"
    # The stores themselves: aim 3.29 with aimrocks 0.5 finds no keys when it merges them.
    stores = [*folder.glob("meta/chunks/*"), *folder.glob("seqs/chunks/*")]
    assert len(stores) == 2
    written = b"".join(
        key + bytes(value)
        for store in stores
        for key, value in RocksContainer(str(store), read_only=True).items()
    )
    for word in (b"loss", b"val", b"optimizer/lr", b"DORMANT -> GERMINATED", b"PNG", b"offline"):
        assert word in written, word


def test_many(run: Callable[..., Path]) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("tensorboard")
    folder = run("logger=many")
    assert (folder / "csv/metrics.csv").is_file()
    assert list((folder / "tensorboard").glob("events.*"))
    assert (folder / "mlflow.db").is_file()
