"""The lifecycle signal: what went wrong with what was planted?"""

import math

import msgspec

from esper_lightning.leyline import SeedState, SystemState
from esper_lightning.tamiyo.risk.reading import Reading

WINDOW = 12
"""Boundaries for which an incident counts, less at each."""

CULLS = "boundary with culls"

CULL = 0.12
"""Weight of a boundary at which seeds are found culled: most seeds are on trial to be culled. Four
in a row, without a fossil between them, reach YELLOW."""

VIOLATION = 0.4
"""Of a failed check of a seed's isolation."""

QUARANTINE = 0.3
"""Of a blueprint that is not planted in a slot again."""

ROLLBACK = 0.4
"""Of an epoch that the governor undid. With the quarantine and the cull that follow it, ORANGE;
twice, RED."""

MOST = 3
"""Incidents of a kind that one boundary counts."""


class Incident(msgspec.Struct, forbid_unknown_fields=True):
    """Something that went wrong.

    Attributes:
        what: in words.
        weight: 0 to 1.
        age: boundaries since.
    """

    what: str
    weight: float
    age: int = 0

    @property
    def score(self) -> float:
        """What is left of its weight."""
        return self.weight * max(0.0, 1 - self.age / WINDOW)


class Counts(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a slot had seen at the last boundary. ``seed`` tells whose the violations are."""

    culls: int
    fossils: int
    quarantined: int
    seed: str
    violations: int


class Lifecycle(msgspec.Struct, forbid_unknown_fields=True):
    """What happened in the last boundaries.

    Attributes:
        slots: by slot, its counts.
        rollbacks: the governor's count.
        asked: the last boundary asked for a rollback, which is no incident of its own.
        incidents: the recent ones.
    """

    slots: dict[str, Counts] | None = None
    rollbacks: int | None = None
    asked: bool = False
    incidents: list[Incident] = []

    def observe(self, state: SystemState) -> Reading | None:
        """How much went wrong lately; None at the first boundary, which has none before it.

        Incidents count together as if each were an independent probability of harm.
        """
        before, self.slots = self.slots, {slot.slot: _counts(slot) for slot in state.slots}
        undone = self._undone(state)
        if before is None:
            return None
        for incident in self.incidents:
            incident.age += 1
        pairs = [(before[name], now) for name, now in self.slots.items() if name in before]
        if any(now.fossils > was.fossils for was, now in pairs):
            self.incidents = [each for each in self.incidents if each.what != CULLS]
        self._add(CULLS, CULL, any(now.culls > was.culls for was, now in pairs))
        self._add("isolation violation", VIOLATION, sum(_violations(*pair) for pair in pairs))
        quarantined = sum(max(0, now.quarantined - was.quarantined) for was, now in pairs)
        self._add("quarantine", QUARANTINE, quarantined)
        self._add("rollback", ROLLBACK, undone)
        self.incidents = [each for each in self.incidents if each.age < WINDOW]
        score = 1 - math.prod(1 - each.score for each in self.incidents)
        return Reading(score, _list(self.incidents) or "nothing went wrong lately")

    def _undone(self, state: SystemState) -> int:
        """Epochs that the governor undid since the last boundary because it saw fit."""
        before, self.rollbacks = self.rollbacks, state.rollbacks
        asked, self.asked = self.asked, False
        if before is None or state.rollbacks is None:
            return 0
        return max(0, state.rollbacks - before - asked)

    def _add(self, what: str, weight: float, number: int) -> None:
        self.incidents += [Incident(what=what, weight=weight) for _ in range(min(number, MOST))]


def _counts(slot: SeedState) -> Counts:
    return Counts(
        culls=slot.num_culls,
        fossils=len(slot.fossils),
        quarantined=len(slot.quarantined),
        seed=f"{slot.blueprint} {slot.cohort}",
        violations=slot.isolation_violations or 0,
    )


def _violations(was: Counts, now: Counts) -> int:
    """Those that are new; a seed that is new has none from before."""
    return max(0, now.violations - (was.violations if now.seed == was.seed else 0))


def _list(incidents: list[Incident]) -> str:
    """How often what happened, for example ``2 x culls, 1 x rollback``."""
    kinds = list(dict.fromkeys(each.what for each in incidents))
    return ", ".join(f"{sum(each.what == kind for each in incidents)} x {kind}" for kind in kinds)
