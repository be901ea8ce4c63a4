"""The callback Nissa: metrics and alerts of real runs, and that it changes nothing."""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from runs import Script, digits_run, plant, same, weights

from esper_lightning.callbacks import find
from esper_lightning.callbacks.nissa import CALIBRATION, Nissa
from esper_lightning.leyline import InvalidArgument
from esper_lightning.nissa.alerts import AlertState
from esper_lightning.nissa.alerts.webhook import Webhook
from esper_lightning.nissa.metrics import names
from esper_lightning.tamiyo import Remote

GROW = {0: [plant()]}
EPOCHS = 4
STEPS = 5 * EPOCHS


def told(nissa: Nissa, name: str) -> float:
    """The sum of a metric's series."""
    assert nissa.registry is not None
    found = [value for each, value in nissa.registry.samples().items() if each.name == name]
    assert found, name
    return sum(found)


class Looks(Callback):
    """Reads the metrics at the end of every epoch, as a scrape would."""

    def __init__(self, nissa: Nissa) -> None:
        self.nissa = nissa
        self.read: list[bytes] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with urllib.request.urlopen(f"http://{self.nissa.address}/metrics", timeout=10) as answer:
            self.read.append(answer.read())


def no_threads() -> bool:
    return not any(thread.name.startswith("nissa") for thread in threading.enumerate())


def test_it_changes_nothing() -> None:
    alone, _, _ = digits_run(Script(GROW))
    nissa = Nissa(port=0, every_s=0.01)
    watched, _, _ = digits_run(Script(GROW), callbacks=[nissa, Looks(nissa)])
    assert same(weights(alone), weights(watched))


def test_a_run_is_told_wherever_it_stands_among_the_callbacks() -> None:
    for reverse in (False, True):
        nissa = Nissa()
        _, kasmina, _ = digits_run(Script(GROW), callbacks=[nissa], reverse=reverse)
        assert nissa.registry is not None
        assert nissa.registry.run == kasmina.run_id
        assert told(nissa, "tolaria_steps_total") == STEPS
        assert told(nissa, "tolaria_step_duration_seconds_count") == STEPS
        assert told(nissa, "tolaria_boundary_duration_seconds_count") == EPOCHS - 1
        assert told(nissa, "tolaria_epochs_total") == EPOCHS
        assert told(nissa, "tolaria_batches_total") > STEPS  # those of validation too
        assert told(nissa, "kasmina_parameters") == kasmina.bed.num_parameters()
        assert told(nissa, "tamiyo_decisions_total") == 1
        assert told(nissa, "tolaria_run_active") == 0
        assert told(nissa, "tolaria_runs_ended_total") == 1
        assert no_threads()


def test_metrics_are_served_while_it_trains_only() -> None:
    nissa = Nissa(port=0)
    looks = Looks(nissa)
    digits_run(Script({}), callbacks=[nissa, looks], epochs=2)
    assert len(looks.read) == 2
    assert b"tolaria_run_active" in looks.read[0]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{nissa.address}/metrics", timeout=5)
    assert no_threads()


class Visits(Callback):
    """Opens the dashboard while it trains, as a browser does."""

    def __init__(self, nissa: Nissa) -> None:
        self.nissa = nissa
        self.page = b""
        self.runs: list[dict[str, Any]] = []
        self.metrics = b""
        self.run: dict[str, Any] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def read(path: str) -> bytes:
            address = f"{self.nissa.dashboard_address}{path}"
            return bytes(urllib.request.urlopen(address, timeout=30).read())

        self.page, self.metrics = read("/"), read("/metrics")
        self.runs = json.loads(read("/api/runs"))
        for each in self.runs:
            self.run = json.loads(read(f"/api/runs/{each['id']}"))


def test_a_run_shows_itself_while_it_trains(tmp_path: Path) -> None:
    alone, _, _ = digits_run(Script(GROW))
    nissa = Nissa(dashboard=0)
    visits = Visits(nissa)
    watched, kasmina, _ = digits_run(
        Script(GROW), callbacks=[nissa, visits], default_root_dir=tmp_path
    )
    assert same(weights(alone), weights(watched))
    assert b"<title>" in visits.page
    assert [each["id"] for each in visits.runs] == [f"this~20process:{kasmina.run_id}"]
    assert b"tolaria_run_active" in visits.metrics
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(nissa.dashboard_address, timeout=5)
    assert {path.name for path in tmp_path.iterdir()} <= {".nissa", "lightning_logs"}
    assert no_threads()


def test_a_second_fit_is_shown_whole_and_leaves_no_second_listener(tmp_path: Path) -> None:
    nissa = Nissa(dashboard=0)
    visits = Visits(nissa)
    model, kasmina, trainer = digits_run(
        Script({}), epochs=1, callbacks=[nissa, visits], default_root_dir=tmp_path
    )
    listeners = len(kasmina._stream._listeners)
    trainer.fit_loop.max_epochs = 5
    trainer.fit(model, datamodule=trainer.datamodule)  # type: ignore[attr-defined]
    assert len(kasmina._stream._listeners) == listeners
    assert [each["run_id"] for each in visits.runs] == [kasmina.run_id]
    assert len(visits.run["curves"]["curves"]["times"]) == visits.run["head"]["epoch"] > 1
    assert no_threads()


def test_a_port_that_is_taken_costs_a_warning(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        nissa = Nissa(port=number, dashboard=number)
        with caplog.at_level(logging.WARNING):
            digits_run(Script({}), callbacks=[nissa], epochs=1, default_root_dir=tmp_path)
    assert "metrics are not served" in caplog.text
    assert "no dashboard on" in caplog.text
    assert nissa.address == nissa.dashboard_address == ""


class Fails(Callback):
    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == 7:
            raise RuntimeError("the power went off")


@pytest.mark.parametrize("reverse", [False, True])
def test_a_run_that_fails_is_told_and_raises_an_alert(
    reverse: bool, caplog: pytest.LogCaptureFixture
) -> None:
    nissa = Nissa(port=0)
    with pytest.raises(RuntimeError, match="power"), caplog.at_level(logging.WARNING):
        digits_run(Script({}), callbacks=[nissa, Fails()], reverse=reverse)
    assert told(nissa, "tolaria_runs_ended_total") == 1
    assert told(nissa, "tolaria_run_active") == 0
    assert nissa.book is not None
    firing = [each.name for each in nissa.book.alerts() if each.state is AlertState.FIRING]
    assert firing == ["tolaria_run_failed"]
    assert "alert tolaria_run_failed" in caplog.text
    assert told(nissa, "nissa_alerts") == 1
    assert no_threads()


class Refuses(Callback):
    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise RuntimeError("not even begun")


def test_a_run_that_never_trained_leaves_nothing_behind() -> None:
    nissa = Nissa(port=0)
    with pytest.raises(RuntimeError, match="not even begun"):
        digits_run(Script({}), callbacks=[nissa, Refuses()], num_sanity_val_steps=1)
    assert no_threads()


class Costs(Callback):
    """Sees what the network's steps cost, as Kasmina counts it."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.flops = find(trainer).costs.per_sample, find(trainer).costs.host_per_sample


def test_the_budget_grows_as_the_network_does() -> None:
    nissa, seen = Nissa(), Costs()
    digits_run(Script(GROW), callbacks=[nissa, seen], epochs=6)
    per_sample, host = seen.flops
    assert per_sample is not None
    assert host is not None
    assert per_sample > host
    assert told(nissa, "tolaria_step_budget_seconds") >= (
        names.STEP_OBJECTIVE_S * per_sample / host * 0.999
    )


def test_boundaries_without_an_answer_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", "the key of these tests")
    nissa = Nissa()
    silent = Remote(url=f"unix://{tmp_path / 'nothing'}", deadline_s=0.05)
    digits_run(silent, callbacks=[nissa], epochs=EPOCHS)
    assert told(nissa, "tamiyo_unanswered_boundaries_total") == silent.num_unanswered == EPOCHS


def test_alerts_are_posted_to_a_webhook() -> None:
    sent: list[bytes] = []
    nissa = Nissa(webhook="http://example.test/alerts")
    assert nissa.webhook is not None
    nissa.webhook = Webhook(nissa.webhook.url, send=lambda url, body, _: sent.append(body))
    with pytest.raises(RuntimeError, match="power"):
        digits_run(Script({}), callbacks=[nissa, Fails()])
    (body,) = [json.loads(each) for each in sent]
    assert body["alerts"][0]["labels"]["alertname"] == "tolaria_run_failed"


def test_without_alerts_there_is_no_watch() -> None:
    nissa = Nissa(alerts=False)
    digits_run(Script({}), callbacks=[nissa], epochs=1)
    assert nissa.book is None


def test_steps_beyond_the_budget_are_slow() -> None:
    tight, wide = Nissa(step_budget_s=1e-9), Nissa(step_budget_s=1e9)
    digits_run(Script({}), callbacks=[tight, wide], epochs=1)
    assert told(tight, "tolaria_slow_steps_total") == told(tight, "tolaria_steps_total") == 5
    assert told(wide, "tolaria_slow_steps_total") == 0
    assert told(tight, "tolaria_step_budget_seconds") == 1e-9


def test_a_run_takes_its_budget_from_its_first_steps() -> None:
    nissa = Nissa()
    digits_run(Script({}), callbacks=[nissa], epochs=EPOCHS)
    assert STEPS == CALIBRATION
    assert told(nissa, "tolaria_step_budget_seconds") >= names.STEP_OBJECTIVE_S
    assert told(nissa, "tolaria_slow_steps_total") == 0


class Dawdles(Callback):
    """One step, after those that the budget is taken from, takes a second longer."""

    def on_before_zero_grad(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == CALIBRATION + 3:
            time.sleep(1.0)


def test_a_step_beyond_the_runs_own_budget_is_slow() -> None:
    nissa = Nissa()
    digits_run(Script({}), callbacks=[nissa, Dawdles()], epochs=EPOCHS + 1)
    assert told(nissa, "tolaria_step_budget_seconds") < 1
    assert told(nissa, "tolaria_slow_steps_total") >= 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"port": -1},
        {"port": "abc"},
        {"port": 65_536},
        {"dashboard": -1},
        {"dashboard": 65_536},
        {"step_budget_s": 0},
        {"every_s": -1},
        {"alerts": "maybe"},
        {"webhook": "file:///x"},
    ],
)
def test_arguments_are_examined(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        Nissa(**arguments)


def test_prometheus_is_imported_by_a_fit_only() -> None:
    code = (
        "import sys; import esper_lightning.callbacks.nissa as n; n.Nissa(); "
        "sys.exit('prometheus_client' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.integration
@pytest.mark.slow
def test_ranks_tell_their_own_and_records_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("nissa_rank.py")
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "nissa",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path)],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(240) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["run"] == second["run"]

    def summed(name: str) -> list[float]:
        return [sum(v for n, _, v in each["told"] if n == name) for each in (first, second)]

    for rank, each in enumerate((first, second)):
        assert {labels["rank"] for _, labels, _ in each["told"]} == {str(rank)}
        assert {labels["run"] for _, labels, _ in each["told"]} == {first["run"]}
    assert summed("tolaria_steps_total") == [9.0, 9.0]
    assert summed("tolaria_epochs_total") == [3.0, 0.0]
    assert summed("tamiyo_decisions_total") == [1.0, 0.0]
