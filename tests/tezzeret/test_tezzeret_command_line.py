"""What ``python -m esper_lightning.tezzeret compile`` would make, makes, and says of it."""

import os
import subprocess
import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from small_recipes import compiles

from esper_lightning.karn import get, query
from esper_lightning.leyline import InvalidArgument, UnknownBlueprint, encode
from esper_lightning.tezzeret import Workshop, workshop
from esper_lightning.tezzeret.__main__ import main, recipes_of
from esper_lightning.tezzeret.examine import Examination

pytestmark = pytest.mark.usefixtures("nothing_stays")

GPT = (
    "data=tiny_shakespeare",
    "data.data_dir={}",
    "data.verify=false",
    "host.width=8",
    "host.num_heads=2",
)


def asked(host: str | None = "mlp", *overrides: str, **changes: Any) -> Namespace:
    told = {"all": True, "blueprints": None, "batch": None, "overrides": list(overrides)}
    return Namespace(host=host, **(told | changes))


def test_every_production_blueprint_is_made_for_every_shape_that_it_fits() -> None:
    recipes = recipes_of(asked())
    assert len({str(each) for each in recipes}) == len(recipes)
    shapes = {str(each.shape): each.shape for each in recipes}
    expected = {(row.name, name) for row in query() for name in shapes if row.fits(shapes[name])}
    assert {(each.blueprint, str(each.shape)) for each in recipes} == expected
    assert {each.batch for each in recipes} == {32}
    for each in recipes:
        assert each.parameters == get(each.blueprint).resolve()
        assert (each.dtype, each.device, each.channels_last) == ("float32", "cpu", False)


def test_a_shape_that_several_slots_have_is_made_once() -> None:
    few, many = (
        recipes_of(asked("mlp", f"host.depth={depth}", all=False, blueprints=["low_rank"]))
        for depth in (2, 4)
    )
    assert few == many
    assert max(Counter(str(each) for each in many).values()) == 1


@pytest.mark.parametrize(
    ("host", "overrides", "blueprint"),
    [
        ("mlp", (), "parallel_mlp"),
        ("cnn", (), "parallel_conv"),
        ("resnet", ("host.width=4",), "parallel_conv"),
        ("gpt", GPT, "causal_conv"),
    ],
)
def test_hosts_have_slots_for_it(
    tmp_path: Path, host: str, overrides: tuple[str, ...], blueprint: str
) -> None:
    (tmp_path / "input.txt").write_text("to be, or not to be? that is the question.\n" * 500)
    told = [override.format(tmp_path) for override in overrides]
    recipes = recipes_of(asked(host, *told, all=False, blueprints=[blueprint]))
    assert recipes
    for each in recipes:
        x = each.input()
        assert torch.isfinite(each.build()(x)).all()
        assert x.shape[0] == each.batch


def test_overrides_are_those_of_training() -> None:
    (made,) = recipes_of(
        asked(
            None,
            *("host=mlp", "host.width=12", "kasmina.slots=[layers.1]", "data.batch_size=7"),
            all=False,
            blueprints=["low_rank"],
        )
    )
    assert made.shape.output.sizes == (12,)
    assert made.batch == 7
    assert recipes_of(asked(all=False, blueprints=["low_rank"], batch=3))[0].batch == 3
    torch.set_num_threads(1)
    recipes_of(asked("mlp", "threads=2", all=False, blueprints=["low_rank"]))
    assert torch.get_num_threads() == 2


def test_overrides_may_follow_the_names_of_blueprints() -> None:
    behind = recipes_of(asked("mlp", all=False, blueprints=["low_rank", "host.width=12"]))
    assert behind == recipes_of(asked("mlp", "host.width=12", all=False, blueprints=["low_rank"]))


def test_where_seeds_begin_apart_both_ways_are_made() -> None:
    names: Any = {"all": False, "blueprints": ["low_rank"]}
    direct = recipes_of(asked("mlp", **names))
    assert all(each.input_requires_grad for each in direct)
    apart = recipes_of(asked("mlp", "kasmina.incubation=straight_through", **names))
    assert len(apart) == 2 * len(direct)
    assert [each.input_requires_grad for each in apart[:2]] == [False, True]


def test_blueprints_of_any_tier_can_be_named() -> None:
    tried = query(tiers=["experimental"])  # type: ignore[list-item]
    recipes = recipes_of(asked("cnn", all=False, blueprints=[row.name for row in tried]))
    assert {each.blueprint for each in recipes} <= {row.name for row in tried}
    assert recipes


OWN = """
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Numbers(LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.randn(64, 20), torch.zeros(64).long()), 16)

    val_dataloader = train_dataloader


class Classifier(LightningModule):
    def __init__(self, has_example=True):
        super().__init__()
        self.body = nn.Linear(20, 5)
        if has_example:
            self.example_input_array = torch.randn(1, 20)

    def forward(self, x):
        return self.body(x)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())
"""


def test_a_project_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_compiled_project.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    own = (
        "module=my_compiled_project.Classifier",
        "datamodule=my_compiled_project.Numbers",
        "kasmina.slots=[body]",
    )
    names: Any = {"all": False, "blueprints": ["parallel_mlp"]}
    try:
        unknown = "module={_target_: my_compiled_project.Classifier, has_example: false}"
        with pytest.raises(InvalidArgument, match="Classifier has no example_input_array"):
            recipes_of(asked(None, *own, unknown, **names))
        with pytest.raises(InvalidArgument, match="no batch_size; name one with --batch"):
            recipes_of(asked(None, *own, **names))
        (made,) = recipes_of(asked(None, *own, batch=64, **names))
        assert (made.batch, made.shape.input.sizes, made.shape.output.sizes) == (64, (20,), (5,))
    finally:
        sys.modules.pop("my_compiled_project", None)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (asked("submarine"), InvalidArgument, "host=submarine"),
        (asked(all=False, blueprints=["flower"]), UnknownBlueprint, "flower"),
        (asked(all=False, blueprints=["parallel_conv"]), InvalidArgument, "none of .* fits a slot"),
        (asked(batch=0), InvalidArgument, "batch must be at least 1, got 0"),
        (asked("mlp", "kasmina=none"), InvalidArgument, "no slots with kasmina=none"),
        (asked("mlp", "kasmina.slots=[layers.99]"), InvalidArgument, r"layers\.99"),
    ],
)
def test_what_makes_no_recipe_is_told(arguments: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        recipes_of(arguments)


def test_errors_end_the_command_in_words(tmp_path: Path) -> None:
    root = ["--root", str(tmp_path / "library")]
    with pytest.raises(SystemExit, match="not compiled: .*flower"):
        main(["compile", "--host", "mlp", "--blueprints", "flower", *root])
    (tmp_path / "library").write_bytes(b"")
    with pytest.raises(SystemExit, match="not compiled: .*cannot be used"):
        main(["compile", "--host", "mlp", "--blueprints", "low_rank", *root])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["compile", "--host", "mlp"],
        ["compile", "--host", "mlp", "--all", "--blueprints", "low_rank"],
        ["compile", "--host", "mlp", "--blueprints"],
        ["compile", "--all", "--batch", "many"],
    ],
)
def test_arguments_that_are_wrong_are_explained(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m esper_lightning.tezzeret" in capsys.readouterr().err


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Children are replaced; the steps that they would do."""
    told: list[str] = []

    def run(self: Workshop, step: str, *_: Any) -> list[bytes]:
        told.append(step)
        speedup = 0.5 + 0.25 * len(told)  # 1.0 for the first, 1.5 for the second
        examined = Examination(
            wrong="", errors={}, speedup=speedup, eager_ms=7.25, compiled_ms=7.25 / speedup
        )
        return [b"code", b"libraries"] if step == "make" else [encode(examined)]

    monkeypatch.setattr(workshop, "is_supported", lambda: True)
    monkeypatch.setattr(Workshop, "_run", run)
    return told


def test_it_says_what_became_of_each(
    tmp_path: Path, steps: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compile", "--host", "mlp", "--blueprints", "low_rank", "parallel_mlp"]
    command += ["--root", str(tmp_path / "library"), "kasmina.slots=[layers.1]"]
    for number in range(3):
        again = ["--again"] if number == 2 else []
        with pytest.raises(SystemExit) as ended:
            main([*command[:-1], *again, command[-1]])
        assert not ended.value.code
        told = " ".join(capsys.readouterr().out.split())
        assert len(steps) == (8 if again else 4)
        if not again:
            assert "eager, 1.00 times as fast as eager, 1.05 is asked" in told
            assert "compiled, 1.50 times as fast as eager" in told
            assert "1 compiled, 1 eager, in" in told
            assert told.count("7.25") == 3
        assert "2/2" in told


def test_a_full_disk_ends_the_command_in_words(
    tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Workshop, "_run", no_room)
    with pytest.raises(SystemExit, match="not compiled: .*No space left"):
        main(
            ["compile", "--host", "mlp", "--blueprints", "low_rank", "--root", str(tmp_path / "l")]
        )


def test_an_interrupted_command_says_that_it_can_go_on(
    tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Workshop, "make_all", interrupted)
    with pytest.raises(SystemExit, match="interrupted; what was decided is kept"):
        main(["compile", "--host", "mlp", "--all", "--root", str(tmp_path / "library")])


@pytest.mark.slow
@compiles
def test_a_second_run_finds_everything_kept(tmp_path: Path) -> None:
    arguments = ["compile", "--host", "mlp", "--blueprints", "low_rank"]
    arguments += ["--root", str(tmp_path / "library"), "kasmina.slots=[layers.1]", "threads=1"]
    command = [sys.executable, "-m", "esper_lightning.tezzeret", *arguments]
    environment = {**os.environ, "COLUMNS": "200"}
    told = []
    for _ in range(2):
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        assert "1/1" in ran.stdout
        assert "times as fast as eager" in ran.stdout
        (line,) = [line for line in ran.stdout.splitlines() if line.startswith("low_rank(")]
        told.append(line.split())
    assert told[0] == told[1], "the figures are those of the first run"
    journal = (tmp_path / "library" / "tezzeret" / "journal.jsonl").read_text()
    assert journal.count('"begun"') == 1
