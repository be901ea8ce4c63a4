"""Hosts as other people write them, each with an input and paths where it can grow."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint


class BasicBlock(nn.Module):
    """Of a ResNet-18: activations in place, the shortcut added in place, downsampling by 1x1."""

    def __init__(self, inplanes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None
        if stride != 1 or inplanes != planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """The shape of a ResNet-18, narrow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(4, 4), BasicBlock(4, 4))
        self.layer2 = nn.Sequential(BasicBlock(4, 6, 2), BasicBlock(6, 6))
        self.layer3 = nn.Sequential(BasicBlock(6, 8, 2), BasicBlock(8, 8))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Nested(nn.Module):
    """Modules in dictionaries in lists, found by key and by slice."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.ModuleDict(
                {"mix": nn.Sequential(nn.Linear(6, 6), nn.Tanh()), "out": nn.Linear(6, 6)}
            )
            for _ in range(3)
        )
        self.tail = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU())
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages[: len(self.stages)]:
            for name, module in stage.items():
                x = module(x) if name == "mix" else x + module(x)
        for layer in self.tail[:2]:
            x = layer(x)
        for number in range(2, len(self.tail)):
            x = self.tail[number](x)
        return self.head(x)


class Shared(nn.Module):
    """One block that is an attribute twice and in a list, and is called at each place."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())
        self.first = block
        self.blocks = nn.ModuleList([nn.Conv2d(3, 3, 1), block])
        self.again = block
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.again(x).mean((2, 3)))


class Repeated(nn.Module):
    """One block several times in a pass, as in a weight-tied network."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 6)
        self.cell = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for _ in range(3):
            x = self.cell(x)
        return self.head(x)


class ByKeyword(nn.Module):
    """Calls its blocks by keyword alone, the mask before the features."""

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 6)

        def forward(self, hidden_states: Tensor, *, attention_mask: Tensor) -> Tensor:
            return self.linear(input=hidden_states) * attention_mask

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([self.Mixer(), self.Mixer()])
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(attention_mask=torch.ones(x.shape[0], x.shape[1], 1), hidden_states=x)
        return self.head(x.mean(1))


class Parametrised(nn.Module):
    """Weights that other modules compute."""

    def __init__(self) -> None:
        super().__init__()
        self.weighted = parametrizations.weight_norm(nn.Conv2d(3, 4, 3, padding=1))
        self.spectral = parametrizations.spectral_norm(nn.Conv2d(4, 4, 3, padding=1))
        self.orthogonal = parametrizations.orthogonal(nn.Linear(4, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.spectral(torch.relu(self.weighted(x))))
        return self.head(torch.relu(self.orthogonal(h.mean((2, 3)))))


class Overwriting(nn.Module):
    """Every way of working in place around and inside of blocks."""

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(F.relu_(x)).mul_(0.5)

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 6)
        self.inner = self.Inner()
        self.after = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(self.embed(x))
        h.add_(1.0)
        h = self.after(h)
        h += 1.0
        return self.head(F.elu_(h))


class Checkpointed(nn.Module):
    """Computes its blocks a second time in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 6)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Dropout(0.2)) for _ in range(2)
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return self.head(x)


class Encoder(nn.Module):
    """torch's own transformer."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


class Upsampling(nn.Module):
    """Grows and shrinks maps: transposed convolution, pixel shuffle, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.deep = nn.Sequential(nn.Conv2d(4, 4, 3, stride=2), nn.ReLU())
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.shuffle = nn.Sequential(nn.Conv2d(4, 8, 1), nn.PixelShuffle(2))
        self.head = nn.Conv2d(2, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.shuffle(self.up(self.deep(self.down(x))))).mean((2, 3))


def channels_last() -> nn.Module:
    return ResNet().to(memory_format=torch.channels_last)


def frozen() -> nn.Module:
    net = ResNet()
    for part in (net.conv1, net.bn1, net.layer1, net.layer2, net.layer3):
        part.requires_grad_(False)
    return net


@dataclass(frozen=True)
class Case:
    """A host, an input of it, and where it can grow."""

    make: Callable[[], nn.Module]
    x: Callable[[], Tensor]
    paths: tuple[str, ...]


def image(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def image_channels_last() -> Tensor:
    return image(4, 3, 8, 8)().to(memory_format=torch.channels_last)


BLOCKS = ("layer1.0", "layer1.1", "layer2.0", "layer3.1")

CASES: dict[str, Case] = {
    "resnet": Case(ResNet, image(4, 3, 16, 16), BLOCKS),
    "resnet, parts of blocks": Case(
        ResNet, image(4, 3, 16, 16), ("layer1.0.conv1", "layer2.0.downsample", "layer2.0.bn2")
    ),
    "resnet, activations in place": Case(ResNet, image(4, 3, 8, 8), ("relu", "layer2.0.relu")),
    "resnet, slots in slots": Case(
        ResNet, image(4, 3, 8, 8), ("layer2", "layer2.0", "layer2.0.bn1")
    ),
    "channels last": Case(channels_last, image_channels_last, BLOCKS),
    "odd sizes": Case(ResNet, image(3, 3, 15, 11), BLOCKS),
    "maps of one pixel": Case(ResNet, image(4, 3, 2, 2), BLOCKS),
    "batch of one": Case(ResNet, image(1, 3, 16, 16), BLOCKS),
    "frozen": Case(frozen, image(4, 3, 8, 8), BLOCKS),
    "upsampling": Case(Upsampling, image(2, 3, 9, 7), ("down", "deep", "up", "shuffle")),
    "nested": Case(
        Nested, image(4, 6), ("stages.0.mix", "stages.1.out", "stages.2.mix.0", "tail.2")
    ),
    "shared": Case(Shared, image(4, 3, 6, 6), ("first", "blocks.0")),
    "shared, inner": Case(Shared, image(4, 3, 6, 6), ("again.0", "blocks.1.1")),
    "repeated": Case(Repeated, image(4, 5), ("cell", "embed")),
    "by keyword": Case(ByKeyword, image(2, 5, 6), ("layers.0", "layers.1.linear")),
    "parametrised": Case(Parametrised, image(2, 3, 5, 5), ("weighted", "spectral", "orthogonal")),
    "overwriting": Case(Overwriting, image(4, 5), ("embed", "inner", "after")),
    "computed again": Case(Checkpointed, image(4, 5), ("embed", "blocks.0", "blocks.1.0")),
    "torch's encoder": Case(Encoder, image(2, 5, 8), ("encoder.layers.0", "encoder.layers.1")),
}
