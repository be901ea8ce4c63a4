"""Many processes and threads store, read and collect in one library at once."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import storing

from esper_lightning.urza import Library

Start = Callable[..., Any]


@pytest.fixture(scope="module")
def start() -> Start:
    """Begin a function of ``storing`` in a new process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["storing"])

    def begin(target: Callable[..., None], *arguments: Any) -> Any:
        process = context.Process(target=target, args=arguments)
        path = os.pathsep.join([str(Path(storing.__file__).parent), *sys.path])
        # Children have the environment of the server, which may be older than the key.
        with mock.patch.dict(os.environ, PYTHONPATH=path):
            process.start()
        return process

    return begin


def finish(process: Any) -> None:
    process.join(60)
    assert process.exitcode == 0


def test_a_lookup_sees_what_another_process_has_stored(
    library: Library, root: Path, key: bytes, start: Start
) -> None:
    assert library.get("policy", "p") is None
    finish(start(storing.store, root, key, "p", [b"1"]))
    first = library.get("policy", "p")
    assert first is not None
    assert library.get("policy", "p", tag="newest") is not None
    finish(start(storing.store, root, key, "p", [b"2", b"3"]))
    for words in ({}, {"tag": "newest"}):
        newest = library.get("policy", "p", **words)  # type: ignore[arg-type]
        assert newest is not None
        assert newest.version == 3
        assert newest.read("x") == b"3"
    assert first.read("x") == b"1"


def test_what_has_not_changed_is_answered_from_memory(
    library: Library, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.put("policy", "p", {})
    found = library.get("policy", "p")
    assert library.get("policy", "q") is None
    with monkeypatch.context() as database:
        database.setattr(library._database, "reading", None)
        assert library.get("policy", "p") is found
        assert library.get("policy", "q") is None
    with Library(root) as other:
        other.put("policy", "q", {})
    assert library.get("policy", "q") is not None


def test_only_the_last_answers_are_remembered(library: Library) -> None:
    library._recent._most = 3
    for name in "abcab":
        library.get("policy", name)
    library.get("policy", "d")
    assert [question[1] for question in library._recent._answers] == ["a", "b", "d"]


def test_processes_that_store_and_collect_at_once_lose_nothing(
    root: Path, key: bytes, start: Start, library: Library
) -> None:
    common = [b"common %d" % number for number in range(12)]
    writers = [start(storing.store, root, key, "p", common) for _ in range(3)]
    collector = start(storing.collect, root, key)
    for writer in writers:
        writer.join(60)
    (root / "stop").touch()
    finish(collector)
    assert [writer.exitcode for writer in writers] == [0] * 3
    assert [entry.reference.version for entry in library.find("policy", "p")] == [*range(1, 37)]
    found = library.verify()
    assert found.intact
    assert (found.versions, found.files) == (36, 12)
    assert list((root / "partial").iterdir()) == []


def test_processes_that_begin_at_once_make_one_library(
    root: Path, key: bytes, start: Start
) -> None:
    processes = [start(storing.store, root, key, name, [b"1"]) for name in "abcd"]
    for process in processes:
        finish(process)
    with Library(root) as library:
        assert len(library.find(tag="newest")) == 4


def test_threads_share_a_library(library: Library) -> None:
    def use(number: int) -> int:
        stored = library.put("policy", "p", {"x": b"%d" % number})
        newest = library.get("policy", "p")
        assert newest is not None
        assert newest.version >= stored.version
        assert stored.read("x") == b"%d" % number
        return stored.version

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(use, range(40))) == [*range(1, 41)]
    assert library.verify().intact


FORKS = """
import os, sys, threading
from esper_lightning.urza import Library

library = Library(sys.argv[1])
library.put("policy", "p", {"x": b"parent"})
stop = threading.Event()

def store():
    number = 0
    while not stop.is_set():
        library.put("policy", "thread", {"x": b"%d" % number})
        library.get("policy", "thread")
        number += 1

thread = threading.Thread(target=store)
thread.start()
children = []
for number in range(8):
    child = os.fork()
    if child == 0:
        assert library.get("policy", "p").read("x") == b"parent"
        library.put("policy", f"child{number}", {"x": b"%d" % number})
        if number % 2:
            os._exit(0)
        sys.exit(0)  # with all that happens at the end of an interpreter
    children.append(child)
codes = [os.waitpid(child, 0)[1] for child in children]
stop.set()
thread.join()
assert codes == [0] * 8, codes
assert [len(library.find("policy", f"child{number}")) for number in range(8)] == [1] * 8
found = library.verify()
assert found.intact, found
print("whole")
"""


def test_a_library_is_used_on_both_sides_of_a_fork(root: Path, key: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS, str(root)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.stdout, done.returncode) == ("whole\n", 0), done.stderr


def test_the_library_stands_without_torch() -> None:
    script = "import sys, esper_lightning.urza.__main__; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False\n"
