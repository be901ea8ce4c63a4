"""Every YAML of ``conf``, as it stands, makes a run that trains and ends."""

import importlib.util
import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
GROUPS = [
    group
    for entry in OmegaConf.load(CONF / "train.yaml").defaults
    if OmegaConf.is_dict(entry)
    for group in entry
]
OPTIONS = [
    f"{group}={path.stem}"
    for group in GROUPS
    if group != "hydra"
    for path in sorted((CONF / group).glob("*.yaml"))
]
SMALL = (
    "++trainer.max_epochs=1",
    "++trainer.accelerator=cpu",
    "++trainer.devices=1",
    "++trainer.limit_train_batches=2",
    "++trainer.limit_val_batches=1",
    "++trainer.limit_test_batches=1",
    "++trainer.log_every_n_steps=1",
)


@pytest.fixture(scope="module")
def entry() -> ModuleType:
    """``train.py``, which lies outside of the package."""
    spec = importlib.util.spec_from_file_location("train", ROOT / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Hydra's configuration is a singleton, and seeding leaves environment variables."""
    with mock.patch.dict(os.environ), mock.patch.object(HydraConfig.instance(), "cfg", None):
        yield


def composed(*overrides: str, output_dir: Path) -> DictConfig:
    """What ``hydra.main`` hands to a run that is started in the root of the repository."""
    runtime = (f"hydra.runtime.cwd={ROOT}", f"hydra.runtime.output_dir={output_dir}")
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("train", [*overrides, *runtime], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])


def test_every_group_is_chosen_from_in_train_yaml() -> None:
    folders = {path.name for path in CONF.iterdir() if path.is_dir() and any(path.glob("*.yaml"))}
    assert folders == set(GROUPS)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_makes_a_run(option: str, entry: ModuleType, tmp_path: Path) -> None:
    results = entry.train(composed(option, *SMALL, output_dir=tmp_path))
    assert {"val/loss", "test/loss"} <= set(results)
    assert all(math.isfinite(value) for value in results.values())


def test_slots_are_listed_instead_of_trained(
    entry: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.train(composed("list_slots=true", output_dir=tmp_path)) == {}
    assert "features.1" in capsys.readouterr().out
    assert not any(tmp_path.iterdir())
