"""The book of alerts: states, acknowledgement, the watch, the webhook."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from scraped_series import series

from esper_lightning.leyline import InvalidArgument, Severity
from esper_lightning.nissa.alerts import Alert, AlertBook, AlertState, Rule
from esper_lightning.nissa.alerts.book import MAX_RESOLVED
from esper_lightning.nissa.alerts.expressions import Now, above
from esper_lightning.nissa.alerts.watch import AlertWatch
from esper_lightning.nissa.alerts.webhook import MAX_WAITING, Webhook, message
from esper_lightning.nissa.metrics import increase, names

RULE = Rule(
    name="deep",
    severity=Severity.WARNING,
    when=above(Now(names.QUEUE_DEPTH), 10),
    for_s=30,
    text="Deep.",
    remedy="Look.",
)
QUEUE = series(names.QUEUE_DEPTH, queue="outbox")
OTHER = series(names.QUEUE_DEPTH, queue="normal")


class Told:
    def __init__(self) -> None:
        self.alerts: list[Alert] = []
        self.now = 0.0
        self.book = AlertBook([RULE], clock=lambda: self.now, tell=self.alerts.append)

    def see(self, at: float, *depths: float) -> list[AlertState]:
        self.now = at
        self.book.observe(dict(zip((QUEUE, OTHER), depths, strict=False)))
        return [alert.state for alert in self.book.alerts()]


def test_an_alert_goes_through_its_states() -> None:
    told = Told()
    assert told.see(0, 5) == []
    assert told.see(15, 11) == [AlertState.PENDING]
    assert told.see(30, 12) == [AlertState.PENDING]
    assert told.see(45, 13) == [AlertState.FIRING]
    (alert,) = told.book.alerts()
    assert (alert.since, alert.fired, alert.value) == (15, 45, 13)
    assert alert.labels["queue"] == "outbox"
    assert told.see(60, 9) == [AlertState.RESOLVED]
    assert [each.state for each in told.alerts] == [AlertState.FIRING, AlertState.RESOLVED]
    assert told.book.alerts()[0].resolved == 60


def test_a_break_begins_the_time_anew() -> None:
    told = Told()
    for at, depth in ((0, 11), (15, 11), (20, 1), (30, 11), (45, 11)):
        assert AlertState.FIRING not in told.see(at, depth)
    assert told.see(60, 11) == [AlertState.FIRING]


def test_a_series_that_ends_resolves_its_alert() -> None:
    told = Told()
    told.see(0, 11)
    told.see(30, 11)
    assert told.see(45) == [AlertState.RESOLVED]


def test_every_series_has_an_alert_of_its_own() -> None:
    told = Told()
    told.see(0, 11, 11)
    assert told.see(30, 11, 1) == [AlertState.FIRING]
    told.see(45, 11, 11)
    told.see(75, 11, 11)
    assert len({alert.id for alert in told.book.alerts()}) == 2


def test_who_acknowledges_and_when_is_kept() -> None:
    told = Told()
    told.see(0, 11)
    told.see(30, 11)
    told.now = 33.0
    (alert,) = told.book.alerts()
    acknowledged = told.book.acknowledge(alert.id, "  Ada ")
    assert (acknowledged.acknowledged_by, acknowledged.acknowledged) == ("Ada", 33.0)
    assert told.see(45, 11) == [AlertState.ACKNOWLEDGED]
    assert told.book.alerts()[0].acknowledged_by == "Ada"
    assert told.book.acknowledge(alert.id, "Grace").acknowledged_by == "Grace"
    assert told.see(60, 1) == [AlertState.RESOLVED]
    assert told.book.alerts()[0].acknowledged_by == "Grace"
    told.see(75, 11)
    assert told.see(105, 11)[0] is AlertState.FIRING  # it came back: nobody looks after this one
    assert told.book.alerts()[0].id != alert.id


def test_what_cannot_be_noted_is_not_acknowledged() -> None:
    def full(_: Alert) -> None:
        raise OSError("no space is left")

    told = Told()
    told.see(0, 11)
    told.see(30, 11)
    (alert,) = told.book.alerts()
    with pytest.raises(OSError, match="no space"):
        told.book.acknowledge(alert.id, "Ada", note=full)
    assert told.book.alerts() == [alert]
    noted: list[Alert] = []
    assert [told.book.acknowledge(alert.id, "Ada", note=noted.append)] == noted


@pytest.mark.parametrize("who", ["", "   ", "a\nb", "x" * 201])
def test_somebody_must_be_named(who: str) -> None:
    told = Told()
    told.see(0, 11)
    told.see(30, 11)
    with pytest.raises(InvalidArgument, match="1 to 200 printable"):
        told.book.acknowledge(told.book.alerts()[0].id, who)


def test_only_what_fires_can_be_acknowledged() -> None:
    told = Told()
    told.see(0, 11)
    (pending,) = told.book.alerts()
    for id in (pending.id, "unknown"):
        with pytest.raises(InvalidArgument, match=r"is firing; firing: none"):
            told.book.acknowledge(id, "Ada")


def test_a_clock_that_is_set_back_does_no_harm() -> None:
    told = Told()
    told.see(100, 11)
    assert told.see(50, 11) == [AlertState.PENDING]
    assert told.see(130, 11) == [AlertState.FIRING]


def test_time_goes_on_after_a_clock_was_set_back_by_a_day() -> None:
    told = Told()
    told.see(86_400, 11)
    told.see(0, 11)
    assert told.see(15, 11) == [AlertState.PENDING]
    assert told.see(30, 11) == [AlertState.FIRING]
    (alert,) = told.book.alerts()
    assert (alert.since, alert.fired) == (86_400, 86_430)
    acknowledged = told.book.acknowledge(alert.id, "Ada").acknowledged
    assert acknowledged is not None
    assert acknowledged >= 86_430
    told.see(86_500, 11)  # it is right again
    told.see(86_510, 1)
    assert told.book.alerts()[0].resolved == 86_510


def test_resolved_alerts_are_bounded() -> None:
    told = Told()
    for number in range(MAX_RESOLVED + 20):
        told.see(100.0 * number, 11)
        told.see(100.0 * number + 30, 11)
        told.see(100.0 * number + 60, 1)
    assert len(told.book.alerts()) == MAX_RESOLVED


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], None),
        ([(0.0, 1.0)], None),
        ([(0.0, 10.0), (60.0, 16.0)], 6.0),
        ([(0.0, 10.0), (30.0, 16.0), (60.0, 2.0)], 8.0),  # 6 until the restart, 2 after it
        ([(0.0, 5.0), (60.0, 5.0)], 0.0),
        ([(15.0, 0.0), (60.0, 9.0)], 9.0),  # not to before the counter was 0
        ([(10.0, 100.0), (50.0, 140.0)], 60.0),  # both ends are near: to the edges
        ([(0.0, 100.0), (19.0, 119.0), (38.0, 138.0)], 47.5),  # the end is far: half a step
    ],
)
def test_the_rise_of_a_counter(points: list[tuple[float, float]], expected: float | None) -> None:
    assert increase(points, since=0.0, until=60.0) == expected


def test_a_watch_looks_until_it_is_closed() -> None:
    looked = threading.Event()
    told = Told()
    count = 0

    def samples() -> dict[Any, float]:
        nonlocal count
        count += 1
        if count >= 3:
            looked.set()
        return {QUEUE: 1.0}

    watch = AlertWatch(told.book, samples, every_s=0.01)
    assert looked.wait(10)
    watch.close()
    seen = count
    watch.close()
    assert count == seen
    assert not any(thread.name == "nissa-alerts" for thread in threading.enumerate())


def fired(value: float = 11.0) -> Iterator[Alert]:
    told = Told()
    told.see(0, value)
    told.see(30, value)
    yield from told.alerts


def test_a_webhook_gets_what_alertmanager_would_send() -> None:
    (alert,) = fired()
    sent: list[Any] = []
    webhook = Webhook(
        "https://example.test/hook", send=lambda url, body, _: sent.append((url, json.loads(body)))
    )
    webhook.tell(alert)
    assert webhook.flush()
    ((url, body),) = sent
    assert url == "https://example.test/hook"
    assert body == message(alert)
    assert (body["version"], body["status"]) == ("4", "firing")
    assert body["alerts"][0]["labels"]["alertname"] == "deep"
    assert body["alerts"][0]["startsAt"] == "1970-01-01T00:00:00Z"


def test_what_a_webhook_does_not_take_waits_in_order_and_is_bounded() -> None:
    (alert,) = fired()
    is_down, sent = True, 0

    def send(url: str, body: bytes, timeout_s: float) -> None:
        nonlocal sent
        if is_down:
            raise ConnectionRefusedError("nobody is there")
        sent += 1

    webhook = Webhook("http://example.test/hook", send=send)
    for _ in range(MAX_WAITING + 5):
        webhook.tell(alert)
    assert not webhook.flush()
    is_down = False
    assert webhook.flush()
    assert (sent, webhook.sent, webhook.dropped) == (MAX_WAITING, MAX_WAITING, 5)


def test_a_slow_webhook_is_left_alone_until_the_next_time() -> None:
    (alert,) = fired()
    webhook = Webhook("http://example.test", timeout_s=0.05, send=lambda *_: time.sleep(0.06))
    for _ in range(10):
        webhook.tell(alert)
    assert not webhook.flush()
    assert 1 <= webhook.sent < 5
    while not webhook.flush():
        pass
    assert (webhook.sent, webhook.dropped) == (10, 0)


def test_a_webhook_that_hangs_does_not_keep_a_run_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("esper_lightning.nissa.alerts.watch.CLOSING_S", 0.1)
    (alert,) = fired()
    hangs, over = threading.Event(), threading.Event()

    def send(url: str, body: bytes, timeout_s: float) -> None:
        hangs.set()
        over.wait(20)

    webhook = Webhook("http://example.test", send=send)
    webhook.tell(alert)
    watch = AlertWatch(Told().book, dict, webhook=webhook)
    assert hangs.wait(10)
    began = time.monotonic()
    watch.close()
    assert time.monotonic() - began < 5
    over.set()
    watch.close()


class Elsewhere(BaseHTTPRequestHandler):
    """A webhook that is not there any more."""

    def do_POST(self) -> None:
        self.send_response(302)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


def test_an_alert_that_is_led_elsewhere_was_not_taken() -> None:
    (alert,) = fired()
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        webhook = Webhook(f"http://127.0.0.1:{server.server_address[1]}/")
        webhook.tell(alert)
        assert not webhook.flush()
        server.shutdown()
    assert webhook.sent == 0


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:///etc/passwd",
        "ftp://host/x",
        "http://",
        "host:80",
        "http://[",
        "http://a..b/",
        "http://host:99999/",
        "http://host/\u00e9",
        "http://host/a b",
        "http://host/a\r\nb",
    ],
)
def test_a_webhook_is_an_http_address(url: str) -> None:
    with pytest.raises(InvalidArgument, match="http or https"):
        Webhook(url)
