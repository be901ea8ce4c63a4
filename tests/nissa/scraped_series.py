"""Synthetic scrapes, worked out by Prometheus's own promtool and by our book of alerts."""

import json
import random
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from esper_lightning.nissa.alerts import RULES, AlertBook, AlertState
from esper_lightning.nissa.alerts.rule_file import EVALUATION_S, rule_file
from esper_lightning.nissa.metrics import Kind, Metric, Series, names

LABELS = (("rank", "0"), ("run", "r1"))

Course = Mapping[Series, Sequence[float | None]]
"""By series, its value at every scrape; None where it was not there."""

Told = tuple[str, str, tuple[tuple[str, str], ...]]
"""Name, state and labels of an alert."""


def series(metric: Metric, **labels: str) -> Series:
    return Series(metric.name, tuple(sorted((*LABELS, *labels.items()))))


def by_the_book(course: Course, at: Sequence[int]) -> dict[int, set[Told]]:
    """Alerts that are active after the scrapes of these numbers."""
    book = AlertBook(clock=lambda: 0.0)
    told: dict[int, set[Told]] = {}
    for tick in range(max(at) + 1):
        samples = {
            each: value
            for each, values in course.items()
            if tick < len(values) and (value := values[tick]) is not None
        }
        book.observe(samples, at=float(tick * EVALUATION_S))
        if tick in at:
            told[tick] = {
                (alert.name, alert.state.value, tuple(sorted(alert.labels.items())))
                for alert in book.alerts()
                if alert.state is not AlertState.RESOLVED
            }
    return told


def promtool_test(
    courses: Mapping[str, tuple[Course, Mapping[int, set[Told]]]], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Let promtool work out the same courses; it fails where it comes to something else."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rules.yml").write_text(rule_file(), encoding="utf-8")
    severities = {rule.name: rule.severity.value for rule in RULES}
    tests = [
        {
            "name": name,
            "interval": f"{EVALUATION_S}s",
            "input_series": [
                {"series": _text(each), "values": " ".join(_values(values))}
                for each, values in course.items()
            ],
            "promql_expr_test": [
                {
                    "expr": "ALERTS",
                    "eval_time": f"{tick * EVALUATION_S}s",
                    "exp_samples": [
                        {"labels": _alerts_text(each, severities), "value": 1}
                        for each in sorted(told)
                    ],
                }
                for tick, told in expected.items()
            ],
        }
        for name, (course, expected) in courses.items()
    ]
    file = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": f"{EVALUATION_S}s",
        "tests": tests,
    }
    path = folder / "tests.yml"
    path.write_text(json.dumps(file), encoding="utf-8")  # JSON is YAML
    return subprocess.run(
        ["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False
    )


def drawn_course(seed: int, ticks: int) -> Course:
    """Counters that rise, stand still and begin anew, gauges that come and go."""
    rng = random.Random(seed)
    watched = sorted(
        {each for rule in RULES for each in rule.when.metrics()}, key=lambda each: each.name
    )
    course: dict[Series, list[float | None]] = {}
    for metric in rng.sample(watched, k=rng.randint(4, len(watched))):
        labels = {name: "failed" if name == "outcome" else "normal" for name in metric.labels}
        drawn = _counter if metric.kind is Kind.COUNTER else _gauge
        course[series(metric, **labels)] = drawn(rng, metric, ticks)
    for part, whole in (
        (names.SLOW_STEPS, names.STEPS),
        (names.DROPPED_MESSAGES, names.PUBLISHED_MESSAGES),
    ):
        if rng.random() < 0.5:
            share = rng.choice([0.0, 0.005, 0.04, 0.06, 0.5])
            total = [float(20 * tick) for tick in range(ticks)]
            course[series(whole)] = [*total]
            course[series(part)] = [float(int(share * value)) for value in total]
    return course


def _counter(rng: random.Random, metric: Metric, ticks: int) -> list[float | None]:
    value, rising, values = float(rng.choice([0, 0, 0, 1, 7])), False, list[float | None]()
    born = rng.choice([0, 0, rng.randrange(ticks)])
    for tick in range(ticks):
        if rng.random() < 0.05:
            rising = not rising
        if rng.random() < 0.01:
            value = 0.0
        if rising:
            value += rng.choice([0, 0, 1, 2, 30])
        is_gone = tick < born or rng.random() < 0.01
        values.append(None if is_gone else value)
    return values


def _gauge(rng: random.Random, metric: Metric, ticks: int) -> list[float | None]:
    low, high = (0.0, 4.0) if metric is names.RISK else (0.0, 2_000.0)
    value, values = low, list[float | None]()
    for _ in range(ticks):
        if rng.random() < 0.05:
            value = rng.choice([low, high, 1.0])
        values.append(None if rng.random() < 0.02 else value)
    return values


def _values(values: Sequence[float | None]) -> list[str]:
    """As promtool reads them: a scrape without the series ends it."""
    told, is_there = [], False
    for value in values:
        told.append(f"{value:g}" if value is not None else "stale" if is_there else "_")
        is_there = value is not None
    return told + (["stale"] if is_there else [])


def _text(each: Series) -> str:
    return _selector(each.name, dict(each.labels))


def _alerts_text(told: Told, severities: Mapping[str, str]) -> str:
    name, state, labels = told
    pairs = dict(labels) | {
        "alertname": name,
        "alertstate": "pending" if state == "pending" else "firing",
        "severity": severities[name],
    }
    return _selector("ALERTS", pairs)


def _selector(name: str, labels: Mapping[str, str]) -> str:
    chosen = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return f"{name}{{{chosen}}}"
