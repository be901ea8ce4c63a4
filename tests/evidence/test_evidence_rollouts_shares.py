"""Shares of runs: what is asked of machines, and what becomes of what they lose."""

import math
from pathlib import Path
from typing import Any

import pytest
from machines import END, TRAIN, Given, assignments, leave

from esper_lightning.evidence.rollouts.runs import Runs
from esper_lightning.evidence.rollouts.shares import (
    TRIES,
    OtherVersions,
    Share,
    carry_out,
    here,
    is_done,
)
from esper_lightning.leyline import InvalidArgument, encode
from esper_lightning.nissa.journal import JOURNAL_NAME
from esper_lightning.nissa.versions import versions
from esper_lightning.simic.recording import SUMMARY_NAME


def runs(folder: Path, machines: Given, **options: Any) -> Runs:
    return Runs(folder=folder, train=TRAIN, machines=machines, **options)


def test_runs_are_handed_out_in_shares(tmp_path: Path) -> None:
    machines = Given()
    pairs = runs(tmp_path, machines, share=3, jobs=4, limit_s=9.0)(assignments(7))
    assert [len(share.runs) for share in machines.asked[0]] == [3, 3, 2], "seven and their twin"
    assert {(share.jobs, share.limit_s, share.train) for share in machines.asked[0]} == {
        (4, 9.0, TRAIN)
    }
    assert [path for share in machines.asked[0] for path in share.runs if is_done(path)]
    assert None not in pairs


def test_what_is_lost_is_asked_for_again_and_what_is_done_is_not(tmp_path: Path) -> None:
    machines = Given(losing=[3, 1])
    pairs = runs(tmp_path, machines)(assignments(4))
    assert machines.num_asked == [5, 3, 1]
    assert None not in pairs
    assert runs(tmp_path, machines)(assignments(4)) == pairs
    assert len(machines.asked) == 3, "nothing is left to do"


def test_what_failed_by_itself_is_not_asked_for_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machines = Given(failing=[1], losing=[1])
    pairs = runs(tmp_path, machines)(assignments(2))
    assert machines.num_asked == [3, 1]
    assert pairs == [None, None], "the twin of both failed"
    assert "a run failed" in caplog.text
    assert "as told" in caplog.text


def test_what_is_lost_each_time_is_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machines = Given(losing=[1] * 9)
    pairs = runs(tmp_path, machines)(assignments(2))
    assert machines.num_asked == [3, *[1] * (TRIES - 1)]
    assert pairs == [None, None]
    assert f"it did not come to its end, {TRIES} times" in caplog.text


def test_a_run_is_done_if_summary_and_journal_are_whole(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert not is_done(folder)
    leave(folder)
    assert is_done(folder)
    for path in (folder / SUMMARY_NAME, folder / JOURNAL_NAME):
        whole = path.read_bytes()
        for torn in (whole[:-9], whole[: -len(encode(END)) - 1], b""):
            path.write_bytes(torn)
            assert not is_done(folder), (path, torn)
        path.unlink()
        assert not is_done(folder)
        path.write_bytes(whole)
        assert is_done(folder)


def test_other_machines_do_not_change_the_name_of_a_run(tmp_path: Path) -> None:
    asked = assignments(3)
    assert runs(tmp_path, Given(), share=1)(asked) == runs(tmp_path, Given(), jobs=1)(asked)


def test_a_machine_with_other_versions_refuses(tmp_path: Path) -> None:
    share = Share(
        train=TRAIN,
        jobs=1,
        limit_s=60.0,
        runs={tmp_path / "a": ("host=mlp",)},
        versions={**versions(), "torch": "0.1"},
    )
    for carries_out in (carry_out, lambda share: here([share])):
        with pytest.raises(OtherVersions, match=r"torch 0\.1, this one has .*torch \d"):
            carries_out(share)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "options", [{"share": 0}, {"jobs": 0}, {"limit_s": 0}, {"limit_s": "9"}, {"limit_s": math.inf}]
)
def test_numbers_that_are_not_allowed(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(options))):
        runs(tmp_path, Given(), **options)
