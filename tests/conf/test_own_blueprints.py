"""A blueprint of the user's own: the one of the documentation, by configuration and entry point."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from launching import composed

from esper_lightning import karn
from esper_lightning.conf import parts
from esper_lightning.karn import Blueprint, Catalogue
from esper_lightning.leyline import InvalidArgument

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/configuration.md").read_text()
SOURCE = PAGE.partition("## A blueprint of your own")[2].split("```python\n")[1].split("```")[0]
MAKING = "\n\ndef make_bump(bumps):\n    return BUMP if bumps else None\n\n\nNUMBER = 3\n"
SHORT = (
    "host=mlp",
    "tamiyo=periodic",
    "tamiyo.policy.start=1",
    "tamiyo.policy.blueprints=[bump]",
    "kasmina.rules.gates.price_per_parameter=0",
    "kasmina.rules.gates.judge_gain=false",
    "data.subset=96",
    "trainer.log_every_n_steps=1",
    "print_config=false",
    "callbacks.live_table=null",
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the user's file in it."""
    (tmp_path / "my_seeds.py").write_text(SOURCE + MAKING)
    return tmp_path


def launch(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Python in the folder, in a process of its own: what it registers stays there."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HYDRA_FULL_ERROR": "1"}
    return subprocess.run(
        [sys.executable, *command],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_it_is_planted_kept_in_the_checkpoint_and_found_again(project: Path) -> None:
    train = (str(ROOT / "train.py"), *SHORT)
    own = ("blueprints=[my_seeds.BUMP]", "trainer.max_epochs=3", "paths.output_dir=run")
    first = launch(project, *train, *own)
    assert first.returncode == 0, first.stderr
    assert '"blueprint":"bump"' in (project / "run/events.jsonl").read_text()
    again = (
        "trainer.max_epochs=8",
        "ckpt_path=run/checkpoints/last.ckpt",
        "paths.output_dir=on",
    )
    made = "blueprints=[{_target_: my_seeds.make_bump, bumps: 1}]"
    second = launch(project, *train, made, *again)
    assert second.returncode == 0, second.stderr
    events = [json.loads(line) for line in (project / "on/events.jsonl").read_text().splitlines()]
    assert any(event.get("blueprint") == "bump" for event in events)
    unknown = launch(project, str(ROOT / "train.py"), "host=mlp", *again)
    assert unknown.returncode != 0
    assert "no blueprint 'bump'" in unknown.stderr
    assert "blueprints=[my_project.MINE]" in unknown.stderr


def test_an_entry_point_offers_it_to_every_process(project: Path) -> None:
    dist = project / "my_seeds-1.0.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text("Metadata-Version: 2.1\nName: my_seeds\nVersion: 1.0\n")
    points = dist / "entry_points.txt"
    points.write_text("[esper_lightning.blueprints]\nbump = my_seeds:BUMP\n")
    ask = "from esper_lightning import karn; print([b.id for b in karn.query(name='bump')])"
    assert launch(project, "-c", ask).stdout.strip() == "['MY001']"
    points.write_text("[esper_lightning.blueprints]\nbump = my_seeds:NUMBER\n")
    wrong = launch(project, "-c", ask)
    assert "'bump' of 'esper_lightning.blueprints' must be a Blueprint" in wrong.stderr


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[my_seeds.NUMBER]", "blueprints[0]=my_seeds.NUMBER: 3 is not a Blueprint"),
        ("[my_seeds.Bump]", "is not a Blueprint"),
        ("[my_seeds.GONE]", "blueprints[0]=my_seeds.GONE cannot be imported"),
        ("my_seeds.BUMP", "blueprints must be a list"),
        ("[{_target_: my_seeds.make_bump, wrong: 1}]", "its arguments are bumps"),
        ("[{_target_: my_seeds.make_bump, bumps: 0}]", "made a NoneType"),
    ],
)
def test_wrong_ones_are_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        parts.register_blueprints(composed(f"blueprints={value}", output_dir=project / "run"))
    sys.modules.pop("my_seeds", None)


def own(**change: str) -> Blueprint:
    row = karn.get("low_rank")
    fields = {name: getattr(row, name) for name in Blueprint.__dataclass_fields__}
    return Blueprint(**(fields | {"id": "MY001", "name": "mine"} | change))


def test_a_catalogue_takes_what_is_new_and_only_that() -> None:
    catalogue = Catalogue(karn.CATALOGUE.values())
    num = len(catalogue)
    catalogue.add(own())
    catalogue.add(own())
    assert [*catalogue][-1] == "mine"
    assert len(catalogue) == num + 1
    for change, message in (
        ({"id": "BP900", "name": "other"}, "has the id BP900; those with BP are this package's"),
        ({"id": "MY002"}, "the catalogue has MY001 'mine'"),
        ({"id": "MY002", "name": "low_rank"}, "the catalogue has BP030 'low_rank'"),
        ({"name": "other"}, "the catalogue has MY001 'mine'"),
    ):
        with pytest.raises(InvalidArgument, match=re.escape(message)):
            catalogue.add(own(**change))
    assert len(catalogue) == num + 1
    assert "mine" not in karn.CATALOGUE
