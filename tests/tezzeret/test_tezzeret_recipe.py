"""A recipe's key changes with all that compiled code depends on, and with nothing else."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
import torch
from small_recipes import IN, MAPS, OUT, ROWS, VECTOR, mlp, name_of, own, row
from torch import nn

from esper_lightning import karn
from esper_lightning.karn import CountableBranch
from esper_lightning.karn.attention import MapAttention
from esper_lightning.karn.windowed_attention import WindowedAttention
from esper_lightning.leyline import DecodeError, InvalidArgument, decode, encode
from esper_lightning.tezzeret import Machine, Recipe, key, recipe_for, this_machine
from esper_lightning.tezzeret.recipe import _modules, source_digest

OTHER_RECIPE: dict[str, Any] = {
    "blueprint": "another",
    "source": "esper_lightning.karn.mlp:Adapter",
    "parameters": {"expansion": 3.0},
    "shape": MAPS,
    "batch": 5,
    "dtype": "float64",
    "device": "cuda",
    "channels_last": True,
    "input_requires_grad": False,
}
OTHER_MACHINE: dict[str, Any] = {
    "torch": "2.99",
    "python": "3.99",
    "compiler": "another",
    "processor": "another",
    "threads": 99,
    "accelerator": "a GPU",
    "format": 99,
}


@pytest.mark.parametrize("field", Recipe.__struct_fields__)
def test_every_field_of_a_recipe_changes_the_key(field: str) -> None:
    asked, machine = mlp(), this_machine()
    other = msgspec.structs.replace(asked, **{field: OTHER_RECIPE[field]})
    assert key(other, machine) != key(asked, machine)


@pytest.mark.parametrize("field", Machine.__struct_fields__)
def test_every_field_of_a_machine_changes_the_key(field: str) -> None:
    asked, machine = mlp(), this_machine()
    other = msgspec.structs.replace(machine, **{field: OTHER_MACHINE[field]})
    assert key(asked, other) != key(asked, machine)


def test_equal_recipes_have_one_key() -> None:
    machine = this_machine()
    assert key(mlp(), machine) == key(mlp(), machine)
    assert key(mlp(parameters={"expansion": 2}), machine) == key(mlp(), machine)
    assert len(key(mlp(), machine)) == 64


def test_the_machine_is_this_one() -> None:
    machine = this_machine()
    assert machine.torch.startswith(torch.__version__)
    assert machine.threads == 1
    assert machine.accelerator == ""
    torch.set_num_threads(2)
    assert this_machine().threads == 2


def test_the_source_changes_the_key_once_it_is_imported_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = own(tmp_path, monkeypatch)
    before, branch = name_of(first), first.branch_class()
    file = tmp_path / "my_branches.py"
    file.write_text(file.read_text().replace("self.linear(x)", "2 * self.linear(x)"))
    assert name_of(first) == before, "what this process runs has not changed"
    again = own(tmp_path, monkeypatch, forward="return 2 * self.linear(x)")
    assert again == first
    assert name_of(again) != before
    with pytest.raises(InvalidArgument, match="not what another process would import"):
        recipe_for(row(branch), VECTOR, batch=ROWS)


def test_the_source_of_what_a_branch_uses_changes_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = tmp_path / "my_parts.py"
    uses = {
        "a function": ("from my_parts import double\n", "return double(self.linear(x))"),
        "a module": ("import my_parts\n", "return my_parts.double(self.linear(x))"),
    }
    for more, forward in uses.values():
        names = []
        for factor in (2, 3):
            parts.write_text(f"def double(x):\n    return {factor} * x\n")
            monkeypatch.delitem(sys.modules, "my_parts", raising=False)
            names.append(name_of(own(tmp_path, monkeypatch, more=more, forward=forward)))
        assert names[0] != names[1]


def test_layers_that_families_share_are_part_of_the_source() -> None:
    assert MapAttention.__module__ in _modules(WindowedAttention)
    assert "esper_lightning.karn.layers" in _modules(WindowedAttention)
    assert not any(name.startswith("torch") for name in _modules(WindowedAttention))


def test_a_class_without_a_source_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("nowhere_to_be_read")
    branch = type("Own", (CountableBranch,), {"__module__": module.__name__})
    module.Own = branch  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(InvalidArgument, match=r"nowhere_to_be_read\.Own has no source file"):
        source_digest(branch)


def test_a_class_whose_file_is_gone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = own(tmp_path, monkeypatch)
    (tmp_path / "my_branches.py").unlink()
    with pytest.raises(InvalidArgument, match=r"my_branches\.Own has no source file"):
        name_of(asked)


class Outer:
    class Inner(karn.get("parallel_mlp").branch):  # type: ignore[misc]
        """Of a class."""


def test_only_what_another_process_can_import_has_a_recipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Local(karn.get("parallel_mlp").branch):  # type: ignore[misc]
        def __init__(self, shape: Any) -> None:
            super().__init__(shape, expansion=1.0)

        @classmethod
        def cost(cls, shape: Any, /) -> Any:
            return super().cost(shape, expansion=1.0)

    with pytest.raises(InvalidArgument, match="cannot be imported"):
        recipe_for(row(Local), VECTOR, batch=ROWS)
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "Typed", Local, raising=False)
    Local.__module__, Local.__qualname__ = "__main__", "Typed"
    with pytest.raises(InvalidArgument, match=r"__main__:Typed .* at the top of a module"):
        recipe_for(row(Local), VECTOR, batch=ROWS)
    made = msgspec.structs.replace(mlp(), source=f"{__name__}:Outer.Inner")
    assert made.branch_class() is Outer.Inner
    gone = msgspec.structs.replace(mlp(), source="not_there:Own")
    with pytest.raises(InvalidArgument, match="not_there:Own cannot be imported"):
        gone.build()


def test_it_says_what_it_is() -> None:
    shape = mlp().shape
    assert str(mlp()) == f"parallel_mlp(expansion=2.0) {shape}, batch 4, float32, cpu"
    frozen = mlp(
        blueprint="parallel_conv",
        shape=MAPS,
        parameters={},
        channels_last=True,
        input_requires_grad=False,
    )
    assert str(frozen).endswith(", batch 4, float32, cpu, channels last, input frozen")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_travels_as_json(dtype: str) -> None:
    asked = mlp(dtype=dtype, input_requires_grad=False)
    assert decode(encode(asked), Recipe) == asked
    with pytest.raises(DecodeError, match="batch must be at least 1"):
        decode(encode(asked).replace(b'"batch":4', b'"batch":0'), Recipe)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"dtype": "float16"}, "dtype must be one of float32, float64, bfloat16, got 'float16'"),
        ({"device": "abacus"}, "device must be one of cpu, cuda, got 'abacus'"),
        ({"shape": MAPS}, "does not fit"),
        ({"parameters": {"expansion": 99.0}}, "takes expansion as"),
        ({"parameters": {"width": 1}}, "has no parameter 'width'"),
    ],
)
def test_wrong_values_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        mlp(**change)


def test_parameters_that_are_not_given_take_their_defaults() -> None:
    assert mlp(parameters={}).parameters == {"expansion": 4.0}
    assert mlp(parameters={}) == mlp(parameters={"expansion": 4})


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_it_builds_the_branch_and_its_input(dtype: str) -> None:
    asked = mlp(dtype=dtype)
    branch, x = asked.build(), asked.input()
    assert type(branch) is karn.get("parallel_mlp").branch
    assert {str(p.dtype) for p in branch.parameters()} == {f"torch.{dtype}"}
    assert (x.shape, str(x.dtype)) == ((ROWS, IN), f"torch.{dtype}")
    assert x.requires_grad
    assert branch(x).shape == (ROWS, OUT)
    assert not mlp(input_requires_grad=False).input().requires_grad
    assert torch.equal(asked.input(seed=1), asked.input(seed=1))
    assert not torch.equal(asked.input(seed=1), asked.input(seed=2))


def test_its_input_comes_from_a_generator_of_its_own() -> None:
    before = torch.get_rng_state()
    mlp().input()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_branch_in_series_reads_the_output_of_its_slot() -> None:
    asked = mlp(blueprint="adapter", parameters={})
    assert asked.input().shape == (ROWS, OUT)


def test_channels_last_is_a_matter_of_strides_of_maps() -> None:
    maps: dict[str, Any] = {"blueprint": "parallel_conv", "shape": MAPS, "parameters": {}}
    plain, last = mlp(**maps), mlp(**maps, channels_last=True)
    assert plain.input().stride() == (192, 64, 8, 1)
    assert last.input().stride() == (192, 1, 24, 3)
    assert last.input().shape == plain.input().shape
    assert last.input().requires_grad
    assert last.input().is_leaf
    assert not mlp(channels_last=True).channels_last, "a vector has no such layout"
    assert isinstance(last.build(), nn.Module)
