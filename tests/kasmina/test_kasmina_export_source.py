"""Networks written as source: what they compute, and how they train on."""

import ast
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from foreign_hosts import CASES, Case
from grown_networks import (
    IS_EARLY,
    fossil,
    imported,
    same,
    seed,
    skip_unless_available,
    slots_of,
    trained,
)
from matrix import BLUEPRINTS, CONDITIONS, MatrixHost, batch
from safetensors.torch import load_file
from torch import Tensor, nn

from esper_lightning.karn import Blueprint
from esper_lightning.kasmina import NotExportable, save_source
from esper_lightning.leyline import FeatureKind, SeedStage
from esper_lightning.tolaria import CNN, MLP

GROWN = [(row, kind) for row in BLUEPRINTS for kind in FeatureKind if kind in row.kinds]

LATE = {"parametrised", "computed again"}
traceable_of_late = pytest.mark.skipif(
    IS_EARLY,
    reason="torch's own spectral norm and checkpoint cannot be traced in 2.8, in 2.13 they can",
)


def written(network: nn.Module, example: object, folder: Path, **options: bool) -> nn.Module:
    made: nn.Module = imported(save_source(network, example, folder, **options)).build()
    return made


@pytest.mark.parametrize(("blueprint", "kind"), GROWN, ids=lambda value: getattr(value, "name", ""))
def test_every_blueprint_is_written_and_trains_on_bit_for_bit(
    blueprint: Blueprint, kind: FeatureKind, tmp_path: Path
) -> None:
    skip_unless_available(blueprint.name, "source")
    torch.manual_seed(0)
    host, (x, _) = MatrixHost(kind, CONDITIONS["all"]), batch(kind, 1)
    slot = slots_of(host, ["mix"], x)["mix"]
    fossil(slot, blueprint.name)
    fossil(slot, blueprint.name)
    network = written(host, x, tmp_path)
    assert same(trained(network, x), trained(host, x))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=[traceable_of_late] * (name in LATE))
        for name, case in CASES.items()
    ],
)
def test_hosts_of_other_people_train_on_bit_for_bit(case: Case, tmp_path: Path) -> None:
    torch.manual_seed(0)
    host = case.make()
    for slot in slots_of(host, case.paths, case.x()).values():
        fossil(slot)
    x = case.x() if len(case.x()) > 1 else case.x().repeat(2, *[1] * (case.x().ndim - 1))
    network = written(host, case.x(), tmp_path)
    host, x = host.to(memory_format=torch.contiguous_format), x.contiguous()  # is not kept
    assert same(trained(network, x), trained(host, x))


@pytest.mark.parametrize("make", [CNN, MLP])
@pytest.mark.parametrize("rows", [1, 5])
def test_the_hosts_of_this_project(make: type[nn.Module], rows: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    host = make(input_shape=(1, 8, 8), num_classes=10)
    x = torch.randn(rows, 1, 8, 8)
    for slot in slots_of(host, ["features.1"] if make is CNN else ["layers.0"], x).values():
        fossil(slot)
    network = written(host, x, tmp_path)
    more = torch.randn(7, 1, 8, 8)
    assert same([network.eval()(more)], [host.eval()(more)])


def test_what_is_written_imports_torch_alone_and_says_what_grew(tmp_path: Path) -> None:
    host = CNN(input_shape=(1, 8, 8), num_classes=10)
    x = torch.randn(2, 1, 8, 8)
    slots = slots_of(host, ["features.0", "features.2"], x)
    fossil(slots["features.0"], "parallel_conv", expansion=2.0)
    fossil(slots["features.2"], "squeeze_excite")
    text = save_source(host, x, tmp_path).read_text()
    names = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
        )
    }
    assert names == {"pathlib", "torch", "safetensors"}
    assert "    features.0: parallel_conv(expansion=2.0)\n    features.2: squeeze_excite()" in text
    assert "self.features_1_conv = nn.Conv2d(4, 4, (3, 3), stride=(2, 2), padding=(1, 1)" in text
    assert "alpha" not in text, "slots have gone"


def test_only_what_is_used_is_written_and_the_weights_load_strictly(tmp_path: Path) -> None:
    class Extra(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    network = written(Extra(), torch.randn(2, 3), tmp_path)
    stored = load_file(tmp_path / "weights.safetensors")
    assert stored.keys() == {"used.weight", "used.bias"}
    with pytest.raises(RuntimeError, match="Missing key"):
        network.load_state_dict({"used.weight": stored["used.weight"]})


class Tied(nn.Module):
    """The head's weights are the embedding's, and the first layer is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.mix = nn.Linear(4, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.scale = nn.Parameter(torch.ones(4), requires_grad=False)
        self.mix.requires_grad_(False)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.mix(self.embed(ids)) * self.scale
        return self.head(h) + F.linear(h, self.embed.weight)


def test_tied_weights_stay_tied_and_frozen_ones_frozen(tmp_path: Path) -> None:
    torch.manual_seed(0)
    host, ids = Tied(), torch.randint(0, 7, (3, 5))
    fossil(slots_of(host, ["mix"], ids)["mix"], "parallel_low_rank")
    network = written(host, ids, tmp_path)
    assert network.embed.weight is network.head.weight
    trains = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trains == {"embed.weight", "mix_fossils_0_down.weight", "mix_fossils_0_up.weight"}
    for each in (network, host):
        each.train()(ids).square().sum().backward()
    assert torch.equal(network.embed.weight.grad, host.embed.weight.grad)


class ByMode(nn.Module):
    """Functional dropout, gradients turned off on the way, a branch on shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = F.dropout(self.first(x), 0.5, training=self.training)
        with torch.no_grad():
            scale = h.norm(dim=1, keepdim=True)
        if h.shape[1] != 4 or h.ndim not in (2, 3):
            raise ValueError("never")
        rows, width = h.shape
        width += 1
        mask = torch.arange(h.size(1), device=x.device) < x.dim() + 1
        h[:, 1:3] = h[:, 1:3] * 2
        h[0, ..., None] += 1.0
        return self.last((h / (1 + scale)).reshape(rows, width - 1) * -(mask.float() ** 2))


def test_training_and_evaluation_may_be_two_things(tmp_path: Path) -> None:
    torch.manual_seed(0)
    host, x = ByMode(), torch.randn(6, 4)
    fossil(slots_of(host, ["first"], x)["first"], "parallel_mlp")
    network = written(host, x, tmp_path)
    assert same(trained(network, x), trained(host, x))
    text = (tmp_path / "network.py").read_text()
    assert "return self._training(x) if self.training else self._evaluation(x)" in text
    assert "with torch.no_grad():\n            " in text


def test_other_dtypes_are_kept(tmp_path: Path) -> None:
    host = CNN(input_shape=(1, 8, 8), num_classes=3).double()
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    fossil(slots_of(host, ["features.0"], x)["features.0"], "channel_affine")
    network = written(host, x, tmp_path)
    dtypes = {parameter.dtype for parameter in network.parameters()}
    assert dtypes == {torch.float64}
    assert torch.equal(network.eval()(x), host.eval()(x))


# Live seeds


@pytest.mark.parametrize("stage", [SeedStage.TRAINING, SeedStage.BLENDING, SeedStage.PROBATIONARY])
def test_a_live_seed_is_refused_unless_asked_for(stage: SeedStage, tmp_path: Path) -> None:
    host, x = MLP(input_shape=(6,), num_classes=3), torch.randn(4, 6)
    seed(slots_of(host, ["layers.0"], x)["layers.0"], stage, "parallel_mlp", alpha=0.25)
    with pytest.raises(
        NotExportable, match=rf"'layers.0' holds a seed in {stage.name}.*with_seeds"
    ):
        save_source(host, x, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    network = written(host, x, tmp_path, with_seeds=True)
    assert torch.equal(network.eval()(x), host.eval()(x))
    kept = any("seed" in name for name, _ in network.named_parameters())
    assert kept == (stage is not SeedStage.TRAINING)


# What cannot be written


class ByValue(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else -super().forward(x)


class ByItem(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2 if x.mean().item() + 1 > 0 else 3)


class ByRows(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * len(x)


class OfNumpy(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.from_numpy(x.detach().numpy())


class Noisy(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.rand(3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("host", "says"),
    [
        (ByValue(3, 3), "takes values of a tensor for a condition"),
        (ByItem(3, 3), "takes values of a tensor for a condition"),
        (ByRows(3, 3), r"depends on the batch size: '.* \* 2' or '.* \* 3'"),
        (OfNumpy(3, 3), "ndarray"),
        (Noisy(3, 3), "Generator"),
    ],
)
def test_what_cannot_be_written_is_said_and_nothing_is_left(
    host: nn.Module, says: str, tmp_path: Path
) -> None:
    (tmp_path / "network.py").write_text("mine")
    name = type(host).__name__
    with pytest.raises(
        NotExportable, match=f"{name} cannot be written as source: .*{says}"
    ) as told:
        save_source(host, torch.randn(2, 3), tmp_path)
    assert "save_program may export it, for inference" in str(told.value)
    assert [path.name for path in tmp_path.iterdir()] == ["network.py"]
    assert (tmp_path / "network.py").read_text() == "mine"


def test_the_network_and_random_generators_are_left_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(0)
    host, x = CNN(input_shape=(1, 8, 8), num_classes=3).train(), torch.randn(3, 1, 8, 8)
    slot = slots_of(host, ["features.0"], x)["features.0"]
    fossil(slot)
    before = {name: value.clone() for name, value in host.state_dict().items()}
    sample, random = slot.sample, torch.get_rng_state()
    save_source(host, x, tmp_path)
    after = host.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert slot.sample is sample
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in host.modules())
    assert all(parameter.grad is None for parameter in host.parameters())
