"""The benchmark of mission control: it runs, and nothing fails. Never how long anything took."""

import json
from pathlib import Path

import pytest
from synthetic_run import RUN_ID, synthetic_run

from esper_lightning.evidence.bus.servers import programs
from esper_lightning.evidence.dashboard import command, long_runs, pages
from esper_lightning.evidence.dashboard.command import QUICK, main
from esper_lightning.leyline import SystemState
from esper_lightning.nissa.history import history
from esper_lightning.nissa.journal import JOURNAL_NAME, read_journal


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "recorded"
    long_runs.write(folder, [synthetic_run(("features.0", "features.1"), 12)])
    return folder


def test_a_run_is_made_longer_epoch_by_epoch(run: Path, tmp_path: Path) -> None:
    epochs = list(long_runs.epochs_of(run, 30))
    for number, events in enumerate(epochs):
        states = [event.epoch for event in events if isinstance(event, SystemState)]
        assert states == [number]
    long_runs.write(tmp_path / "long", epochs)
    told = history(read_journal(tmp_path / "long" / JOURNAL_NAME))
    assert (told.run_id, told.end, told.outcome) == (RUN_ID, 30.0, "")
    assert [lane.slot for lane in told.lanes] == ["features.0", "features.1"]


@pytest.mark.slow
@pytest.mark.integration
def test_dashboard(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "dashboard.json"
    main([str(run), "--quick", "--no-browser", "--out", str(out)])
    figures = json.loads(out.read_text())["figures"]
    assert [each["epochs"] for each in figures["memory"]] == [0, *QUICK.epochs]
    assert [each["viewers"] for each in figures["viewers"]] == list(QUICK.viewers)
    assert all(each["missed"] == 0 for each in figures["viewers"])
    assert figures["hostile"]["failed"] == 0, figures["hostile"]["failures"]
    assert figures["hostile"]["num"] == QUICK.requests


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.skipif(pages.chromium() is None, reason="there is no Chromium; CHROMIUM names one")
def test_what_is_told_by_folder_beside_it_or_over_the_bus_is_seen(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with pages.browser() as browsing:
        lags = command._lags(browsing, run, QUICK, tmp_path)
    ways = ["by its folder", "in the same process"]
    if buses := list(programs()):
        ways.append(f"over the bus, {buses[0]}")
    else:
        assert "esper-lightning[embedded]" in capsys.readouterr().out
    assert [each.way for each in lags] == ways
    for each in lags:
        assert each.num == QUICK.lags
        assert each.worst_ms >= each.p95_ms >= each.p50_ms > 0


def test_a_folder_without_a_journal_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "python train.py writes one" in capsys.readouterr().err
