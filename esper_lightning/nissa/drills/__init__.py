"""Drills: real short runs in which something fails, and what the system does about it.

They stand above everything else in this package, as its command line does: they train.

Design: docs/design/detailed_design/10-nissa.md
"""

from collections.abc import Mapping

from esper_lightning.nissa.drills import (
    bus,
    compiling,
    controllers,
    disk,
    policy_updates,
    seeds,
)
from esper_lightning.nissa.drills.scene import Drill, play

DRILLS: Mapping[str, Drill] = {
    drill.name: drill
    for family in (seeds, controllers, compiling, bus, policy_updates, disk)
    for drill in family.DRILLS
}
"""All of them, by name."""

__all__ = ["DRILLS", "Drill", "play"]
