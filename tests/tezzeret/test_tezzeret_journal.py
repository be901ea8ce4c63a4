"""What was tried is known again after any interruption."""

import inspect
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from esper_lightning.tezzeret.journal import MAX_INTERRUPTIONS, MAX_TRIES, Journal, Line
from esper_lightning.urza import LibraryError, LibraryReadOnly


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "deep" / "journal.jsonl")


def write(journal: Journal, events: Sequence[str], key: str = "a") -> None:
    for number, event in enumerate(events):
        journal.write(Line(key=key, event=event, reason=f"{event} {number}"))


def test_lines_come_back_in_order(journal: Journal) -> None:
    assert journal.lines() == []
    write(journal, ["begun", "failed", "begun"])
    journal.write(Line(key="b", event="begun", recipe="ü\n\x85 of several\u2028lines"))
    again = Journal(journal.path).lines()
    assert [line.event for line in again] == ["begun", "failed", "begun", "begun"]
    assert again[-1].recipe == "ü\n\x85 of several\u2028lines"


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_a_torn_last_line_costs_only_itself(journal: Journal, cut: int) -> None:
    write(journal, ["begun", "failed", "begun"])
    data = journal.path.read_bytes()
    journal.path.write_bytes(data[: -1 - cut])
    assert [line.event for line in journal.lines()] == ["begun", "failed"]
    write(journal, ["failed"])
    assert [line.event for line in journal.lines()] == ["begun", "failed", "failed"]


def test_lines_of_a_later_release_or_of_nobody_are_left_out(journal: Journal) -> None:
    write(journal, ["begun"])
    with journal.path.open("ab") as file:
        file.write(b'{"key": "a"}\n[1]\n\xff\xfe\n' + b"x" * 10_000 + b"\n")
    write(journal, ["failed"])
    assert [line.event for line in journal.lines()] == ["begun", "failed"]


def test_failures_are_counted_for_each_key(journal: Journal) -> None:
    write(journal, ["begun", "failed", "begun", "failed"])
    write(journal, ["begun"], key="b")
    assert journal.failures("a") == ["failed 1", "failed 3"]
    assert journal.failures("b") == []
    assert journal.failures("c") == []


def test_a_decision_clears_them(journal: Journal) -> None:
    write(journal, ["begun", "failed", "begun", "begun", "begun", "decided"])
    assert journal.failures("a") == []
    write(journal, ["begun", "failed"])
    assert journal.failures("a") == ["failed 1"]


def test_what_is_cut_off_again_and_again_counts_as_failing(journal: Journal) -> None:
    write(journal, ["begun"] * (MAX_INTERRUPTIONS - 1))
    assert journal.failures("a") == []
    write(journal, ["begun"])
    assert journal.failures("a") == [f"it was cut off {MAX_INTERRUPTIONS} times"] * MAX_TRIES


def test_what_failed_or_was_left_is_not_cut_off(journal: Journal) -> None:
    write(journal, ["begun", "ended"] * 5 + ["begun", "failed"] + ["begun"] * 2)
    assert journal.failures("a") == ["failed 11"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LibraryError, match="cannot be used"):
        Journal(tmp_path / "file" / "journal.jsonl")


def test_a_file_that_cannot_be_written_is_named(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refused)
    with pytest.raises(LibraryReadOnly):
        write(journal, ["begun"])


WRITER = """
import importlib.util
import sys
from pathlib import Path

found = importlib.util.spec_from_file_location("journal", sys.argv[1])  # without torch
journal = importlib.util.module_from_spec(found)
found.loader.exec_module(journal)
writing = journal.Journal(Path(sys.argv[2]))
for number in range(40):
    writing.write(journal.Line(key=sys.argv[3], event="begun", reason=f"{number} " + "x" * 300))
"""


def test_processes_that_append_at_once_lose_no_line(journal: Journal) -> None:
    names = ["one", "two", "three"]
    source = str(inspect.getsourcefile(Journal))
    command = [sys.executable, "-c", WRITER, source, str(journal.path)]
    writers = [subprocess.Popen([*command, name]) for name in names]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    lines = journal.lines()
    for name in names:
        told = [int(line.reason.split()[0]) for line in lines if line.key == name]
        assert told == list(range(40))
