"""What must be kept outlives the process, whatever the disk and the server do."""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bus_helpers import (
    Bus,
    bus_at,
    drain,
    held_up,
    python,
    report,
    until,
)
from servers import Server, started

from esper_lightning.leyline import Signer
from esper_lightning.oona import (
    OUTBOX_NAME,
    Connection,
    Outbox,
    Publisher,
    Role,
)

NOWHERE = "redis://127.0.0.1:1"


@pytest.fixture(scope="module")
def memory() -> Iterator[Server]:
    """A server for tests that do it no harm."""
    with started("memory") as server:
        yield server


@pytest.fixture
def bus(memory: Server, signer: Signer) -> Iterator[Bus]:
    with bus_at(memory.url, signer) as opened:
        yield opened


# -- the disk -------------------------------------------------------------------------------------


def test_a_process_that_is_killed_leaves_its_messages_to_the_next(bus: Bus, tmp_path: Path) -> None:
    publish_and_die(tmp_path, 120)
    publisher = bus.publisher(outbox=Outbox(tmp_path / OUTBOX_NAME))
    publisher.publish(report(120))
    assert publisher.flush(10)
    drain(bus.consumer())
    assert bus.effects() == [str(number) for number in range(121)]


@pytest.mark.integration
def test_a_process_that_is_killed_leaves_its_messages_to_the_command_line(
    signer: Signer, tmp_path: Path
) -> None:
    publish_and_die(tmp_path, 60)
    with started("embedded") as server, bus_at(server.url, signer) as bus:
        command, environ = python("-m", "esper_lightning.oona", "deliver", str(tmp_path))
        command += ["--url", server.url]
        environ["OONA_NORMAL_STREAM"] = bus.settings.streams[Role.NORMAL]
        outputs = [
            subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
            for _ in range(2)
        ]
        assert "60 of 60 messages were delivered" in outputs[0].stdout, outputs[0].stderr
        assert "there is no outbox" in outputs[1].stderr
        assert [run.returncode for run in outputs] == [0, 1]
        drain(bus.consumer())
        assert bus.effects() == [str(number) for number in range(60)]


def publish_and_die(folder: Path, count: int) -> None:
    """In another process, without a server, with an outbox in the folder."""
    code = f"""
import os, signal, sys, time
from bus_helpers import Bus, report
from esper_lightning.leyline import Signer, installation_key
from esper_lightning.oona import OUTBOX_NAME, Outbox
bus = Bus({NOWHERE!r}, Signer(installation_key()))
publisher = bus.publisher(outbox=Outbox(os.path.join(sys.argv[1], OUTBOX_NAME)))
for number in range({count}):
    publisher.publish(report(number))
while publisher.figures().waiting < {count}:
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""
    command, environ = python("-c", code, str(folder))
    run = subprocess.run(command, env=environ, timeout=60, check=False)
    assert run.returncode == -signal.SIGKILL


def test_a_full_disk_keeps_in_memory_and_sends(
    bus: Bus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(tmp_path / "box")
    pages = outbox._database.execute("PRAGMA page_count").fetchone()[0]
    outbox._database.execute(f"PRAGMA max_page_count = {pages}")
    with held_up(bus, outbox=outbox) as (publisher, goes_on):
        for number in range(200):
            publisher.publish(report(number))
        goes_on.set()
        assert publisher.flush(10)
        figures = publisher.figures()
        assert (figures.lost, figures.waiting, figures.memory) == (0, 0, 0)
        drain(bus.consumer())
        assert bus.effects() == [str(number) for number in range(200)]
        assert 1 <= caplog.text.count("messages are kept in memory") <= 2


def test_a_disk_that_is_full_while_there_is_no_server(signer: Signer, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "box")
    with bus_at(NOWHERE, signer) as bus:
        pages = outbox._database.execute("PRAGMA page_count").fetchone()[0]
        outbox._database.execute(f"PRAGMA max_page_count = {pages}")
        publisher = bus.publisher(outbox=outbox)
        for number in range(200):
            publisher.publish(report(number))
        until(lambda: publisher.figures().memory == 200)
        outbox._database.execute("PRAGMA max_page_count = 1000000")
        until(lambda: publisher.figures().waiting == 200)
        assert publisher.figures().memory == publisher.figures().lost == 0
        assert publisher.close(0.1)
    with Outbox(tmp_path / "box") as left:
        assert len(left) == 200


def test_a_disk_that_cannot_forget_has_nothing_sent_again(bus: Bus, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "box")
    with held_up(bus, outbox=outbox) as (publisher, goes_on):
        for number in range(5):
            publisher.publish(report(number))
        goes_on.set()
        assert publisher.flush(10)
        outbox._database.execute(
            "CREATE TRIGGER t BEFORE DELETE ON waiting BEGIN "
            "SELECT RAISE(ABORT, 'the disk says no'); END"
        )
        for number in range(5, 10):
            publisher.publish(report(number))
            assert publisher.flush(10)
        assert bus.length() == 10
        assert len(outbox) > 0
        assert publisher.figures().waiting == 0, "the server has them"
        outbox._database.execute("DROP TRIGGER t")
    with Outbox(tmp_path / "box") as left:
        assert len(left) == 0
    drain(bus.consumer())
    assert bus.effects() == [str(number) for number in range(10)]


def test_a_thread_that_fails_is_told_and_holds_nobody_up(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Connection:
        raise LookupError("a bug")

    publisher = Publisher(broken, bus.signer, bus.settings, source="run")
    publisher.publish(report(0))
    until(lambda: "the bus is off" in caplog.text)
    publisher.publish(report(1))
    begin = time.monotonic()
    assert not publisher.close(60)
    assert time.monotonic() - begin < 5
