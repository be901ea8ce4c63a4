"""How long seeds have been paused, and what becomes of those whose quota is used up."""

import msgspec

from esper_lightning.leyline import LIVE_STAGES, CommandKind, SeedState, SystemState
from esper_lightning.tamiyo.policy import Choice
from esper_lightning.tamiyo.risk.reading import quotient

MOST_DROPPED = 0.1
"""A seed is at fault where more than this share of an epoch's gradients was not finite."""


class Pause(msgspec.Struct, forbid_unknown_fields=True):
    """One seed.

    Attributes:
        seed: tells it from another in the same slot.
        boundaries: at which it was found paused.
        by_risk: it was paused because of the level, and goes on when that has fallen.
        at_fault: it disturbed its host, or lost gradients, when it last took part.
    """

    seed: str
    boundaries: int = 0
    by_risk: bool = False
    at_fault: bool = False


class Pauses(msgspec.Struct, forbid_unknown_fields=True):
    """Every live seed, by slot."""

    seeds: dict[str, Pause] = {}

    def observe(self, state: SystemState) -> None:
        """Take in one boundary."""
        self.seeds = {
            slot.slot: self._seen(slot, steps=state.steps_per_epoch)
            for slot in state.slots
            if slot.stage in LIVE_STAGES
        }

    def pausable(self, slot: SeedState, *, limit: int) -> bool:
        """True where its quota is not used up."""
        seed = self.seeds.get(slot.slot)
        return seed is None or seed.boundaries < limit

    def mark(self, slot: str) -> None:
        """It is paused at this boundary because of the level."""
        if slot in self.seeds:
            self.seeds[slot].by_risk = True

    def release(self, slot: SeedState, *, limit: int, has_fallen: bool) -> Choice | None:
        """What ends its pause, if that is over.

        A quota that is used up ends it at any level: by a cull where the seed is at fault, else the
        seed goes on, and is not paused again. Before, a fallen level ends what a high one began.

        Args:
            slot: that holds it.
            limit: the quota.
            has_fallen: the level is below RED.
        """
        seed = self.seeds.get(slot.slot)
        if seed is None or not slot.paused:
            return None
        if seed.boundaries >= limit:
            kind = CommandKind.CULL if seed.at_fault else CommandKind.RESUME
            why = "it was at fault" if seed.at_fault else "it was not at fault"
            reason = f"paused at {seed.boundaries} boundaries, {limit} at most, and {why}"
        elif seed.by_risk and has_fallen:
            kind, reason = CommandKind.RESUME, "the level has fallen"
        else:
            return None
        return Choice(kind=kind, slot=slot.slot, reason=reason) if kind in slot.legal else None

    def _seen(self, slot: SeedState, *, steps: int) -> Pause:
        name = f"{slot.blueprint} {slot.cohort}"
        known = self.seeds.get(slot.slot)
        seed = known if known is not None and known.seed == name else Pause(seed=name)
        if slot.paused:
            seed.boundaries += 1
        else:
            seed.by_risk = False
            seed.at_fault = _is_at_fault(slot, steps=steps)
        return seed


def _is_at_fault(slot: SeedState, *, steps: int) -> bool:
    dropped = quotient(slot.dropped_gradients or 0, steps)
    return bool(slot.isolation_violations) or dropped > MOST_DROPPED
