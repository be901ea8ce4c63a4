"""Experimental branches, and those across pixels, against their definitions."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esper_lightning.karn import CountableBranch, get
from esper_lightning.leyline import FeatureKind, FeatureMap, InvalidArgument, SlotShape

KINDS = {1: FeatureKind.VECTOR, 2: FeatureKind.TOKENS, 3: FeatureKind.SPATIAL}


def slot(*sizes: int) -> SlotShape:
    feature_map = FeatureMap(KINDS[len(sizes)], sizes)
    return SlotShape(feature_map, feature_map)


def built(name: str, *sizes: int, **parameters: float) -> CountableBranch:
    """In float64, with weights that are all random."""
    torch.manual_seed(0)
    branch = get(name).build(slot(*sizes), parameters).double()
    for parameter in branch.parameters():
        nn.init.normal_(parameter, std=0.5)
    return branch


def batch(*sizes: int) -> Tensor:
    return torch.randn(3, *sizes, generator=torch.Generator().manual_seed(1)).double()


def test_every_sample_has_its_own_mixture_of_kernels() -> None:
    branch, x = built("dynamic_conv", 8, 5, 4, num_kernels=3), batch(8, 5, 4)
    hidden = F.silu(branch.squeeze(x.mean(dim=(2, 3))))
    choice = branch.choose(hidden).softmax(dim=-1)
    outputs = [
        F.conv2d(branch.norm(x), kernel, bias, padding=1)
        for kernel, bias in zip(branch.kernels, branch.biases, strict=True)
    ]
    mixed = torch.einsum("bk,kbchw->bchw", choice, torch.stack(outputs))
    torch.testing.assert_close(branch(x), branch.project(F.gelu(mixed)))


def test_kernels_are_chosen_almost_evenly_at_birth() -> None:
    torch.manual_seed(0)
    branch = get("dynamic_conv").build(slot(64, 5, 4))
    hidden = F.silu(branch.squeeze(torch.randn(3, 64)))
    assert bool(((branch.choose(hidden).softmax(dim=-1) - 0.25).abs() < 0.1).all())


@pytest.mark.parametrize("channels", [5, 32])
def test_involution_has_a_kernel_for_each_pixel_and_group(channels: int) -> None:
    branch, x = built("involution", channels, 5, 4, kernel_size=3), batch(channels, 5, 4)
    normed = branch.norm(x)
    kernels = branch.span(F.silu(branch.reduce(normed)))
    groups = 2 if channels == 32 else 1
    patches = F.unfold(normed, 3, padding=1).reshape(3, groups, channels // groups, 9, 5, 4)
    kernels = kernels.reshape(3, groups, 1, 9, 5, 4)
    hidden = (patches * kernels).sum(3).reshape(3, channels, 5, 4)
    torch.testing.assert_close(branch(x), branch.project(F.gelu(hidden)))


def test_a_mixture_is_a_weighted_sum_of_experts() -> None:
    branch, x = built("soft_mixture", 6, num_experts=3, expansion=0.5), batch(6)
    normed = branch.norm(x)
    gate = branch.gate(normed).softmax(dim=-1)
    expected = branch.project.bias.expand(3, 6)
    for expert in range(3):
        own = slice(3 * expert, 3 * expert + 3)
        hidden = F.gelu(F.linear(normed, branch.expand.weight[own], branch.expand.bias[own]))
        said = F.linear(hidden, branch.project.weight[:, own])
        expected = expected + gate[:, expert, None] * said
    torch.testing.assert_close(branch(x), expected)


@pytest.mark.parametrize("sizes", [(6,), (5, 6)])
def test_a_memory_is_attention_over_its_table(sizes: tuple[int, ...]) -> None:
    branch, x = built("memory_layer", *sizes, num_heads=2, num_entries=9), batch(*sizes)
    queries = branch.query(branch.norm(x)).unflatten(-1, (2, 3)).reshape(-1, 2, 3)
    keys = branch.keys.transpose(-2, -1) * 3**0.5  # attention divides by the root again
    values = branch.values.weight.T.unflatten(0, (2, 9))
    attended = F.scaled_dot_product_attention(queries[:, :, None], keys[None], values[None])
    torch.testing.assert_close(branch(x).reshape(-1, 6), attended[:, :, 0].sum(1))


def test_a_kan_layer_adds_curves_of_single_features() -> None:
    branch = built("kan_layer", 6)
    branch.norm = nn.Identity()
    one, other = torch.zeros(2, 1, 6).double()
    one[:, 2], other[:, 4] = 0.7, -1.3
    origin = branch(torch.zeros(1, 6).double())
    torch.testing.assert_close(branch(one + other) - branch(other), branch(one) - origin)
    # What is behind the ends of the grid is a SiLU, and that is a straight line there.
    far = [branch(place * torch.ones(1, 6).double()) for place in (40.0, 50.0, 60.0)]
    torch.testing.assert_close(far[2] - far[1], far[1] - far[0])


def test_quadratic_features_are_of_second_degree_and_know_pairs() -> None:
    branch = built("quadratic_features", 6)
    branch.norm = nn.Identity()
    start, step = batch(6)[:1], batch(6)[1:2]
    first, second, third, fourth = (branch(start + times * step) for times in range(4))
    curvature = third - 2 * second + first
    assert curvature.norm() > 0.1
    torch.testing.assert_close(fourth - 2 * third + second, curvature)
    one, other = torch.eye(6)[:2, None].double()
    origin = branch(torch.zeros(1, 6).double())
    assert not torch.allclose(branch(one + other) - branch(other), branch(one) - origin)


def test_pixels_hear_each_other_and_channels_do_not() -> None:
    branch, x = built("pixel_mixer", 6, 3, 4), batch(6, 3, 4)
    branch.norm = nn.Identity()
    changed = x.clone()
    changed[:, 2, 0, 0] += 1
    moved = (branch(changed) != branch(x)).all(dim=0)
    assert bool(moved[2].all())
    assert not moved[[0, 1, 3, 4, 5]].any()


def test_a_pixel_mixer_takes_no_map_of_another_size() -> None:
    branch = get("pixel_mixer").build(slot(6, 3, 4))
    for height, width in ((4, 3), (3, 5), (2, 6)):
        with pytest.raises(
            InvalidArgument, match=f"built for maps of 3x4 and got {height}x{width}"
        ):
            branch(torch.zeros(2, 6, height, width))
    assert get("pixel_mixer").fits(slot(6, 32, 32))
    assert not get("pixel_mixer").fits(slot(6, 32, 33))
    assert not get("pixel_mixer").fits(slot(6, 1, 3))
