"""Exports load and run where neither this package nor the host's can be imported."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_hosts import CASES
from grown_networks import fossil, is_available, seed, skip_unless_available, slots_of
from matrix import BLUEPRINTS, CONDITIONS, MatrixHost, batch
from torch import Tensor, nn

from esper_lightning.kasmina import save_program, save_source
from esper_lightning.leyline import FeatureKind, SeedStage
from esper_lightning.tolaria import CNN, MLP

TOLERANCE = 1e-6
FOREIGN = (
    *("resnet, activations in place", "channels last", "nested", "shared", "repeated"),
    *("overwriting", "torch's encoder"),
)

READER = """
import importlib.util, json, sys
from pathlib import Path

import torch

BLOCKED = ("esper_lightning", "transformers", "lightning", "msgspec", "hydra")

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is not here")

for name in [name for name in sys.modules if name.partition(".")[0] in BLOCKED]:
    del sys.modules[name]
sys.meta_path.insert(0, Blocker())
try:
    import esper_lightning
except ImportError:
    pass
else:
    raise SystemExit("esper_lightning can be imported")

def parts(output):
    if isinstance(output, dict):
        return list(output.values())
    return [output]

def source(folder):
    spec = importlib.util.spec_from_file_location("network", folder / "network.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build().eval()

found = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    forms = {}
    if (folder / "network.pt2").exists():
        forms["program"] = torch.export.load(folder / "network.pt2").module()
    if (folder / "network.py").exists():
        forms["source"] = source(folder)
    for form, network in forms.items():
        for given, expected in torch.load(folder / "expected.pt"):
            with torch.no_grad():
                returned = parts(network(**given) if isinstance(given, dict) else network(given))
            worst = max(float((a - b).abs().max()) for a, b in zip(expected, returned, strict=True))
            found.setdefault(f"{folder.name}/{form}", []).append(worst)
print(json.dumps(found))
"""


def resized(x: Any, rows: int) -> Any:
    if isinstance(x, dict):
        return {name: resized(value, rows) for name, value in x.items()}
    return x[torch.arange(rows) % len(x)].clone()


def blueprint_of(case: str) -> str:
    """The blueprint that a case of the catalogue is named by."""
    return case.partition(" ")[0]


def export(network: nn.Module, x: Any, folder: Path) -> None:
    """What there is of both forms, and what they must return for three batch sizes."""
    folder.mkdir()
    if is_available(blueprint_of(folder.name), "program"):
        save_program(network, x, folder / "network.pt2", with_seeds=True)
    if is_available(blueprint_of(folder.name), "source"):
        save_source(network, x, folder, with_seeds=True)
    network.eval()
    expected = []
    for rows in (1, 3, 7):
        given = resized(x, rows)
        with torch.no_grad():
            output = network(**given) if isinstance(given, dict) else network(given.clone())
        returned = [output] if isinstance(output, Tensor) else list(output.values())
        expected.append((given, returned))
    torch.save(expected, folder / "expected.pt")


def of_catalogue(blueprint: str, kind: FeatureKind) -> tuple[nn.Module, Any]:
    host, (x, _) = MatrixHost(kind, CONDITIONS["all"]), batch(kind, 1)
    fossil(slots_of(host, ["mix"], x)["mix"], blueprint)
    return host, x


def of_project(make: Callable[..., nn.Module], *paths: str) -> tuple[nn.Module, Any]:
    host, x = make(input_shape=(1, 8, 8), num_classes=10), torch.randn(1, 1, 8, 8)
    for slot in slots_of(host, paths, x).values():
        fossil(slot)
        fossil(slot)
    return host, x


def foreign(name: str) -> tuple[nn.Module, Any]:
    host, x = CASES[name].make(), CASES[name].x()
    for slot in slots_of(host, CASES[name].paths, x).values():
        fossil(slot)
    return host, x


def with_seeds() -> tuple[nn.Module, Any]:
    host, x = CNN(input_shape=(1, 8, 8), num_classes=10), torch.randn(4, 1, 8, 8)
    stages = (SeedStage.TRAINING, SeedStage.BLENDING, SeedStage.SHADOWING)
    for slot, stage in zip(
        slots_of(host, [f"features.{i}" for i in range(3)], x).values(), stages, strict=True
    ):
        seed(slot, stage, "parallel_conv", alpha=0.3)
    return host, x


def of_transformers(name: str) -> tuple[nn.Module, Any]:
    transformers = pytest.importorskip("transformers")
    sizes: dict[str, Any] = {"vocab_size": 30, "use_cache": False}
    if name == "bert":
        config = transformers.BertConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=12, num_labels=3, **sizes,
        )  # fmt: skip
        host = transformers.BertForSequenceClassification(config)
        path = "bert.encoder.layer.0.output"
    else:
        config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=12, **sizes)
        host, path = transformers.GPT2LMHeadModel(config), "transformer.h.0.mlp"
    ids = torch.randint(1, 30, (3, 9))
    x = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    slots = slots_of(host, [path], (ids,))
    fossil(slots[path], "parallel_mlp" if name == "bert" else "mlp_residual")
    return host, x


MAKE: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    **{
        f"{row.name} on {kind.value}": lambda row=row, kind=kind: of_catalogue(row.name, kind)
        for row in BLUEPRINTS
        for kind in FeatureKind
        if kind in row.kinds
    },
    "cnn": lambda: of_project(CNN, "features.0", "features.2"),
    "mlp": lambda: of_project(MLP, "layers.0", "layers.1"),
    "live seeds": with_seeds,
    **{name: lambda name=name: foreign(name) for name in FOREIGN},
    "bert": lambda: of_transformers("bert"),
    "gpt2": lambda: of_transformers("gpt2"),
}


@pytest.fixture(scope="module")
def differences(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """Largest differences by case and form, as the other process found them."""
    folder = tmp_path_factory.mktemp("exported")
    for name, make in MAKE.items():
        torch.manual_seed(0)
        export(*make(), folder / name)
    run = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", READER, str(folder)],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, list[float]] = json.loads(run.stdout)
    return found


@pytest.mark.parametrize("form", ["program", "source"])
@pytest.mark.parametrize("name", MAKE)
def test_outputs_are_the_same_at_any_batch_size(
    name: str, form: str, differences: dict[str, list[float]]
) -> None:
    skip_unless_available(blueprint_of(name), form)
    found = differences[f"{name}/{form}"]
    assert len(found) == 3
    assert max(found) <= TOLERANCE
