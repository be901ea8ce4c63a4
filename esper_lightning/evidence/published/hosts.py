"""What a network has to tell to be grown by us and by the published methods."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from torch import nn

from esper_lightning.tamiyo import GrowthBudget
from esper_lightning.tolaria import SplitDataModule

Widths: TypeAlias = tuple[int, ...]
"""Of the hidden layers, or the channels inside of the blocks, in order."""


class GrowingHost(Protocol):
    """A network as we have it, and as ``gromo`` has it."""

    @property
    def slots(self) -> Sequence[str]:
        """Where seeds may grow, by names of modules in ours."""

    @property
    def budget(self) -> GrowthBudget:
        """Of ours."""

    @property
    def thin(self) -> Widths:
        """To begin with."""

    def ours(self, data: SplitDataModule) -> nn.Module:
        """The thin host, for seeds."""

    def theirs(self, data: SplitDataModule, widths: Widths) -> Any:
        """The same network as a model of ``gromo``."""

    def widths_of(self, data: SplitDataModule, parameters: int) -> Widths:
        """Of the network whose number of parameters is nearest."""

    def widths_in(self, net: Any) -> Widths:
        """Of a model of ``gromo``."""
