"""The rule table: what Prometheus makes of it, and that our book makes the same."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from scraped_series import Course, by_the_book, drawn_course, promtool_test, series

from esper_lightning.nissa.alerts import RULES
from esper_lightning.nissa.alerts.rule_file import rule_file
from esper_lightning.nissa.metrics import METRICS, names, series_names

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool comes with Prometheus and is not installed"
)
HOUR = 240  # scrapes


def test_the_alerts_that_were_promised_are_there() -> None:
    promised = {
        "training_latency_high",
        "kasmina_isolation_violation",
        "oona_queue_depth",
        "tezzeret_compile_retry_high",
        "tolaria_rollback",
        "tamiyo_conservative_mode",
        "oona_rejected_signatures",
        "tolaria_run_stalled",
        "oona_dead_letters",
    }
    told = [rule.name for rule in RULES]
    assert promised <= set(told)
    assert len(told) == len(set(told))


def test_rules_look_at_metrics_that_exist() -> None:
    known = {name for metric in METRICS.values() for name in series_names(metric)}
    asked = set(re.findall(r"\b(?:tolaria|kasmina|tamiyo|oona|tezzeret)_[a-z_]+", rule_file()))
    assert asked - {rule.name for rule in RULES} <= known
    for rule in RULES:
        assert {METRICS[each.name] for each in rule.when.metrics()} == rule.when.metrics()


def test_every_rule_says_what_is_wrong_and_what_to_do() -> None:
    for rule in RULES:
        assert rule.text.endswith(".")
        assert rule.remedy.endswith(".")
        assert rule.for_s % 15 == 0


@needs_promtool
def test_promtool_takes_the_rule_file(tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    path.write_text(rule_file(), encoding="utf-8")
    done = subprocess.run(
        ["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def rising(*values: float, ticks: int = 80) -> list[float | None]:
    return [*values, *[values[-1]] * (ticks - len(values))]


COURSES: dict[str, tuple[Course, str]] = {
    "one step in ten is slow": (
        {
            series(names.STEPS): [float(20 * tick) for tick in range(80)],
            series(names.SLOW_STEPS): [float(2 * tick) for tick in range(80)],
        },
        "training_latency_high",
    ),
    "a violation that the first scrape sees already": (
        {series(names.ISOLATION_VIOLATIONS): rising(1.0)},
        "kasmina_isolation_violation",
    ),
    "a violation later": (
        {series(names.ISOLATION_VIOLATIONS): rising(*[0.0] * 40, 1.0)},
        "kasmina_isolation_violation",
    ),
    "a full outbox": (
        {series(names.QUEUE_DEPTH, queue="outbox"): rising(*[0.0] * 9, 1001.0)},
        "oona_queue_depth",
    ),
    "compiling fails": (
        {series(names.COMPILE_RETRIES): [float(tick // 8) for tick in range(80)]},
        "tezzeret_compile_retry_high",
    ),
    "an epoch is undone": (
        {series(names.ROLLBACKS): rising(*[0.0] * 20, 1.0)},
        "tolaria_rollback",
    ),
    "conservative": (
        {series(names.CONSERVATIVE): rising(*[0.0] * 20, 1.0)},
        "tamiyo_conservative_mode",
    ),
    "the controller is silent": (
        {series(names.UNANSWERED): rising(*[0.0] * 20, 1.0)},
        "tamiyo_controller_silent",
    ),
    "forged": (
        {series(names.REJECTED_SIGNATURES): rising(*[0.0] * 20, 3.0)},
        "oona_rejected_signatures",
    ),
    "nothing moves": (
        {
            series(names.BATCHES): rising(*[float(tick) for tick in range(20)]),
            series(names.RUN_ACTIVE): rising(1.0),
        },
        "tolaria_run_stalled",
    ),
    "dead letters": (
        {series(names.DEAD_LETTERS, queue="normal"): rising(*[0.0] * 5, 2.0)},
        "oona_dead_letters",
    ),
    "failed": (
        {series(names.RUNS_ENDED, outcome="failed"): [None] * 30 + rising(1.0, ticks=50)},
        "tolaria_run_failed",
    ),
    "the budget burns": (
        {
            series(names.STEPS): [float(20 * tick) for tick in range(HOUR)],
            series(names.SLOW_STEPS): [float(4 * tick) for tick in range(HOUR)],
        },
        "slo_step_latency_burns_fast",
    ),
}


@pytest.mark.parametrize("name", COURSES)
def test_a_course_raises_its_alert(name: str) -> None:
    course, alert = COURSES[name]
    told = by_the_book(course, range(max(len(values) for values in course.values())))
    firing = {tick for tick, found in told.items() if (alert, "firing") in {t[:2] for t in found}}
    assert firing
    assert 0 not in firing or name == "a violation that the first scrape sees already"


def test_nothing_wrong_raises_nothing() -> None:
    course: Course = {
        series(names.STEPS): [float(20 * tick) for tick in range(HOUR)],
        series(names.SLOW_STEPS): [float(tick // 20) for tick in range(HOUR)],
        series(names.BATCHES): [float(20 * tick) for tick in range(HOUR)],
        series(names.RUN_ACTIVE): rising(1.0, ticks=HOUR),
        series(names.QUEUE_DEPTH, queue="outbox"): rising(3.0, ticks=HOUR),
        series(names.ROLLBACKS): rising(0.0, ticks=HOUR),
        series(names.CONSERVATIVE): rising(0.0, ticks=HOUR),
    }
    assert not any(by_the_book(course, range(HOUR)).values())


@needs_promtool
def test_promtool_and_the_book_agree_on_what_was_meant(tmp_path: Path) -> None:
    courses = {}
    for name, (course, _) in COURSES.items():
        ticks = range(0, max(len(values) for values in course.values()), 3)
        courses[name] = (course, by_the_book(course, ticks))
    done = promtool_test(courses, tmp_path)
    assert done.returncode == 0, (done.stdout + done.stderr)[:4_000]


@needs_promtool
@pytest.mark.slow
def test_promtool_and_the_book_agree_on_drawn_courses(tmp_path: Path) -> None:
    courses = {}
    for seed in range(12):
        course = drawn_course(seed, 150)
        courses[f"seed {seed}"] = (course, by_the_book(course, range(seed % 3, 150, 7)))
    expected = [
        found for _, by_tick in courses.values() for each in by_tick.values() for found in each
    ]
    assert len({(name, state) for name, state, _ in expected}) > 20  # it is no empty agreement
    done = promtool_test(courses, tmp_path)
    assert done.returncode == 0, (done.stdout + done.stderr)[:4_000]


@needs_promtool
def test_promtool_sees_where_the_book_would_be_wrong(tmp_path: Path) -> None:
    course = COURSES["forged"][0]
    told = by_the_book(course, [25])
    assert promtool_test({"right": (course, told)}, tmp_path).returncode == 0
    told[25] = {(name, "pending", labels) for name, _, labels in told[25]}
    assert promtool_test({"wrong": (course, told)}, tmp_path).returncode != 0
