"""Errors of the project: the ``EsperError`` family for states, ``ValueError`` for arguments.

An argument error is both, so that callers may catch either.
"""

from collections.abc import Iterable

from esper_lightning.leyline.stages import SeedStage


class EsperError(Exception):
    """Base of every error that esper_lightning raises on purpose."""


class InvalidArgument(EsperError, ValueError):
    """An argument outside of what is allowed."""


class DecodeError(EsperError, ValueError):
    """Bytes that are not the message they should be."""


class NotAuthentic(DecodeError):
    """Bytes from outside that none of the keys signed, or that were signed for something else."""


class UnknownSlot(InvalidArgument):
    """A module path that the host does not have, or that is not a slot."""


class SlotUnsuitable(InvalidArgument):
    """A module that exists but cannot be a slot (bypassed, tuple output, nothing fits, ...)."""


class UnknownBlueprint(InvalidArgument):
    """A blueprint name that the catalogue does not have."""


class UnsupportedOptimizer(InvalidArgument):
    """An optimiser set-up under which growth cannot keep its promises."""


class UnsupportedTraining(InvalidArgument):
    """A way of training that growth does not support."""


class UnusableKey(EsperError):
    """The key of this installation cannot be had, or others could have read it."""


class KeyRequired(EsperError):
    """A message bus that others use too, and no key that its users share."""


class BusUnavailable(EsperError):
    """There is no server for the message bus, or it does not answer."""


class NonFiniteTraining(EsperError, ArithmeticError):
    """The host's own training produced NaN or infinity."""


class TrainingHalted(EsperError):
    """The governor stopped a run that it had rolled back too often."""


class OtherRankFailed(EsperError):
    """Another process of a distributed run failed; its own error says why."""


class CommandRefused(EsperError):
    """A well-formed command that cannot be carried out now; nothing was changed."""


class IllegalTransition(CommandRefused):
    """A lifecycle move that the transitions table does not contain; nothing was changed."""

    def __init__(
        self, slot: str, stage: SeedStage, request: str, allowed: Iterable[str], why: str = ""
    ) -> None:
        self.slot = slot
        self.stage = stage
        self.request = request
        self.allowed = tuple(allowed)
        self.why = why
        options = ", ".join(self.allowed) or "nothing"
        super().__init__(
            f"slot {slot!r} in stage {stage.name} cannot take {request}; "
            f"allowed: {options}{f' ({why})' if why else ''}"
        )

    def __reduce__(self) -> tuple[type["IllegalTransition"], tuple[object, ...]]:
        return type(self), (self.slot, self.stage, self.request, self.allowed, self.why)


class GateFailed(CommandRefused):
    """A command whose gate does not pass on the evidence gathered so far; nothing was changed."""
