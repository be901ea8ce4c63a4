"""What is checked of a command before it changes anything."""

import msgspec

from esper_lightning.kasmina.branch import Branch
from esper_lightning.kasmina.slot import SeedSlot
from esper_lightning.leyline import (
    AdaptationCommand,
    CommandRefused,
    EsperError,
    Incubation,
    InvalidArgument,
)


def checked(command: AdaptationCommand) -> AdaptationCommand:
    """``command`` with every field of its type: what is made in this process is never decoded.

    Raises:
        InvalidArgument: naming the field.
    """
    try:
        return msgspec.convert(msgspec.to_builtins(command), AdaptationCommand)
    except (msgspec.ValidationError, TypeError) as error:
        raise InvalidArgument(f"malformed command for slot {command.slot!r}: {error}") from error


def check_incubation(incubation: Incubation, *, second_passes: bool) -> None:
    """Refuse an incubation that needs passes which nothing runs.

    Raises:
        InvalidArgument: with the remedy.
    """
    if incubation is Incubation.SHADOW and not second_passes:
        raise InvalidArgument(
            "incubation 'shadow' runs the loss a second time and needs to be told how: "
            "Kasmina(loss=fn) with fn(module, batch) -> loss; or use incubation "
            "'straight_through' or 'direct'"
        )


def tried_out(
    slot: SeedSlot, command: AdaptationCommand, *, incubation: Incubation, rng_seed: int
) -> Branch:
    """The branch that a GERMINATE asks for, once it could be built and run in its slot.

    Whoever wrote the blueprint, a run goes on without what does not work.

    Raises:
        CommandRefused: it fails there, or is in quarantine there.
        InvalidArgument: unknown blueprint, parameter out of range, or not fit for ``incubation``.
    """
    name = command.blueprint
    if name in slot.record.quarantined:
        raise CommandRefused(
            f"blueprint {name!r} is in quarantine in slot {slot.path!r}: there a seed of it "
            f"disturbed the host, drew random numbers in evaluation, or was blamed for an epoch "
            f"that was undone; choose another"
        )
    try:
        branch = slot.construct(name, command.parameters, rng_seed=rng_seed)
        branch.requires_grad_(True)
        slot.sample_output(branch)
    except EsperError:
        raise
    except Exception as error:
        raise CommandRefused(
            f"blueprint {name!r} {command.parameters} fails in slot {slot.path!r}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if incubation is Incubation.DIRECT and not branch.zero_at_birth:
        raise InvalidArgument(
            f"blueprint {name!r} is not exactly 0 at birth and cannot be inserted directly; use "
            f"incubation=straight_through or shadow for it"
        )
    return branch
