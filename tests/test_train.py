"""``train.py`` as a user runs it: what it leaves behind, and what it says to wrong input."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from launching import composed

from esper_lightning.leyline import RunSummary, decode
from esper_lightning.nissa import read_journal

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "COLUMNS": "400"}


def train(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    options = [word for word in overrides if word.startswith("--")]
    common = [f"hydra.run.dir={folder}", "trainer.max_epochs=3", "data.subset=96"]
    assigned = [word for word in overrides if word not in options]
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *options, *common, *assigned],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder.parent,
        env=ENVIRONMENT,
    )


def test_a_run_leaves_what_the_documents_promise(tmp_path: Path) -> None:
    done = train(
        tmp_path / "run",
        "trainer.max_epochs=7",
        "tamiyo.policy.min_epoch=1",
        "tamiyo.policy.latest_fraction=0.2",
    )
    assert done.returncode == 0, done.stderr
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"events.jsonl", "summary.json", "growth.png", "growth.svg", "checkpoints"} <= files
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["last.ckpt"]
    summary = decode((tmp_path / "run/summary.json").read_bytes(), RunSummary)
    assert summary.outcome == "finished"
    assert summary.epochs == 7
    assert summary.test.keys() == {"test/loss", "test/acc"}
    assert summary.validation.keys() == {"val/loss", "val/acc"}
    assert summary.grown or summary.culled
    assert summary.training_flops is not None
    assert summary.host_training_flops is not None
    assert len(summary.config_digest) == 64
    events = read_journal(tmp_path / "run/events.jsonl")
    assert {event.run_id for event in events} == {summary.run_id}
    for word in ("validation", "test", "parameters", "training FLOPs", "features."):
        assert word in done.stdout
    assert "Warning" not in done.stdout + done.stderr


def test_a_sweep_runs_every_combination(tmp_path: Path) -> None:
    done = train(
        tmp_path / "run",
        "--multirun",
        f"hydra.sweep.dir={tmp_path}/sweep",
        "seed=1,2",
        "tamiyo=never,periodic",
        "trainer.max_epochs=1",
        "callbacks.growth_figure=null",
    )
    assert done.returncode == 0, done.stderr
    found = [
        decode(path.read_bytes(), RunSummary) for path in sorted(tmp_path.rglob("summary.json"))
    ]
    assert {(summary.seed, summary.policy) for summary in found} == {
        (seed, policy) for seed in (1, 2) for policy in ("never", "periodic")
    }


def test_the_configuration_can_be_printed(tmp_path: Path) -> None:
    done = train(tmp_path / "run", "--cfg=job", "host=mlp", "host.width=5")
    assert done.returncode == 0, done.stderr
    assert "_target_: esper_lightning.tolaria.MLP" in done.stdout
    assert "width: 5" in done.stdout


@pytest.mark.usefixtures("nothing_stays")
def test_the_possible_slots_of_a_host_can_be_listed(
    entry: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry.train(composed("list_slots=true", "host=mlp", output_dir=tmp_path))
    told = " ".join(capsys.readouterr().out.split())
    for word in ("layers.0", "layers.1", "DenseBlock", "vector"):
        assert word in told


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("kasmina.slots=[features.9]", "'features.9' is not a module of the host.*features.1"),
        ("kasmina.slots=features.1", "slots must be 'auto' or a list of module paths"),
        ("kasmina.root=hots", "root 'hots' is not a submodule"),
        ("tamiyo.policy.blueprints=[rose]", "no blueprint 'rose'.*parallel_conv"),
        ("kasmina.incubation=warm", "'warm' is unknown; .*straight_through.*direct"),
        ("host.widht=8", "widht"),
        ("tamiyo=nobody", "nobody"),
        ("host.width=0", "width must be a whole number of at least 1"),
        ("kasmina.rules.embargo=0", "embargo must be a whole number of at least 1, got 0"),
        ("kasmina.rules.blend.curve=wavy", "'wavy' is unknown.*cosine"),
        ("kasmina.fossils=nowhere.json", "no such file; give a run's summary.json"),
        ("trainer.max_epochs=-1", "set max_epochs or max_steps"),
    ],
)
def test_wrong_input_is_told_what_is_allowed(
    entry: ModuleType, tmp_path: Path, override: str, says: str
) -> None:
    with pytest.raises(Exception) as told:
        entry.train(composed(override, output_dir=tmp_path))
    assert re.search(says, str(told.value), re.DOTALL)


def test_an_interrupted_run_says_how_to_go_on_and_a_finished_one_that_it_is_finished(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    checkpoint = folder / "checkpoints/last.ckpt"
    options = [f"hydra.run.dir={folder}", "data.subset=96", "tamiyo=never", "test=false"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *options, "trainer.max_epochs=100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
        # A test run in the background of a shell ignores the signal, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        deadline = time.monotonic() + 120
        while not checkpoint.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, told
    assert "Traceback" not in told
    said = re.search(r"interrupted in epoch (\d+) of 100000; to go on, .* ckpt_path=(\S+)", told)
    assert said is not None, told
    assert Path(said[2]) == checkpoint

    epochs = int(said[1]) + 1
    until = f"trainer.max_epochs={epochs}"
    done = train(tmp_path / "again", *options[1:], f"ckpt_path={said[2]}", until)
    assert done.returncode == 0, done.stderr
    assert "nothing was trained" not in done.stdout
    finished = tmp_path / "again/checkpoints/last.ckpt"
    done = train(tmp_path / "once_more", *options[1:], f"ckpt_path={finished}", until)
    assert done.returncode == 0, done.stderr
    told = f"nothing was trained: {finished} had already reached trainer.max_epochs={epochs}; raise"
    assert told in done.stdout
