"""Simic under a Trainer: what is trained, what is kept, how it goes on."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from sampled_episodes import episodes

from esper_lightning.leyline import InvalidArgument, NonFiniteTraining, UnsupportedTraining
from esper_lightning.simic.adapters import digest_of
from esper_lightning.simic.data import SimicData
from esper_lightning.simic.learning import PPOConfig
from esper_lightning.simic.module import Simic
from esper_lightning.tamiyo.learned import Actor, StoredPolicy

BASE = StoredPolicy.load("cloned")


class Recorded:
    def __init__(self, num=12):
        self._num = num

    def episodes(self):
        return episodes(BASE, self._num)


def simic(**options):
    seed_everything(0, verbose=False)
    return Simic(policy=BASE, **options)


def data(**options):
    settings = {"source": Recorded(), "passes": 2, "held_out": 0.2} | options
    return SimicData(**settings)


def trainer(rounds, **options):
    settings = {
        "max_epochs": rounds,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "reload_dataloaders_every_n_epochs": 1,
        "gradient_clip_val": 0.5,
        "log_every_n_steps": 1,
    }
    return Trainer(**(settings | options))


def learned(module):
    return {key: value.clone() for key, value in module.adapted.learned().items()}


def same(one, other):
    return one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one)


class Batches(Callback):
    """Counts the steps of each epoch."""

    def __init__(self):
        self.steps = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.steps.append(0)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps[-1] += 1


def test_it_trains_adapters_and_leaves_the_base():
    module = simic()
    before, digest = learned(module), digest_of(BASE.network)
    trainer(1).fit(module, datamodule=data())
    after = learned(module)
    moved = [key for key in before if not before[key].equal(after[key])]
    assert len(moved) > 0.9 * len(before)
    assert digest_of(module.adapted.network) == module.adapted.base_digest == digest
    assert digest_of(module.merged().network) != digest


def test_the_same_seed_gives_the_same_policy():
    runs = []
    for _ in range(2):
        module = simic()
        trainer(2).fit(module, datamodule=data())
        runs.append(module.merged().to_bytes())
    assert runs[0] == runs[1]


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
@pytest.mark.parametrize("kl_stop", [None, 1e-4])
def test_a_run_that_is_resumed_ends_as_one_that_was_not(tmp_path: Path, kl_stop):
    straight = simic(kl_stop=kl_stop)
    whole = trainer(4)
    whole.fit(straight, datamodule=data())
    first = simic(kl_stop=kl_stop)
    options = {"dirpath": tmp_path, "filename": "last", "enable_version_counter": False}

    def keeping(rounds):
        kept = ModelCheckpoint(**options, save_on_train_epoch_end=True)
        return trainer(rounds, enable_checkpointing=True, callbacks=[kept])

    keeping(2).fit(first, datamodule=data())
    torch.manual_seed(99)
    again = Simic(policy=BASE, kl_stop=kl_stop)
    assert not same(learned(again), learned(first))
    resumed = keeping(4)
    resumed.fit(again, datamodule=data(), ckpt_path=tmp_path / "last.ckpt")
    assert again.rounds == straight.rounds == 4
    assert same(learned(again), learned(straight))
    assert resumed.global_step == whole.global_step


def test_a_checkpoint_holds_what_was_learned_and_no_more(tmp_path: Path):
    module = simic()
    kept = ModelCheckpoint(dirpath=tmp_path, filename="last", monitor="simic/val/loss")
    trainer(1, enable_checkpointing=True, callbacks=[kept]).fit(module, datamodule=data())
    path = tmp_path / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    assert {key.removeprefix("adapted.") for key in saved["state_dict"]} == set(learned(module))
    loaded = Simic.load_from_checkpoint(path, policy=BASE)
    assert same(learned(loaded), learned(module))
    assert loaded.merged().to_bytes() == module.merged().to_bytes()
    other = BASE.network.state_dict()
    network = StoredPolicy.from_bytes(BASE.to_bytes()).network
    with torch.no_grad():
        network.load_state_dict({key: value * 1.01 for key, value in other.items()})
    wrong = StoredPolicy.of(network, name="other", version=1)
    with pytest.raises(InvalidArgument, match="belongs to a base with the digest"):
        Simic.load_from_checkpoint(path, policy=wrong)
    saved["state_dict"].popitem()
    torch.save(saved, path)
    with pytest.raises(InvalidArgument, match="other adapters than this module"):
        Simic.load_from_checkpoint(path, policy=BASE)


def test_a_round_ends_when_the_policy_went_far_enough():
    counted, free = Batches(), Batches()
    trainer(3, callbacks=[counted]).fit(simic(kl_stop=1e-4), datamodule=data(batch_size=16))
    trainer(3, callbacks=[free]).fit(simic(kl_stop=None), datamodule=data(batch_size=16))
    assert free.steps == [free.steps[0]] * 3
    assert all(0 < stopped < all_ for stopped, all_ in zip(counted.steps, free.steps, strict=True))


def test_what_it_logs(tmp_path: Path):
    logger = CSVLogger(tmp_path, name="", version="csv")
    fitted = trainer(1, logger=logger)
    fitted.fit(simic(), datamodule=data())
    told = fitted.callback_metrics
    both = {"loss", "policy_loss", "value_loss", "entropy", "base_kl", "clip_fraction", "stale"}
    both |= {"episodes", "steps", "return", "explained_variance"}
    assert {f"simic/{split}/{name}" for split in ("train", "val") for name in both} <= set(told)
    assert told["simic/version"] == BASE.card.version + 1
    assert told["simic/train/episodes"] + told["simic/val/episodes"] == 12
    assert all(value.isfinite() for value in told.values())
    assert "simic/train/kl" in (tmp_path / "csv" / "metrics.csv").read_text()


def test_the_policy_before_any_round_is_the_base():
    policy = simic().policy_for_rollouts()
    assert policy.card.version == BASE.card.version
    seen = [step.observation for step in episodes(BASE, 2)[0].steps]
    for each in seen:
        one, other = (
            Actor(made.network).choose(each, lambda odds: int(odds.argmax()))
            for made in (policy, BASE)
        )
        assert one == other


def test_versions_rise_with_rounds():
    module = simic()
    trainer(3).fit(module, datamodule=data())
    assert module.policy_for_rollouts().card.version == BASE.card.version + 3
    card = module.merged(name="mine", version=17).card
    assert (card.name, card.version) == ("mine", 17)
    assert card.provenance["rounds"] == 3
    assert card.provenance["base"]["digest"] == digest_of(BASE.network)


def test_to_prepare_changes_nothing():
    module = simic()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    module.train()
    made = module.prepare(episodes(BASE, 6))
    assert module.training
    assert all(value.equal(before[key]) for key, value in module.state_dict().items())
    assert {name for name, each in module.named_parameters() if each.requires_grad} == {
        f"adapted.{key}" for key in learned(module)
    }
    # Nothing was learned: the policy is the base, and what it logged is what it says.
    assert made.start.equal(made.base)
    torch.testing.assert_close(made.logged, made.start, rtol=1e-5, atol=1e-5)
    assert not made.before.requires_grad
    assert made.advantages.mean().abs() < 1e-6
    assert made.advantages.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_a_loss_that_is_not_finite_stops_it():
    module = simic()
    batch = module.prepare(episodes(BASE, 2)).minibatch(torch.arange(4))
    with pytest.raises(NonFiniteTraining, match="the loss of round 0 is nan at step 3"):
        module.training_step(batch._replace(returns=batch.returns * float("nan")), 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0}, "rate must be above 0"),
        ({"kl_stop": -1.0}, "kl_stop must be above 0"),
        ({"decay": 1.5}, "decay must be from 0 to 1"),
        ({"discount": "x"}, "discount must be a number"),
        ({"rank": 0}, "rank must be a whole number of at least 1"),
        ({"alpha": 0}, "alpha must be above 0"),
        ({"dropout": 1}, "dropout below 1"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(InvalidArgument, match=message):
        Simic(policy=BASE, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1.0}, "ratio must be between 0 and 1"),
        ({"value": 0}, "value above 0"),
        ({"entropy_weight": -1}, "entropy_weight must be at least 0"),
    ],
)
def test_weights_of_the_loss_are_checked(options, message):
    with pytest.raises(InvalidArgument, match=message):
        PPOConfig(**options)


def test_another_module_s_checkpoint_is_refused():
    with pytest.raises(InvalidArgument, match="no checkpoint of Simic"):
        simic().on_load_checkpoint({"state_dict": {}})


def test_more_than_one_process_is_refused():
    class Two(Trainer):
        world_size = 2

    module = simic()
    module.trainer = Two(accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(UnsupportedTraining, match=r"trainer\.devices=1"):
        module.setup("fit")


def test_it_is_a_module_of_lightning():
    assert isinstance(simic(), LightningModule)
