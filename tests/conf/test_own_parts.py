"""A LightningModule and a LightningDataModule of the user's own, through Hydra."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from launching import composed
from my_project import SOURCE

from esper_lightning.leyline import InvalidArgument

pytestmark = pytest.mark.usefixtures("nothing_stays")

OWN = (
    "module=my_own_project.Classifier",
    "datamodule=my_own_project.Numbers",
    "kasmina.slots=[body.0]",
    "kasmina.monitor=val_loss",
)
SHORT = ("trainer.max_epochs=2", "trainer.log_every_n_steps=1", "print_config=false")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with the user's file in it."""
    (tmp_path / "my_own_project.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("my_own_project", None)


def test_they_grow_and_leave_what_every_run_leaves(entry: ModuleType, project: Path) -> None:
    policy = ("tamiyo=periodic", "tamiyo.policy.start=1", "tamiyo.policy.trial=1")
    blend = "kasmina.rules.gates.price_per_parameter=0"
    results = entry.train(
        composed(*OWN, *SHORT, *policy, blend, "trainer.max_epochs=4", output_dir=project / "run")
    )
    assert {"val_loss", "test_loss"} <= set(results)
    files = {path.name for path in (project / "run").iterdir()}
    assert {"events.jsonl", "summary.json", "growth.png", "checkpoints", "config.yaml"} <= files
    summary = json.loads((project / "run/summary.json").read_text())
    assert summary["host"] == "Classifier"
    assert summary["validation"].keys() == {"val_loss"}
    assert summary["grown"] or summary["culled"]


def test_arguments_are_given_in_a_mapping(entry: ModuleType, project: Path) -> None:
    wider = "module={_target_: my_own_project.Classifier, width: 7}"
    entry.train(composed(*OWN, *SHORT, wider, output_dir=project / "run"))
    summary = json.loads((project / "run/summary.json").read_text())
    assert summary["host_parameters"] == 20 * 7 + 7 + 7 * 4 + 4 + 4 * 5 + 5


def test_a_file_in_a_folder_of_ones_own_holds_it_all(entry: ModuleType, project: Path) -> None:
    (project / "my_conf/experiment").mkdir(parents=True)
    (project / "my_conf/experiment/mine.yaml").write_text(
        "# @package _global_\n"
        "module: {_target_: my_own_project.Classifier, width: 5}\n"
        "datamodule: my_own_project.Numbers\n"
        "kasmina: {slots: [body.0], monitor: val_loss}\n"
    )
    found = f"hydra.searchpath=[file://{project / 'my_conf'}]"
    results = entry.train(composed(found, "experiment=mine", *SHORT, output_dir=project / "run"))
    assert "test_loss" in results


def test_slots_are_not_listed_where_nothing_tells_the_inputs(
    entry: ModuleType, project: Path
) -> None:
    with pytest.raises(InvalidArgument, match="example_input_array"):
        entry.train(composed(*OWN, "list_slots=true", output_dir=project / "run"))


def test_slots_of_a_module_of_ones_own_are_listed_on_data_of_this_project(
    entry: ModuleType, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("module=my_own_project.Pixels", "data=digits", "list_slots=true")
    assert entry.train(composed(*asked, output_dir=project / "run")) == {}
    told = capsys.readouterr().out
    assert "body.1" in told
    assert "parallel_mlp" in told


ON_DIGITS = ("data=digits", "kasmina.slots=[body.1]", "kasmina.monitor=val_loss")


@pytest.mark.parametrize("module", ["Forwardless", "WholeBatch"])
def test_a_module_whose_forward_takes_no_inputs_learns_its_shapes_from_the_first_batch(
    entry: ModuleType, project: Path, module: str
) -> None:
    policy = ("tamiyo=periodic", "tamiyo.policy.start=1")
    asked = (f"module=my_own_project.{module}", *ON_DIGITS, *SHORT, *policy, "data.subset=160")
    results = entry.train(composed(*asked, output_dir=project / "run"))
    assert {"val_loss", "test_loss"} <= set(results)
    summary = json.loads((project / "run/summary.json").read_text())
    assert summary["culled"] or summary["grown"], "nothing was planted"


@pytest.mark.parametrize("asked", ["list_slots=true", "kasmina.slots=auto"])
def test_a_module_without_forward_names_its_slots(
    entry: ModuleType, project: Path, asked: str
) -> None:
    words = ("module=my_own_project.Forwardless", *ON_DIGITS, *SHORT, asked)
    with pytest.raises(InvalidArgument, match=r"forward.*example_input_array"):
        entry.train(composed(*words, output_dir=project / "run"))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("module=my_own_project.Clasifier", "has no attribute 'Clasifier'; give a dotted path"),
        ("module=nowhere.Classifier", "No module named 'nowhere'"),
        ("module=Classifier", "give a dotted path, module.Class"),
        ("module=torch.nn.Linear", "is not a LightningModule"),
        ("module=my_own_project.broken", "made a int, which is not a LightningModule"),
        ("module=my_own_project.Needy", "missing a required argument: 'width'.*_target_"),
        ("module={width: 3}", "dotted path or a mapping with _target_"),
        ("datamodule=my_own_project.Classifier", "is not a LightningDataModule"),
        ("module=null", "Numbers does not tell input_shape, num_classes"),
    ],
)
def test_what_does_not_fit_is_said(
    entry: ModuleType, project: Path, override: str, says: str
) -> None:
    with pytest.raises(InvalidArgument, match=f"(?s){says}"):
        entry.train(composed(*OWN, *SHORT, override, output_dir=project / "run"))


def test_a_metric_that_is_not_logged_is_named_with_those_that_are(
    entry: ModuleType, project: Path
) -> None:
    wrong = composed(*OWN, *SHORT, "kasmina.monitor=val/loss", output_dir=project / "run")
    with pytest.warns(UserWarning, match=r"monitors 'val/loss', which was not logged.*val_loss"):
        entry.train(wrong)
