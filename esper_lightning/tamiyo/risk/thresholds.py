"""From a signal to a level: thresholds that learn a run's noise, and levels that fall slowly."""

import statistics
from collections.abc import Sequence

import msgspec

from esper_lightning.leyline import RiskLevel

LEAST = {
    RiskLevel.YELLOW: 0.35,
    RiskLevel.ORANGE: 0.5,
    RiskLevel.RED: 0.7,
    RiskLevel.CRITICAL: 0.9,
}
"""Score at which a level begins in a run without noise."""

MOST = {
    RiskLevel.YELLOW: 0.6,
    RiskLevel.ORANGE: 0.75,
    RiskLevel.RED: 0.88,
    RiskLevel.CRITICAL: 0.97,
}
"""Score at which it begins however noisy the run was: no history disarms a level."""

DEVIATIONS = {
    RiskLevel.YELLOW: 4.0,
    RiskLevel.ORANGE: 6.0,
    RiskLevel.RED: 8.0,
    RiskLevel.CRITICAL: 10.0,
}
"""Standard deviations of a signal above its median at which a level begins, between the two."""

LOWER = 0.8
"""A level is left below this share of the threshold at which it began."""

WINDOW = 32
"""Scores that the noise is told from."""

ENOUGH = 6
"""Fewer scores say nothing about noise."""

TO_DEVIATIONS = 1.4826
"""From a median absolute deviation to the standard deviation of a normal distribution."""

STALE = 2
"""Times ``calm``: a signal that was not measured for so long is forgotten. Seeds that were removed
raise none any more, and what they raised must not bar growth for ever."""


class Track(msgspec.Struct, forbid_unknown_fields=True):
    """One signal of one run.

    Attributes:
        scores: the last :data:`WINDOW`, none above what noise may explain.
        held: for each of the last boundaries at which it was measured, the highest level whose
            lower threshold was reached.
        level: where it stands.
        missing: boundaries since it was last measured.
    """

    scores: list[float] = []
    held: list[RiskLevel] = []
    level: RiskLevel = RiskLevel.GREEN
    missing: int = 0

    def observe(self, score: float | None, *, calm: int) -> RiskLevel:
        """Take in one boundary.

        Args:
            score: 0 to 1; None where it was not measured, which is no sign of calm.
            calm: boundaries below the lower threshold after which the level falls.

        Returns:
            The level that this boundary alone reaches, however high the level already is.
        """
        if score is None:
            self.missing += 1
            if self.missing >= STALE * calm:
                self.held, self.level = [], RiskLevel.GREEN
            return RiskLevel.GREEN
        self.missing = 0
        begins = thresholds(self.scores)
        risen = _reached(score, begins, share=1.0)
        self.held = [*self.held, _reached(score, begins, share=LOWER)][-calm:]
        self.level = max(risen, min(self.level, max(self.held)))
        # Harm is not noise: what is learnt of it never lifts a threshold to the harm's height.
        self.scores = [*self.scores, min(score, MOST[RiskLevel.YELLOW])][-WINDOW:]
        return risen


def thresholds(scores: Sequence[float]) -> dict[RiskLevel, float]:
    """Where each level begins, ascending, after these scores.

    >>> thresholds([])[RiskLevel.YELLOW]
    0.35
    >>> round(thresholds([0.2, 0.1] * 8)[RiskLevel.YELLOW], 2)
    0.45
    """
    if len(scores) < ENOUGH:
        return dict(LEAST)
    centre = statistics.median(scores)
    spread = TO_DEVIATIONS * statistics.median(abs(score - centre) for score in scores)
    return {
        level: min(MOST[level], max(least, centre + DEVIATIONS[level] * spread))
        for level, least in LEAST.items()
    }


def _reached(score: float, begins: dict[RiskLevel, float], *, share: float) -> RiskLevel:
    """The highest level of whose threshold ``score`` reaches ``share``."""
    return max(
        (level for level, threshold in begins.items() if score >= share * threshold),
        default=RiskLevel.GREEN,
    )
