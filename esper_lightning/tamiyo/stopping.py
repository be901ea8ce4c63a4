"""When another cohort, or another epoch of trial, is not worth its cost: the value of information.

A trial is an experiment that is paid for before its outcome is known, and what it is worth is what
the better decision afterwards is worth (Raiffa and Schlaifer 1961, "Applied statistical decision
theory", chapters 5 and 11). All values here are relative gains of the objective, as gate G4
measures them, and rents are in the same unit.

**Another cohort.** A cohort of size ``x`` gains ``b x``. Its size counts doublings of the network's
parameters, each of which gains about the same, times the part of its promise that the epochs left
allow for: :func:`size`. What a doubling gains in this run is uncertain, ``b ~ N(PER_DOUBLING,
SPREAD^2)``, and a trial tells ``b x + N(0, NOISE^2)``. Both are normal, so that after trials of
sizes ``x_i`` with gains ``y_i``

    1 / variance = 1 / SPREAD^2 + sum x_i^2 / NOISE^2
    mean         = variance * (PER_DOUBLING / SPREAD^2 + sum x_i y_i / NOISE^2)

Before the next trial, the mean that will be believed after it is itself normal, around ``m = mean
x`` with variance ``s^2 = v^2 / (v + NOISE^2)``, ``v = variance x^2``. The cohort is then kept, for
that mean less its rent, or culled, at a cost ``c``: the share of the rent that its trial took, and
``HARM``. Who may choose the better of both expects

    E max(m' - rent, -c) = -c + s u((m - rent + c) / s),    u(z) = z F(z) + f(z)

where F and f are the standard normal's distribution and density. A cohort is worth planting while
this is above 0.

**Another epoch of trial.** A cohort whose gain stands ``d`` below its rent will be culled when its
trial ends, unless the gain rises by ``d`` before. Its estimate wanders: in k epochs by ``N(DRIFT k,
STEP^2 k)``, upwards on the whole, because what was planted disturbs at first. If it does rise, that
is worth at least what the cull would have cost, and k epochs of rent are the price:

    HARM F((DRIFT k - d) / (STEP sqrt(k)))  >  k rent / epochs left at planting

All k up to the trial's end are compared, not only the next epoch: information that is worth nothing
by the epoch may be worth its cost by the dozen (Frazier and Powell 2010, "Paradoxes in learning and
the marginal value of information").
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

PER_DOUBLING = 0.09
"""Relative gain that a doubling of the network is expected to bring. This and what follows was
measured on digits, against twins that did not grow: docs/results/heuristic.md."""

SPREAD = 0.06
"""Standard deviation of that between runs."""

HALF = 3.0
"""Epochs after which a cohort has brought half of what it could."""

NOISE = 0.2
"""Standard deviation of a gain as gate G4 tells it at the end of a trial around what it is."""

DRIFT = 0.05
"""By how much a gain that does not pay its rent rises in one epoch, after the first three."""

STEP = 0.25
"""Standard deviation of that."""

HARM = 0.15
"""What a cull costs: a host that has adapted to a seed is worse without it than without ever having
had one. From the cohorts that were culled in docs/decisions/0006."""

EACH = 64
"""Horizons that are all compared; both sides of the comparison change slowly after them, and a run
may have any number of epochs."""

PRICE = 0.002
"""Rent of a growth by all of the network's parameters, or FLOPs: the default of gate G4."""

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Belief:
    """What a doubling gains in this run, a normal distribution.

    Attributes:
        mean: relative gain.
        variance: of it.
    """

    mean: float
    variance: float


def believe(trials: Iterable[tuple[float, float]]) -> Belief:
    """What is believed after trials, from their sizes and gains.

    >>> believe([]).mean
    0.09
    >>> round(believe([(2.0, -0.2)]).mean, 3)
    0.04
    """
    precision, weighted = 1 / SPREAD**2, PER_DOUBLING / SPREAD**2
    for extent, gain in trials:
        precision += (extent / NOISE) ** 2
        weighted += extent * gain / NOISE**2
    return Belief(mean=weighted / precision, variance=1 / precision)


def size(*, before: float, after: float, left: int | None) -> float:
    """How large a cohort is: doublings of the network, less where few epochs are left for it.

    Args:
        before: parameters of the network without it.
        after: with it.
        left: epochs of the run after its planting, None where the run is open-ended.

    >>> size(before=100, after=400, left=3)
    1.0
    """
    if not 0 < before < after:
        return 0.0
    promise = 1.0 if left is None else max(left, 0) / (max(left, 0) + HALF)
    return math.log2(after / before) * promise


def rent(*, parameters: float, flops: float | None) -> float:
    """What gate G4 will ask of a cohort.

    Args:
        parameters: that it adds, relative to the network's.
        flops: likewise; None where they were not counted.
    """
    return PRICE * (parameters + (flops or 0.0))


def worth_planting(belief: Belief, extent: float, *, owed: float, share: float) -> float:
    """Expected value of a cohort whose trial may end in a cull; it may be negative.

    Args:
        belief: about this run.
        extent: the cohort's size.
        owed: its rent.
        share: of the epochs left, what its trial takes.
    """
    variance = belief.variance * extent**2
    told = variance / math.sqrt(variance + NOISE**2)
    culled = HARM + owed * share
    return _better(belief.mean * extent - owed + culled, told) - culled


def worth_waiting(shortfall: float, *, owed: float, epochs: int, lifetime: int) -> bool:
    """Whether some of the next epochs of trial are worth their rent.

    Args:
        shortfall: by how much the gain is below the rent.
        owed: the rent.
        epochs: that its trial may still last.
        lifetime: epochs that were left at its planting; the rent is for all of them.
    """
    return any(
        HARM * _NORMAL.cdf((DRIFT * number - shortfall) / (STEP * math.sqrt(number)))
        > number * owed / max(lifetime, 1)
        for number in _horizons(epochs)
    )


def _horizons(epochs: int) -> Iterator[int]:
    """Numbers of epochs up to ``epochs``: each of the first :data:`EACH`, then twice as many."""
    yield from range(1, min(epochs, EACH) + 1)
    number = 2 * EACH
    while number < epochs:
        yield number
        number *= 2
    if epochs > EACH:
        yield epochs


def _better(mean: float, deviation: float) -> float:
    """Expectation of the larger of 0 and a normal variable."""
    if deviation <= 0:
        return max(mean, 0.0)
    z = mean / deviation
    return deviation * (z * _NORMAL.cdf(z) + _NORMAL.pdf(z))
