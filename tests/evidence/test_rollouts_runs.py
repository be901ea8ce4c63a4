"""Runs of rollouts: each once, the same whatever the number of processes, and none is lost."""

import os
import signal
import threading
from pathlib import Path

import pytest
from machines import TRAIN, assignments, processes_of_runs, told

from esper_lightning.evidence.rollouts.runs import Runs
from esper_lightning.evidence.rollouts.shares import is_done
from esper_lightning.leyline import InvalidArgument
from esper_lightning.simic.recording import episode_of

pytestmark = pytest.mark.slow


def test_each_is_carried_out_once_and_the_twin_is_shared(tmp_path: Path) -> None:
    runs = Runs(folder=tmp_path / "two", train=TRAIN, jobs=2)
    pairs = runs(assignments(2))
    assert len({pair.twin for pair in pairs if pair is not None}) == 1
    assert len([each for each in (tmp_path / "two").iterdir() if each.is_dir()]) == 3
    episode = episode_of(pairs[0].run, pairs[0].twin, task="small", seed=7)  # type: ignore[union-attr]
    assert episode is not None
    assert len(episode.steps) == 5

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("events.jsonl")}
    assert runs(assignments(2)) == pairs
    assert {path: path.stat().st_mtime_ns for path in before} == before

    whole = told(pairs[0])
    for torn in ("summary.json", "events.jsonl"):
        path = pairs[0].twin / torn  # type: ignore[union-attr]
        path.write_bytes(path.read_bytes()[:-20])
        assert not is_done(path.parent)
        assert runs(assignments(1)) == pairs[:1]
        assert told(pairs[0]) == whole
        assert is_done(path.parent)

    alone = Runs(folder=tmp_path / "one", train=TRAIN, jobs=1)(assignments(2))
    assert [told(pair) for pair in alone] == [told(pair) for pair in pairs]


def test_a_run_that_fails_is_none_and_the_others_are_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs = Runs(folder=tmp_path, train=TRAIN, jobs=2)
    found = runs([*assignments(1), *assignments(1, more=("host.width=-1",))])
    assert found[0] is not None
    assert found[1] is None
    assert "a run failed" in caplog.text


def test_a_process_that_is_killed_loses_no_run(tmp_path: Path) -> None:
    runs = Runs(folder=tmp_path, train=TRAIN, jobs=2)
    if not Path("/proc/self/fd").exists():
        pytest.skip("processes are found by /proc")
    killed: list[int] = []
    enough = threading.Event()

    def kill() -> None:
        while not killed and not enough.wait(0.01):
            for process in processes_of_runs(tmp_path):
                os.kill(process, signal.SIGKILL)
                killed.append(process)
                return

    hunter = threading.Thread(target=kill, daemon=True)
    hunter.start()
    try:
        pairs = runs(assignments(3))
    finally:
        enough.set()
        hunter.join()
    assert len(killed) == 1
    assert all(pair is not None for pair in pairs)


def test_without_the_entry_there_is_nothing_to_run(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"nothing\.py is not there"):
        Runs(folder=tmp_path, train=tmp_path / "nothing.py")
    with pytest.raises(InvalidArgument, match="jobs"):
        Runs(folder=tmp_path, train=TRAIN, jobs=0)
