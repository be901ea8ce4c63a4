"""The commands on a store of experience."""

import argparse
import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from bus_helpers import bus_at, until
from servers import started
from synthetic_runs import events, written

from esper_lightning.leyline import InvalidArgument, Signer
from esper_lightning.oona import Settings
from esper_lightning.simic.experience import Experience
from esper_lightning.simic.experience.command import add_parsers


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def do(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    add_parsers(parser.add_subparsers(required=True))
    asked = parser.parse_args(arguments)
    asked.do(asked)


def test_runs_are_gathered_and_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    written(tmp_path / "runs" / "alone", version=None)
    written(tmp_path / "runs" / "run", version=3)
    store = str(tmp_path / "experience.sqlite")
    do("gather", str(tmp_path / "runs"), "--store", store)
    assert "1 recordings" in caplog.text
    do("show", "--store", store)
    (line,) = capsys.readouterr().out.splitlines()
    assert "run run from run  MLP of 100 parameters, 3 epochs, seed 0  learned 3" in line
    assert "3 boundaries  utility +" in line
    with pytest.raises(InvalidArgument):
        do("gather", str(tmp_path / "nothing"), "--store", store)


def test_it_listens_until_it_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    key = b"the key of these tests"
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", key.decode())
    store = tmp_path / "experience.sqlite"
    with started("embedded") as server, bus_at(server.url, Signer(key)) as bus:
        monkeypatch.setattr(Settings, "from_environment", lambda _: bus.settings)
        for each in [*events("alone", version=None), *events("run")]:
            bus.add(each)

        def interrupt() -> None:
            try:
                with Experience(store) as experience:
                    until(lambda: len(experience))
            finally:
                signal.raise_signal(signal.SIGTERM)

        thread = threading.Thread(target=interrupt)
        thread.start()
        do("listen", "--store", str(store), "--url", server.url)
        thread.join()
    assert "added      1" in caplog.text
