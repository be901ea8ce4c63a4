"""Growth timed by the risk of overfitting: a published rule, to be measured against."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from esper_lightning.karn import CATALOGUE, Blueprint
from esper_lightning.leyline import CommandKind, InvalidArgument, SeedState, SystemState
from esper_lightning.leyline.arguments import check_number
from esper_lightning.tamiyo.budget import GrowthBudget, Price, check_budget
from esper_lightning.tamiyo.planting import best, sized
from esper_lightning.tamiyo.policy import Choice, Policy, restore, wait
from esper_lightning.tamiyo.shortlist import Shortlist
from esper_lightning.tamiyo.trial import describe, has_passed, is_last, live, settle


class _Grown(msgspec.Struct, forbid_unknown_fields=True):
    """What has been planted so far.

    Attributes:
        slots: names, in the order of planting.
        epochs: that were done at the last planting.
    """

    slots: list[str]
    epochs: int


class FRAGrow(Policy):
    """Grows fast where a network underfits and slowly where it overfits.

    Wu et al. 2024, "When to grow? A fitting risk-aware policy for layer growing in deep neural
    networks" (arXiv:2401.03104): about as good as growing periodically, at convergence (Wen et al.
    2020, AutoGrow, arXiv:1906.02909) or by a Lipschitz constant (Dong et al. 2020) where networks
    overfit, and better where they underfit. Of ``E`` epochs the last ``E_F`` are for fine-tuning,
    and ``n`` plantings are made in the others. Between two of them lie

        I = I_max / (1 + exp(alpha - risk)),    I_max = (E - E_F) / n

    epochs, ``risk`` being the accuracy on training data less that on validation data, in percentage
    points, which is asked anew at every boundary.

    As in the paper, growth goes from the front to the back, one slot at a time, each to its share
    of a size that is set beforehand: here the budget, in equal parts. The paper keeps all that has
    grown, and so does a run with ``kasmina.rules.gates.judge_gain=false``; else gate G4 decides,
    which can tell little of what was planted in the first epochs, and what it has not let stay at
    the last boundary goes.

    Args:
        alpha: risk at which the interval is half of the longest; the paper's default.
        fine_tuning: share of the run in which nothing grows any more; the paper has 30 epochs of
            120 and of 180.
        train: metric in the state: accuracy on training data, 0 to 1.
        validation: likewise on validation data. Where one of them is missing, growth is periodic.
        budget: limits of growth; None is 4 times the host's parameters.
        blueprints: names that are allowed, of any tier; None allows all production blueprints.
        require_zero_at_birth: only blueprints that change nothing when planted.
        catalogue: blueprints by name.

    Raises:
        InvalidArgument: an argument outside of what is allowed.
    """

    name = "fragrow"
    budget: GrowthBudget

    def __init__(
        self,
        *,
        alpha: float = 4.0,
        fine_tuning: float = 0.25,
        train: str = "train/acc",
        validation: str = "val/acc",
        budget: GrowthBudget | None = None,
        blueprints: Sequence[str] | None = None,
        require_zero_at_birth: bool = True,
        catalogue: Mapping[str, Blueprint] = CATALOGUE,
    ) -> None:
        check_number("alpha", alpha)
        check_number("fine_tuning", fine_tuning)
        check_budget(budget)
        if not math.isfinite(alpha):
            raise InvalidArgument(f"alpha is a risk in percentage points and finite, got {alpha}")
        if not 0 <= fine_tuning < 1:
            raise InvalidArgument(
                f"fine_tuning is a share of the run, at least 0 and below 1, got {fine_tuning}"
            )
        self._alpha = alpha
        self._fine_tuning = fine_tuning
        self._metrics = train, validation
        self.budget = budget or GrowthBudget()
        self._shortlist = Shortlist(
            blueprints=blueprints,
            require_zero_at_birth=require_zero_at_birth,
            catalogue=catalogue,
        )
        self._grown = _Grown(slots=[], epochs=0)

    def decide(self, state: SystemState) -> list[Choice]:
        """Keep what passed; plant in the next slot when the interval is over."""
        if is_last(state):
            return settle(state.slots) or wait("the run ends and no seed is live")
        kept = [
            Choice(
                kind=CommandKind.FOSSILIZE, slot=seed.slot, reason=f"it passed: {describe(seed)}"
            )
            for seed in live(state.slots)
            if has_passed(seed)
        ]
        planted, why = self._plant(state)
        return kept + planted or wait(why)

    def candidates(self, state: SystemState) -> list[Choice]:
        """What the next slot would be given."""
        slot = self._next(state)
        found = slot and self._offer(slot, state, "may be planted next")
        return [found] if found else []

    def state_dict(self) -> dict[str, Any]:
        """What it has planted."""
        grown: dict[str, Any] = msgspec.to_builtins(self._grown)
        return grown

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with what it has planted."""
        self._grown = restore(_Grown, state, policy=self.name)

    def _plant(self, state: SystemState) -> tuple[list[Choice], str]:
        """A planting, or why there is none."""
        if state.max_epochs is None:
            return [], "when to grow depends on how long the run is, and that is open"
        if len(self._grown.slots) >= len(state.slots):
            return [], "all slots have grown"
        done = state.epoch + 1
        last = math.floor(state.max_epochs * (1 - self._fine_tuning))
        if done > last:
            return [], f"fine-tuning: nothing grows after {last} of {state.max_epochs} epochs"
        interval, why = self._interval(state, last / len(state.slots))
        passed = done - self._grown.epochs
        if passed < interval:
            return [], f"{passed} of {interval} epochs since the last planting; {why}"
        slot = self._next(state)
        found = slot and self._offer(slot, state, f"{passed} epochs passed, {interval} due; {why}")
        if not found:
            return [], f"{passed} epochs passed, {interval} due; but nothing fits a free slot"
        self._grown = _Grown(slots=[*self._grown.slots, found.slot], epochs=done)
        return [found], ""

    def _interval(self, state: SystemState, longest: float) -> tuple[int, str]:
        """Whole epochs between two plantings, at least 1, and how they come about."""
        train, validation = (state.metrics.get(name) for name in self._metrics)
        if train is None or validation is None or not math.isfinite(train - validation):
            return max(1, math.floor(longest)), "the accuracies are not known: periodic"
        risk = 100 * (train - validation)
        interval = longest / (1 + math.exp(min(self._alpha - risk, _MOST)))
        return max(1, math.floor(interval)), f"training is {risk:.1f} points above validation"

    def _next(self, state: SystemState) -> SeedState | None:
        """The first slot that has not grown and is free."""
        for slot in state.slots:
            if slot.slot not in self._grown.slots and CommandKind.GERMINATE in slot.legal:
                return slot
        return None

    def _offer(self, slot: SeedState, state: SystemState, reason: str) -> Choice | None:
        """The largest blueprint for the slot's share of what is left."""
        num = max(1, len(state.slots) - len(self._grown.slots))
        share = self.budget.room(state).share(num)
        offers = sized(slot, share, self._shortlist)
        if not offers:
            return None
        chosen = best(offers, slot, share=share, state=state, trust=lambda *_: 1.0)
        return chosen.germinate(slot, f"{reason}; {_priced(chosen.price)}")


_MOST = 700.0  # the exponential of more overflows


def _priced(price: Price) -> str:
    return f"adds {price.parameters:,} parameters"
