"""``python -m esper_lightning.evidence [command] [option ...]``; commands are in a table below."""

import sys
from collections.abc import Callable, Sequence

from esper_lightning.evidence import (
    compiling,
    controller,
    device,
    exchange,
    incubation,
    instructions,
    library,
    memory,
    overhead,
    planting,
    rollback,
    stack,
    watching,
    widening,
)
from esper_lightning.evidence.bus import command as bus
from esper_lightning.evidence.dashboard import command as dashboard
from esper_lightning.evidence.frontier import command as frontier
from esper_lightning.evidence.published import command as published
from esper_lightning.evidence.rollouts import command as policies
from esper_lightning.evidence.rollouts import learning_command as learning

COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "frontier": frontier.main,
    "overhead": overhead.main,
    "instructions": instructions.main,
    "incubation": incubation.main,
    "compiling": compiling.main,
    "controller": controller.main,
    "dashboard": dashboard.main,
    "device": device.main,
    "exchange": exchange.main,
    "planting": planting.main,
    "published": published.main,
    "learning": learning.main,
    "policies": policies.main,
    "memory": memory.main,
    "library": library.main,
    "rollback": rollback.main,
    "bus": bus.main,
    "stack": stack.main,
    "watching": watching.main,
    "widening": widening.main,
}
"""What can be measured; each takes the arguments after its name and has ``--help``."""


def main(arguments: Sequence[str]) -> None:
    """Run the command that is named first, ``frontier`` where none is."""
    if arguments and arguments[0] in COMMANDS:
        COMMANDS[arguments[0]](arguments[1:])
    elif arguments and not arguments[0].startswith("-") and "=" not in arguments[0]:
        sys.exit(f"{arguments[0]!r} is not a command; those: {', '.join(COMMANDS)}")
    else:
        frontier.main(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
