"""A store whose writers are killed holds every recording that was acknowledged, and opens again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from synthetic_runs import recording

from esper_lightning.simic.experience import Experience

pytestmark = pytest.mark.integration

ROUNDS = 10
WRITERS = 2


def write(path: str, writer: str, told: str) -> None:
    """Add recordings until killed; each is told in a file once it is acknowledged."""
    with Experience(path) as experience, open(told, "ab", buffering=0) as file:
        number = 0
        while True:
            run_id = f"{writer}.{number}"
            assert experience.add(recording(run_id, seed=number))
            file.write(f"{run_id}\n".encode())
            number += 1


def fork_writers() -> None:
    """In a process that has imported everything: a writer for each line, and its process's id."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            write(*json.loads(line))
        print(pid, flush=True)


class Writers:
    """Processes that write, two at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told = path.with_name("told")
        self.told.touch()
        self._num = 0
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self) -> int:
        """The id of a new one's process."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._num += 1
        line = json.dumps([str(self.path), f"writer {self._num}", str(self.told)])
        print(line, file=self._server.stdin, flush=True)
        return int(self._server.stdout.readline())

    def acknowledged(self) -> list[str]:
        return self.told.read_text().splitlines()

    def close(self) -> None:
        self._server.communicate()


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[Writers]:
    found = Writers(tmp_path / "experience.sqlite")
    try:
        yield found
    finally:
        found.close()


def test_what_was_acknowledged_outlives_killed_writers(writers: Writers) -> None:
    draw = random.Random(0)
    for number in range(1, ROUNDS + 1):
        pids = [writers.start() for _ in range(WRITERS)]
        enough = len(writers.acknowledged()) + draw.randint(1, 12)
        ends = time.monotonic() + 60
        while len(writers.acknowledged()) < enough:
            assert time.monotonic() < ends, "nothing is written"
            time.sleep(0.001 * draw.random())
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        told = writers.acknowledged()
        with Experience(writers.path) as experience:
            assert not experience.damaged()
            there = {each.run_id for each in experience.recordings()}
        assert set(told) <= there
        assert len(there) <= len(told) + number * WRITERS, "and one that was not told, each"


if __name__ == "__main__":
    fork_writers()
