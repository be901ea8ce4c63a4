from collections.abc import Iterator
from pathlib import Path

import pytest
from bus_helpers import until

from esper_lightning.oona import Outbox, Role
from esper_lightning.oona.backlog import Backlog

SEALED = [(Role.NORMAL, b"%d" % number) for number in range(6)]


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "box")


@pytest.fixture
def backlog(outbox: Outbox) -> Iterator[Backlog]:
    opened = Backlog(outbox)
    yield opened
    opened.close()


def break_disk(outbox: Outbox, what: str) -> None:
    """Let it INSERT or DELETE no more."""
    refusal = "SELECT RAISE(ABORT, 'the disk says no')"
    outbox._database.execute(
        f"CREATE TRIGGER no_{what} BEFORE {what} ON waiting BEGIN {refusal}; END"
    )


def mend_disk(outbox: Outbox, what: str) -> None:
    outbox._database.execute(f"DROP TRIGGER no_{what}")


def oldest(backlog: Backlog, limit: int = 10) -> list[bytes]:
    return [each.sealed for each in backlog.oldest(limit)]


def test_what_was_written_just_now_is_not_read_again(backlog: Backlog, outbox: Outbox) -> None:
    backlog.add(SEALED[:3])
    assert (backlog.on_disk, backlog.in_memory, len(outbox)) == (3, 0, 3)
    assert oldest(backlog, limit=1) == [b"0", b"1", b"2"]
    assert oldest(backlog, limit=1) == [b"0"], "they are not acknowledged"
    backlog.remove(backlog.oldest(2))
    assert (len(backlog), len(outbox)) == (1, 1)
    backlog.add(SEALED[3:4])
    assert oldest(backlog) == [b"2", b"3"]


def test_what_an_earlier_process_left_comes_first(tmp_path: Path) -> None:
    with Outbox(tmp_path / "box") as outbox:
        outbox.add(SEALED[:2])
    backlog = Backlog(Outbox(tmp_path / "box"))
    assert len(backlog) == 2
    backlog.add(SEALED[2:3])
    assert oldest(backlog) == [b"0", b"1", b"2"]
    backlog.close()


def test_without_a_disk_it_is_in_memory() -> None:
    backlog = Backlog(None)
    backlog.add(SEALED)
    assert (backlog.on_disk, backlog.in_memory) == (0, 6)
    first = backlog.oldest(2)
    assert [each.sealed for each in first] == [b"0", b"1"]
    backlog.remove(first[1:])
    assert oldest(backlog) == [b"0", b"2", b"3", b"4", b"5"]
    backlog.close()


def test_a_disk_that_takes_nothing_is_tried_again_later(
    backlog: Backlog, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    backlog.add(SEALED[:1])
    break_disk(outbox, "INSERT")
    for number in (1, 2):
        backlog.add(SEALED[number : number + 1])
    assert (backlog.on_disk, backlog.in_memory) == (1, 2)
    assert backlog.remaining_s() > 0
    assert caplog.text.count("messages are kept in memory") == 1
    until(lambda: backlog.remaining_s() == 0)
    assert oldest(backlog) == [b"0", b"1", b"2"]
    mend_disk(outbox, "INSERT")
    backlog.add([])
    assert (backlog.on_disk, backlog.in_memory) == (3, 0)
    assert oldest(backlog) == [b"0", b"1", b"2"]


def test_the_last_chance_is_taken_at_once(backlog: Backlog, outbox: Outbox) -> None:
    break_disk(outbox, "INSERT")
    backlog.add(SEALED[:1])
    mend_disk(outbox, "INSERT")
    backlog.add(SEALED[1:2], now=True)
    assert (backlog.on_disk, backlog.in_memory) == (2, 0)


def test_what_the_disk_cannot_forget_is_not_sent_again(backlog: Backlog, outbox: Outbox) -> None:
    backlog.add(SEALED[:2])
    break_disk(outbox, "DELETE")
    backlog.remove(backlog.oldest(10))
    assert (len(backlog), len(outbox)) == (0, 2)
    until(lambda: backlog.remaining_s() == 0)
    backlog.add(SEALED[2:4])
    assert oldest(backlog, limit=1) == [b"2"]
    mend_disk(outbox, "DELETE")
    until(lambda: backlog.remaining_s() == 0)
    assert oldest(backlog) == [b"2", b"3"]
    assert len(outbox) == 2
