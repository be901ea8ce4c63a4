"""How good gate G4's estimate is: its gain beside that over a matched twin without the seeds.

G4 compares the objective with where its curve was heading, which is a forecast. The arm ``host``
with the same seed is, until the first planting, the same run bit for bit, and after it what really
would have happened. Only the first cohort of a run has such a twin.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from scipy import stats

from esper_lightning.evidence.frontier.rows import Judgement, Row

TWIN = "host"
WINDOW = 2
"""Epochs over which the objective is averaged, as G4 does by default."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Twins:
    """The first cohort of one run beside the host alone.

    Attributes:
        estimate: the relative gain that G4 saw when it was last asked.
        rent: that it asked for.
        gain: the relative gain over the twin in the same epochs.
        final: the relative gain over the twin at the end of the run.
        kept: whether the cohort became permanent.
    """

    estimate: float
    rent: float
    gain: float
    final: float
    kept: bool


def twins(rows: Iterable[Row], *, task: str, arm: str) -> list[Twins]:
    """Of every run of an arm that has a twin and whose first cohort was judged."""
    by_arm: dict[str, dict[int, Row]] = {}
    for row in rows:
        if row.task == task:
            by_arm.setdefault(row.arm, {})[row.seed] = row
    alone = by_arm.get(TWIN, {})
    found = [
        _compare(row, alone[seed]) for seed, row in by_arm.get(arm, {}).items() if seed in alone
    ]
    return [each for each in found if each is not None]


def _compare(row: Row, alone: Row) -> Twins | None:
    first = _first_cohort(row.judgements)
    if not first:
        return None
    last = first[-1]
    window = range(max(last.planted + 1, last.epoch - WINDOW + 1), last.epoch + 1)
    gain = _gain(row, alone, window)
    end = row.curve[-1].epoch + 1
    final = _gain(row, alone, range(end - WINDOW, end))
    if gain is None or final is None:
        return None
    kept = any(grown.planted_epoch == last.planted for grown in row.summary.grown)
    return Twins(estimate=last.gain, rent=last.rent, gain=gain, final=final, kept=kept)


def _first_cohort(judgements: Sequence[Judgement]) -> list[Judgement]:
    planted = min((each.planted for each in judgements), default=None)
    return [each for each in judgements if each.planted == planted]


def _gain(row: Row, alone: Row, epochs: range) -> float | None:
    """How much lower the objective is than the twin's, relative to that."""
    here, there = _objective(row, epochs), _objective(alone, epochs)
    both = here.keys() & there.keys()
    if not both:
        return None
    expected = mean(there[epoch] for epoch in both)
    return (expected - mean(here[epoch] for epoch in both)) / abs(expected)


def _objective(row: Row, epochs: range) -> dict[int, float]:
    return {
        point.epoch: point.objective
        for point in row.curve
        if point.epoch in epochs and point.objective is not None
    }


def agreement(told: Sequence[Twins]) -> Mapping[str, float]:
    """Figures: rank correlation, bias, and how often the verdict was wrong.

    ``rank_correlation`` is Spearman's, of estimate and gain over the twin; NaN for fewer than 3
    runs. ``bias`` is the median of their difference. ``false_fossils`` counts cohorts that were
    kept though the network ended no better than its twin by their rent, ``false_culls`` those that
    were culled though G4's window shows them better than their twin by it.
    """
    estimates, gains = [each.estimate for each in told], [each.gain for each in told]
    varied = len(set(estimates)) > 1 and len(set(gains)) > 1
    rank = stats.spearmanr(estimates, gains).statistic if len(told) > 2 and varied else float("nan")
    apart = sorted(each.estimate - each.gain for each in told)
    return {
        "runs": float(len(told)),
        "rank_correlation": float(rank),
        "bias": apart[len(apart) // 2] if apart else float("nan"),
        "kept": float(sum(each.kept for each in told)),
        "false_fossils": float(sum(each.kept and each.final < each.rent for each in told)),
        "false_culls": float(sum(not each.kept and each.gain >= each.rent for each in told)),
    }
