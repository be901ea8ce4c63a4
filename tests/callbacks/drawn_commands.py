"""A policy that commands anything."""

import random
from collections.abc import Sequence

from runs import Script

from esper_lightning.leyline import CommandKind, SystemState
from esper_lightning.tamiyo import Choice

KINDS = [
    *[CommandKind.GERMINATE] * 6,
    *[CommandKind.FOSSILIZE] * 3,
    *(CommandKind.CULL, CommandKind.PRUNE, CommandKind.PRUNE, CommandKind.ADVANCE),
    *(CommandKind.PAUSE, CommandKind.RESUME, CommandKind.RESUME, CommandKind.EMERGENCY),
    *(CommandKind.ROLLBACK, CommandKind.NOOP),
]


class Anything(Script):
    """Draws its commands by seed and epoch, most of them illegal where the slot stands.

    Rollbacks for even seeds only: a governor's snapshots do not outlive a process.
    """

    def __init__(self, seed: int, *, slots: Sequence[str], blueprints: Sequence[str]) -> None:
        super().__init__({})
        self.seed = seed
        self.slots, self.blueprints = slots, blueprints
        self.kinds = KINDS if seed % 2 == 0 else [k for k in KINDS if k is not CommandKind.ROLLBACK]

    def decide(self, state: SystemState) -> list[Choice]:
        self.states.append(state)
        draw = random.Random(f"{self.seed} {state.epoch}")
        return [self._choice(draw) for _ in range(draw.randint(0, 4))]

    def _choice(self, draw: random.Random) -> Choice:
        kind = draw.choice(self.kinds)
        free = kind in (CommandKind.ROLLBACK, CommandKind.NOOP)
        plants = kind is CommandKind.GERMINATE
        back = {"boundaries": draw.randint(1, 6)} if kind is CommandKind.ROLLBACK else {}
        return Choice(
            kind=kind,
            slot="" if free else draw.choice(self.slots),
            blueprint=draw.choice(self.blueprints) if plants else "",
            parameters=back,
            reason="drawn",
        )
