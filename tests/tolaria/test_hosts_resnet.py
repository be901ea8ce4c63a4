"""The residual host: its shape, its blocks, where it grows."""

import copy
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from cifar_files import write_packed
from launching import composed
from torch import Tensor, nn

from esper_lightning import karn
from esper_lightning.kasmina import SeedSlot, auto_slots, insert_slots, possible_slots, regraft
from esper_lightning.leyline import InvalidArgument, RunSummary, SlotShape, decode
from esper_lightning.tolaria import ResNet
from esper_lightning.tolaria.hosts import BasicBlock

CIFAR = {"input_shape": (3, 32, 32), "num_classes": 10}


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def fits(shape: SlotShape) -> bool:
    return bool(karn.fitting(shape))


def by_hand(block: BasicBlock, x: Tensor) -> Tensor:
    """A basic block as figure 2 of the paper draws it."""
    norm, relu = nn.functional.batch_norm, nn.functional.relu

    def normalised(h: Tensor, layer: nn.BatchNorm2d) -> Tensor:
        return norm(h, layer.running_mean, layer.running_var, layer.weight, layer.bias)

    stride = block.entry.conv.stride
    h = nn.functional.conv2d(x, block.entry.conv.weight, stride=stride, padding=1)
    h = relu(normalised(h, block.entry.norm))
    h = normalised(nn.functional.conv2d(h, block.conv.weight, padding=1), block.norm)
    if isinstance(block.shortcut, nn.Sequential):
        conv, layer = block.shortcut
        x = normalised(nn.functional.conv2d(x, conv.weight, stride=stride), layer)
    return relu(h + x)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 5, 7), (1, 1, 1)])
@pytest.mark.parametrize("depth", [8, 14])
def test_images_become_logits(shape, depth):
    host = ResNet(input_shape=shape, num_classes=7, depth=depth, width=3).eval()
    assert host(torch.randn(4, *shape)).shape == (4, 7)


def test_parameter_counts_that_the_documentation_names():
    assert num_parameters(ResNet(**CIFAR)) == 78_042
    assert num_parameters(ResNet(**CIFAR, width=4)) == 5_214
    assert num_parameters(ResNet(**CIFAR, width=8)) == 19_954
    deep = ResNet(**CIFAR, depth=20)
    assert num_parameters(deep) == 272_474
    projections = sum(num_parameters(stage[0].shortcut) for stage in deep.stages)
    assert num_parameters(deep) - projections == 269_722
    for each in ("5,214", "19,954", "78,042", "272,474", "269,722"):
        assert each in ResNet.__doc__


@pytest.mark.parametrize("depth", [8, 14, 20, 26])
def test_the_depth_counts_the_weighted_layers_outside_of_shortcuts(depth):
    layers = [
        name
        for name, module in ResNet(**CIFAR, depth=depth, width=2).named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and "shortcut" not in name
    ]
    assert len(layers) == depth


def test_stages_double_the_channels_and_halve_the_resolution():
    host = ResNet(**CIFAR, depth=14, width=4)
    x, shapes = host.stem(torch.randn(2, 3, 32, 32)), []
    for stage in host.stages:
        for block in stage:
            x = block(x)
            shapes.append(tuple(x.shape[1:]))
    sizes = [(4, 32, 32), (8, 16, 16), (16, 8, 8)]
    assert shapes == [size for size in sizes for _ in range(2)]


def test_shortcuts_are_the_identity_wherever_shapes_allow():
    host = ResNet(**CIFAR, depth=20, width=2)
    projected = {
        name
        for name, module in host.named_modules()
        if isinstance(module, BasicBlock) and not isinstance(module.shortcut, nn.Identity)
    }
    assert projected == {"stages.1.0", "stages.2.0"}


@pytest.mark.parametrize("path", ["stages.0.0", "stages.1.0"])
def test_a_block_computes_what_the_paper_draws_and_leaves_its_input_alone(path):
    torch.manual_seed(0)
    host = ResNet(**CIFAR, width=4)
    for _ in range(3):
        host(torch.randn(8, 3, 32, 32))  # running statistics that are not those of birth
    block = host.eval().get_submodule(path)
    x = torch.randn(2, 4, 9, 9)
    before = x.clone()
    torch.testing.assert_close(block(x), by_hand(block, x), rtol=1e-5, atol=1e-5)
    assert torch.equal(x, before)


def test_convolutions_begin_with_the_variance_of_he():
    torch.manual_seed(0)
    for name, module in ResNet(**CIFAR, width=32).named_modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            assert abs(float(module.weight.detach().std()) * (fan_in / 2) ** 0.5 - 1) < 0.1, name


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    model = ResNet(input_shape=(1, 8, 8), num_classes=10, depth=14, width=4)
    nn.functional.cross_entropy(model(torch.rand(32, 1, 8, 8)), torch.arange(32) % 10).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_shape": (8, 8)}, r"three positive sizes .* got \(8, 8\); use the MLP"),
        ({"input_shape": (3, 0, 8)}, "three positive sizes"),
        ({"num_classes": 1}, "num_classes must be a whole number of at least 2, got 1"),
        ({"width": 0}, "width must be a whole number of at least 1, got 0"),
        ({"depth": 2}, r"depth must be 6 n \+ 2 .*\(8, 14, 20, 26, ...\), got 2"),
        ({"depth": -4}, "got -4"),
        ({"depth": 18}, "got 18"),
    ],
)
def test_bad_arguments_are_refused(changes, message):
    with pytest.raises(InvalidArgument, match=message):
        ResNet(**{**CIFAR, **changes})


@pytest.mark.parametrize(("depth", "num_blocks"), [(8, 1), (20, 3)])
def test_slots_are_found_at_the_stem_and_at_every_block(depth, num_blocks):
    host = ResNet(**CIFAR, depth=depth, width=4)
    found = auto_slots(host, lambda: host(torch.randn(2, 3, 32, 32)), fits=fits)
    blocks = [f"stages.{i}.{j}" for i in range(3) for j in range(num_blocks)]
    assert found == ["stem", *blocks]
    shapes = {s.path: s.shape for s in possible_slots(host, lambda: host(torch.rand(2, 3, 8, 8)))}
    assert str(shapes["stages.1.0"]) == "spatial 4x8x8 -> spatial 8x4x4"


def test_slots_in_every_block_leave_the_host_as_it_was():
    torch.manual_seed(0)
    host = ResNet(**CIFAR, width=4)
    grown = copy.deepcopy(host)
    slots = insert_slots(grown, [f"stages.{i}.0" for i in range(3)], build=karn.build)
    assert all(isinstance(slot.base_layer, BasicBlock) for slot in slots.values())
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(grown(x), host(x))
    assert torch.equal(grown.eval()(x), host.eval()(x))


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_stays")
def test_it_grows_in_a_run_and_returns_from_the_checkpoint(entry: ModuleType, tmp_path: Path):
    write_packed(tmp_path / "data", 400, 100)
    overrides = (
        *("host=resnet", "host.width=4", "data=cifar10_jpeg", f"data.data_dir={tmp_path}/data"),
        *("data.verify=false", "data.num_val=100", "data.subset=300", "trainer.max_epochs=4"),
        "kasmina.fossils=[{slot: stages.1.0, blueprint: parallel_conv}]",
        *("tamiyo=periodic", "tamiyo.policy.start=1", "tamiyo.policy.trial=1"),
        *("callbacks.growth_figure=null", "logger=none", "print_config=false"),
    )
    results = entry.train(composed(*overrides, output_dir=tmp_path / "run"))
    assert all(math.isfinite(value) for value in results.values())
    summary = decode((tmp_path / "run/summary.json").read_bytes(), RunSummary)
    assert (summary.outcome, summary.host) == ("finished", "ResNet")
    assert [seed.slot for seed in summary.grown] == ["stages.1.0"]
    assert summary.parameters == 5_214 + summary.grown[0].num_parameters
    assert summary.culled, "the policy planted as well"
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    state = {
        name.removeprefix("host."): value
        for name, value in saved.items()
        if name.startswith("host.")
    }
    fresh = ResNet(**CIFAR, width=4)
    regraft(fresh, state, build=karn.build)
    fresh.load_state_dict(state)
    assert isinstance(fresh.get_submodule("stages.1.0"), SeedSlot)
    assert num_parameters(fresh) == summary.parameters
