"""``python train.py experiment=simic``: episodes in, a policy file out."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from launching import composed
from omegaconf import OmegaConf
from sampled_episodes import episodes

from esper_lightning.leyline import InvalidArgument
from esper_lightning.simic.adapters import Adapted, digest_of
from esper_lightning.simic.data import SimicData
from esper_lightning.simic.learning import PPOConfig
from esper_lightning.simic.module import Simic
from esper_lightning.tamiyo.learned import Learned, StoredPolicy

pytestmark = [
    pytest.mark.usefixtures("nothing_stays"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]

SHORT = (
    "experiment=simic",
    "datamodule.source={_target_: sampled_episodes.Sampled, num: 8}",
    "datamodule.rollouts=null",
    "module.temperature=1",
    "trainer.max_epochs=2",
    "datamodule.passes=1",
    "print_config=false",
)


def run(entry: ModuleType, folder: Path, *overrides: str) -> dict[str, float]:
    results: dict[str, float] = entry.train(composed(*SHORT, *overrides, output_dir=folder))
    return results


def test_from_episodes_to_a_policy_that_decides(entry: ModuleType, tmp_path: Path) -> None:
    results = run(entry, tmp_path)
    assert results["simic/version"] == 3
    assert torch.tensor(results["simic/val/loss"]).isfinite()
    policy = Learned(policy=tmp_path / "policy.safetensors")
    assert policy.card.version == 3
    assert policy.card.provenance["by"] == "PPO"
    adapted, note = Adapted.load(tmp_path / "adapters", StoredPolicy.load("cloned"))
    assert note.version == 3
    merged = adapted.merged(name="learned", version=3).network
    assert digest_of(merged) == digest_of(
        StoredPolicy.load(tmp_path / "policy.safetensors").network
    )
    assert (tmp_path / "csv" / "metrics.csv").is_file()
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert all("lora_" in key or "modules_to_save" in key for key in saved["state_dict"])


def test_a_run_that_is_resumed_ends_with_the_same_policy(entry: ModuleType, tmp_path: Path) -> None:
    run(entry, tmp_path / "whole")
    run(entry, tmp_path / "part", "trainer.max_epochs=1")
    run(entry, tmp_path / "rest", f"ckpt_path={tmp_path / 'part' / 'checkpoints' / 'last.ckpt'}")
    files = [(tmp_path / name / "policy.safetensors").read_bytes() for name in ("whole", "rest")]
    assert files[0] == files[1]


def test_rounds_of_rollouts(entry: ModuleType, tmp_path: Path) -> None:
    results = run(
        entry,
        tmp_path,
        "datamodule.source=null",
        "datamodule.rollouts={_target_: sampled_episodes.Rollouts, num: 4}",
        "datamodule.held_out=0",
    )
    assert results["simic/train/episodes"] == 4


def test_a_policy_that_was_learned_is_learned_further(entry: ModuleType, tmp_path: Path) -> None:
    run(entry, tmp_path / "first")
    first = tmp_path / "first" / "policy.safetensors"
    run(entry, tmp_path / "second", f"module.policy={first}")
    card = StoredPolicy.load(tmp_path / "second" / "policy.safetensors").card
    assert card.version == 5
    assert card.provenance["base"]["digest"] == digest_of(StoredPolicy.load(first).network)


def test_the_best_checkpoint_is_evaluated(entry: ModuleType, tmp_path: Path) -> None:
    results = run(
        entry, tmp_path, "callbacks=best", "callbacks.best.monitor=simic/val/loss", "evaluate=best"
    )
    assert "simic/val/loss" in results


def test_without_episodes_it_says_what_to_give(entry: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"datamodule\.source or from datamodule\.rollouts"):
        run(entry, tmp_path, "datamodule.source=null")


def test_the_configuration_shows_the_defaults_of_the_code(tmp_path: Path) -> None:
    cfg = OmegaConf.to_container(composed("experiment=simic", output_dir=tmp_path), resolve=True)
    assert isinstance(cfg, dict)
    shown = dict(cfg["module"])
    weights = {key: value for key, value in shown.pop("ppo").items() if key != "_target_"}
    assert PPOConfig(**weights) == PPOConfig()
    assert shown.pop("temperature") > 1, "rollouts, which are made by default, must try something"
    module, made = Simic(), Simic(**{key: shown[key] for key in shown if key != "_target_"})
    for name in ("rate", "kl_stop", "discount", "decay", "ppo"):
        assert getattr(made, name) == getattr(module, name)
    lora = [each.adapted.peft.peft_config["default"] for each in (made, module)]
    assert (lora[0].r, lora[0].lora_alpha) == (lora[1].r, lora[1].lora_alpha)
    assert lora[0].lora_dropout == lora[1].lora_dropout
    assert made.adapted.base_digest == module.adapted.base_digest
    given = {
        key: value
        for key, value in cfg["datamodule"].items()
        if key not in ("_target_", "source", "rollouts", "seed")
    }

    class Nothing:
        def episodes(self) -> list:
            return episodes(StoredPolicy.load("cloned"), 0)

    one, other = SimicData(source=Nothing(), **given), SimicData(source=Nothing())
    for name in ("_batch_size", "_passes", "_held_out", "_max_lag"):
        assert getattr(one, name) == getattr(other, name)
