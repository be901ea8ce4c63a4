"""What a seed adds to the bill of a training step, as one would count it by hand."""

from collections.abc import Mapping

import pytest
import torch
from seedlings import command, make_bed, moment
from torch import Tensor, nn

from esper_lightning.kasmina import Branch, FlopCount, FlopMeter, LifecycleRules, SecondPasses
from esper_lightning.leyline import (
    Attachment,
    CommandKind,
    Incubation,
    ParameterValue,
    SlotShape,
)


def counted(network: nn.Module, x: Tensor) -> tuple[int, int]:
    """Operations of a forward pass, and of the backward pass that follows."""
    with FlopCount() as count:
        output = network(x)
        first = count.total
        output.sum().backward()
    return first, count.total - first


class Chain(nn.Module):
    """Three linear layers of 4 to 4; the middle one is to be a slot."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mix, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(self.mix(self.first(x)))
        return output


class Square(Branch):
    """One linear layer of 4 to 4, zero at birth."""

    attachment = Attachment.SERIES

    def __init__(self, shape: SlotShape) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layer(x)
        return output


def build_square(name: str, parameters: Mapping[str, ParameterValue], shape: SlotShape) -> Branch:
    return Square(shape)


@pytest.mark.parametrize(
    ("incubation", "products"),
    [
        (None, 3 + 3 + 2),
        (Incubation.STRAIGHT_THROUGH, 4 + 3 + 2 + 1),
        (Incubation.DIRECT, 4 + 3 + 2 + 2),
    ],
)
def test_a_step_with_a_seed(incubation: Incubation | None, products: int) -> None:
    """Forward passes, gradients of weights, gradients of inputs but the first layer's.

    A seed that is isolated returns no gradient to its input.
    """
    bed, _ = make_bed(
        Chain(),
        incubation=incubation or Incubation.DIRECT,
        build=build_square,
        example=torch.randn(6, 4),
    )
    if incubation is not None:
        bed.apply(command(CommandKind.GERMINATE), moment(0))
    forward, backward = counted(bed.network, torch.randn(6, 4))
    assert forward + backward == products * 2 * 6 * 4 * 4


def test_a_host_that_is_frozen_costs_its_gradients_less() -> None:
    """A frozen host before a direct seed: its layers run forward, and nothing flows before them."""
    bed, _ = make_bed(
        Chain(), incubation=Incubation.DIRECT, build=build_square, example=torch.randn(6, 4)
    )
    bed.network.requires_grad_(False)
    bed.apply(command(CommandKind.GERMINATE), moment(0))
    forward, backward = counted(bed.network, torch.randn(6, 4))
    product = 2 * 6 * 4 * 4
    assert forward == 4 * product
    assert backward == 2 * product, "the seed's weights, and the last layer's input"


def test_a_seed_in_shadow_is_billed_for_its_second_pass() -> None:
    """Forward through all four layers, back to the seed's weights through the last one only."""
    meter = FlopMeter()
    bed, _ = make_bed(
        Chain(),
        incubation=Incubation.SHADOW,
        rules=LifecycleRules(shadow_share=1.0, monitor_every=None),
        build=build_square,
        example=torch.randn(6, 4),
        second_passes=True,
    )
    bed.apply(command(CommandKind.GERMINATE), moment(0))
    second = SecondPasses(bed.network, bed.slots, rules=bed.rules, meter=meter)
    x = torch.randn(6, 4)
    second.run(
        lambda: bed.network(x).sum(), epoch=0, batch=0, size=6, topology=bed.topology(), scale=1.0
    )
    assert meter.total == (4 + 2) * 2 * 6 * 4 * 4
