"""The learned policy."""

import math
import random
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from esper_lightning.karn import CATALOGUE, Blueprint, Tier
from esper_lightning.leyline import CommandKind, SystemState
from esper_lightning.leyline.arguments import check_flag, check_whole
from esper_lightning.tamiyo import pressure
from esper_lightning.tamiyo.budget import GrowthBudget, check_budget
from esper_lightning.tamiyo.heuristic import BUDGET
from esper_lightning.tamiyo.learned.acting import Actor, Answered, Array
from esper_lightning.tamiyo.learned.actions import (
    GERMINATE,
    STOP,
    Action,
    left_after,
    part_of,
    room_of,
)
from esper_lightning.tamiyo.learned.stored import StoredPolicy
from esper_lightning.tamiyo.observation import BLANK, KINDS, SHARES, USUAL, Observation, Observer
from esper_lightning.tamiyo.planting import largest
from esper_lightning.tamiyo.policy import Choice, Policy, restore, wait
from esper_lightning.tamiyo.shortlist import Shortlist
from esper_lightning.tamiyo.stream import Stream
from esper_lightning.tamiyo.trial import describe, is_last, settle


class _Memory(msgspec.Struct, forbid_unknown_fields=True):
    """What it remembers of a run."""

    history: dict[str, Any]
    stream: Stream | None


class Learned(Policy):
    """Decides by a network that was trained on decisions and what came of them.

    At a boundary the network encodes the host, its slots and the blueprints that fit them once, and
    then chooses one thing after the other: what, where, and for a planting which blueprint and
    which share of the room that is left; until it has done enough. A planting is made as large as
    its share admits, and the share is gone for that boundary, used or not. Only what the lifecycle
    and the budget allow can be chosen. At the last boundary it does not ask the network: seeds that
    passed G4 are fossilised, the others culled.

    ``Choice.log_probability`` is exact, the sum over these factors, each given what was chosen
    before it at this boundary; a closing NOOP after other choices says that it has done enough.

    Args:
        policy: a file, or a policy that was read; None is the one that comes with this package,
            "cloned" what that was learned from.
        sample: draw from the network's distribution; otherwise take what is likeliest.
        seed: of its own random stream.
        kinds: what it may do, where the slot's state allows it.
        budget: limits of growth; None takes the heuristic's.
        blueprints: names that are allowed, of any tier; None allows all of ``tiers``.
        tiers: how far a blueprint that is not named must be trusted.
        require_zero_at_birth: only blueprints that change nothing when planted.
        catalogue: blueprints by name.

    Attributes:
        card: what the policy is: its name, version and where it comes from.

    Raises:
        InvalidArgument: an argument outside of what is allowed, or there is no such file.
        DecodeError: the file is no policy of this release.
    """

    name = "learned"
    budget: GrowthBudget

    def __init__(
        self,
        *,
        policy: StoredPolicy | Path | str | None = None,
        sample: bool = False,
        seed: int = 0,
        kinds: Collection[CommandKind] = USUAL,
        budget: GrowthBudget | None = None,
        blueprints: Sequence[str] | None = None,
        tiers: Collection[Tier] = (Tier.PRODUCTION,),
        require_zero_at_birth: bool = True,
        catalogue: Mapping[str, Blueprint] = CATALOGUE,
    ) -> None:
        check_flag("sample", sample)
        check_whole("seed", seed)
        check_budget(budget)
        shortlist = Shortlist(
            blueprints=blueprints,
            tiers=tiers,
            require_zero_at_birth=require_zero_at_birth,
            catalogue=catalogue,
        )
        self.budget = budget or BUDGET
        self._observer = Observer(shortlist, self.budget, kinds=kinds)
        self._stored = policy if isinstance(policy, StoredPolicy) else StoredPolicy.load(policy)
        self._actor = Actor(self._stored.network)
        self._random = random.Random(seed) if sample else None
        self._catalogue = catalogue
        self.card = self._stored.card
        # What torch sets up when it is first used is no part of the first boundary.
        self._ask(self._observer.look(BLANK), greedy=True)

    @classmethod
    def from_bytes(cls, data: bytes, **options: Any) -> "Learned":
        """The policy that a file's content is; ``options`` as of the class, but ``policy``.

        Raises:
            InvalidArgument: an option outside of what is allowed.
            DecodeError: it is no policy of this release.
        """
        return cls(policy=StoredPolicy.from_bytes(data), **options)

    def to_bytes(self) -> bytes:
        """The content of its file."""
        return self._stored.to_bytes()

    def decide(self, state: SystemState) -> list[Choice]:
        """Settle at the last boundary, else ask the network."""
        observation = self._observer.observe(state)
        if is_last(state):
            choices = settle(state.slots) or wait("the run ends and no seed is live")
            return [
                msgspec.structs.replace(choice, policy_version=self.card.version)
                for choice in choices
            ]
        answered = self._ask(observation, greedy=False)
        choices = self._choices(state, observation, answered)
        self._observer.note(state, choices)
        return choices

    def candidates(self, state: SystemState) -> list[Choice]:
        """What it would plant in each free slot if it planted now."""
        observation = self._observer.look(state)
        answered = self._ask(observation, greedy=True, only=GERMINATE)
        choices = self._choices(state, observation, answered)
        return [choice for choice in choices if choice.kind is CommandKind.GERMINATE]

    def state_dict(self) -> dict[str, Any]:
        """What it remembers of the run, and its random stream."""
        stream = None if self._random is None else Stream.of(self._random)
        memory = _Memory(history=self._observer.state_dict(), stream=stream)
        told: dict[str, Any] = msgspec.to_builtins(memory)
        return told

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with what it remembered. A stream that is not drawn from is left aside."""
        memory = restore(_Memory, state, policy=self.name)
        drawn = None
        if self._random is not None and memory.stream is not None:
            drawn = memory.stream.resumed(policy=self.name)
        self._observer.load_state_dict(memory.history, policy=self.name)
        self._random = drawn or self._random

    def _ask(self, observation: Observation, *, greedy: bool, only: int | None = None) -> Answered:
        pick = _likeliest if greedy or self._random is None else self._draw
        return self._actor.choose(observation, pick, only=only)

    def _draw(self, log_probabilities: Array) -> int:
        assert self._random is not None
        point = self._random.random()
        weights = np.exp(log_probabilities.astype(np.float64))
        ends = np.cumsum(weights / weights.sum())
        # Rounding may leave the last end below 1; what has no weight is never chosen.
        return min(
            int(np.searchsorted(ends, point, side="right")), int(np.flatnonzero(weights)[-1])
        )

    def _choices(
        self, state: SystemState, observation: Observation, answered: Answered
    ) -> list[Choice]:
        if not all(map(math.isfinite, (*answered.log_probabilities, answered.value))):
            told = f"version {self.card.version} of {self.card.name} gives no finite numbers"
            return [
                # Not finite, so that whoever installed this version takes it out again.
                msgspec.structs.replace(choice, value=math.nan, policy_version=self.card.version)
                for choice in wait(told)
            ]
        choices: list[Choice] = []
        left, unlimited = 1.0, room_of(observation).is_unlimited
        for action, log_probability in zip(
            answered.actions, answered.log_probabilities, strict=True
        ):
            likely = f"{self.card.name} {self.card.version} gives this {_odds(log_probability)}"
            choice = self._choice(state, observation, action, left=left, likely=likely)
            choices.append(
                msgspec.structs.replace(
                    choice,
                    log_probability=log_probability,
                    value=answered.value,
                    policy_version=self.card.version,
                )
            )
            if action.kind == GERMINATE:
                left = left_after(left, SHARES[action.share], unlimited=unlimited)
        return choices

    def _choice(
        self,
        state: SystemState,
        observation: Observation,
        action: Action,
        *,
        left: float,
        likely: str,
    ) -> Choice:
        if action.kind == STOP:
            return wait(likely)[0]
        slot = state.slots[action.slot]
        if action.kind != GERMINATE:
            reason = f"{likely}; {describe(slot)}"
            return Choice(kind=KINDS[action.kind], slot=slot.slot, reason=reason)
        share = SHARES[action.share]
        room = part_of(room_of(observation), left * share)
        assert slot.shape is not None  # without a shape nothing fits
        blueprint = self._catalogue[observation.blueprint_names[action.blueprint]]
        made = largest(blueprint, slot.shape, room)
        assert made is not None  # the smallest size fits, or it could not have been chosen
        parameters = ", ".join(f"{key}={value}" for key, value in made.parameters.items())
        reason = (
            f"{likely}; {pressure.describe(slot)}; {blueprint.name}({parameters}) adds "
            f"{made.price.parameters:,} parameters; its share, 1/{round(1 / share)} of what is "
            f"left: {room}"
        )
        return msgspec.structs.replace(made.germinate(slot, reason), share=share)


def _likeliest(log_probabilities: Array) -> int:
    return int(log_probabilities.argmax())


def _odds(log_probability: float) -> str:
    return f"probability {math.exp(log_probability):.2g}"
