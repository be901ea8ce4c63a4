"""What the branches on frequencies do to a map."""

import re

import pytest
import torch
from torch import Tensor, nn

from esper_lightning.karn import CountableBranch, build, get
from esper_lightning.leyline import FeatureKind, FeatureMap, InvalidArgument, SlotShape


def shape(*sizes: int) -> SlotShape:
    feature_map = FeatureMap(FeatureKind.SPATIAL, sizes)
    return SlotShape(feature_map, feature_map)


def awake(name: str, where: SlotShape, **parameters: int) -> CountableBranch:
    torch.manual_seed(0)
    branch = get(name).build(where, parameters).double()
    for parameter in branch.parameters():
        nn.init.normal_(parameter)
    return branch


def image(*sizes: int) -> Tensor:
    return torch.randn(2, *sizes, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("name", ["global_filter", "spectral_conv"])
@pytest.mark.parametrize("sizes", [(4, 7, 5), (4, 6, 8), (4, 1, 9)], ids=str)
def test_a_shifted_map_gives_the_shifted_output(name: str, sizes: tuple[int, ...]) -> None:
    branch, x = awake(name, shape(*sizes)), image(*sizes)
    shifted = branch(x.roll((3, 2), dims=(2, 3)))
    torch.testing.assert_close(shifted, branch(x).roll((3, 2), dims=(2, 3)))


@pytest.mark.parametrize("name", ["global_filter", "spectral_conv"])
def test_every_pixel_hears_every_other(name: str) -> None:
    branch, x = awake(name, shape(4, 7, 6)), image(4, 7, 6)
    changed = x.clone()
    changed[:, :, 3, 3] += 1
    assert bool((branch(changed) - branch(x)).abs().amin(dim=(0, 1)).gt(0).all())


def test_a_filter_takes_no_other_map() -> None:
    branch = build("global_filter", {}, shape(4, 7, 5))
    with pytest.raises(InvalidArgument, match=re.escape("for maps of 7x5 and got 5x7")):
        branch(torch.randn(1, 4, 5, 7))


def test_a_spectral_convolution_takes_larger_maps() -> None:
    branch = awake("spectral_conv", shape(4, 7, 5))
    assert branch(image(4, 12, 11)).shape == (2, 4, 12, 11)


def test_modes_are_cut_to_what_the_map_has() -> None:
    where = shape(4, 6, 5)
    low, high = (get("spectral_conv").num_parameters(where, {"modes": n}) for n in (3, 12))
    assert low == high
