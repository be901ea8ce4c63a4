"""Whether what a policy chose is what a policy may choose."""

import math

import msgspec

from esper_lightning.leyline import CommandKind, EsperError, SystemState
from esper_lightning.tamiyo.policy import Choice


class PolicyRefused(EsperError):
    """A policy that may not decide here; the text says why."""


def checked(choices: object, state: SystemState) -> list[Choice]:
    """The choices of one boundary, as they are, if all are legal there.

    Legal is: a list of at least one choice that is carried out; at most one for each slot, of a
    kind in its ``SeedState.legal``; a NOOP alone or behind the others; no ROLLBACK, which is for
    who assesses risk; nothing planted that is quarantined in its slot; every field of its type, and
    every number of the decision finite. Of a choice that is only recorded, the fields count.

    Args:
        choices: what a policy returned, which may be anything.
        state: what it was asked about.

    Raises:
        PolicyRefused: they are not.
    """
    if not isinstance(choices, list):
        raise PolicyRefused(f"it decided {type(choices).__name__} instead of a list of choices")
    for choice in choices:
        _check_fields(choice)
    done = [choice for choice in choices if not choice.refused]
    if not done:
        raise PolicyRefused("it decided nothing; to wait is a NOOP")
    taken: set[str] = set()
    for number, choice in enumerate(done):
        if choice.kind is not CommandKind.NOOP:
            _check_slot(choice, state, taken)
            taken.add(choice.slot)
        elif number < len(done) - 1:
            raise PolicyRefused("it decided something behind a NOOP, which stands alone or last")
    return choices


# msgspec 0.19 says SystemError of a number that no float can hold.
_FAILURES = (
    msgspec.MsgspecError,
    TypeError,
    ValueError,
    OverflowError,
    RecursionError,
    SystemError,
)


def _check_fields(choice: object) -> None:
    if not isinstance(choice, Choice):
        raise PolicyRefused(f"it decided {type(choice).__name__} instead of a choice")
    try:
        msgspec.convert(msgspec.to_builtins(choice), Choice)
    except _FAILURES as error:
        raise PolicyRefused(f"a field of its choice cannot be: {error}") from error
    if not isinstance(choice.kind, CommandKind):
        raise PolicyRefused(f"kind of its choice is {choice.kind!r}; it is a CommandKind")
    for name in ("log_probability", "value", "share"):
        number = getattr(choice, name)
        if not (number is None or math.isfinite(number)):
            raise PolicyRefused(f"{name} of its choice is {number}; it is finite, or None")


def _check_slot(choice: Choice, state: SystemState, taken: set[str]) -> None:
    kind = choice.kind.name
    if not choice.slot:
        raise PolicyRefused(f"it decided {kind}, which is not for a policy to decide")
    try:
        slot = state.slot(choice.slot)
    except KeyError:
        names = ", ".join(each.slot for each in state.slots) or "none"
        raise PolicyRefused(
            f"it decided {kind} in slot {choice.slot!r}; there are: {names}"
        ) from None
    if choice.slot in taken:
        raise PolicyRefused(f"it decided twice about slot {choice.slot!r}")
    if choice.kind not in slot.legal:
        legal = ", ".join(each.name for each in slot.legal) or "nothing"
        raise PolicyRefused(
            f"it decided {kind} in slot {choice.slot!r}, which is {slot.stage.name}; legal: {legal}"
        )
    if choice.blueprint in slot.quarantined:
        raise PolicyRefused(
            f"it planted {choice.blueprint!r} in slot {choice.slot!r}, where that is quarantined"
        )
