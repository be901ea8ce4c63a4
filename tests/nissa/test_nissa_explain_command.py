import subprocess
import sys

import pytest
from msgspec.structs import replace
from told_run import (
    FINISHED,
    LIVE,
    RUN_ID,
    STARTED,
    decision,
    grown_run,
    moved,
    row,
    run_of,
    state,
    under,
)

from esper_lightning.leyline import (
    CommandKind,
    InvalidArgument,
    RunEnded,
    RunSummary,
    SeedStage,
    encode,
)
from esper_lightning.nissa.__main__ import PROBLEM, UNUSABLE, main
from esper_lightning.nissa.explanation import explanation
from esper_lightning.nissa.journal import JournalWriter


@pytest.fixture
def folder(tmp_path):
    with JournalWriter(tmp_path / "run/events.jsonl") as journal:
        journal.write(*grown_run())
    return tmp_path / "run"


def test_it_prints_the_page_of_a_folder_or_its_journal(folder, capsys):
    page = explanation(grown_run())
    for named in (folder, folder / "events.jsonl"):
        assert main(["explain", str(named)]) == 0
        assert capsys.readouterr() == (page, "")


def test_it_writes_the_page_and_the_record_stays_as_it_is(folder, capsys):
    before = (folder / "events.jsonl").read_bytes()
    assert main(["explain", str(folder), "--out", str(folder / "page.md")]) == 0
    assert (folder / "page.md").read_text(encoding="utf-8") == explanation(grown_run())
    assert main(["explain", str(folder), "--out", str(folder / "events.jsonl")]) == UNUSABLE
    assert "is a record of the run" in capsys.readouterr().err
    assert (folder / "events.jsonl").read_bytes() == before


def test_a_page_that_cannot_be_written_is_an_error_in_words(folder, capsys):
    assert main(["explain", str(folder), "--out", str(folder / "no/page.md")]) == UNUSABLE
    assert "no/page.md" in capsys.readouterr().err


def test_a_torn_last_line_is_left_out(folder):
    journal = folder / "events.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    assert main(["explain", str(folder), "--out", str(folder / "page.md")]) == 0
    assert (folder / "page.md").read_text(encoding="utf-8") == explanation(grown_run()[:-1])


def test_a_damaged_line_is_named(folder, capsys):
    journal = folder / "events.jsonl"
    lines = journal.read_bytes().split(b"\n")
    lines[2] = b'{"type":"party"}'
    journal.write_bytes(b"\n".join(lines))
    assert main(["explain", str(folder)]) == PROBLEM
    told = capsys.readouterr()
    assert told.out == ""
    assert f"{journal}, line 3 is not valid" in told.err


@pytest.mark.parametrize("damage", [b"{", b'{"schema": 1}'])
def test_a_damaged_summary_is_named(folder, capsys, damage):
    (folder / "summary.json").write_bytes(damage)
    assert main(["explain", str(folder)]) == PROBLEM
    assert "summary.json is not" in capsys.readouterr().err


def test_another_folder_is_an_error_that_says_what_to_name(tmp_path, capsys):
    for named in (tmp_path, tmp_path / "nowhere"):
        assert main(["explain", str(named)]) == UNUSABLE
        told = capsys.readouterr().err
        assert "there is no journal" in told
        assert "events.jsonl" in told


def test_another_file_is_none_of_its_business(tmp_path, capsys):
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    assert main(["explain", str(tmp_path / "photo.png")]) == PROBLEM
    assert "photo.png, line 1" in capsys.readouterr().err
    (tmp_path / "events.jsonl").write_bytes(b"")
    assert main(["explain", str(tmp_path)]) == UNUSABLE
    assert "without an event" in capsys.readouterr().err


def test_it_needs_neither_torch_nor_figures(folder):
    told = (
        "import sys; from esper_lightning.nissa.__main__ import main;"
        f"main(['explain', {str(folder)!r}, '--out', {str(folder / 'page.md')!r}]);"
        "print({'torch', 'matplotlib', 'lightning'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


# Records that are not whole


def test_a_run_that_is_not_over_says_so():
    page = explanation(grown_run()[:-4])
    assert "The record stops after 5 of 6 epochs: the run goes on, or it was killed." in page


def test_a_failed_run_tells_its_error():
    failed = RunEnded(run_id=RUN_ID, epoch=1, step=10, outcome="failed: the <disk> is full")
    page = run_of(state(0), decision(0), failed)
    assert "The run failed: the &lt;disk> is full. It had done 1 of 6 epochs." in page


def test_a_run_without_an_epoch_is_told():
    page = run_of(RunEnded(run_id=RUN_ID, epoch=0, step=0, outcome="failed: no data"))
    assert "No epoch ended" in page
    assert "None was made." in page


def test_a_resumed_run_is_told_as_it_went_the_second_time():
    events = grown_run()
    killed = [*events[:6], replace(events[6], reason="drop me"), *events[7:10]]
    page = explanation([*killed, *events[:1], *events[4:]])
    assert row(page, "resumed")[1].startswith("before epoch 2;")
    assert "drop me" not in page
    again = page.replace(next(line for line in page.splitlines() if "resumed" in line) + "\n", "")
    assert again == explanation(events)


def test_an_early_end_has_a_second_boundary_in_its_epoch():
    last = replace(state(1, LIVE), max_epochs=2)
    settled = decision(1, CommandKind.CULL, reason="last boundary")
    culled = moved(1, SeedStage.PROBATIONARY, SeedStage.CULLED, reason="last boundary")
    page = run_of(state(0, LIVE), decision(0), state(1, LIVE), decision(1), last, settled, culled)
    assert "after 2 of 6 epochs" in page
    assert under(page, "Epochs 1 to 2: waited")
    assert "**Cull `parallel_conv`" in under(page, "Epoch 2, when the run had ended: culled")
    assert row(under(page, "What was culled"), "`features.2`")[-1] == "last boundary"


@pytest.mark.parametrize(
    ("events", "told"),
    [([], "without an event"), ([STARTED, replace(FINISHED, run_id="other")], "runs .*'other'")],
)
def test_a_record_is_of_one_run(events, told):
    with pytest.raises(InvalidArgument, match=told):
        explanation(events)


def test_a_summary_of_another_run_is_refused(folder, capsys):
    summary = RunSummary(
        run_id="other",
        outcome="finished",
        seed=None,
        host="CNN",
        policy="never",
        incubation="direct",
        epochs=1,
        steps=1,
        validation={},
        test={},
        host_parameters=1,
        parameters=1,
        host_flops_per_sample=None,
        flops_per_sample=None,
        host_training_flops=None,
        training_flops=None,
        wall_s=1.0,
        grown=(),
        culled=(),
        versions={},
    )
    (folder / "summary.json").write_bytes(encode(summary))
    assert main(["explain", str(folder)]) == UNUSABLE
    assert "the summary is of run 'other'" in capsys.readouterr().err


def test_a_resumed_run_keeps_the_reports_that_its_checkpoint_had_seen():
    events = grown_run()
    page = explanation([*events[:-3], STARTED, *events[-3:]])
    assert "It was a success" in under(page, "Epoch 2")
