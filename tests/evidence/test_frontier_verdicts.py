"""What gate G4 would have said of cohorts that stayed."""

import pytest
from frontier_rows import KEPT, row, summary

from esper_lightning.evidence.frontier.rows import Judgement, Row
from esper_lightning.evidence.frontier.tables import report
from esper_lightning.evidence.frontier.verdicts import verdicts


def _pair(seed: int, *, after: float, worth: float) -> list[Row]:
    """A flat curve of 1.0, a planting after epoch 3, then ``after``; its twin stays flat."""
    flat = [1.0] * 10
    judged = Judgement(epoch=6, slot="a", planted=3, gain=0.0, rent=0.05)
    return [
        row(
            "inserted",
            seed,
            summary(test=0.9 + worth / 100, grown=[KEPT]),
            objective=[*flat[:4], *[after] * 6],
            judgements=[judged],
        ),
        row("host", seed, summary(test=0.9), objective=flat),
    ]


def test_good_cohorts_are_told_from_bad_ones() -> None:
    rows = [*_pair(0, after=0.5, worth=2.0), *_pair(1, after=1.0, worth=-1.0)]
    told = {(each.age, each.doubt): each for each in verdicts(rows, task="digits")}
    assert set(told) == {(age, doubt) for age in (3, 4, 6) for doubt in (0.0, 0.25, 0.4)}
    for each in told.values():
        assert each.cohorts == 2
        assert each.kept == 0.5
        assert each.worth_kept == pytest.approx(2.0)
        assert each.worth_culled == pytest.approx(-1.0)
        assert each.error == pytest.approx(0.0)


def test_an_age_that_no_cohort_reached_is_left_out() -> None:
    cohort, twin = _pair(0, after=0.5, worth=1.0)
    short = row(
        "inserted",
        0,
        summary(test=0.9, grown=[KEPT]),
        objective=[point.objective or 0.0 for point in cohort.curve[:8]],
        judgements=cohort.judgements,
    )
    assert {each.age for each in verdicts([short, twin], task="digits")} == {3, 4}


def test_without_twins_there_is_nothing_to_say() -> None:
    cohort, _ = _pair(0, after=0.5, worth=1.0)
    assert verdicts([cohort], task="digits") == []
    assert "would have said" not in report([cohort], "the command")


def test_the_report_has_the_table() -> None:
    text = report(_pair(0, after=0.5, worth=2.0), "the command")
    assert "| digits | 1 | 4 | 0.4 | +0.00, 0.00 | 100% | +2.00 |  |" in text
