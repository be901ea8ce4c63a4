"""The live stream: what changed is enough to know everything, and nobody waits at the end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import pairwise

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served import TOKEN, served, write_run
from synthetic_run import RUN_ID, synthetic_run

from esper_lightning.leyline import RunStarted, SystemState
from esper_lightning.nissa.server import create_app, run_model
from esper_lightning.nissa.server.feed import Feed, frame
from esper_lightning.nissa.server.run_model import RunModel
from esper_lightning.nissa.server.sources import Listener
from esper_lightning.nissa.server.views import RunPatch

SLOTS = ("features.0", "features.1")


@dataclass
class Page:
    """Applies patches as the dashboard does."""

    sections: dict = field(default_factory=dict)
    version: int = 0

    def take(self, patch: RunPatch) -> None:
        told = json.loads(msgspec.json.encode(patch))
        if patch.base is None:
            self.sections = {
                name: told.get(name) for name in ("head", "lanes", "layers", "reasons")
            }
            self.sections["curves"] = told["curves"]["curves"]
        else:
            assert patch.base == self.version
            for name in ("head", "lanes", "layers"):
                self.sections[name] = told.get(name, self.sections[name])
            news = told.get("reasons", []) + (self.sections["reasons"] or [])
            self.sections["reasons"] = news[: run_model.MAX_REASONS]
            if "curves" in told:
                first, columns = told["curves"]["first"], told["curves"]["curves"]
                old = self.sections["curves"]
                self.sections["curves"] = {n: old[n][:first] + columns[n] for n in columns}
        self.version = patch.version


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 99),
    cuts=st.lists(st.integers(0, 400), max_size=8),
    resumes=st.booleans(),
)
def test_patches_lead_to_the_same_as_everything_at_once(seed, cuts, resumes):
    events = synthetic_run(SLOTS, 25, seed=seed)
    if resumes:  # the last epochs are told a second time
        events = [*events[:-1], events[0], *synthetic_run(SLOTS, 25, seed=seed)[-60:]]
    model, page = RunModel("run"), Page()
    bounds = sorted({0, len(events), *(min(cut, len(events)) for cut in cuts)})
    for start, end in pairwise(bounds):
        model.take(events[start:end])
        patch = model.patch()
        if patch is not None:
            page.take(patch)
    whole, told = model.whole(), Page()
    told.take(whole)
    assert page.sections == told.sections
    assert model.patch() is None


def test_a_later_epoch_is_told_in_a_few_points():
    events = synthetic_run(SLOTS, 200, seed=1)
    states = [i for i, event in enumerate(events) if isinstance(event, SystemState)]
    model = RunModel("run")
    model.take(events[: states[-2] + 1])
    model.patch()
    model.take(events[states[-2] + 1 : states[-1] + 1])
    patch = model.patch()
    assert patch.curves.first == len(states) - 1
    assert len(patch.curves.curves.times) == 1


def test_ten_thousand_epochs_are_bounded():
    model = RunModel("run")
    for seed in range(4):  # a run that was resumed, with epochs that go on
        for event in synthetic_run(("a", "b"), 2500, seed=seed, plant=0.9):
            if isinstance(event, RunStarted) and seed:
                continue
            if hasattr(event, "epoch"):
                event = msgspec.structs.replace(event, epoch=event.epoch + 2500 * seed)
            model.take([event])
    model.patch()
    whole = model.whole()
    assert whole.head.epoch == 10_000
    assert len(whole.curves.curves.times) <= 2 * run_model.MAX_POINTS
    assert len(whole.reasons) <= run_model.MAX_REASONS
    assert sum(len(lane.marks) for lane in whole.lanes) <= 2 * run_model.MAX_MOVES
    assert len(msgspec.json.encode(whole)) < 4e6


def test_a_feed_gives_back_what_was_missed_or_says_that_it_cannot():
    feed = Feed(most=3)
    for number in range(5):
        feed.publish("run", "run", str(number).encode())
    assert [message.data for message in feed.since(3, {"run"})] == [b"3", b"4"]
    assert feed.since(3, {"other"}) == []
    assert feed.since(1, {"run"}) is None
    assert feed.since(6, {"run"}) is None
    assert feed.number_of(feed.id_of(4)) == 4
    for strange in (
        "",
        "4",
        "feed-4",
        f"{feed.boot}-",
        f"{feed.boot}-²",
        f"{feed.boot}-" + "9" * 99,
    ):
        assert feed.number_of(strange) is None
    small = Feed(most_bytes=10)
    small.publish("run", "run", b"x" * 8)
    small.publish("run", "run", b"y" * 8)
    assert small.since(0, {"run"}) is None
    assert frame("run", b"{}", "a-1") == b"id: a-1\nevent: run\ndata: {}\n\n"


def test_waiting_ends_with_news_and_with_the_feed():
    async def scenario():
        feed = Feed()
        waiting = asyncio.create_task(feed.wait(0, 30))
        await asyncio.sleep(0)
        feed.publish("run", "run", b"")
        await asyncio.wait_for(waiting, 5)
        waiting = asyncio.create_task(feed.wait(1, 30))
        await asyncio.sleep(0)
        feed.close()
        await asyncio.wait_for(waiting, 5)

    asyncio.run(scenario())


def parts(lines):
    """Events of a stream as (kind, id, data)."""
    kind, number = "", ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "id":
            number = value
        elif name == "event":
            kind = value
        elif name == "data":
            yield kind, number, json.loads(value)


def test_a_viewer_who_comes_back_is_told_what_it_missed(tmp_path):
    listener = Listener("here")
    app = create_app(runs=[], sources=[listener], folder=tmp_path, token=TOKEN, every_s=0.02)
    events = synthetic_run(SLOTS, 20)
    run = f"here:{RUN_ID}"
    half = len(events) // 2
    with served(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        for event in events[:half]:
            listener.tell(event, at=1.0)
        page = Page()
        while not any(each["id"] == run for each in client.get("/api/runs").json()):
            time.sleep(0.02)
        with client.stream("GET", "/api/stream", params={"run": run}) as answer:
            for kind, number, data in parts(answer.iter_lines()):
                if kind == "run":
                    page.take(msgspec.convert(data, RunPatch))
                    last = number
                    break
        version = page.version
        for event in events[half:]:
            listener.tell(event, at=2.0)
        headers = {"last-event-id": last}
        with client.stream("GET", "/api/stream", params={"run": run}, headers=headers) as answer:
            for kind, _, data in parts(answer.iter_lines()):
                if kind == "run":
                    patch = msgspec.convert(data, RunPatch)
                    if patch.version <= page.version:
                        continue
                    assert patch.base is not None
                    page.take(patch)
                    if page.sections["head"]["outcome"]:
                        break
        assert page.version > version
        whole = client.get(f"/api/runs/{run}").json()
        assert page.sections["lanes"] == whole["lanes"]
        assert page.sections["reasons"] == whole["reasons"]
        assert page.sections["curves"] == whole["curves"]["curves"]


@pytest.mark.integration
@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
def test_an_open_stream_does_not_keep_the_server_from_ending(tmp_path):
    write_run(tmp_path / "runs" / "one", synthetic_run(SLOTS, 5))
    environment = os.environ | {
        "ESPER_RUNS": str(tmp_path / "runs"),
        "NISSA_FOLDER": str(tmp_path / "kept"),
    }
    command = "-m uvicorn esper_lightning.nissa.server:create_app --factory --port 0"
    process = subprocess.Popen(
        [sys.executable, *command.split()],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        url = next(line.split()[-5] for line in process.stderr if "running on" in line)
        with httpx.stream("GET", f"{url}/api/stream", timeout=20) as answer:
            open_stream = parts(answer.iter_lines())  # kept: what nobody holds is closed
            next(open_stream)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "kept" / "token").stat().st_mode & 0o077 == 0
