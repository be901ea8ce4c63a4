"""Windowed attention against one pixel at a time."""

import math

import pytest
import torch
from torch import Tensor, nn

from esper_lightning.karn import get
from esper_lightning.karn.windowed_attention import WindowedAttention
from esper_lightning.leyline import FeatureKind, FeatureMap, SlotShape

HEADS = 2


def awake(sizes: tuple[int, ...], window_size: int) -> WindowedAttention:
    feature_map = FeatureMap(FeatureKind.SPATIAL, sizes)
    torch.manual_seed(0)
    branch = get("windowed_attention").build(
        SlotShape(feature_map, feature_map), {"num_heads": HEADS, "window_size": window_size}
    )
    assert isinstance(branch, WindowedAttention)
    for parameter in branch.parameters():
        nn.init.normal_(parameter)
    return branch.double()


def attended(branch: WindowedAttention, x: Tensor, row: int, column: int) -> Tensor:
    """What one pixel of ``(1, C, H, W)`` reads from its window: ``(heads, head channels)``."""
    _, _, height, width = x.shape
    qkv = branch.query_key_value(branch.norm(x)).reshape(3, HEADS, -1, height, width)
    side_h, side_w = branch.window
    top, left = row // side_h * side_h, column // side_w * side_w
    window = [
        (r, c)
        for r in range(top, min(top + side_h, height))
        for c in range(left, min(left + side_w, width))
    ]
    scores = [
        (qkv[0, :, :, row, column] * qkv[1, :, :, r, c]).sum(1) / math.sqrt(qkv.shape[2])
        + branch.position_bias[:, r - row + side_h - 1, c - column + side_w - 1]
        for r, c in window
    ]
    weights = torch.stack(scores).softmax(dim=0)
    values = torch.stack([qkv[2, :, :, r, c] for r, c in window])
    return (weights[:, :, None] * values).sum(0)


@pytest.mark.parametrize(
    ("sizes", "window_size"),
    [((6, 9, 7), 4), ((4, 8, 8), 4), ((4, 3, 10), 7), ((4, 5, 1), 8)],
    ids=str,
)
def test_a_pixel_attends_to_those_of_its_window(sizes: tuple[int, ...], window_size: int) -> None:
    branch = awake(sizes, window_size)
    x = torch.randn(1, *sizes, generator=torch.Generator().manual_seed(1)).double()
    asked = torch.empty(1, branch.project.in_channels, *sizes[1:]).double()
    with torch.no_grad():
        for row in range(sizes[1]):
            for column in range(sizes[2]):
                asked[0, :, row, column] = attended(branch, x, row, column).flatten()
        torch.testing.assert_close(branch(x), branch.project(asked))
