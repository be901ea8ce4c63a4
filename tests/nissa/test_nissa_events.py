"""The event store, and the sink for Elasticsearch beside a server that speaks its protocol."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from synthetic_run import synthetic_run

from esper_lightning.leyline import (
    Decision,
    InvalidArgument,
    Risk,
    RiskLevel,
    RunEnded,
    SeedStage,
    Signal,
    StageChanged,
    encode,
)
from esper_lightning.nissa.events import EventStore

RUN = synthetic_run(("features.1", "features.2"), 12)


def moved(slot: str, reason: str, run_id: str = "r1") -> StageChanged:
    return StageChanged(
        run_id=run_id,
        epoch=1,
        step=10,
        slot=slot,
        before=SeedStage.TRAINING,
        after=SeedStage.CULLED,
        blueprint="parallel_conv",
        reason=reason,
    )


def test_events_come_back_as_they_were(tmp_path: Path) -> None:
    with EventStore(tmp_path / "below" / "events.sqlite") as store:
        store.add(*RUN)
        assert len(store) == len(RUN)
    with EventStore(tmp_path / "below" / "events.sqlite") as store:
        found = store.search("", 1_000)
        assert [each.event for each in reversed(found)] == RUN
        assert len(store) == len(RUN)


def test_words_find_events() -> None:
    store = EventStore()
    store.add(moved("features.1", "it disturbed its host"), moved("head", "gain below the rent"))
    assert [each.event.slot for each in store.search("disturbed host")] == ["features.1"]
    assert [each.event.slot for each in store.search("REN")] == ["head"]
    assert len(store.search("culled")) == 2
    assert store.search("disturbed rent") == []
    assert store.search("features.1")[0].text.startswith("features.1 TRAINING -> CULLED")


def test_a_search_can_be_of_one_run_and_is_bounded() -> None:
    store = EventStore()
    for number in range(20):
        store.add(moved("head", "rent", run_id=f"r{number % 2}"))
    assert len(store.search("rent", 5)) == 5
    assert {each.event.run_id for each in store.search("rent", run_id="r1")} == {"r1"}
    for limit in (0, 1_001):
        with pytest.raises(InvalidArgument, match="1 to 1000"):
            store.search("rent", limit)


def test_the_oldest_go_and_their_words_too() -> None:
    store = EventStore(most=5)
    store.add(moved("head", "ancient"))
    for number in range(10):
        store.add(moved("head", f"reason{number}"))
    assert len(store) == 5
    assert store.search("ancient") == []
    assert len(store.search("reason")) == 5


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_no_text_is_a_command(text: str) -> None:
    store = EventStore()
    store.add(moved("head", text))
    store.search(text)
    assert len(store) == 1


def test_a_record_that_cannot_be_read_is_left_out() -> None:
    store = EventStore()
    decided = next(event for event in RUN if isinstance(event, Decision))
    risk = Risk(level=RiskLevel.RED, signals={Signal.GRADIENT: float("nan")})
    store.add(RUN[0], replace(decided, risk=risk), RUN[1])  # JSON knows no NaN
    assert [each.event for each in store.search("")] == [RUN[1], RUN[0]]


def test_what_is_no_store_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be looked at as one\n" * 30)
    before = path.read_bytes()
    with pytest.raises(InvalidArgument, match="no event store"):
        EventStore(path)
    assert path.read_bytes() == before


def test_many_threads_add_and_search(tmp_path: Path) -> None:
    store = EventStore(tmp_path / "events.sqlite")
    failed: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(30):
                store.add(moved("head", f"{name} {number}"))
                store.search(name)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(f"thread{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(store) == 120


class Stub:
    """Takes what Elasticsearch's bulk interface takes; refuses as it is told to."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.mappings: dict[str, Any] | None = None
        self.busy = 0
        self.refuse = ""
        stub = self

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                if self.path.startswith("/_bulk"):
                    self._bulk()
                    return
                body = json.loads(self._body())
                if stub.mappings is not None:
                    told = {"type": "resource_already_exists_exception", "reason": "it exists"}
                    self._send(400, {"error": told, "status": 400})
                    return
                stub.mappings = body["mappings"]
                self._send(200, {"acknowledged": True})

            def _bulk(self) -> None:
                lines = [json.loads(line) for line in self._body().splitlines() if line]
                items = [
                    {"index": stub.take(head["index"], source)}
                    for head, source in zip(lines[::2], lines[1::2], strict=True)
                ]
                failed = any(item["index"]["status"] > 299 for item in items)
                self._send(200, {"errors": failed, "items": items})

            def _body(self) -> bytes:
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            def _send(self, status: int, answer: dict[str, Any]) -> None:
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("X-Elastic-Product", "Elasticsearch")
                kind = "application/vnd.elasticsearch+json; compatible-with=9"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, head: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
        answer = {"_index": head["_index"], "_id": head["_id"]}
        if self.busy:
            self.busy -= 1
            return answer | {"status": 429, "error": {"type": "es_rejected_execution_exception"}}
        if self.refuse and self.refuse in source["text"]:
            return answer | {"status": 400, "error": {"type": "document_parsing_exception"}}
        assert self.mappings is not None
        assert source.keys() <= self.mappings["properties"].keys()  # it is strict
        status = 200 if head["_id"] in self.documents else 201
        self.documents[head["_id"]] = source
        return answer | {"status": status, "result": "created"}


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_elasticsearch_takes_every_event_once(stub: Stub) -> None:
    elastic = pytest.importorskip("esper_lightning.nissa.events.elastic")
    sink = elastic.ElasticsearchSink(stub.url, batch=7, clock=lambda: 1_000.0)
    assert sink.add(RUN) == len(RUN)
    assert sink.add(RUN) == len(RUN)
    assert len(stub.documents) == len({encode(event) for event in RUN})
    records = [source["record"] for source in stub.documents.values()]
    assert {record["run_id"] for record in records} == {RUN[0].run_id}
    assert {source["@timestamp"] for source in stub.documents.values()} == {1_000_000}
    sink.close()
    again = elastic.ElasticsearchSink(stub.url)  # the index is there already
    again.close()


def test_a_busy_elasticsearch_is_asked_again(stub: Stub) -> None:
    elastic = pytest.importorskip("esper_lightning.nissa.events.elastic")
    sink = elastic.ElasticsearchSink(stub.url, backoff_s=0.01)
    stub.busy = 2
    assert sink.add(RUN[:5]) == 5
    assert len(stub.documents) == 5
    sink.close()


def test_what_elasticsearch_refuses_is_told(stub: Stub) -> None:
    elastic = pytest.importorskip("esper_lightning.nissa.events.elastic")
    sink = elastic.ElasticsearchSink(stub.url)
    stub.refuse = "finished"
    ended = RunEnded(run_id="r1", epoch=1, step=1, outcome="finished")
    with pytest.raises(elastic.ElasticsearchFailed, match="1 of 2 events were refused"):
        sink.add([moved("head", "rent"), ended])
    assert len(stub.documents) == 1
    sink.close()


def test_an_elasticsearch_that_is_not_there_is_told() -> None:
    elastic = pytest.importorskip("esper_lightning.nissa.events.elastic")
    client = elastic.Elasticsearch("http://127.0.0.1:9", max_retries=0, request_timeout=0.5)
    with pytest.raises(elastic.ElasticsearchFailed, match="was not made"):
        elastic.ElasticsearchSink(client)
    client.close()
