"""Requests that mean no good, and files that do not."""

import json
import socket
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import TOKEN, served, write_run
from starlette.testclient import TestClient
from synthetic_run import synthetic_run

from esper_lightning.nissa.server import create_app
from esper_lightning.nissa.server.folders import JournalTail
from esper_lightning.nissa.server.guard import MAX_BODY_BYTES, MAX_CLIENTS, Allowance
from esper_lightning.nissa.server.mission import MAX_VIEWERS

PLENTY = (1e6, 1e6)
EVENTS = synthetic_run(("features.0",), 6)


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile")
    write_run(root / "runs" / "one", EVENTS)
    (root / "secret.txt").write_text("secret")
    app = create_app(
        runs=[root / "runs"], folder=root / "kept", token=TOKEN, reads=PLENTY, changes=PLENTY
    )
    app.state.mission.look()
    return app


@pytest.fixture(scope="module")
def client(app):
    return TestClient(app, base_url="http://127.0.0.1")


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/..%2f..%2fsecret.txt",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/....//secret.txt",
        "/index.html%00.js",
        "/app.js/../../secret.txt",
        "/__init__.py",
        "/api/runs/..%2f..%2fsecret.txt",
        "/api/runs/%00",
    ],
)
def test_no_path_leads_out(app, path):
    # Sent as it is: a client would tidy the path up.
    with served(app) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as line:
            line.sendall(
                f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
            )
            answer = b"".join(iter(lambda: line.recv(65536), b""))
    assert answer.split()[1] in (b"404", b"400")
    assert b"secret" not in answer.partition(b"\r\n\r\n")[2]
    app.state.mission.feed.closed = False


@settings(max_examples=60, deadline=None)
@given(path=st.binary(max_size=60), query=st.binary(max_size=60))
def test_no_address_breaks_it(client, path, query):
    answer = client.get("/x" + quote(path))
    assert answer.status_code == 404
    assert client.get("/api/runs/x" + quote(path, safe="")).status_code == 404
    assert client.get("/api/events?q=" + quote(query)).status_code == 200


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit=٣", "q=" + "x" * 201]
)
def test_a_search_has_bounds(client, query):
    answer = client.get(f"/api/events?{query}")
    assert answer.status_code == 400
    assert "limit is 1 to 1000" in answer.json()["error"]


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        TOKEN,
        f"Basic {TOKEN}",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer " + "x" * 9000,
        "Bearer \xff",
    ],
)
def test_without_the_token_nothing_changes(client, header):
    headers = {} if header is None else {"authorization": header.encode("latin-1")}
    answer = client.post("/api/alerts/x/ack", headers=headers, json={"who": "Eve"})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"who":1}', b'{"who":"a","x":1}', b"\xff\xfe", b"[" * 4000],
)
def test_a_body_that_is_none_is_refused(client, body):
    headers = {"authorization": f"Bearer {TOKEN}"}
    answer = client.post("/api/alerts/x/ack", headers=headers, content=body)
    assert answer.status_code == 400


def test_a_long_body_is_refused_whatever_is_said_of_it(client):
    headers = {"authorization": f"Bearer {TOKEN}"}
    long = b"x" * (MAX_BODY_BYTES + 1)
    assert client.post("/api/alerts/x/ack", headers=headers, content=long).status_code == 413
    parts = (b"x" * 1000 for _ in range(6))  # sent in chunks, without a length
    assert client.post("/api/alerts/x/ack", headers=headers, content=parts).status_code == 413
    lies = headers | {"content-length": "-5"}
    assert client.post("/api/alerts/x/ack", headers=lies, content=b"{}").status_code == 413


def test_who_has_no_token_is_refused_before_a_body_that_never_comes(app):
    with served(app) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as line:
            head = f"POST /api/alerts/x/ack HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n\r\n"
            line.sendall(head.encode() + b"{")
            assert line.recv(65536).split()[1] == b"401"
    app.state.mission.feed.closed = False


def test_only_what_is_offered_is_answered(client):
    assert client.post("/api/runs").status_code == 405
    assert client.delete("/api/alerts/x/ack").status_code == 405
    assert client.get("/api/alerts/x/ack").status_code == 405
    assert client.get("/api/stream", params={"run": list("abcdef")}).status_code == 400


def test_another_name_of_the_host_is_refused(client):
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        assert client.get("/api/runs", headers={"host": host}).status_code == 400
    assert client.get("/api/runs", headers={"host": "localhost:8000"}).status_code == 200


def test_every_answer_has_the_security_headers(client):
    for path in ("/", "/health", "/nothing", "/api/runs"):
        headers = client.get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_who_asks_too_much_waits(tmp_path):
    app = create_app(runs=[], folder=tmp_path, token=TOKEN, reads=(1.0, 3.0), changes=(0.01, 2.0))
    client = TestClient(app, base_url="http://127.0.0.1")
    assert [client.get("/health").status_code for _ in range(4)] == [200, 200, 200, 429]
    answers = [client.post("/api/alerts/x/ack") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert int(answers[-1].headers["retry-after"]) > 60


def test_other_addresses_of_one_machine_have_no_allowance_of_their_own(tmp_path):
    app = create_app(runs=[], folder=tmp_path, token=TOKEN, reads=(0.01, 1.0))

    def status(address):
        client = TestClient(app, base_url="http://127.0.0.1", client=(address, 1))
        return client.get("/health").status_code

    asked = ["2001:db8::1", "2001:db8::2", "fe80::1%eth0", "fe80::2%eth0", "2001:db8:0:1::1"]
    assert [status(address) for address in asked] == [200, 429, 200, 429, 200]
    others = ["::ffff:192.0.2.1", "::ffff:192.0.2.2", "192.0.2.3", "192.0.2.4", "no:address"]
    assert [status(address) for address in others] == [200] * 5


def test_an_allowance_fills_up_again_and_remembers_few():
    now = [0.0]
    allowance = Allowance(2.0, 2.0, clock=lambda: now[0])
    assert [allowance.take("a") for _ in range(3)] == [0, 0, 0.5]
    now[0] = 0.5
    assert allowance.take("a") == 0
    assert allowance.take("a") > 0
    for number in range(3 * MAX_CLIENTS):
        allowance.take(str(number))
    assert len(allowance._left) == MAX_CLIENTS


def test_no_more_viewers_than_fit(app, client, monkeypatch):
    monkeypatch.setattr(app.state.mission, "num_viewers", MAX_VIEWERS)
    assert client.get("/api/stream").status_code == 503


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400))
def test_a_journal_of_anything_breaks_nothing(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "events.jsonl"
    path.write_bytes(data)
    assert JournalTail(path).read().events == ()


def test_what_a_run_says_is_no_html(tmp_path, client):
    # The page makes text of it, never markup: the code that would is not there.
    for name in ("app.js", "charts.js", "drawing.js", "network.js", "panels.js", "stream.js"):
        text = client.get(f"/{name}").text
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert way not in text


def test_the_description_holds(app):
    schemathesis = pytest.importorskip("schemathesis")
    document = json.loads(TestClient(app, base_url="http://127.0.0.1").get("/openapi.json").text)
    del document["paths"]["/api/stream"]  # has no end
    schema = schemathesis.openapi.from_dict(document)
    schema.app = app
    count = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        raw = operation.definition.raw
        places = {parameter["in"] for parameter in raw.get("parameters", ())}
        takes = "requestBody" in raw or "query" in places  # any text is a path
        modes = schemathesis.GenerationMode if takes else [schemathesis.GenerationMode.POSITIVE]
        for mode in modes:

            @settings(
                max_examples=15,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def holds(case):
                answer = case.call(base_url="http://127.0.0.1")
                assert answer.status_code < 500
                case.validate_response(answer)

            holds()
            count += 1
    assert count > 10
