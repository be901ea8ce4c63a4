"""Rollouts as jobs of Slurm: here as processes, which submitit starts in the same way."""

import logging
import os
import signal
import threading
from pathlib import Path

import pytest
from machines import TRAIN, ancestor, assignments, processes_of_runs

from esper_lightning.evidence.rollouts.batch_jobs import BatchJobs
from esper_lightning.evidence.rollouts.runs import Runs

pytest.importorskip("submitit", reason="submitit is not installed: pip install submitit")

pytestmark = [pytest.mark.slow, pytest.mark.integration]


def test_jobs_carry_out_shares_and_a_lost_one_is_asked_for_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("processes are found by /proc")
    folder = tmp_path / "array"
    killed: list[int] = []
    enough = threading.Event()

    def kill_one() -> None:
        while not enough.wait(0.05) and not killed:
            for process in processes_of_runs(folder):
                job = ancestor(process, lambda line: "submitit.core._submit" in line)
                if job is not None and not killed:
                    os.kill(job, signal.SIGKILL)
                    killed.append(job)

    hunter = threading.Thread(target=kill_one, daemon=True)
    hunter.start()
    try:
        machines = BatchJobs(folder=tmp_path / "jobs", cluster="local")
        pairs = Runs(folder=folder, train=TRAIN, jobs=1, machines=machines, share=2)(assignments(2))
    finally:
        enough.set()
        hunter.join()
    assert len(killed) == 1
    assert [each.levelno for each in caplog.records if "was lost" in each.message] == [
        logging.WARNING
    ]
    assert None not in pairs


def test_what_no_job_can_have_is_refused(tmp_path: Path) -> None:
    machines = BatchJobs(folder=tmp_path / "jobs", cluster="local", parameters={"no_such": 1})
    with pytest.raises(NameError, match="no_such"):
        Runs(folder=tmp_path / "runs", train=TRAIN, machines=machines)(assignments(1))
