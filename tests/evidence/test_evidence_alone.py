"""A folder of runs belongs to one process at a time."""

import subprocess
import sys
from pathlib import Path

import pytest
from machines import TRAIN, assignments

from esper_lightning.evidence.alone import FolderInUse, alone_in
from esper_lightning.evidence.rollouts.runs import Runs

HOLD = """
import sys
from pathlib import Path
from esper_lightning.evidence.alone import alone_in
with alone_in(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_while_another_process_has_it_it_is_refused_and_then_it_is_free(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"mine\n"
        with pytest.raises(FolderInUse, match="another process.*name another folder"):
            Runs(folder=folder, train=TRAIN)(assignments(1))
        other.kill()
    with alone_in(folder):
        assert [each for each in folder.iterdir() if each.is_dir()] == []


def test_a_process_may_come_back_to_it(tmp_path: Path) -> None:
    for _ in range(2):
        with alone_in(tmp_path):
            pass
