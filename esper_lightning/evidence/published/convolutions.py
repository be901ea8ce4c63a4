"""The residual network: blocks that are widened between their two convolutions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from esper_lightning.evidence.published.hosts import Widths
from esper_lightning.evidence.published.methods import ReLU, gromo
from esper_lightning.tamiyo import GrowthBudget
from esper_lightning.tolaria import ResNet, SplitDataModule

STAGES = 3
INNER_RATIO = 0.25
"""Channels inside a block over those that leave it, to begin with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowingResNet:
    """One block a stage; a :class:`~esper_lightning.evidence.published.hosts.GrowingHost`.

    The model of ``gromo`` is the same network as ours: the "classical" one, with a 3x3 stem of
    stride 1, three stages of which the second and the third halve the resolution, projections
    with BatchNorm, the same head, parameter for parameter. It begins with the same distribution of
    weights, since its convolutions are drawn anew as ours are. What differs is the derivative of
    its ReLUs at 0, which is 1 as GradMax needs it, and how it grows: channels are added inside of
    its blocks, where ours adds branches beside them.

    Attributes:
        width: channels of the first stage.
        whole_kernels: whether new channels leave by 3x3 kernels from the beginning
            (``FullConv2dGrowingModule``). If not, as is the default of the library, by a value in
            the middle of a kernel of zeros, and an event adds at most as many channels as leave the
            block. With images of ``H`` x ``W`` whole kernels take time and memory of the order
            ``(H * W) ** 2``, since the library has masks between all positions.
    """

    width: int = 4
    whole_kernels: bool = False

    @property
    def slots(self) -> Sequence[str]:
        """The blocks."""
        return [f"stages.{stage}.0" for stage in range(STAGES)]

    @property
    def budget(self) -> GrowthBudget:
        """Multiples of the host's parameters and FLOPs, those of the benchmark."""
        return GrowthBudget(max_growth=12.0, max_flops_growth=12.0)

    @property
    def thin(self) -> Widths:
        """To begin with."""
        return self._widths(INNER_RATIO)

    def ours(self, data: SplitDataModule) -> nn.Module:
        """The thin host, for seeds."""
        assert data.num_classes is not None
        return ResNet(
            input_shape=data.input_shape,
            num_classes=data.num_classes,
            width=self.width,
            inner_ratio=INNER_RATIO,
        )

    def theirs(self, data: SplitDataModule, widths: Widths) -> Any:
        """A model of ``gromo``."""
        modules = gromo("modules.conv2d_growing_module")
        kind = "FullConv2dGrowingModule" if self.whole_kernels else "RestrictedConv2dGrowingModule"
        net = gromo("containers.resnet").init_full_resnet_structure(
            input_shape=tuple(data.input_shape),
            out_features=data.num_classes,
            device=torch.device("cpu"),
            activation=ReLU(),
            hidden_channels=widths,
            small_inputs=True,
            skip_first_downsample=False,
            number_of_blocks_per_stage=1,
            inplanes=self.width,
            nb_stages=STAGES,
            use_preactivation=False,
            growing_conv_type=getattr(modules, kind),
        )
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        return net

    def widths_of(self, data: SplitDataModule, parameters: int) -> Widths:
        """Of the network whose number of parameters is nearest, with one ratio in all blocks."""
        outer = self._widths(1.0)
        entering = (self.width, *outer)
        # Two 3x3 kernels, a scale and a shift for each channel inside a block.
        each = [9 * (a + b) + 2 for a, b in zip(entering, outer, strict=False)]
        thin = self.thin
        begun = sum(parameter.numel() for parameter in self.ours(data).parameters())

        def distance(widths: Widths) -> int:
            added = sum(
                cost * (width - before)
                for cost, width, before in zip(each, widths, thin, strict=True)
            )
            return abs(begun + added - parameters)

        steps = range(1, outer[-1] * max(1, parameters // (each[-1] * outer[-1]) + 2))
        return min((self._widths(step / outer[-1]) for step in steps), key=distance)

    def widths_in(self, net: Any) -> Widths:
        """Of a model of ``gromo``."""
        return tuple(stage[0].hidden_neurons for stage in net.stages)

    def _widths(self, ratio: float) -> Widths:
        return tuple(max(1, round(ratio * self.width * 2**stage)) for stage in range(STAGES))
