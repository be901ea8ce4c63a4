"""Runs of rollouts: each once, the same whatever the number of processes, and none is lost."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from esper_lightning.evidence.rollouts.families import COMMON
from esper_lightning.evidence.rollouts.runs import Runs, is_done
from esper_lightning.leyline import InvalidArgument
from esper_lightning.simic.recording import episode_of
from esper_lightning.simic.rollouts import Assignment, Pair, RolloutTask, drawn_by
from esper_lightning.tamiyo.learned.stored import DEFAULT

TRAIN = Path(__file__).parents[2] / "train.py"

TASK = RolloutTask(
    name="small",
    options=(*COMMON, "host=mlp", "host.width=4", "data.subset=64", "trainer.max_epochs=6"),
)

pytestmark = pytest.mark.slow


def assignments(num: int, *, more: tuple[str, ...] = ()) -> list[Assignment]:
    return [
        Assignment(task=TASK, seed=7, deciding=(*drawn_by(DEFAULT, seed=draw), *more))
        for draw in range(num)
    ]


def told(pair: Pair | None) -> list[bytes]:
    """The records but for the names of the runs, which are drawn."""
    assert pair is not None
    records = [(folder / "events.jsonl").read_bytes() for folder in (pair.run, pair.twin)]
    return [each.replace(run_id_of(each), b"") for each in records]


def run_id_of(record: bytes) -> bytes:
    found = re.search(rb'"run_id":"(\w+)"', record)
    assert found is not None
    return found[1]


def test_each_is_carried_out_once_and_the_twin_is_shared(tmp_path: Path) -> None:
    runs = Runs(folder=tmp_path / "two", train=TRAIN, jobs=2)
    pairs = runs(assignments(2))
    assert len({pair.twin for pair in pairs if pair is not None}) == 1
    assert len(list((tmp_path / "two").iterdir())) == 3
    episode = episode_of(pairs[0].run, pairs[0].twin, task="small", seed=7)  # type: ignore[union-attr]
    assert episode is not None
    assert len(episode.steps) == 5

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("events.jsonl")}
    assert runs(assignments(2)) == pairs
    assert {path: path.stat().st_mtime_ns for path in before} == before

    torn = pairs[0].twin / "summary.json"  # type: ignore[union-attr]
    whole = told(pairs[0])
    torn.write_bytes(torn.read_bytes()[:-20])
    assert runs(assignments(1)) == pairs[:1]
    assert told(pairs[0]) == whole
    assert is_done(torn.parent)

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
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            for log in tmp_path.glob("*/output.log"):
                for process in Path("/proc").glob("[0-9]*"):
                    try:
                        target = os.readlink(process / "fd" / "1")
                    except OSError:
                        continue
                    if target == str(log):
                        os.kill(int(process.name), signal.SIGKILL)
                        killed.append(int(process.name))
                        return
            time.sleep(0.01)

    if not Path("/proc/self/fd").exists():
        pytest.skip("processes are found by /proc")
    hunter = threading.Thread(target=kill, daemon=True)
    hunter.start()
    pairs = runs(assignments(3))
    hunter.join(timeout=1)
    assert len(killed) == 1
    assert all(pair is not None for pair in pairs)


def test_without_the_entry_there_is_nothing_to_run(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"nothing\.py is not there"):
        Runs(folder=tmp_path, train=tmp_path / "nothing.py")
    with pytest.raises(InvalidArgument, match="jobs"):
        Runs(folder=tmp_path, train=TRAIN, jobs=0)
