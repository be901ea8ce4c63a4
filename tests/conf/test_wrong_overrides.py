"""Whatever is typed wrongly is refused before anything is trained, with what is allowed."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from launching import composed
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from tolaria.text_files import write_text

from esper_lightning.conf import parts, request
from esper_lightning.leyline import InvalidArgument

pytestmark = pytest.mark.usefixtures("nothing_stays")

ONE = "must be a whole number of at least 1"
FLAG = "must be true or false, got 'maybe'"
FILES = "data.data_dir=nowhere"


def prepared(cfg: DictConfig) -> None:
    """What ``train.py`` does before it fits."""
    request.check(cfg, ModelCheckpoint)
    data = parts.build_data(cfg, LightningDataModule)
    parts.build_module(cfg, data, LightningModule)
    callbacks = parts.build_callbacks(cfg, Callback)
    loggers = parts.build_loggers(cfg, Logger)
    parts.build_trainer(cfg, callbacks=callbacks, loggers=loggers)


@pytest.fixture(autouse=True)
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small text, in which nothing else is."""
    write_text(tmp_path / "data")
    monkeypatch.setenv("ESPER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "overrides",
    [
        "",
        "data=tiny_shakespeare data.verify=false host=gpt",
        "host=resnet",
        "tamiyo=random tamiyo.policy.seed=7",
        "threads=null tags=[] ~kasmina.rules seed=4294967295",
        "optimized_metric=val/acc",
        "optimized_metric=lr-AdamW",
        "logger=none callbacks.live_table=null",
        "optimizer=sgd optimizer.lr=1 trainer.max_epochs=-1 +trainer.max_steps=5",
        "tamiyo.policy.budget.max_growth=null kasmina.rules.max_fossils=null",
    ],
)
def test_what_is_allowed_is_taken(overrides: str, text: Path) -> None:
    prepared(composed(*overrides.split(), output_dir=text / "run"))


TOP = {
    "train=maybe": f"train {FLAG}",
    "test=2": "test must be true or false, got 2",
    "print_config=null": "print_config must be true or false, got None",
    "list_slots=maybe": f"list_slots {FLAG}",
    "tags=5": "tags must be a list of names, such as .*, got 5",
    "tags=null": "tags must be a list of names",
    "tags=dev": "tags must be a list of names, such as .*, got 'dev'",
    "task_name=null": "task_name must be a text .*, got None",
    "task_name=5": "task_name must be a text .*quoted",
    "threads=0": f"threads {ONE}, or null for none, got 0",
    "threads=-3": f"threads {ONE}",
    "threads=abc": f"threads {ONE}",
    "threads=true": f"threads {ONE}",
    "seed=abc": "^seed must be a whole number of at least 0, got 'abc'",
    "seed=null": "^seed must be a whole number of at least 0, got None",
    "seed=4294967296": "seed must be at most 4294967295",
    "evaluate=null": "evaluate must be last or best",
    "optimized_metric=val/nonsense": r"optimized_metric=val/nonsense .*'val/acc'\]",
    "optimized_metric=5": "optimized_metric must be the name of a metric",
    "ckpt_path=5": "ckpt_path must be the path of a checkpoint, or null for none, got 5",
    "trainer.max_epochs=abc": "trainer.max_epochs must be a whole number .*'abc'",
    "trainer.max_epochs=1.5": "trainer.max_epochs must be a whole number",
    "trainer.accumulate_grad_batches=0": f"trainer.accumulate_grad_batches {ONE}, got 0",
    "+trainer.foo=1": "trainer: .*Trainer got an unexpected .*'foo'; its arguments are .*max_e",
}
HOSTS = {
    "host.width=abc": f"host: CNN width {ONE}, got 'abc'",
    "host.width=2.5": f"host: CNN width {ONE}, got 2.5",
    "host.width=null": f"host: CNN width {ONE}, got None",
    "host.width=true": f"host: CNN width {ONE}, got True",
    "host=mlp host.depth=abc": f"MLP depth {ONE}",
    "host=mlp host.width=2.5": f"MLP width {ONE}",
    "host=resnet host.width=abc": f"ResNet width {ONE}",
    "host=resnet host.depth=abc": "ResNet depth must be a whole number, got 'abc'",
    "host=resnet host.depth=8.0": "ResNet depth must be a whole number, got 8.0",
    "+host.foo=3": "host: .*CNN got an unexpected .*'foo'; its arguments are .*width",
    "host=resnet +host.foo=3": "its arguments are input_shape, num_classes, depth, width",
    "host._target_=nowhere.Host": "host._target_=nowhere.Host cannot be imported",
}
TEXT = "data=tiny_shakespeare data.verify=false host=gpt"
TEXTS = {
    f"{TEXT} host.width=abc": f"GPT width {ONE}",
    f"{TEXT} host.num_heads=2.5": f"GPT num_heads {ONE}",
    f"{TEXT} host.depth=abc": f"GPT depth {ONE}",
    f"{TEXT} host.mlp_ratio=abc": "GPT mlp_ratio must be a number, got 'abc'",
    f"{TEXT} host.dropout=abc": "GPT dropout must be a number, got 'abc'",
    f"{TEXT} data.context=abc": f"tiny_shakespeare: context {ONE}",
    f"{TEXT} data.batch_size=abc": f"tiny_shakespeare: batch_size {ONE}",
    f"{TEXT} data.val_fraction=abc": "tiny_shakespeare: val_fraction must be a number",
    f"{TEXT} data.test_fraction=null": "tiny_shakespeare: test_fraction must be a number",
    f"{TEXT} data.windows_per_epoch=abc": "windows_per_epoch must be a whole number, or null",
    f"{TEXT} data.subset=abc": "tiny_shakespeare: subset must be a whole number, or null",
    f"{TEXT} data.verify=maybe": f"tiny_shakespeare: verify {FLAG}",
    f"{TEXT} data.download=maybe": f"tiny_shakespeare: download {FLAG}",
    f"{TEXT} data.data_dir=null": "tiny_shakespeare: data_dir must be the path of a folder",
}
DATA = {
    "data.batch_size=abc": f"data: digits: batch_size {ONE}, got 'abc'",
    "data.num_workers=abc": "digits: num_workers must be a whole number of at least 0",
    "data.seed=abc": "digits: seed must be a whole number",
    "data.val_fraction=abc": "digits: val_fraction must be a number, got 'abc'",
    "data.subset=abc": "digits: subset must be a whole number, or null for none, got 'abc'",
    "+data.foo=1": "data: .*Digits got an unexpected .*its arguments are batch_size",
    "data=mnist paths.data_dir=null": "data: mnist: data_dir must be .* got None; .*ESPER_DATA_DIR",
    **{
        f"data={name} {FILES} data.{key}={value}": f"data: .*: {key} {says}"
        for name in ("mnist", "fashion_mnist", "cifar10", "adult")
        for key, value, says in (
            ("download", "maybe", FLAG),
            ("verify", "maybe", FLAG),
            ("num_val", "abc", "must be a whole number, got 'abc'"),
            ("subset", "2.5", "must be a whole number, or null for none, got 2.5"),
            ("split_seed", "abc", "must be a whole number, got 'abc'"),
            ("batch_size", "abc", ONE),
            ("data_dir", "5", "must be the path of a folder, got 5"),
        )
    },
    f"data=cifar10 {FILES} data.augment=maybe": f"CIFAR-10: augment {FLAG}",
    f"data=cifar10_jpeg {FILES} data.augment=maybe": f"augment {FLAG}",
    f"data=cifar10_jpeg {FILES} data.verify=maybe": f"verify {FLAG}",
}
LEARNING = {
    "tolaria.newcomer.own_horizon=maybe": f"tolaria.newcomer: Newcomer own_horizon {FLAG}",
    "tolaria.newcomer.warmup_steps=abc": f"Newcomer warmup_steps {ONE}, got 'abc'",
    "tolaria.newcomer.multiplier=abc": "Newcomer multiplier must be a number, got 'abc'",
    "tolaria.newcomer=null": "tolaria.newcomer=null: there is no run without",
    "tolaria.schedule=null": "tolaria.schedule=null: there is no run without",
    "tolaria.optimizer=null": "tolaria.optimizer=null: there is no run without",
    "tolaria.weight_decay=abc": "tolaria: weight_decay must be a number, got 'abc'",
    "schedule.warmup=abc": "schedule: WarmupStableDecay warmup must be a number, got 'abc'",
    "schedule=cosine schedule.floor=abc": "Cosine floor must be a number",
    "schedule=constant schedule.warmup=null": "Constant warmup must be a number, got None",
    "+schedule.foo=1": "schedule: .*its arguments are warmup, decay, floor",
    "optimizer.lr=abc": "optimizer .*AdamW.*lr='abc'.* cannot be made.*optimizer.lr",
    "optimizer.lr=null": "optimizer .*AdamW.*lr=None.* cannot be made",
    "optimizer=sgd optimizer.lr=abc": "optimizer .*SGD.* cannot be made",
    "optimizer=sgd optimizer.lr=-1": "optimizer .*SGD.* cannot be made: Invalid learning rate: -1",
    "+optimizer.foo=1": "optimizer: .*AdamW got an unexpected .*; its arguments are .*lr, betas",
}
GROWTH = {
    "kasmina.rules=null": "kasmina.rules=null: there is no run without",
    "governor.rules=null": "governor.rules=null: there is no run without",
    "tamiyo.policy=null": "tamiyo.policy=null: there is no run without",
    "tamiyo.policy.budget=null": "tamiyo.policy.budget=null: there is no run without",
    "tamiyo.policy.budget=5": "tamiyo.policy: budget must be a GrowthBudget, got 5",
    "+kasmina.rules.foo=1": "kasmina.rules: .*LifecycleRules got .*its arguments are blend, trust",
    "kasmina.rules.embargo=abc": f"kasmina.rules: embargo {ONE}, got 'abc'",
    "kasmina.rules.gates.window=abc": "kasmina.rules.gates: gate rule window must be",
    "governor.rules.window=abc": f"governor.rules: window {ONE}",
    "governor.snapshots=abc": f"governor: snapshots {ONE}",
    "tamiyo.policy.min_epoch=abc": f"tamiyo.policy: min_epoch {ONE}, got 'abc'",
    "tamiyo.policy.max_live=abc": f"tamiyo.policy: max_live {ONE}",
    "tamiyo.policy.trial=abc": f"tamiyo.policy: trial {ONE}",
    "tamiyo.policy.min_improvement=abc": "min_improvement must be a number, got 'abc'",
    "tamiyo.policy.latest_fraction=abc": "latest_fraction must be a number, or null for none",
    "tamiyo.policy.budget.max_flops_growth=abc": "budget: max_flops_growth must be a number, or",
    "tamiyo.policy.blueprints=nope": "blueprints must be a list of names, .* got 'nope'",
    "tamiyo=periodic tamiyo.policy.blueprints=nope": "blueprints must be a list of names",
    "tamiyo=periodic tamiyo.policy.period=abc": f"period {ONE}",
    "tamiyo=random tamiyo.policy.blueprints=nope": "blueprints must be a list of names",
    "tamiyo=random tamiyo.policy.seed=abc": "tamiyo.policy: seed must be a whole number",
    "tamiyo=random tamiyo.policy.action_rate=abc": "action_rate must be a number, got 'abc'",
    "kasmina.fossils=5": "fossils=5: give a list of branches",
    "kasmina.fossils=[5]": r"fossils\[0\] = 5: .*; give a list of branches",
    "kasmina.fossils=[{slot:features.1}]": r"fossils\[0\] = .*`blueprint`; give a list",
}
CALLBACKS = {
    "+callbacks.foo=5": "callbacks.foo must be a mapping with _target_ .*got 5",
    "+logger.foo=5": "logger.foo must be a mapping with _target_ .*got 5",
    "+callbacks.live_table.refresh_hz=abc": "callbacks.live_table: refresh_hz must be a number",
    "+callbacks.foo={a:1}": "callbacks.foo must be a mapping with _target_",
    "+callbacks.foo={_target_:torch.nn.Linear,in_features:1,out_features:1}": (
        "callbacks.foo._target_=torch.nn.Linear made a Linear, which is not a Callback"
    ),
    "+logger.foo={_target_:torch.nn.Linear,in_features:1,out_features:1}": (
        "logger.foo._target_=torch.nn.Linear made a Linear, which is not a Logger"
    ),
    "+callbacks.foo={_target_:nowhere.Mine}": "callbacks.foo._target_=nowhere.Mine cannot be imp",
    "+callbacks.checkpoint.foo=1": "callbacks.checkpoint: .*its arguments are dirpath, filename",
}


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        case
        for table in (TOP, HOSTS, TEXTS, DATA, LEARNING, GROWTH, CALLBACKS)
        for case in table.items()
    ],
)
def test_it_is_refused_with_what_is_allowed(overrides: str, says: str, text: Path) -> None:
    with pytest.raises(InvalidArgument, match=f"(?s){says}"):
        prepared(composed(*overrides.split(), output_dir=text / "run"))


def test_a_file_that_is_no_checkpoint_is_named(text: Path) -> None:
    plain, other = text / "plain.ckpt", text / "other.ckpt"
    plain.write_text("root:x:0:0\n")
    torch.save({"weights": torch.zeros(3)}, other)
    for path, says in ((plain, "torch did not write it"), (other, "no state_dict in it")):
        with pytest.raises(InvalidArgument, match=f"ckpt_path={path} .*{says}.*last.ckpt"):
            prepared(composed(f"ckpt_path={path}", output_dir=text / "run"))


def test_a_checkpoint_of_another_network_is_named(entry: ModuleType, text: Path) -> None:
    few = ("data.subset=64", "trainer.max_epochs=1", "trainer.log_every_n_steps=1")
    small = ("host=mlp", *few, "print_config=false")
    entry.train(composed(*small, "test=false", output_dir=text / "run"))
    path = text / "run/checkpoints/last.ckpt"
    for asked in ("train=false", "train=true"):
        wrong = composed(
            *small, "host.width=5", f"ckpt_path={path}", asked, output_dir=text / asked[-4:]
        )
        with pytest.raises(
            InvalidArgument, match=f"(?s)ckpt_path={path} .*must be those of the run"
        ):
            entry.train(wrong)
