"""Networks as programs of torch.export: what is asked for, said and left. What they compute is in
test_kasmina_export_elsewhere.py."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from grown_networks import fossil, seed, slots_of
from torch import Tensor, nn

from esper_lightning.kasmina import NotExportable, save_program
from esper_lightning.leyline import InvalidArgument, SeedStage
from esper_lightning.tolaria import CNN, MLP


def loaded(path: Path) -> nn.Module:
    program: nn.Module = torch.export.load(path).module()
    return program


class Pair(NamedTuple):
    logits: Tensor
    features: Tensor


class Outputs(nn.Linear):
    """Returns a class of its own, a number, and nothing."""

    def forward(self, x: Tensor, scale: float = 1.0) -> dict[str, object]:
        h = super().forward(x)
        return {"pair": Pair(h * scale, h), "number": 3, "all": [x, None]}


def test_containers_become_pythons_own_and_plain_arguments_are_fixed(tmp_path: Path) -> None:
    host, x = Outputs(3, 3), torch.randn(2, 3)
    program = loaded(save_program(host, (x, 2.0), tmp_path / "net.pt2"))
    more = torch.randn(5, 3)
    output, expected = program(more, 2.0), host(more, 2.0)
    assert type(output["pair"]) is tuple
    assert output["number"] == 3
    assert output["all"][1] is None
    for a, b in zip(output["pair"], expected["pair"], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_arguments_may_be_named(tmp_path: Path) -> None:
    host, x = Outputs(3, 3), torch.randn(1, 3)
    program = loaded(save_program(host, {"x": x}, tmp_path / "net.pt2"))
    assert program(x=torch.randn(4, 3))["pair"][0].shape == (4, 3)


def test_other_sizes_than_the_batch_are_those_of_the_example(tmp_path: Path) -> None:
    host = MLP(input_shape=(6,), num_classes=3)
    program = loaded(save_program(host, torch.randn(2, 6), tmp_path / "net.pt2"))
    assert program(torch.randn(9, 6)).shape == (9, 3)
    with pytest.raises((AssertionError, RuntimeError), match="6"):
        program(torch.randn(9, 7))


def test_the_file_names_no_place_on_this_machine(tmp_path: Path) -> None:
    host, x = CNN(input_shape=(1, 8, 8), num_classes=3), torch.randn(2, 1, 8, 8)
    fossil(slots_of(host, ["features.0"], x)["features.0"])
    content = save_program(host, x, tmp_path / "net.pt2").read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in content
    assert b"features" in content, "the file is not packed"


def test_a_folder_is_made_and_an_older_file_replaced(tmp_path: Path) -> None:
    x = torch.randn(2, 4)
    path = tmp_path / "deep/er/net.pt2"
    for width in (3, 5):
        host = MLP(input_shape=(4,), num_classes=width)
        save_program(host, x, path)
    assert loaded(path)(x).shape == (2, 5)
    assert [each.name for each in path.parent.iterdir()] == ["net.pt2"]


@pytest.mark.parametrize("stage", [SeedStage.GERMINATED, SeedStage.CULLED])
def test_a_live_seed_is_refused_unless_asked_for(stage: SeedStage, tmp_path: Path) -> None:
    host, x = MLP(input_shape=(6,), num_classes=3), torch.randn(4, 6)
    seed(slots_of(host, ["layers.0"], x)["layers.0"], stage, "parallel_mlp", alpha=0.25)
    path = tmp_path / "net.pt2"
    with pytest.raises(NotExportable, match=f"'layers.0' holds a seed in {stage.name}.*fossilise"):
        save_program(host, x, path)
    assert not path.exists()
    program = loaded(save_program(host, x, path, with_seeds=True))
    torch.testing.assert_close(program(x), host.eval()(x), rtol=1e-6, atol=1e-6)


class ByValue(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else -super().forward(x)


class ByRows(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).reshape(2, -1)


class Strange(nn.Linear):
    def forward(self, x: Tensor) -> object:
        return {1, 2}


@pytest.mark.parametrize(
    ("host", "says"),
    [
        (ByValue(3, 3), "torch.export cannot export ByValue with a batch of any size: .*depend"),
        (Strange(3, 3), "the network returns a set; let it return tensors, in tuples"),
    ],
)
def test_what_cannot_be_exported_is_said(host: nn.Module, says: str, tmp_path: Path) -> None:
    with pytest.raises(NotExportable, match=f"(?s){says}"):
        save_program(host, torch.randn(2, 3), tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())


def test_errors_of_the_network_itself_come_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        save_program(nn.Linear(3, 3), torch.randn(2, 4), tmp_path / "net.pt2")


@pytest.mark.parametrize(
    ("network", "example", "name", "says"),
    [
        (nn.Linear(3, 3), torch.randn(2, 3), "net.pt", r"must end in .pt2, got '.*net.pt'"),
        (nn.Linear(3, 3), [1.0], "net.pt2", "a tensor, a tuple .* or a mapping .*; got list"),
        (nn.Linear(3, 3), torch.randn(0, 3), "net.pt2", "at least one row"),
        ("a network", torch.randn(2, 3), "net.pt2", "takes an nn.Module, got str"),
    ],
)
def test_wrong_arguments_are_told(
    network: nn.Module, example: object, name: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgument, match=says):
        save_program(network, example, tmp_path / name)
