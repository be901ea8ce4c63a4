"""The random policy: what a controller must beat at the same rate of action."""

import math
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from esper_lightning.karn import CATALOGUE, Blueprint, Tier
from esper_lightning.leyline import CommandKind, InvalidArgument, SeedState, SystemState
from esper_lightning.leyline.arguments import check_number, check_whole
from esper_lightning.tamiyo.budget import GrowthBudget, Price, Room, check_budget
from esper_lightning.tamiyo.policy import Choice, Policy, restore, wait
from esper_lightning.tamiyo.shortlist import Shortlist
from esper_lightning.tamiyo.stream import Stream
from esper_lightning.tamiyo.trial import is_last, settle


class RandomPolicy(Policy):
    """Acts in each slot with probability ``action_rate``, uniformly over what it could do there.

    In configured order, for each slot: with probability ``1 - action_rate`` nothing; else one of
    the possible kinds, each as likely; for GERMINATE one of the blueprints that fit slot and
    budget, each as likely, with its default parameters. What an earlier slot of the boundary took
    from the budget is gone for the later ones. At the last boundary it draws nothing: seeds that
    passed G4 are fossilised, the others culled.

    ``Choice.log_probability`` is exact: of a slot's choice, given those of the slots before it; of
    the NOOP, that no slot acted. A slot that waited while another acted adds
    ``log(1 - action_rate)`` to the boundary as a whole; it is on no choice.

    Args:
        seed: of its own random stream.
        action_rate: 0 to 1.
        kinds: what it may do, where the slot's state allows it.
        budget: limits of growth.
        blueprints: names that are allowed, of any tier; None allows all of ``tiers``.
        tiers: how far a blueprint that is not named must be trusted.
        require_zero_at_birth: only blueprints that change nothing when planted.
        catalogue: blueprints by name.

    Raises:
        InvalidArgument: an argument outside of what is allowed.
    """

    name = "random"
    budget: GrowthBudget

    def __init__(
        self,
        *,
        seed: int = 0,
        action_rate: float = 0.1,
        kinds: Sequence[CommandKind] = (
            CommandKind.GERMINATE,
            CommandKind.FOSSILIZE,
            CommandKind.CULL,
        ),
        budget: GrowthBudget | None = None,
        blueprints: Sequence[str] | None = None,
        tiers: Collection[Tier] = (Tier.PRODUCTION,),
        require_zero_at_birth: bool = True,
        catalogue: Mapping[str, Blueprint] = CATALOGUE,
    ) -> None:
        check_whole("seed", seed)
        check_number("action_rate", action_rate)
        check_budget(budget)
        if not 0 <= action_rate <= 1:
            raise InvalidArgument(f"action_rate is a probability, 0 to 1, got {action_rate}")
        if not kinds or CommandKind.NOOP in kinds:
            raise InvalidArgument(
                f"kinds must name at least one thing to do and not NOOP, got {list(kinds)}; "
                "action_rate says how often it waits"
            )
        self._rate = action_rate
        self._kinds = tuple(dict.fromkeys(CommandKind(kind) for kind in kinds))
        self.budget = budget or GrowthBudget()
        self._shortlist = Shortlist(
            blueprints=blueprints,
            tiers=tiers,
            require_zero_at_birth=require_zero_at_birth,
            catalogue=catalogue,
        )
        self._random = random.Random(seed)

    def decide(self, state: SystemState) -> list[Choice]:
        """Draw for each slot."""
        if is_last(state):
            return settle(state.slots) or wait("the run ends and no seed is live")
        room = self.budget.room(state)
        choices: list[Choice] = []
        idle = 0.0
        for slot in state.slots:
            options = self.options(slot, room)
            if not options:
                continue
            acts = self._random.random() < self._rate
            point = self._random.random() * self._rate
            if not acts:
                idle += math.log1p(-self._rate)
                continue
            choice, price = _pick(options, point)
            choices.append(choice)
            room = room.minus(price)
        return choices or wait(f"drew no action at rate {self._rate:g}", log_probability=idle)

    def options(self, slot: SeedState, room: Room) -> list[tuple[Choice, Price]]:
        """Everything it could do in ``slot``, with exact log-probabilities, and what each costs.

        The probabilities sum to ``action_rate``; the list is empty when there is nothing to do.
        """
        if self._rate == 0:
            return []
        by_kind = [self._of_kind(kind, slot, room) for kind in self._kinds if kind in slot.legal]
        by_kind = [found for found in by_kind if found]
        return [
            (
                msgspec.structs.replace(
                    choice,
                    log_probability=math.log(self._rate / (len(by_kind) * len(found))),
                ),
                price,
            )
            for found in by_kind
            for choice, price in found
        ]

    def candidates(self, state: SystemState) -> list[Choice]:
        """All that it could draw now."""
        return self._shortlist.candidates(state, self.budget.room(state))

    def state_dict(self) -> dict[str, Any]:
        """The random stream."""
        stream: dict[str, Any] = msgspec.to_builtins(Stream.of(self._random))
        return stream

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the random stream."""
        self._random = restore(Stream, state, policy=self.name).resumed(policy=self.name)

    def _of_kind(
        self, kind: CommandKind, slot: SeedState, room: Room
    ) -> list[tuple[Choice, Price]]:
        reason = "drawn at random"
        if kind is not CommandKind.GERMINATE:
            return [
                (Choice(kind=kind, slot=slot.slot, reason=reason), Price(parameters=0, flops=0))
            ]
        return [
            (offer.germinate(slot, reason), offer.price)
            for offer in self._shortlist.offers(slot, room)
        ]


def _pick(options: Sequence[tuple[Choice, Price]], point: float) -> tuple[Choice, Price]:
    """The option in whose interval ``point`` lies, when they are laid end to end from 0."""
    for choice, price in options[:-1]:
        assert choice.log_probability is not None
        point -= math.exp(choice.log_probability)
        if point < 0:
            return choice, price
    return options[-1]
