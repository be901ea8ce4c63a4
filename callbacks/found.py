"""Finding Kasmina among callbacks."""

from lightning.pytorch import Trainer

from esper_lightning.callbacks.kasmina import Kasmina
from esper_lightning.callbacks.requirements import callbacks_of
from esper_lightning.leyline import InvalidArgument


def find(trainer: Trainer) -> Kasmina:
    """The Kasmina among a Trainer's callbacks.

    Raises:
        InvalidArgument: there is none, or more than one.
    """
    callbacks = callbacks_of(trainer)
    found = [callback for callback in callbacks if isinstance(callback, Kasmina)]
    if len(found) != 1:
        names = [type(callback).__name__ for callback in callbacks]
        raise InvalidArgument(
            f"one Kasmina callback is needed, the Trainer has {len(found)}; its callbacks: {names}"
        )
    return found[0]
