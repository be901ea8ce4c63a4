"""``python -m esper_lightning.export``: from the files of a run to the two forms."""

import sys
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from types import ModuleType

import pytest
import torch
from launching import composed
from my_project import SOURCE

from esper_lightning import export, karn
from esper_lightning.kasmina import SeedSlot, regraft
from esper_lightning.tolaria import CNN

pytestmark = pytest.mark.usefixtures("nothing_stays")

SHORT = ("print_config=false", "test=false", "callbacks.growth_figure=null", "logger=none")

OF_DIGITS = """

class OfDigits(Pixels):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 10)
"""


@pytest.fixture(scope="module")
def run(entry: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on which something has grown."""
    folder: Path = tmp_path_factory.mktemp("run")
    fossils = "kasmina.fossils=[{slot: features.1, blueprint: parallel_conv}]"
    entry.train(
        composed(
            *SHORT, fossils, "tamiyo=never", "trainer.max_epochs=1", "data.subset=96",
            output_dir=folder,
        )
    )  # fmt: skip
    return folder


def host_of(checkpoint: Path) -> CNN:
    host = CNN(input_shape=(1, 8, 8), num_classes=10)
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    state = {
        name.removeprefix("host."): value
        for name, value in saved.items()
        if name.startswith("host.")
    }
    regraft(host, state, build=karn.build)
    host.load_state_dict(state)
    return host.eval()


def test_both_forms_of_a_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = run / "checkpoints/last.ckpt"
    program, source = tmp_path / "net.pt2", tmp_path / "net"
    export.main([str(checkpoint), "--program", str(program), "--source", str(source)])
    assert capsys.readouterr().out == f"wrote {program}\nwrote {source}/network.py\n"
    host, x = host_of(checkpoint), torch.randn(5, 1, 8, 8)
    assert any(isinstance(module, SeedSlot) and module.fossils for module in host.modules())
    expected = host(x)
    torch.testing.assert_close(
        torch.export.load(program).module()(x), expected, rtol=1e-6, atol=1e-6
    )
    written = run_path(str(source / "network.py"))["build"]()
    assert torch.equal(written.eval()(x), expected)
    assert "    features.1: parallel_conv(" in (source / "network.py").read_text()


def test_a_config_may_be_elsewhere(run: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "a/b/c/moved.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes((run / "checkpoints/last.ckpt").read_bytes())
    asked = [str(checkpoint), "--source", str(tmp_path / "net")]
    with pytest.raises(SystemExit, match=r"no config\.yaml beside .*moved\.ckpt.*--config"):
        export.main(asked)
    export.main([*asked, "--config", str(run / "config.yaml")])
    assert (tmp_path / "net/network.py").is_file()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.ckpt", None, "no such file: .*none.ckpt"),
        ("list.ckpt", [1], "not a checkpoint of Lightning: no state_dict in it"),
        ("bytes.ckpt", b"not a checkpoint", "bytes.ckpt cannot be read as a checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_said(
    run: Path, tmp_path: Path, name: str, content: object, says: str
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    asked = [str(path), "--config", str(run / "config.yaml"), "--program", "never.pt2"]
    with pytest.raises(SystemExit, match=f"not exported: .*{says}"):
        export.main(asked)


def test_something_must_be_asked_for(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        export.main([str(run / "checkpoints/last.ckpt")])
    assert "give --program, --source or both" in capsys.readouterr().err


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with the user's file in it."""
    (tmp_path / "my_exported_project.py").write_text(SOURCE + OF_DIGITS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("my_exported_project", None)


def test_a_module_of_ones_own(entry: ModuleType, project: Path) -> None:
    own = (
        "module=my_exported_project.OfDigits",
        "data.subset=96",
        "kasmina.slots=[body.1]",
        "kasmina.monitor=val_loss",
        "kasmina.fossils=[{slot: body.1, blueprint: parallel_mlp}]",
    )
    entry.train(
        composed(*own, *SHORT, "tamiyo=never", "trainer.max_epochs=1", output_dir=project / "run")
    )
    export.main([str(project / "run/checkpoints/last.ckpt"), "--source", "net"])
    written = run_path("net/network.py")["build"]()
    assert written(torch.randn(3, 1, 8, 8)).shape == (3, 10)
    assert "body.1: parallel_mlp(" in (project / "net/network.py").read_text()


def test_a_module_that_does_not_tell_its_inputs_is_told(entry: ModuleType, project: Path) -> None:
    own = (
        "module=my_exported_project.Classifier",
        "datamodule=my_exported_project.Numbers",
        "kasmina.slots=[body.0]",
        "kasmina.monitor=val_loss",
    )
    entry.train(
        composed(*own, *SHORT, "tamiyo=never", "trainer.max_epochs=1", output_dir=project / "run")
    )
    with pytest.raises(SystemExit, match=r"set self\.example_input_array in Classifier"):
        export.main([str(project / "run/checkpoints/last.ckpt"), "--source", "net"])
