"""Every YAML of ``conf``, as it stands, makes a run that trains and ends."""

import csv
import math
import re
import shlex
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from launching import CONF, ROOT, composed
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf
from tolaria.adult_files import write_adult_folder
from tolaria.cifar_files import write_batches, write_packed
from tolaria.idx_files import TINY, write_idx_folder
from tolaria.text_files import write_text

from esper_lightning.callbacks import TrainingFlops
from esper_lightning.conf.instantiate import build
from esper_lightning.conf.parts import build_callbacks
from esper_lightning.kasmina import LifecycleRules
from esper_lightning.leyline import CommandKind, Decision
from esper_lightning.nissa.journal import JOURNAL_NAME, read_journal

GROUPS = [
    group.removeprefix("optional ")
    for entry in OmegaConf.load(CONF / "train.yaml").defaults
    if OmegaConf.is_dict(entry)
    for group in entry
]
ELSEWHERE = {
    "logger": {"wandb", "mlflow", "comet", "neptune", "aim", "many"},  # conf/test_loggers.py
    "trainer": {"gpu", "mps", "ddp", "ddp_sim"},  # conf/test_requests.py, test_launches.py
    "hparams_search": {"digits_optuna"},  # conf/test_launches.py
    # Below: they need files.
    "data": {"adult", "fashion_mnist", "mnist", "cifar10", "cifar10_jpeg", "tiny_shakespeare"},
    "host": {"gpt"},  # likewise
    "experiment": {"shakespeare_full", "cifar10_full", "simic"},  # likewise; simic/
    "debug": {"profiler"},  # below
    "tamiyo": {"replay"},  # below
}
OPTIONS = [
    f"{group}={path.stem}"
    for group in GROUPS
    if group not in ("hydra", "local")
    for path in sorted((CONF / group).glob("*.yaml"))
    if path.stem not in ELSEWHERE.get(group, ())
]
SMALL = (
    "++trainer.max_epochs=1",
    "++trainer.accelerator=cpu",
    "++trainer.devices=1",
    "++trainer.limit_train_batches=2",
    "++trainer.limit_val_batches=1",
    "++trainer.limit_test_batches=1",
    "++trainer.log_every_n_steps=1",
    "print_config=false",
)


pytestmark = [
    pytest.mark.usefixtures("nothing_stays"),
    # Debugging on purpose.
    pytest.mark.filterwarnings("ignore:.*anomaly"),
    pytest.mark.filterwarnings("ignore:You requested to overfit"),
    pytest.mark.filterwarnings("ignore:.*Anomaly Detection"),
]


def test_every_group_is_chosen_from_in_train_yaml() -> None:
    folders = {path.name for path in CONF.iterdir() if path.is_dir() and any(path.glob("*.yaml"))}
    assert folders - {"local"} == set(GROUPS) - {"local"}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_makes_a_run(option: str, entry: ModuleType, tmp_path: Path) -> None:
    results = entry.train(composed(option, *SMALL, output_dir=tmp_path))
    assert "val/loss" in results
    assert all(math.isfinite(value) for value in results.values())


def test_a_recorded_run_is_replayed(entry: ModuleType, tmp_path: Path) -> None:
    periodic = ("tamiyo=periodic", "tamiyo.policy.start=1", *SMALL, "trainer.max_epochs=3")
    results = entry.train(composed(*periodic, output_dir=tmp_path / "first"))
    again = ("tamiyo=replay", f"tamiyo.policy.journal={tmp_path / 'first'}", *SMALL)
    options = (*again, "trainer.max_epochs=3")
    assert entry.train(composed(*options, output_dir=tmp_path / "again")) == results
    kinds = [
        [
            event.command.kind
            for event in read_journal(tmp_path / run / JOURNAL_NAME)
            if isinstance(event, Decision)
        ]
        for run in ("first", "again")
    ]
    assert kinds[0] == kinds[1]
    assert CommandKind.GERMINATE in kinds[0]


WRITERS = {
    "fashion_mnist": partial(write_idx_folder, name="fashion_mnist"),
    "mnist": partial(write_idx_folder, name="mnist"),
    "cifar10": write_batches,
    "cifar10_jpeg": write_packed,
    "adult": write_adult_folder,
}


@pytest.mark.parametrize("data", WRITERS)
def test_data_from_files(
    data: str, entry: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[data](tmp_path / "data", num_train=400, num_test=40)
    monkeypatch.setenv("ESPER_DATA_DIR", str(tmp_path / "data"))
    host = "mlp" if data == "adult" else "cnn"
    overrides = (f"data={data}", f"host={host}", *TINY, *SMALL)
    assert "test/loss" in entry.train(composed(*overrides, output_dir=tmp_path / "run"))


def test_the_full_cifar10(
    entry: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_batches(tmp_path / "data", num_train=400, num_test=40)
    monkeypatch.setenv("ESPER_DATA_DIR", str(tmp_path / "data"))
    here = ("data.verify=false", "data.num_val=40", "data.num_workers=0", *SMALL)
    cfg = composed("experiment=cifar10_full", *here, output_dir=tmp_path / "run")
    assert (cfg.data.subset, cfg.host.depth, cfg.optimizer.momentum) == (None, 20, 0.9)
    assert "test/loss" in entry.train(cfg)


@pytest.mark.parametrize(
    "options",
    [
        ("data=tiny_shakespeare", "host=gpt"),
        ("experiment=shakespeare_full", "data.context=16", "host.depth=1", "data.batch_size=2"),
    ],
    ids=" ".join,
)
def test_a_text_from_a_file(
    options: tuple[str, ...], entry: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "data")
    monkeypatch.setenv("ESPER_DATA_DIR", str(tmp_path / "data"))
    overrides = (*options, "data.verify=false", *SMALL)
    results = entry.train(composed(*overrides, output_dir=tmp_path / "run"))
    assert all(math.isfinite(results[name]) for name in ("train/loss", "val/loss", "test/loss"))


def test_slots_are_listed_instead_of_trained(
    entry: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.train(composed("list_slots=true", output_dir=tmp_path)) == {}
    assert "features.1" in capsys.readouterr().out
    assert not any(tmp_path.iterdir())


def test_the_configuration_is_printed_and_kept(
    entry: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [word for word in SMALL if not word.startswith("print_config")]
    entry.train(composed("tags=[a,b]", "host=mlp", *small, output_dir=tmp_path))
    told = capsys.readouterr().out
    for word in ("tags: ['a', 'b']", "host MLP", "optimizer AdamW", "width: 8"):
        assert word in told
    kept = OmegaConf.load(tmp_path / "config.yaml")
    assert kept.tags == ["a", "b"]
    assert kept.paths.output_dir == str(tmp_path)
    assert kept.tolaria.optimizer.lr == 0.01, "interpolations are filled in"


@pytest.mark.parametrize("option", ["default", "fdr", "limit", "overfit", "profiler"])
def test_debugging_leaves_no_checkpoint_and_no_log_of_metrics(
    option: str, entry: ModuleType, tmp_path: Path
) -> None:
    cfg = composed(f"debug={option}", "tamiyo=never", output_dir=tmp_path)
    cfg.trainer.max_epochs = 1
    entry.train(cfg)
    names = {path.name for path in tmp_path.iterdir()}
    assert not {"checkpoints", "csv"} & names
    assert any("profile" in name for name in names) == (option == "profiler")


def test_debugging_writes_to_a_folder_of_its_own() -> None:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("train", ["debug=fdr", "logger=csv"], return_hydra_config=True)
    assert "debug" in cfg.hydra.run.dir
    assert cfg.hydra.job_logging.root.level == "DEBUG"
    assert cfg.logger is None
    assert cfg.task_name == "debug"


def test_the_host_alone_logs_what_it_cost(entry: ModuleType, tmp_path: Path) -> None:
    def spent(option: str) -> list[float]:
        folder = tmp_path / option.replace("=", "_")
        entry.train(composed(option, "logger=csv", *SMALL, output_dir=folder))
        with (folder / "csv/metrics.csv").open() as lines:
            logged = [row[TrainingFlops.METRIC] for row in csv.DictReader(lines)]
        return [float(value) for value in logged if value]

    alone = spent("kasmina=none")
    assert len(alone) == 1
    assert alone == spent("tamiyo=never")
    names = {path.name for path in (tmp_path / "kasmina_none").iterdir()}
    assert not {"events.jsonl", "summary.json", "growth.png"} & names


def test_training_flops_are_counted_once(tmp_path: Path) -> None:
    counter = "+callbacks.flops._target_=esper_lightning.callbacks.TrainingFlops"
    for overrides in (("kasmina=none",), ("kasmina=none", counter)):
        made = build_callbacks(composed(*overrides, output_dir=tmp_path), Callback)
        assert sum(isinstance(item, TrainingFlops) for item in made) == 1, overrides
        assert {"RichModelSummary", "ModelCheckpoint"} < {type(item).__name__ for item in made}


def test_rules_of_the_configuration_are_those_of_the_code(tmp_path: Path) -> None:
    cfg = composed("seed=3", output_dir=tmp_path)
    assert build(cfg.kasmina.rules, "kasmina.rules") == LifecycleRules(seed=3)


PAGE = (ROOT / "docs/configuration.md").read_text()
COMMANDS = [
    shlex.split(command, comments=True)[2:]
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for command in re.sub(r"\\\n *", "", block).splitlines()
    if command.startswith("python train.py") and "--config-dir" not in command
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_commands_of_the_page_compose(words: list[str], tmp_path: Path) -> None:
    one_job = "--multirun" in words
    overrides = [
        re.sub(r"^(\S+?=[^,\[]*),.*", r"\1", word) if one_job else word
        for word in words
        if not word.startswith("--") and word not in ("job", "...")
    ]
    composed(*overrides, output_dir=tmp_path)


def test_the_page_names_every_group_option_and_key() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| .* \|$", PAGE, re.MULTILINE)
    told = {name: set(re.findall(r"`(\w+)`", options)) for name, options in rows}
    for group in GROUPS:
        files = {path.stem for path in (CONF / group).glob("*.yaml")}
        assert group == "local" or told[group] == files, group
    loaded = OmegaConf.load(CONF / "train.yaml")
    defaults = {name: value for name, value in loaded.items() if name != "defaults"}
    for name, value in defaults.items():
        (default,) = (text.strip("`") for key, text in rows if key == name)
        assert OmegaConf.create(f"v: {default}").v == value, name


def test_settings_of_this_machine_are_ignored_by_git_and_win(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local/default.yaml").write_text("# @package _global_\nthreads: 3\n")
    found = f"hydra.searchpath=[file://{tmp_path}]"
    assert composed(found, output_dir=tmp_path).threads == 3
    example = OmegaConf.load(CONF / "local/default.example.yaml")
    assert set(example) <= set(composed(output_dir=tmp_path))
    assert "/conf/local/*.yaml" in (ROOT / ".gitignore").read_text().split()
