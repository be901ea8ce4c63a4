import math

import pytest
import torch
from torch import nn

from esper_lightning.leyline import InvalidArgument
from esper_lightning.tolaria.hosts import CNN, MLP, ConvBlock, DenseBlock, ResidualBlock, ResNet
from esper_lightning.tolaria.optimizer import host_groups


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 5, 7), (1, 1, 1)])
def test_cnn_maps_images_to_logits(shape):
    host = CNN(input_shape=shape, num_classes=7, width=3)
    assert host(torch.randn(4, *shape)).shape == (4, 7)


@pytest.mark.parametrize("shape", [(1, 8, 8), (13,), (4, 6)])
def test_mlp_maps_inputs_of_any_shape_to_logits(shape):
    host = MLP(input_shape=shape, num_classes=3, width=5, depth=3)
    assert host(torch.randn(4, *shape)).shape == (4, 3)


def test_parameter_counts_that_the_documentation_names():
    shape = {"input_shape": (1, 8, 8), "num_classes": 10}
    assert num_parameters(CNN(**shape)) == 590
    assert num_parameters(CNN(**shape, width=8)) == 2034
    assert num_parameters(CNN(**shape, width=8, inner_ratio=0.25)) == 3510
    assert num_parameters(MLP(**shape)) == 682


def test_the_blocks_are_reachable_as_slots():
    cnn = CNN(input_shape=(1, 8, 8), num_classes=10)
    assert all(isinstance(cnn.get_submodule(f"features.{i}"), ConvBlock) for i in range(3))
    mlp = MLP(input_shape=(4,), num_classes=2, depth=2)
    assert all(isinstance(mlp.get_submodule(f"layers.{i}"), DenseBlock) for i in range(2))


def test_the_second_and_third_block_halve_the_resolution():
    host = CNN(input_shape=(1, 8, 8), num_classes=10, width=4)
    x, shapes = torch.randn(2, 1, 8, 8), []
    for block in host.features:
        x = block(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(4, 8, 8), (4, 4, 4), (8, 2, 2)]


def test_residual_blocks_follow_each_halving_and_are_the_identity_at_birth():
    host = CNN(input_shape=(1, 8, 8), num_classes=10, width=8, inner_ratio=0.25)
    x = torch.randn(2, 8, 4, 4)
    for name, channels, inner in (("features.2", 8, 2), ("features.4", 16, 4)):
        block = host.get_submodule(name)
        assert isinstance(block, ResidualBlock)
        x = torch.randn(2, channels, 4, 4)
        assert torch.equal(block(x), x)
        assert block.entry(x).shape[1] == inner
    assert not any(
        isinstance(each, ResidualBlock)
        for each in CNN(input_shape=(1, 8, 8), num_classes=2).modules()
    )


@pytest.mark.parametrize(
    ("ratio", "inner"), [(1.0, [8, 16, 32]), (0.25, [2, 4, 8]), (0.01, [1] * 3)]
)
def test_the_inside_of_a_resnets_blocks_has_a_width_of_its_own(ratio, inner):
    host = ResNet(input_shape=(3, 8, 8), num_classes=2, width=8, inner_ratio=ratio)
    blocks = [stage[0] for stage in host.stages]
    assert [block.entry.conv.out_channels for block in blocks] == inner
    assert host(torch.randn(2, 3, 8, 8)).shape == (2, 2)


@pytest.mark.parametrize("host", [CNN, MLP])
def test_every_parameter_gets_a_gradient(host):
    torch.manual_seed(0)
    model = host(input_shape=(1, 8, 8), num_classes=10)
    nn.functional.cross_entropy(model(torch.rand(32, 1, 8, 8)), torch.arange(32) % 10).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize(
    ("host", "arguments", "message"),
    [
        (CNN, {"input_shape": (1, 8, 8), "inner_ratio": -1}, "inner_ratio must be finite and at"),
        (CNN, {"input_shape": (1, 8, 8), "inner_ratio": math.inf}, "inner_ratio .* got inf"),
        (ResNet, {"input_shape": (1, 8, 8), "inner_ratio": 0}, "inner_ratio must be .* above 0"),
        (CNN, {"input_shape": (8, 8)}, r"three positive sizes .* got \(8, 8\); use the MLP"),
        (CNN, {"input_shape": (1, 0, 8)}, "three positive sizes"),
        (CNN, {"num_classes": 1}, "num_classes must be a whole number of at least 2, got 1"),
        (CNN, {"width": 0}, "width must be a whole number of at least 1, got 0"),
        (MLP, {"input_shape": ()}, "one or more positive sizes"),
        (MLP, {"input_shape": (3, 0)}, "one or more positive sizes"),
        (MLP, {"num_classes": 0}, "num_classes must be a whole number of at least 2, got 0"),
        (MLP, {"width": 0}, "width must be a whole number of at least 1, got 0"),
        (MLP, {"depth": 0}, "depth must be a whole number of at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(host, arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        host(**{"input_shape": (1, 8, 8), "num_classes": 10, **arguments})


def test_host_groups_hold_each_parameter_once_and_matrices_decay():
    model = CNN(input_shape=(1, 8, 8), num_classes=10)
    decay, no_decay = host_groups(model, weight_decay=0.1)
    assert (decay["name"], decay["weight_decay"]) == ("host/decay", 0.1)
    assert (no_decay["name"], no_decay["weight_decay"]) == ("host/no_decay", 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert [names[id(p)] for p in decay["params"]] == [
        "features.0.conv.weight",
        "features.1.conv.weight",
        "features.2.conv.weight",
        "head.weight",
    ]
    grouped = [names[id(p)] for p in decay["params"] + no_decay["params"]]
    assert sorted(grouped) == sorted(names.values())


def test_host_groups_keep_their_positions_without_matrices_and_without_biases():
    norm, linear = nn.BatchNorm1d(3), nn.Linear(3, 2, bias=False)
    for model in (norm, linear):
        groups = host_groups(model, weight_decay=0.1)
        assert [group["name"] for group in groups] == ["host/decay", "host/no_decay"]
        torch.optim.AdamW(groups)


def test_host_groups_count_tied_parameters_once_and_keep_frozen_ones():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    decay, no_decay = host_groups(model, weight_decay=0.0)
    assert [len(decay["params"]), len(no_decay["params"])] == [1, 2]


@pytest.mark.parametrize("weight_decay", [-0.1, float("nan"), float("inf")])
def test_host_groups_refuse_a_bad_weight_decay(weight_decay):
    with pytest.raises(InvalidArgument, match="weight_decay must be finite and at least 0"):
        host_groups(nn.Linear(2, 2), weight_decay=weight_decay)


def test_host_groups_refuse_a_model_without_parameters():
    with pytest.raises(InvalidArgument, match="ReLU has no parameters to train"):
        host_groups(nn.ReLU(), weight_decay=0.1)
