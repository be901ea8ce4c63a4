"""What is said where Ray or submitit are not installed."""

import sys
from pathlib import Path

import pytest
from launching import composed

from esper_lightning.conf.instantiate import build
from esper_lightning.evidence.rollouts.batch_jobs import BatchJobs
from esper_lightning.evidence.rollouts.ray_tasks import RayTasks
from esper_lightning.leyline import InvalidArgument


@pytest.mark.parametrize("package", ["ray", "submitit"])
def test_a_package_that_is_missing_is_named_with_the_remedy(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InvalidArgument, match=f"not installed.*pip install {package}"):
        RayTasks() if package == "ray" else BatchJobs(folder=tmp_path)


@pytest.mark.usefixtures("nothing_stays")
def test_the_configuration_of_simic_names_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen by the place of the error."""
    monkeypatch.setitem(sys.modules, "submitit", None)
    machines = (
        "{_target_: esper_lightning.evidence.rollouts.BatchJobs, folder: slurm, "
        "parameters: {timeout_min: 60, slurm_partition: cpu}}"
    )
    cfg = composed(
        "experiment=simic", f"datamodule.rollouts.machines={machines}", output_dir=tmp_path
    )
    with pytest.raises(
        InvalidArgument, match=r"^datamodule.rollouts.machines: .*pip install submitit"
    ):
        build(cfg.datamodule.rollouts, "datamodule.rollouts")


def test_retries_are_a_number() -> None:
    with pytest.raises(InvalidArgument, match="retries"):
        RayTasks(retries=-1)
