"""Gate G4's estimate beside the twin, against numbers worked out by hand."""

import math

import pytest
from frontier_rows import KEPT, row, summary

from esper_lightning.evidence.frontier.rows import Judgement, Row
from esper_lightning.evidence.frontier.twins import agreement, twins


def _judged(epoch: int, gain: float, *, planted: int = 3) -> Judgement:
    return Judgement(epoch=epoch, slot="a", planted=planted, gain=gain, rent=0.1)


def _pair(seed: int, *, estimate: float, after: float, end: float, kept: bool) -> list[Row]:
    """Planted after epoch 3, judged at 6; the twin is at 1.0 all the time."""
    curve = [1.0] * 4 + [after] * 3 + [end] * 3
    grown = [KEPT] if kept else []
    return [
        row("host", seed, summary(test=0.9), objective=[1.0] * 10),
        row(
            "grown",
            seed,
            summary(test=0.9, grown=grown),
            objective=curve,
            judgements=[_judged(5, 9.0), _judged(6, estimate), _judged(9, 5.0, planted=7)],
        ),
    ]


def test_the_first_cohort_is_compared_in_the_epochs_that_were_judged() -> None:
    (told,) = twins(
        _pair(0, estimate=0.3, after=0.8, end=0.6, kept=True), task="digits", arm="grown"
    )
    assert told.estimate == 0.3
    assert told.gain == pytest.approx(0.2)
    assert told.final == pytest.approx(0.4)
    assert told.kept


def test_wrong_verdicts_are_counted() -> None:
    rows = [
        *_pair(0, estimate=0.3, after=0.7, end=0.6, kept=True),
        *_pair(1, estimate=0.2, after=0.8, end=0.95, kept=True),  # kept for nothing
        *_pair(2, estimate=0.0, after=0.85, end=0.9, kept=False),  # had gained 0.15
        *_pair(3, estimate=-0.5, after=1.2, end=1.0, kept=False),
    ]
    figures = agreement(twins(rows, task="digits", arm="grown"))
    assert figures["runs"] == 4
    assert figures["rank_correlation"] == pytest.approx(1.0)
    assert (figures["kept"], figures["false_fossils"], figures["false_culls"]) == (2, 1, 1)


def test_without_a_twin_or_a_judgement_nothing_is_said() -> None:
    pair = _pair(0, estimate=0.3, after=0.8, end=0.6, kept=True)
    assert twins(pair[1:], task="digits", arm="grown") == []
    unjudged = row("grown", 0, summary(test=0.9), objective=[1.0] * 10)
    assert twins([pair[0], unjudged], task="digits", arm="grown") == []
    assert math.isnan(agreement([])["rank_correlation"])
