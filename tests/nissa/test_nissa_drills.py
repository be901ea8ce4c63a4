"""Drills pass where the system reacts, and fail where its reaction is taken away."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esper_lightning.callbacks import oona
from esper_lightning.kasmina import second_passes
from esper_lightning.nissa.__main__ import main
from esper_lightning.nissa.alerts import RULES
from esper_lightning.nissa.drills import DRILLS, play, scene
from esper_lightning.nissa.drills.disk import FULL
from esper_lightning.oona.embedded import bundled
from esper_lightning.tamiyo.reload import Reloading
from esper_lightning.tezzeret import is_supported

NEEDS: dict[str, Callable[[], Any]] = {
    "controller_timeout": bundled,
    "forged_command": bundled,
    "bus_loss": bundled,
    "poisoned_policy": bundled,
    "compile_failure": is_supported,
    "full_disk": FULL.exists,
}


def skip_unless_possible(name: str) -> None:
    if not NEEDS.get(name, lambda: True)():
        pytest.skip(f"{name} needs what this installation does not have")


def test_every_promised_drill_is_there_and_watches_alerts_that_exist() -> None:
    assert set(DRILLS) == {
        "isolation_failure",
        "controller_timeout",
        "compile_failure",
        "bus_loss",
        "poisoned_policy",
        "forged_command",
        "exploding_seed",
        "full_disk",
    }
    known = {rule.name for rule in RULES}
    assert all(drill.alerts and set(drill.alerts) <= known for drill in DRILLS.values())
    assert all(drill.reactions for drill in DRILLS.values())


def test_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drill"]) == 0
    told = capsys.readouterr().out
    assert all(f"{drill.name} " in told and drill.text in told for drill in DRILLS.values())


def test_one_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drill", "flood"]) == 2
    assert "no drill 'flood'; there are isolation_failure" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("name", DRILLS)
def test_a_drill_shows_alert_reaction_and_recovery(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    skip_unless_possible(name)
    code = main(["drill", name])
    told = capsys.readouterr().out
    assert code == 0, told
    lines = told.splitlines()
    assert lines[-1] == f"PASS {name}"
    failed = next(number for number, line in enumerate(lines) if " failure " in line)
    for alert in DRILLS[name].alerts:
        fires = next(n for n, line in enumerate(lines) if f"{alert}: inactive -> firing" in line)
        over = next(n for n, line in enumerate(lines) if f"{alert}: firing -> resolved" in line)
        assert failed < fires < over
    for reaction in DRILLS[name].reactions:
        assert failed < next(n for n, line in enumerate(lines) if f"reaction  {reaction}:" in line)
    assert lines[-2].endswith("the run ended: finished")


def blind_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_passes, "disturbing", lambda *_: [])


def no_outbox(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: Path) -> None:
        return None

    monkeypatch.setattr(oona, "_outbox", nothing)


def heedless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reloading, "heed", lambda *_: None)


TAKEN_AWAY: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "isolation_failure": (blind_monitor, "kasmina_isolation_violation was never raised"),
    "bus_loss": (no_outbox, "there was no reaction: keep"),
    "poisoned_policy": (heedless, "there was no reaction: take out"),
}


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("name", TAKEN_AWAY)
def test_a_drill_fails_without_the_reaction(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_unless_possible(name)
    take_away, told = TAKEN_AWAY[name]
    take_away(monkeypatch)
    monkeypatch.setattr(scene, "LIMIT_S", 10.0)
    lines: list[str] = []
    wrong = play(DRILLS[name], lines.append)
    assert any(told in each for each in wrong), wrong
    assert lines[-1] == f"FAIL {name}"
