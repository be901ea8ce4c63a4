"""What mission control answers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from served import TOKEN, write_run
from starlette.testclient import TestClient
from synthetic_run import RUN_ID, synthetic_run

from esper_lightning.leyline import (
    AlarmLevel,
    Intervention,
    InvalidArgument,
    RunEnded,
    RunSummary,
    SystemState,
    encode,
)
from esper_lightning.nissa.alerts import AlertBook
from esper_lightning.nissa.events.store import EventStore
from esper_lightning.nissa.journal import JOURNAL_NAME
from esper_lightning.nissa.server import create_app
from esper_lightning.nissa.server.accountability import TOKEN_NAME, AuditLog, token_from
from esper_lightning.nissa.server.sources import Listener
from esper_lightning.nissa.server.watch import RunWatch

EVENTS = synthetic_run(("features.0", "features.1"), 12, seed=3)
ROLLBACK = Intervention(
    run_id=RUN_ID, epoch=5, step=60, level=AlarmLevel.SEVERE, alarm="loss is NaN", restored=4
)

SUMMARY = RunSummary(
    run_id=RUN_ID,
    outcome="failed: no space is left",
    seed=0,
    host="MLP",
    policy="heuristic",
    incubation="direct",
    epochs=6,
    steps=70,
    validation={},
    test={},
    host_parameters=1702,
    parameters=1702,
    host_flops_per_sample=None,
    flops_per_sample=None,
    host_training_flops=None,
    training_flops=None,
    wall_s=1.0,
    grown=(),
    culled=(),
    versions={},
)


@pytest.fixture
def made(tmp_path):
    """Mission control over one live run in which an epoch was undone, after one look for news."""
    write_run(tmp_path / "runs" / "one", [*EVENTS[:30], ROLLBACK])
    app = create_app(runs=[tmp_path / "runs"], folder=tmp_path / "kept", token=TOKEN)
    app.state.mission.look()
    return app


@pytest.fixture
def client(made):
    return TestClient(made, base_url="http://127.0.0.1")


def acknowledged(client, alert_id, token=TOKEN, who="Ada"):
    headers = {"authorization": f"Bearer {token}"}
    return client.post(f"/api/alerts/{alert_id}/ack", headers=headers, json={"who": who})


def test_health_status_and_the_page(client):
    assert client.get("/health").json()["status"] == "ok"
    status = client.get("/api/status").json()
    assert (status["runs"], status["live"], status["open"], status["viewers"]) == (1, 1, 1, 0)
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    tag = page.headers["etag"]
    assert client.get("/", headers={"if-none-match": tag}).status_code == 304
    assert client.get("/app.js").headers["content-type"].startswith("text/javascript")


def test_the_page_asks_nobody_else_for_anything(client):
    for name in ("/", "/style.css", "/app.js", "/charts.js", "/network.js", "/panels.js"):
        text = client.get(name).text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text
    assert "<script>" not in client.get("/").text
    assert "style=" not in client.get("/").text


def test_runs_and_one_run(client):
    (entry,) = client.get("/api/runs").json()
    assert (entry["name"], entry["run_id"], entry["live"]) == ("one", RUN_ID, True)
    run = client.get(f"/api/runs/{entry['id']}").json()
    assert [lane["slot"] for lane in run["lanes"]] == ["features.0", "features.1"]
    assert run["reasons"][0]["title"] == "governor: severe"
    assert len(run["curves"]["curves"]["times"]) == run["head"]["epoch"]
    assert client.get("/api/metrics/summary").json()[0]["head"] == run["head"]


def test_metrics_of_live_runs_are_one_scrape(client, tmp_path, made):
    rollback = f'tolaria_rollbacks_total{{rank="0",run="{RUN_ID}"}} 1.0'
    assert rollback in client.get("/metrics").text
    write_run(tmp_path / "runs" / "copy", EVENTS[:30])  # a second folder of the same run
    made.state.mission.library.sources[0]._looked = float("-inf")
    made.state.mission.look()
    text = client.get("/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(lines) == len(set(lines)) > 5
    series = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))
    assert f'run="{RUN_ID}"' in text


def test_a_scrape_does_not_say_that_live_runs_stand_still(client):
    # Records tell no batches: a count that stays at 0 would be tolaria_run_stalled to Prometheus.
    text = client.get("/metrics").text
    assert f'tolaria_run_active{{rank="0",run="{RUN_ID}"}} 1.0' in text
    assert "tolaria_batches_total" not in text


def test_a_run_that_is_heard_of_is_never_called_stalled():
    now = [0.0]
    watch = RunWatch(AlertBook(clock=lambda: now[0]))
    watch.hear("one", EVENTS[:30], anew=True)
    for tick in range(80):
        now[0] = 15.0 * tick
        watch.look()
    assert "tolaria_run_stalled" not in {alert.name for alert in watch.book.alerts()}


def test_only_live_runs_raise_alerts(tmp_path):
    run = write_run(tmp_path / "runs" / "old", [*EVENTS[:30], ROLLBACK])
    os.utime(run / JOURNAL_NAME, (1.0, 1.0))
    app = create_app(runs=[tmp_path / "runs"], folder=tmp_path / "kept", token=TOKEN)
    mission = app.state.mission
    mission.look()
    (entry,) = mission.library.entries
    assert mission.library.open(entry.id).reasons[0].title == "governor: severe"
    mission._looked = float("-inf")
    mission.look()
    assert mission.alerts.alerts() == []
    assert b"run=" not in mission.exposition()


@pytest.mark.parametrize("way", ["folder", "listener"])
def test_the_end_of_a_run_that_failed_raises_an_alert(way, tmp_path):
    ended = RunEnded(run_id=RUN_ID, epoch=6, step=70, outcome="failed: no space is left")
    listener = Listener()
    app = create_app(runs=[tmp_path / "runs"], sources=[listener], folder=tmp_path, token=TOKEN)
    mission = app.state.mission

    def tell(events):
        if way == "folder":
            write_run(tmp_path / "runs" / "one", events)
        else:
            for event in events:
                listener.tell(event)
        mission._looked = mission.library.sources[0]._looked = float("-inf")
        mission.look()

    tell(EVENTS[:30])
    assert mission.alerts.alerts() == []
    (tmp_path / "runs" / "one").mkdir(parents=True, exist_ok=True)
    (tmp_path / "runs" / "one" / "summary.json").write_bytes(encode(SUMMARY))
    tell([ended])
    assert [alert.name for alert in mission.alerts.alerts()] == ["tolaria_run_failed"]
    assert b'tolaria_run_active{rank="0",run="%b"} 0.0' % RUN_ID.encode() in mission.exposition()


def test_a_run_whose_journal_was_replaced_is_counted_anew(client, tmp_path, made):
    rollbacks = f'tolaria_rollbacks_total{{rank="0",run="{RUN_ID}"}}'
    assert f"{rollbacks} 1.0" in client.get("/metrics").text
    (entry,) = client.get("/api/runs").json()
    (tmp_path / "runs" / "one" / JOURNAL_NAME).unlink()
    write_run(tmp_path / "runs" / "one", EVENTS[:12])
    made.state.mission.look()
    assert f"{rollbacks} 0.0" in client.get("/metrics").text
    run = client.get(f"/api/runs/{entry['id']}").json()
    epochs = sum(isinstance(event, SystemState) for event in EVENTS[:12])
    assert run["head"]["epoch"] == len(run["curves"]["curves"]["times"]) == epochs
    assert "governor: severe" not in {reason["title"] for reason in run["reasons"]}


def test_lines_that_were_left_out_are_told(client, tmp_path, made):
    with (tmp_path / "runs" / "one" / JOURNAL_NAME).open("ab") as file:
        file.write(b'{"type":"state"}\n' + encode(EVENTS[30]) + b"\n")
    made.state.mission.look()
    (entry,) = client.get("/api/runs").json()
    assert client.get(f"/api/runs/{entry['id']}").json()["head"]["damaged"] == 1


def test_an_alert_is_raised_and_acknowledged_by_whom_and_when(client, tmp_path):
    (alert,) = client.get("/api/alerts").json()
    assert (alert["name"], alert["state"]) == ("tolaria_rollback", "firing")
    answer = acknowledged(client, alert["id"]).json()
    assert answer["state"] == "acknowledged"
    assert answer["acknowledged_by"] == "Ada"
    assert answer["acknowledged"] >= answer["fired"]
    assert client.get("/api/alerts").json() == [answer]
    (line,) = (tmp_path / "kept" / "audit.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert (told["action"], told["target"], told["who"]) == ("acknowledge", alert["id"], "Ada")
    assert told["status"] == 200


def test_what_was_refused_stands_in_the_audit_log(client, tmp_path):
    (alert,) = client.get("/api/alerts").json()
    refused = [
        acknowledged(client, alert["id"], token="x" * 22),
        acknowledged(client, "no such alert"),
        acknowledged(client, alert["id"], who="  "),
    ]
    assert [answer.status_code for answer in refused] == [401, 409, 409]
    assert client.get("/api/alerts").json()[0]["state"] == "firing"
    log = tmp_path / "kept" / "audit.jsonl"
    assert [json.loads(line)["status"] for line in log.read_text().splitlines()] == [401, 409, 409]
    assert TOKEN not in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
def test_what_cannot_be_written_down_is_not_done(client, tmp_path):
    path = tmp_path / "kept" / "audit.jsonl"
    path.parent.mkdir()
    path.symlink_to("/dev/full")  # the kernel says that there is no space left
    (alert,) = client.get("/api/alerts").json()
    answers = [acknowledged(client, alert["id"]), acknowledged(client, alert["id"], token="x" * 22)]
    for answer in answers:
        assert answer.status_code == 503
        assert "nothing was changed" in answer.json()["error"]
    assert client.get("/api/alerts").json() == [alert]
    path.unlink()
    assert acknowledged(client, alert["id"]).json()["state"] == "acknowledged"


def test_events_are_found_by_words(client):
    found = client.get("/api/events", params={"q": "loss nan", "run": RUN_ID}).json()
    assert [each["event"]["type"] for each in found] == ["intervention"]
    assert client.get("/api/events", params={"q": "loss nan", "run": "other"}).json() == []
    planted = client.get("/api/events", params={"q": "plateau", "limit": 2}).json()
    assert len(planted) == 2


def test_a_run_that_is_opened_again_is_not_stored_twice(made):
    mission = made.state.mission
    (entry,) = mission.library.entries
    before = len(mission.events)
    mission.library._open.clear()
    mission.library.sources[0].forget(entry.id)
    mission.library.open(entry.id)
    assert len(mission.events) == before > 10


def test_what_others_keep_is_shown_as_it_is(tmp_path):
    book, store = AlertBook(), EventStore()
    app = create_app(
        runs=[],
        alerts=book,
        events=store,
        exposition=lambda: b"own_total 1\n",
        folder=tmp_path,
        token=TOKEN,
    )
    store.add(ROLLBACK)
    app.state.mission.look()
    client = TestClient(app, base_url="http://127.0.0.1")
    assert client.get("/metrics").text == "own_total 1\n"
    assert len(client.get("/api/events").json()) == 1
    assert client.get("/api/alerts").json() == []
    assert client.get("/api/runs").json() == []
    assert client.get("/api/metrics/summary").json() == []


def test_the_interface_is_described(client, made):
    document = client.get("/openapi.json").json()
    described = set(document["paths"])
    served = {route.path for route in made.routes} - {"/{name}"}
    assert described == served
    for path in described:
        for operation in document["paths"][path].values():
            assert "429" in operation["responses"]


def test_the_token_is_made_once_and_only_its_owner_reads_it(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("NISSA_TOKEN", raising=False)
    token = token_from(tmp_path)
    assert token not in caplog.text
    assert str(tmp_path / TOKEN_NAME) in caplog.text
    assert (tmp_path / TOKEN_NAME).stat().st_mode & 0o777 == 0o600
    assert token_from(tmp_path) == token
    (tmp_path / TOKEN_NAME).chmod(0o644)
    with pytest.raises(InvalidArgument, match="can be read by others"):
        token_from(tmp_path)
    monkeypatch.setenv("NISSA_TOKEN", "short")
    with pytest.raises(InvalidArgument, match="5 characters; it needs 16"):
        token_from(tmp_path)
    monkeypatch.delenv("NISSA_TOKEN")
    (tmp_path / TOKEN_NAME).chmod(0o600)
    (tmp_path / TOKEN_NAME).write_text("")  # whoever made it was killed
    with pytest.raises(InvalidArgument, match="removed is made anew"):
        token_from(tmp_path)


def test_the_audit_log_does_not_grow_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("esper_lightning.nissa.server.accountability.MAX_AUDIT_BYTES", 500)
    log = AuditLog(tmp_path / "audit.jsonl", clock=lambda: 7.0)
    for number in range(50):
        log.write(client="c", action="acknowledge", target=str(number), who="w", status=200)
    assert {path.name for path in tmp_path.iterdir()} == {"audit.jsonl", "audit.jsonl.1"}
    assert log.path.stat().st_size < 1000


TORN = """
import resource, signal, sys
from pathlib import Path
from esper_lightning.nissa.server.accountability import AuditLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = AuditLog(Path(sys.argv[1]))
def write(who):
    log.write(client="", action="acknowledge", target="a", who=who, status=200)
write("first")
free = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (Path(sys.argv[1]).stat().st_size + 10, free[1]))
try:
    write("second")
except OSError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, free)
write("third")
"""


def test_a_line_that_does_not_fit_takes_no_other_with_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    ended = subprocess.run(
        [sys.executable, "-c", TORN, str(path)], capture_output=True, text=True, check=True
    )
    assert "room for a whole line" in ended.stdout
    told = [json.loads(line)["who"] for line in path.read_text().splitlines()]
    assert told == ["first", "third"]
