"""The wheel: what it holds, what it asks for, and that it grows a module away from the checkout.

Tests have no network, so the packages that the wheel depends on are lent to the new environment by
a ``.pth`` file; that they are declared is a test of its own. What is proven is that the wheel needs
nothing of the checkout.
"""

import ast
import importlib.metadata
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FOLDERS = ("esper_lightning", "esper_lightning/callbacks", "esper_lightning/conf")

GROW = """
import sys
import torch
from pathlib import Path
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import esper_lightning
from esper_lightning.callbacks import Kasmina, Tamiyo
from esper_lightning.leyline import StageChanged
from esper_lightning.tamiyo import GrowthBudget, Periodic

home = Path(esper_lightning.__file__).parent
assert home.is_relative_to(sys.prefix), home
for inside in ("py.typed", "callbacks/kasmina.py", "conf/train.yaml"):
    assert (home / inside).is_file(), inside


class Foreign(LightningModule):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.head(self.body(x)), y)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


torch.manual_seed(0)
x = torch.randn(64, 8)
data = DataLoader(TensorDataset(x, (x[:, 0] * x[:, 1] > 0).long()), batch_size=16)
policy = Periodic(start=1, blueprints=["parallel_mlp"], budget=GrowthBudget(max_growth=None))
kasmina = Kasmina(slots=["body.0"], monitor="val_loss")
seen = []
kasmina.subscribe(lambda e: seen.append(e.after.name) if isinstance(e, StageChanged) else None)
trainer = Trainer(
    max_epochs=3,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    callbacks=[kasmina, Tamiyo(policy=policy)],
)
trainer.fit(Foreign(), data, data)
print("stages", *seen)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with the build backend that is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_a_wheel_holds_everything_under_one_name(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".yaml", ".typed"}
    }
    assert package <= names
    assert all(name.startswith("esper_lightning") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_asks_for_what_it_imports(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    told = re.findall(r"^Requires-Dist: (.+)$", archive.read(metadata).decode(), re.MULTILINE)
    asked = {canonicalize_name(Requirement(line).name) for line in told}
    owners = importlib.metadata.packages_distributions()
    imported: dict[str, str] = {}
    for name in (name for name in archive.namelist() if name.endswith(".py")):
        for node in ast.walk(ast.parse(archive.read(name))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                modules = [node.module]
            imported |= {module.partition(".")[0]: name for module in modules}
    foreign = imported.keys() - sys.stdlib_module_names - {"esper_lightning"}
    assert {"torch", "lightning", "msgspec"} <= foreign
    unasked = {
        f"{module} in {imported[module]}"
        for module in foreign
        if not asked & {canonicalize_name(owner) for owner in owners.get(module, [])}
    }
    assert unasked == set()


@pytest.mark.slow
def test_a_wheel_grows_a_module_where_there_is_no_checkout(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin/python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    subprocess.run([*install, "--no-index", "-q", str(wheel)], check=True, capture_output=True)
    (packages,) = home.glob("lib/python*/site-packages")
    # A line of a .pth file adds a folder without reading the .pth files in it: the checkout's
    # editable install stays out.
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "grow.py").write_text(GROW)
    run = subprocess.run(
        [str(python), "-I", "grow.py"],
        cwd=elsewhere,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    stages = run.stdout.partition("stages ")[2].split()
    assert stages[:3] == ["DORMANT", "GERMINATED", "PROBATIONARY"]
    assert stages[-1] in {"CULLED", "FOSSILIZED"}
