"""A run whose process is killed, whenever it is, goes on as if it had not been.

Every process is forked from a server that has imported what the run needs and has never trained:
nothing but the checkpoint comes over from the process before. Kills fall at moments drawn from a
seed over the time that a whole run takes, within steps and while files are written. If n kills
leave no trace, then with 95 % confidence less than a share of 3/n would (the rule of three): 0 of 5
bounds little (0.6), the 50 of the slow suite bound it to 0.06.
"""

import itertools
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import killable
import pytest
import torch
from launching import composed
from torch import Tensor
from torch.utils._pytree import tree_flatten

from esper_lightning.callbacks import DurableCheckpointIO
from esper_lightning.conf.instantiate import build

pytestmark = pytest.mark.integration

Start = Callable[..., Any]


@pytest.fixture(scope="module")
def start() -> Start:
    """Begin a function in a new process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killable"])

    def begin(target: Callable[..., None], *arguments: Any) -> Any:
        process = context.Process(target=target, args=arguments)
        # The server, which starts with the first process, is told of no other path.
        with mock.patch.dict(os.environ, PYTHONPATH=str(Path(killable.__file__).parent)):
            process.start()
        return process

    begin(int).join()  # the server is there, and has imported everything
    return begin


@pytest.fixture(scope="module")
def whole(start: Start, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], float]:
    """What the run leaves that nobody killed, and how long it took, in seconds."""
    folder = tmp_path_factory.mktemp("whole")
    began = time.monotonic()
    _finish(start, folder)
    return _final(folder), time.monotonic() - began


def _finish(start: Start, folder: Path) -> None:
    process = start(killable.train, folder)
    process.join()
    assert process.exitcode == 0


def _final(folder: Path) -> dict[str, Any]:
    left: dict[str, Any] = torch.load(folder / "final.pt", weights_only=True)
    return left


def _same(a: Any, b: Any) -> bool:
    (ours, shape), (theirs, other) = tree_flatten(a), tree_flatten(b)
    return shape == other and all(
        torch.equal(x, y) if isinstance(x, Tensor) else x == y
        for x, y in zip(ours, theirs, strict=True)
    )


def _killed_often(start: Start, folder: Path, delays: list[float]) -> int:
    """Run in ``folder`` to the end, killed after each of ``delays``; how many kills there were."""
    kills = 0
    for delay in delays:
        process = start(killable.train, folder)
        process.join(delay)
        process.kill()
        process.join()
        if process.exitcode == 0:
            return kills
        assert process.exitcode == -signal.SIGKILL
        kills += 1
    _finish(start, folder)
    return kills


def _lives(
    start: Start, whole: tuple[dict[str, Any], float], folder: Path, *, kills: int, seed: int
) -> None:
    """Runs that are killed at random, until so many kills have left no trace."""
    expected, duration = whole
    draw = random.Random(seed)
    seen = 0
    for number in itertools.count():
        life = folder / str(number)
        life.mkdir()
        delays = [draw.uniform(0.0, duration) for _ in range(kills - seen)]
        more = _killed_often(start, life, delays)
        assert _same(_final(life), expected), f"after kills {seen} to {seen + more} of seed {seed}"
        seen += more
        if seen == kills:
            return


@pytest.mark.usefixtures("nothing_stays")
def test_train_py_writes_checkpoints_that_survive_a_kill(tmp_path: Path) -> None:
    trainer = build(composed(output_dir=tmp_path).trainer, "trainer")
    assert isinstance(trainer.strategy.checkpoint_io, DurableCheckpointIO)


def test_the_run_grows(whole: tuple[dict[str, Any], float]) -> None:
    names = whole[0]["weights"]
    assert any(".fossils.0." in name for name in names)


def test_five_kills_leave_no_trace(
    start: Start, whole: tuple[dict[str, Any], float], tmp_path: Path
) -> None:
    _lives(start, whole, tmp_path, kills=5, seed=1)


@pytest.mark.slow
def test_fifty_kills_leave_no_trace(
    start: Start, whole: tuple[dict[str, Any], float], tmp_path: Path
) -> None:
    _lives(start, whole, tmp_path, kills=50, seed=2)


@pytest.mark.parametrize(
    ("point", "number", "replaced"),
    [
        ("save", 1, False),
        ("save", 14, False),
        ("fsync", 27, False),  # of the file: two for each checkpoint, and this is the first one
        ("replace", 14, False),
        ("fsync", 28, True),  # of the folder, once the new name is there
    ],
)
def test_a_kill_while_a_checkpoint_is_written_loses_no_checkpoint(
    start: Start,
    whole: tuple[dict[str, Any], float],
    tmp_path: Path,
    point: str,
    number: int,
    replaced: bool,
) -> None:
    process = start(killable.train_until, tmp_path, point, number)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    partial = tmp_path / "last.ckpt.partial"
    assert partial.exists() != replaced
    if number == 1:
        assert not (tmp_path / "last.ckpt").exists()
    else:
        kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
        if point == "save":
            assert partial.stat().st_size < (tmp_path / "last.ckpt").stat().st_size
        # 14 saves are in the middle and at the end of seven epochs.
        assert (kept["epoch"], kept["global_step"]) == (6, 42 if replaced else 40)
    _finish(start, tmp_path)
    assert _same(_final(tmp_path), whole[0])
    assert not partial.exists()


def test_a_kill_once_there_was_nothing_left_to_do_leaves_no_trace(
    start: Start, whole: tuple[dict[str, Any], float], tmp_path: Path
) -> None:
    _finish(start, tmp_path)
    (tmp_path / "final.pt").unlink()
    _finish(start, tmp_path)
    assert _same(_final(tmp_path), whole[0])
