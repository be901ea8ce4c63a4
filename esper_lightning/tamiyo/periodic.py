"""Growth by the calendar."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from esper_lightning.karn import CATALOGUE, Blueprint
from esper_lightning.leyline import CommandKind, InvalidArgument, SeedStage, SeedState, SystemState
from esper_lightning.leyline.arguments import check_names, check_whole
from esper_lightning.tamiyo.budget import GrowthBudget, check_budget
from esper_lightning.tamiyo.policy import Choice, Policy, restore, wait
from esper_lightning.tamiyo.shortlist import Offer, Shortlist
from esper_lightning.tamiyo.trial import describe, has_passed, is_last, live, settle


class _Progress(msgspec.Struct, forbid_unknown_fields=True):
    """What has been planted so far."""

    num_plantings: int
    next_slot: str


class Periodic(Policy):
    """Plants every ``period`` epochs, whatever the curve does.

    A seed is fossilised or culled once it has been PROBATIONARY for ``trial`` epochs, by what G4
    last said; at the last boundary whatever its age and stage.

    Args:
        period: epochs from one planting to the next.
        start: epochs before the first planting.
        trial: epochs in PROBATIONARY.
        slots: ``all`` plants in every free slot, ``round_robin`` in the next free one.
        blueprints: taken in turn, one at each planting boundary; where it does not fit slot or
            budget, the next that does.
        budget: limits of growth.
        require_zero_at_birth: only blueprints that change nothing when planted.
        catalogue: blueprints by name.

    Raises:
        InvalidArgument: an argument outside of what is allowed.
    """

    name = "periodic"
    budget: GrowthBudget

    def __init__(
        self,
        *,
        period: int = 6,
        start: int = 6,
        trial: int = 3,
        slots: str = "all",
        blueprints: Sequence[str] = ("parallel_conv", "parallel_mlp"),
        budget: GrowthBudget | None = None,
        require_zero_at_birth: bool = True,
        catalogue: Mapping[str, Blueprint] = CATALOGUE,
    ) -> None:
        for name, value in (("period", period), ("start", start), ("trial", trial)):
            check_whole(name, value, least=1)
        check_names("blueprints", blueprints)
        check_budget(budget)
        if slots not in ("all", "round_robin"):
            raise InvalidArgument(f"slots must be 'all' or 'round_robin', got {slots!r}")
        self._period = period
        self._start = start
        self._trial = trial
        self._all_slots = slots == "all"
        self.budget = budget or GrowthBudget()
        self._shortlist = Shortlist(
            blueprints=blueprints,
            require_zero_at_birth=require_zero_at_birth,
            catalogue=catalogue,
        )
        self._blueprints = tuple(blueprints)
        self._progress = _Progress(num_plantings=0, next_slot="")

    def decide(self, state: SystemState) -> list[Choice]:
        """Judge the seeds whose trial is over; plant when the day has come."""
        if is_last(state):
            return settle(state.slots) or wait("the run ends and no seed is live")
        choices = [choice for seed in live(state.slots) for choice in self._judge(seed)]
        done = state.epoch + 1
        late = done - self._start
        if late >= 0 and late % self._period == 0:
            planted = self._plant(state)
            return choices + planted or wait("planting is due, but nothing fits a free slot")
        following = self._start if late < 0 else done + self._period - late % self._period
        return choices or wait(f"plants next after {following} epochs, {done} are done")

    def candidates(self, state: SystemState) -> list[Choice]:
        """What has a turn, in every slot that is free."""
        return self._shortlist.candidates(state, self.budget.room(state))

    def state_dict(self) -> dict[str, Any]:
        """Whose turn it is."""
        progress: dict[str, Any] = msgspec.to_builtins(self._progress)
        return progress

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with whose turn it is."""
        self._progress = restore(_Progress, state, policy=self.name)

    def _judge(self, seed: SeedState) -> list[Choice]:
        if seed.stage is not SeedStage.PROBATIONARY or seed.paused or seed.age < self._trial:
            return []
        passed = has_passed(seed)
        kind = CommandKind.FOSSILIZE if passed else CommandKind.CULL
        if kind not in seed.legal:
            return []
        verdict = "passed" if passed else "did not pass"
        reason = f"{verdict} after {seed.age} epochs of trial; {describe(seed)}"
        return [Choice(kind=kind, slot=seed.slot, reason=reason)]

    def _plant(self, state: SystemState) -> list[Choice]:
        room = self.budget.room(state)
        choices = []
        for slot in self._in_turn(state.slots):
            if CommandKind.GERMINATE not in slot.legal:
                continue
            offers = self._shortlist.offers(slot, room)
            if not offers:
                continue
            offer = self._next(offers)
            reason = f"due after {state.epoch + 1} epochs"
            choices.append(offer.germinate(slot, reason))
            room = room.minus(offer.price)
            if not self._all_slots:
                self._progress.next_slot = _following(state.slots, slot.slot)
                break
        self._progress.num_plantings += bool(choices)
        return choices

    def _in_turn(self, slots: Sequence[SeedState]) -> list[SeedState]:
        """All slots, beginning with the one whose turn it is."""
        names = [slot.slot for slot in slots]
        turn = self._progress.next_slot
        first = names.index(turn) if turn in names else 0
        return [*slots[first:], *slots[:first]]

    def _next(self, offers: Sequence[Offer]) -> Offer:
        """The first offer of the list of blueprints, read on from the one whose turn it is."""
        first = self._progress.num_plantings % len(self._blueprints)
        turns = (*self._blueprints[first:], *self._blueprints[:first])
        return min(offers, key=lambda offer: turns.index(offer.blueprint.name))


def _following(slots: Sequence[SeedState], slot: str) -> str:
    names = [each.slot for each in slots]
    return names[(names.index(slot) + 1) % len(names)]
