"""Every YAML of ``conf``, as it stands, makes a run that trains and ends."""

import math
from pathlib import Path
from types import ModuleType

import pytest
from launching import CONF, composed
from omegaconf import OmegaConf

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


pytestmark = pytest.mark.usefixtures("nothing_stays")


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
