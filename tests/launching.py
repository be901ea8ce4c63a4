"""Running ``train.py`` within a test's own process."""

import importlib.util
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


@pytest.fixture(scope="module")
def entry() -> ModuleType:
    """``train.py``, which lies outside of the package."""
    spec = importlib.util.spec_from_file_location("train", ROOT / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
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
