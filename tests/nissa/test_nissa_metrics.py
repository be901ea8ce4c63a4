"""The names of metrics, the registry, and what a scrape shows."""

import contextlib
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from esper_lightning.leyline import InvalidArgument
from esper_lightning.nissa.metrics import METRICS, History, Kind, Series, metric_named, names
from esper_lightning.nissa.metrics.registry import CONTENT_TYPE, MetricsRegistry
from esper_lightning.nissa.metrics.serving import MetricsServer

SUBSYSTEMS = ("tolaria", "kasmina", "tamiyo", "oona", "tezzeret", "nissa")


def value(registry: MetricsRegistry, name: str, **labels: str) -> float | None:
    constant = {"run": registry.run, "rank": "0"}
    found = registry.samples()
    return found.get(Series(name, tuple(sorted((constant | labels).items()))))


@pytest.mark.parametrize("name", METRICS)
def test_names_follow_the_conventions(name: str) -> None:
    metric = METRICS[name]
    assert re.fullmatch(rf"({'|'.join(SUBSYSTEMS)})_[a-z][a-z_]*[a-z]", name)
    assert name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert not re.search(r"_(ms|millis|minutes|hours|kb|mb|percent)(_|$)", name)
    assert metric.text.endswith(".")
    assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert not {"id", "seed", "seed_id", "step", *names.CONSTANT_LABELS} & set(metric.labels)


def test_the_objective_for_steps_is_the_edge_of_a_bucket() -> None:
    assert names.STEP_OBJECTIVE_S in names.STEP_DURATION.buckets


def test_a_metric_is_found_by_name() -> None:
    assert metric_named("tolaria_steps_total") is names.STEPS
    with pytest.raises(InvalidArgument, match="no metric 'tolaria_stepz'"):
        metric_named("tolaria_stepz")


def test_counters_are_there_before_they_rise() -> None:
    registry = MetricsRegistry(run="r1")
    for metric in METRICS.values():
        if metric.kind is Kind.COUNTER and not metric.labels:
            assert value(registry, metric.name) == 0.0
    assert value(registry, "tolaria_objective") is None


def test_a_child_is_made_once_and_only_as_its_metric_says() -> None:
    registry = MetricsRegistry(run="r1")
    assert registry.counter(names.STEPS) is registry.counter(names.STEPS)
    with pytest.raises(InvalidArgument, match="is a counter with the labels"):
        registry.gauge(names.ROLLBACKS, "x")
    with pytest.raises(InvalidArgument, match="is a counter, no Gauge"):
        registry.gauge(names.STEPS)
    with pytest.raises(InvalidArgument, match="with the labels"):
        registry.counter(names.DECISIONS)


def test_another_run_begins_at_nothing() -> None:
    registry = MetricsRegistry(run="r1", rank=0)
    registry.counter(names.STEPS).inc(3)
    registry.gauge(names.OBJECTIVE).set(0.5)
    registry.name_run("r1")
    assert value(registry, "tolaria_steps_total") == 3
    registry.name_run("r2")
    assert value(registry, "tolaria_steps_total") == 0
    assert {dict(each.labels)["run"] for each in registry.samples()} == {"r2"}


def test_processes_differ_by_rank() -> None:
    first, second = MetricsRegistry(run="r", rank=0), MetricsRegistry(run="r", rank=1)
    assert not first.samples().keys() & second.samples().keys()


def test_a_dropped_series_is_told_no_more() -> None:
    registry = MetricsRegistry(run="r1")
    registry.gauge(names.SEED_ALPHA, "a").set(0.5)
    registry.drop(names.SEED_ALPHA, "a")
    registry.drop(names.SEED_ALPHA, "never")
    assert value(registry, "kasmina_seed_alpha_ratio", slot="a") is None
    registry.gauge(names.SEED_ALPHA, "a").set(0.25)
    assert value(registry, "kasmina_seed_alpha_ratio", slot="a") == 0.25


def full_registry() -> MetricsRegistry:
    registry = MetricsRegistry(run="r1")
    for metric in METRICS.values():
        labels = ['odd "slot"\\\n' for _ in metric.labels]
        if metric.kind is Kind.COUNTER:
            registry.counter(metric, *labels).inc()
        elif metric.kind is Kind.GAUGE:
            registry.gauge(metric, *labels).set(0.5)
        else:
            registry.histogram(metric, *labels).observe(0.02)
    return registry


def test_a_scrape_has_every_metric_and_nothing_else() -> None:
    families = list(text_string_to_metric_families(full_registry().exposition().decode()))
    assert {family.name.removesuffix("_total") for family in families} == {
        name.removesuffix("_total") for name in METRICS
    }
    odd = {
        sample.labels["slot"] for f in families for sample in f.samples if "slot" in sample.labels
    }
    assert odd == {'odd "slot"\\\n'}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_no_fault_with_a_scrape() -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=full_registry().exposition(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_only_metrics_are_served_and_to_this_machine_only() -> None:
    registry = full_registry()
    server = MetricsServer(registry, 0)
    try:
        assert server.address.startswith("127.0.0.1:")
        with urllib.request.urlopen(f"http://{server.address}/metrics?x=1", timeout=5) as answer:
            assert answer.headers["Content-Type"] == CONTENT_TYPE
            assert answer.read() == registry.exposition()
        for path in ("/", "/metrics/../etc/passwd", "/metricsx"):
            with pytest.raises(urllib.error.HTTPError, match="404") as refused:
                urllib.request.urlopen(f"http://{server.address}{path}", timeout=5)
            refused.value.close()
    finally:
        server.close()
    server.close()
    assert not any(thread.name == "nissa-metrics" for thread in threading.enumerate())


def test_who_says_nothing_holds_no_thread_and_few_are_answered_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("esper_lightning.nissa.metrics.serving.MAX_ANSWERING", 2)
    monkeypatch.setattr("esper_lightning.nissa.metrics.serving.REQUEST_S", 0.5)
    server = MetricsServer(full_registry(), 0)
    host, _, port = server.address.partition(":")
    try:
        slow = [socket.create_connection((host, int(port)), timeout=10) for _ in range(4)]
        for line in slow:
            line.sendall(b"GET /metrics HTTP/1.1\r\nX: ")  # and no more
            with contextlib.suppress(ConnectionResetError):
                assert line.recv(1) == b""
            line.close()
        assert scraped_in_the_end(server.address) == 200
    finally:
        server.close()


def scraped_in_the_end(address: str) -> int:
    """A thread is free again a moment after its line was cut, and a busy machine is slow to ask."""
    for _ in range(40):
        url = f"http://{address}/metrics"
        with contextlib.suppress(ConnectionError), urllib.request.urlopen(url, timeout=10) as found:
            return int(found.status)
        time.sleep(0.25)
    return 0


def test_a_history_forgets_and_time_runs_forward() -> None:
    one = Series("tolaria_steps_total")
    history = History(frozenset({one.name}), 60.0)
    for at in range(0, 1_000, 10):
        history.append(float(at), {one: 1.0 * at, Series("else"): 1.0})
    assert len(next(history.ranges(one.name, 1e9))[1]) <= 38
    assert list(history.ranges("else", 60.0)) == []
    with pytest.raises(InvalidArgument, match="backwards"):
        history.append(1.0, {})
