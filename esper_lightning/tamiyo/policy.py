"""A policy: what to do at an epoch boundary, and why."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import msgspec

from esper_lightning.leyline import CommandKind, InvalidArgument, ParameterValue, Risk, SystemState
from esper_lightning.tamiyo.budget import GrowthBudget

Memory = TypeVar("Memory", bound=msgspec.Struct)


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One thing a policy wants done at one boundary.

    Attributes:
        kind: what to do; NOOP is the choice to wait, ROLLBACK undoes the epoch that has ended.
        slot: module path of the slot; empty for NOOP and ROLLBACK, and only there.
        blueprint: what to plant (GERMINATE, and only there).
        parameters: constructor parameters of the blueprint, complete.
        reason: why, in words.
        log_probability: natural logarithm of the probability with which a random policy makes this
            choice; None where the policy draws nothing.
        refused: why it is not carried out, only recorded; empty for one that is.
        value: what the policy expects of the run from here on; None where it expects nothing.
        policy_version: of the policy; None where it has none.
        share: of what was left of the budget, what a planting is given; None where the policy does
            not choose it.
        risk: at this boundary, where somebody has assessed it.

    Raises:
        InvalidArgument: slot, blueprint and kind do not belong together, or the reason is missing.
    """

    kind: CommandKind
    reason: str
    slot: str = ""
    blueprint: str = ""
    parameters: dict[str, ParameterValue] = {}
    log_probability: float | None = None
    refused: str = ""
    value: float | None = None
    policy_version: int | None = None
    share: float | None = None
    risk: Risk | None = None

    def __post_init__(self) -> None:
        if not self.reason:
            raise InvalidArgument(f"a choice of {self.kind.name} needs a reason in words")
        if (self.kind in (CommandKind.NOOP, CommandKind.ROLLBACK)) == bool(self.slot):
            raise InvalidArgument(
                f"NOOP and ROLLBACK name no slot and every other kind names one, "
                f"got {self.kind.name} with slot {self.slot!r}"
            )
        if (self.kind is CommandKind.GERMINATE) != bool(self.blueprint):
            raise InvalidArgument(
                f"GERMINATE names a blueprint and no other kind does, "
                f"got {self.kind.name} with blueprint {self.blueprint!r}"
            )


def wait(reason: str, *, log_probability: float | None = None) -> list[Choice]:
    """The choice to do nothing, as a boundary's list of choices.

    >>> [choice.kind.name for choice in wait("the first epoch is not over")]
    ['NOOP']
    """
    return [Choice(kind=CommandKind.NOOP, reason=reason, log_probability=log_probability)]


class Policy(ABC):
    """Decides at every epoch boundary. It keeps no clock and touches no global random numbers.

    Attributes:
        name: as it stands in configuration, decisions and the run's summary.
        budget: limits of growth that it keeps; None where nobody knows of any.
    """

    name: ClassVar[str]
    budget: GrowthBudget | None = None

    @abstractmethod
    def decide(self, state: SystemState) -> list[Choice]:
        """Choose at the boundary that ends ``state.epoch``.

        Returns:
            At most one choice per slot, each of a kind in ``SeedState.legal``; or, to do nothing,
            exactly one NOOP whose reason says why. Never empty. Beside these, any that are refused;
            and, of a policy that draws one choice after the other, a NOOP at the end, which is its
            choice to do no more.
        """

    def candidates(self, state: SystemState) -> list[Choice]:  # noqa: ARG002
        """What it may plant next, the likeliest first, so that it can be made ready.

        Asking changes nothing, and what comes is bound to nothing.

        Returns:
            Choices of kind GERMINATE; none where a policy cannot tell.
        """
        return []

    def distrust(self) -> str:
        """Why what comes to it from outside must not be trusted now; empty where it may be."""
        return ""

    def close(self) -> None:  # noqa: B027  # most hold nothing
        """Let go of what it holds outside of this process, if anything; it may decide again."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to decide as the uninterrupted one would, JSON-able."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            InvalidArgument: ``state`` is not what this policy saved; nothing was changed.
        """
        if state:
            raise InvalidArgument(
                f"the policy {self.name!r} keeps no state, got {sorted(state)}; "
                "resume with the policy that the checkpoint was written with"
            )


def restore(memory: type[Memory], state: Mapping[str, Any], *, policy: str) -> Memory:
    """Read a policy's memory back from plain data.

    Raises:
        InvalidArgument: a field is missing, unknown or of another type.
    """
    try:
        return msgspec.convert(dict(state), type=memory)
    except msgspec.ValidationError as error:
        raise InvalidArgument(
            f"this is not a saved state of the policy {policy!r}: {error}; "
            "resume with the policy that the checkpoint was written with"
        ) from error
