"""What Kasmina may be given."""

from esper_lightning.kasmina import LifecycleRules
from esper_lightning.leyline import Incubation, InvalidArgument


def check_arguments(
    *,
    slots: object,
    monitor: object,
    mode: object,
    incubation: object,
    loss: object,
    rules: object,
    build: object,
) -> None:
    """Refuse what is not allowed.

    Raises:
        InvalidArgument: which, its value, what is allowed.
    """
    if mode not in ("min", "max"):
        raise InvalidArgument(f"mode must be 'min' or 'max', got {mode!r}")
    modes = [known.value for known in Incubation]
    if incubation not in modes:
        raise InvalidArgument(f"incubation {incubation!r} is unknown; allowed: {modes}")
    if slots != "auto" and not isinstance(slots, list | tuple):
        raise InvalidArgument(f"slots must be 'auto' or a list of module paths, got {slots!r}")
    if not isinstance(monitor, str) or not monitor:
        raise InvalidArgument(f"monitor must name a logged metric, got {monitor!r}")
    for name, given in (("loss", loss or callable), ("build", build)):
        if not callable(given):
            raise InvalidArgument(f"{name} must be a function, got {given!r}")
    if not isinstance(rules, LifecycleRules | None):
        raise InvalidArgument(f"rules must be LifecycleRules, got {rules!r}")
