"""The pool of runs: time-outs, processes that are killed, and what started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from esper_lightning.evidence.frontier.pool import LOG_NAME, Run, run_all

pytestmark = pytest.mark.integration

ENTRY = """
import os, signal, sys, time
from pathlib import Path

def main():
    folder = Path(sys.argv[1].split("=", 1)[1].strip("'"))
    with (folder.parent / f"{folder.name}.begun").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    begun = len((folder.parent / f"{folder.name}.begun").read_text().splitlines())
    for option in sys.argv[2:]:
        what, _, value = option.partition("=")
        print(option, flush=True)
        if what == "sleep":
            time.sleep(float(value))
        elif what == "killed" and begun <= int(value):
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "raise":
            raise ValueError(value)
        elif what == "exit":
            os._exit(int(value))
    (folder / "done").touch()
"""
"""Stands for train.py: takes the same arguments, and does what they say."""


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    path = tmp_path / "entry_of_the_pool.py"
    path.write_text(ENTRY)
    return path


def run(folder: Path, *overrides: str, needs: tuple[str, ...] = ()) -> Run:
    return Run(name=folder.name, needs=needs, folder=folder, overrides=lambda: overrides)


def begun(folder: Path) -> list[int]:
    path = folder.parent / f"{folder.name}.begun"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/status")
    return not (status.exists() and "State:\tZ" in status.read_text())


def test_a_run_that_takes_too_long_is_ended_and_failed(tmp_path: Path, entry: Path) -> None:
    told: list[str] = []
    failures = run_all(
        [
            run(tmp_path / "long", "sleep=600"),
            run(tmp_path / "after", needs=("long",)),
            run(tmp_path / "short"),
        ],
        train=entry,
        jobs=2,
        tell=told.append,
        limit_s=20,
    )
    assert failures == [
        "long: took longer than 20 s",
        "after: left out, because what it needs failed",
    ]
    assert (tmp_path / "short" / "done").exists()
    assert not (tmp_path / "after").exists()
    (process,) = begun(tmp_path / "long")
    assert not is_there(process)


def test_a_run_whose_process_is_killed_is_begun_again(tmp_path: Path, entry: Path) -> None:
    told: list[str] = []
    failures = run_all(
        [
            run(tmp_path / "twice", "killed=2"),
            run(tmp_path / "always", "killed=9"),
            run(tmp_path / "other"),
        ],
        train=entry,
        jobs=2,
        tell=told.append,
    )
    assert failures == ["always: its process ended with -9"]
    assert [len(begun(tmp_path / name)) for name in ("twice", "always", "other")] == [3, 3, 1]
    assert (tmp_path / "twice" / "done").exists()
    assert told.count("twice: its process ended with -9; it is begun again") == 2


def test_what_a_run_failed_of_is_told_once(tmp_path: Path, entry: Path) -> None:
    told: list[str] = []
    wrong = Run(
        name="wrong",
        needs=(),
        folder=tmp_path / "wrong",
        overrides=lambda: ["raise=no such thing"],
        fail=told.append,
    )
    failures = run_all([wrong], train=entry, jobs=1, tell=lambda line: None)
    assert failures == ["wrong: ValueError: no such thing"]
    assert told == ["ValueError: no such thing"]
    assert len(begun(tmp_path / "wrong")) == 1, "what fails by itself is not tried again"
    assert "Traceback" in (tmp_path / "wrong" / LOG_NAME).read_text()


def test_an_interruption_ends_all_runs(tmp_path: Path, entry: Path) -> None:
    def interrupted(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all(
            [run(tmp_path / "long", "sleep=600"), run(tmp_path / "short", "sleep=1")],
            train=entry,
            jobs=2,
            tell=interrupted,
        )
    assert not any(is_there(process) for process in begun(tmp_path / "long"))


def test_no_run_outlives_what_started_it(tmp_path: Path, entry: Path) -> None:
    """It could write into a folder in which the run has begun anew."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from esper_lightning.evidence.frontier.pool import Run, run_all\n"
        "folder, entry = map(Path, sys.argv[1:])\n"
        "each = Run(name='a', needs=(), folder=folder, overrides=lambda: ['sleep=600'])\n"
        "run_all([each], train=entry, jobs=1, tell=print)\n"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "long"), str(entry)]
    started = subprocess.Popen(arguments)
    try:
        for _ in range(1200):
            if begun(tmp_path / "long"):
                break
            assert started.poll() is None
            time.sleep(0.1)
        (process,) = begun(tmp_path / "long")
        assert is_there(process)
    finally:
        started.send_signal(signal.SIGKILL)
        started.wait()
    for _ in range(300):
        if not is_there(process):
            return
        time.sleep(0.1)
    os.kill(process, signal.SIGKILL)
    pytest.fail("the run goes on")
