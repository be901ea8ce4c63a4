"""Mission control as a process of its own, and in a thread beside a run."""

import contextlib
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import httpx
import pytest
from lightning.pytorch import Callback
from runs import Script, digits_run, plant, same, weights
from served import TOKEN, write_run
from synthetic_run import RUN_ID, synthetic_run

from esper_lightning.callbacks import find
from esper_lightning.nissa.server import Listener, Serving, create_app
from esper_lightning.nissa.server.beside import MissionControl

EVENTS = synthetic_run(("features.0",), 6)


@contextlib.contextmanager
def started(tmp_path, **environment):
    """``uvicorn ... --factory``, as a person starts it; the process and its address."""
    write_run(tmp_path / "outputs" / "one", EVENTS)
    command = [sys.executable, "-m", "uvicorn", "esper_lightning.nissa.server:create_app"]
    process = subprocess.Popen(
        [*command, "--factory", "--port", "0"],
        cwd=tmp_path,
        env=os.environ | {"NISSA_TOKEN": TOKEN} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            found = re.search(r"running on (http://127\.0\.0\.1:\d+)", line)
            if found:
                break
        else:
            raise AssertionError("it did not start")
        yield process, found.group(1)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_the_streams_of_those_who_watch(tmp_path, number):
    with started(tmp_path) as (process, url):
        viewers = [urllib.request.urlopen(f"{url}/api/stream", timeout=10) for _ in range(3)]
        assert all(viewer.readline() == b"retry: 1000\n" for viewer in viewers)
        process.send_signal(number)
        for viewer in viewers:
            assert b"event: runs" in viewer.read()  # to its end, which is no broken line
        assert process.wait(10) in (0, -number, 130)


def test_it_shows_the_runs_of_its_folder_to_this_machine_alone(tmp_path):
    with started(tmp_path) as (_, url):
        with urllib.request.urlopen(f"{url}/api/stream", timeout=10) as viewer:
            while b'"name":"one"' not in viewer.readline():
                pass
        port = int(url.rpartition(":")[2])
        with socket.socket() as other, pytest.raises(OSError):
            other.connect(("127.0.0.2", port))


def test_a_server_in_a_thread_ends_with_its_streams_and_can_be_closed_twice(tmp_path):
    listener = Listener()
    app = create_app(runs=[], sources=[listener], folder=tmp_path, token=TOKEN, every_s=0.02)
    with Serving(app) as serving:
        for event in EVENTS:
            listener.tell(event)
        viewer = urllib.request.urlopen(f"{serving.address}/api/stream", timeout=10)
        while RUN_ID.encode() not in viewer.readline():
            pass
        port = int(serving.address.rpartition(":")[2])
        with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
            Serving(app, port=port)
    assert viewer.read().endswith(b"\n\n")
    serving.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("nissa-server")]


def test_a_server_beside_a_run_leaves_its_log_files_open(tmp_path):
    handler = logging.FileHandler(tmp_path / "train.log", mode="w")
    log = logging.getLogger("a run")
    log.addHandler(handler)
    try:
        with Serving(create_app(runs=[], folder=tmp_path, token=TOKEN)):
            log.error("while it answers")
        log.error("afterwards")
    finally:
        log.removeHandler(handler)
        handler.close()
    assert (tmp_path / "train.log").read_text() == "while it answers\nafterwards\n"


def test_connections_of_a_server_beside_a_run_are_few_and_do_not_wait_for_ever(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("esper_lightning.nissa.server.serving.MAX_CONNECTIONS", 3)
    with Serving(create_app(runs=[], folder=tmp_path, token=TOKEN)) as serving:
        at = ("127.0.0.1", int(serving.address.rpartition(":")[2]))
        idle = [socket.create_connection(at, timeout=20) for _ in range(5)]
        with pytest.raises(OSError):
            urllib.request.urlopen(f"{serving.address}/health", timeout=20)
        for line in idle:
            with contextlib.suppress(ConnectionResetError):  # one too many
                assert line.recv(1) == b""
            line.close()
        with urllib.request.urlopen(f"{serving.address}/health", timeout=20) as answer:
            assert answer.status == 200


def test_who_leaves_is_no_viewer_any_more(tmp_path):
    app = create_app(runs=[], folder=tmp_path, token=TOKEN, every_s=0.02)
    with Serving(app) as serving:

        def viewers():
            return httpx.get(f"{serving.address}/api/status").json()["viewers"]

        with urllib.request.urlopen(f"{serving.address}/api/stream", timeout=10) as viewer:
            assert viewer.readline() == b"retry: 1000\n"
            assert viewers() == 1
        deadline = time.monotonic() + 20
        while viewers():
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_it_answers_under_the_name_that_it_listens_on(tmp_path, monkeypatch):
    monkeypatch.setenv("NISSA_HOSTS", "box.lan, box")
    mission = MissionControl(
        folder=tmp_path, host="0.0.0.0", port=0, alerts=None, exposition=lambda: b""
    )
    try:
        port = mission.address.rpartition(":")[2]
        for host, status in (("0.0.0.0", 200), ("box.lan", 200), ("evil.example", 400)):
            asked = f"http://127.0.0.1:{port}/health"
            assert httpx.get(asked, headers={"host": f"{host}:{port}"}).status_code == status
    finally:
        mission.close()


class Tells(Callback):
    """Tells a listener everything, as a callback of a run does."""

    def __init__(self, listener):
        self.listener = listener

    def setup(self, trainer, pl_module, stage):
        find(trainer).subscribe(self.listener.tell)


def test_a_run_of_the_same_process_is_shown_and_its_weights_are_the_same(tmp_path):
    grow = {0: [plant()]}
    alone, _, _ = digits_run(Script(grow))
    listener = Listener()
    app = create_app(runs=[], sources=[listener], folder=tmp_path, token=TOKEN, every_s=0.01)
    with Serving(app) as serving:
        viewers = [urllib.request.urlopen(f"{serving.address}/api/stream") for _ in range(3)]
        watched, _, _ = digits_run(Script(grow), callbacks=[Tells(listener)])
        (key,) = (card.id for card in listener.cards())
        with urllib.request.urlopen(f"{serving.address}/api/runs/{key}") as answer:
            told = json.load(answer)
        while told["head"]["outcome"] != "finished":
            with urllib.request.urlopen(f"{serving.address}/api/runs/{key}") as answer:
                told = json.load(answer)
    assert same(weights(alone), weights(watched))
    assert told["head"]["epoch"] == 4
    assert any(lane["marks"] for lane in told["lanes"])
    assert all(b"event: runs" in viewer.read() for viewer in viewers)
