"""How each stage looks, in the terminal and in figures."""

from collections.abc import Mapping
from dataclasses import dataclass

from esper_lightning.leyline import SeedStage


@dataclass(frozen=True, slots=True)
class StageLook:
    """The look of one stage.

    Attributes:
        symbol: one character, so that a table reads without colour. The circle fills up on the way
            from planting to probation.
        style: of the terminal (a rich style; the terminal's own theme picks the shade).
        color: of figures. Neighbours on the lifecycle differ in lightness as well as in hue, so
            that they stay apart for colour-blind eyes and in grey print.
        hatch: of figures; set for the stages in which a seed is isolated from its host.
    """

    symbol: str
    style: str
    color: str
    hatch: str = ""


STAGE_LOOKS: Mapping[SeedStage, StageLook] = {
    SeedStage.UNKNOWN: StageLook("?", "dim", "#F3F4F6"),
    SeedStage.DORMANT: StageLook("○", "dim", "#E7EAEE"),
    SeedStage.GERMINATED: StageLook("◦", "cyan", "#CFE6F5", "...."),
    SeedStage.TRAINING: StageLook("◔", "cyan", "#A9D2EE", "////"),
    SeedStage.BLENDING: StageLook("◑", "yellow", "#F0C04A"),
    SeedStage.SHADOWING: StageLook("◕", "yellow", "#DD8A3A"),
    SeedStage.PROBATIONARY: StageLook("●", "magenta", "#5B4B9A"),
    SeedStage.FOSSILIZED: StageLook("◆", "green", "#10815F"),
    SeedStage.CULLED: StageLook("✕", "red", "#C4452F"),
    SeedStage.EMBARGOED: StageLook("⊘", "red", "#E3BDB4"),
    SeedStage.RESETTING: StageLook("↺", "red", "#F1DFDA"),
    SeedStage.TERMINATED: StageLook("■", "dim", "#B3BAC4"),
}
"""Every stage has a look."""


def stage_label(stage: SeedStage) -> str:
    """The stage's name as tables and legends write it."""
    return stage.name.lower()
