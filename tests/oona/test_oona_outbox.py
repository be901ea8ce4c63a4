import os
import subprocess
import sys
from pathlib import Path

import pytest

from esper_lightning.oona import Outbox, OutboxFailed, Role

THREE = [(Role.NORMAL, b"one"), (Role.EMERGENCY, b"two"), (Role.POLICY, b"three")]


def test_what_was_added_is_there_until_it_is_removed(tmp_path: Path) -> None:
    with Outbox(tmp_path / "box") as outbox:
        added = outbox.add(THREE)
        assert [(each.role, each.sealed) for each in added] == THREE
        outbox.remove(added[:1])
    with Outbox(tmp_path / "box") as outbox:
        assert len(outbox) == 2
        assert [each.sealed for each in outbox.oldest(10)] == [b"two", b"three"]
        outbox.remove(outbox.oldest(10))
        assert outbox.oldest(10) == []


def test_what_is_urgent_comes_first_and_the_rest_in_order(tmp_path: Path) -> None:
    with Outbox(tmp_path / "box") as outbox:
        outbox.add(THREE)
        outbox.add([(Role.EMERGENCY, b"four")])
        assert [each.sealed for each in outbox.oldest(3)] == [b"two", b"four", b"one"]


def test_a_number_is_never_given_twice(tmp_path: Path) -> None:
    with Outbox(tmp_path / "box") as outbox:
        first = outbox.add(THREE)
        outbox.remove(first)
        assert outbox.add(THREE)[0].number > first[-1].number


def test_it_outlives_a_process_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from esper_lightning.oona import Outbox, Role\n"
        "box = Outbox(sys.argv[1])\n"
        "for n in range(50): box.add([(Role.NORMAL, str(n).encode())])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path / "box")], check=False)
    assert run.returncode == -9
    with Outbox(tmp_path / "box") as outbox:
        assert [each.sealed for each in outbox.oldest(100)] == [b"%d" % n for n in range(50)]


def test_all_or_none_are_added(tmp_path: Path) -> None:
    with Outbox(tmp_path / "box") as outbox:
        with pytest.raises(OutboxFailed, match="cannot be written"):
            outbox.add([(Role.NORMAL, b"one"), (Role.NORMAL, None)])  # type: ignore[list-item]
        assert len(outbox) == 0
        outbox.add(THREE)
        assert len(outbox) == 3


def test_a_full_disk_is_told_and_nothing_is_half_written(tmp_path: Path) -> None:
    with Outbox(tmp_path / "box") as outbox:
        outbox.add(THREE)
        pages = outbox._database.execute("PRAGMA page_count").fetchone()[0]
        outbox._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OutboxFailed, match="full"):
            outbox.add([(Role.NORMAL, bytes(100_000))])
        assert len(outbox) == 3
        outbox._database.execute("PRAGMA max_page_count = 1000000")
        outbox.add([(Role.NORMAL, bytes(100_000))])
        assert len(outbox) == 4


@pytest.mark.parametrize("damage", ["noise", "inside"])
def test_a_damaged_file_is_put_aside(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "box.sqlite"
    with Outbox(path) as outbox:
        outbox.add([(Role.NORMAL, bytes(9_000))] * 20)
    data = bytearray(path.read_bytes())
    if damage == "noise":
        data = bytearray(os.urandom(len(data)))
    else:
        data[4096:20_000] = os.urandom(20_000 - 4096)
    path.write_bytes(data)
    with Outbox(path) as outbox:
        assert len(outbox) == 0
        outbox.add(THREE)
    assert path.with_suffix(".damaged").read_bytes() == bytes(data)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutboxFailed, match="cannot be opened"):
        Outbox(tmp_path / "file" / "box")


def test_it_belongs_to_one_at_a_time(tmp_path: Path) -> None:
    with Outbox(tmp_path / "box") as outbox:
        outbox.add(THREE)
        with pytest.raises(OutboxFailed, match="another process has it open"):
            Outbox(tmp_path / "box")
        outbox.add(THREE)
        assert len(outbox) == 6
    with Outbox(tmp_path / "box") as outbox:
        assert len(outbox) == 6


def test_what_holds_nothing_leaves_nothing_behind(tmp_path: Path) -> None:
    with Outbox(tmp_path / "box") as outbox:
        outbox.remove(outbox.add(THREE))
    assert list(tmp_path.iterdir()) == []
