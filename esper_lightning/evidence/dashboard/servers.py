"""Programs that serve pages: mission control, and TensorBoard."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TOKEN = "the token of these measurements"

STARTING_S = 60.0


@dataclass(frozen=True, slots=True)
class Program:
    """A process that serves pages.

    Attributes:
        url: of its page.
        pid: of the process.
    """

    url: str
    pid: int

    def rss_mib(self) -> float:
        """Memory that it holds now."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found.group(1)) / 1024

    def cpu_s(self) -> float:
        """Seconds of a processor that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def mission(runs: Path, kept: Path) -> Iterator[Program]:
    """Mission control over the runs below a folder, as a person starts it."""
    command = ["uvicorn", "esper_lightning.nissa.server:create_app", "--factory", "--port", "0"]
    told = {"ESPER_RUNS": str(runs), "NISSA_FOLDER": str(kept), "NISSA_TOKEN": TOKEN}
    with _started([*command, "--no-access-log"], told, kept / "server.log") as program:
        yield program


@contextlib.contextmanager
def tensorboard(logs: Path, kept: Path) -> Iterator[Program]:
    """TensorBoard over a folder of its logs."""
    command = ["tensorboard.main", "--logdir", str(logs), "--host", "127.0.0.1", "--port", "0"]
    with _started(command, {}, kept / "tensorboard.log") as program:
        yield program


@contextlib.contextmanager
def _started(command: Sequence[str], told: Mapping[str, str], log: Path) -> Iterator[Program]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], env=os.environ | told, stdout=file, stderr=file
        )
    try:
        yield Program(_address(process, log), process.pid)
    finally:
        process.terminate()
        process.wait(10)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    ends = time.monotonic() + STARTING_S
    while time.monotonic() < ends and process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text(encoding="utf-8"))
        if found:
            return found.group()
        time.sleep(0.05)
    raise RuntimeError(f"it did not start:\n{log.read_text(encoding='utf-8')}")
