"""What is expected to teach more is learned from more often, and counts as much less."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from sampled_episodes import episodes
from synthetic_runs import recording

from esper_lightning.leyline import InvalidArgument
from esper_lightning.simic.data import SimicData, drawn
from esper_lightning.simic.experience import Experience
from esper_lightning.simic.experience.prioritised import LEAST
from esper_lightning.simic.learning.round import Round
from esper_lightning.simic.module import Simic
from esper_lightning.tamiyo.learned import StoredPolicy

BASE = StoredPolicy.load("cloned")


class Recorded:
    def __init__(self, num):
        self._found = episodes(BASE, num)

    def episodes(self):
        return self._found


@pytest.fixture(scope="module")
def found() -> Round:
    return Simic(policy=BASE).prepare(Recorded(12).episodes())


@pytest.fixture
def experience(tmp_path: Path) -> Experience:
    store = Experience(tmp_path / "experience.sqlite", exponent=1.0)
    for number in range(8):
        store.add(
            recording(f"run {number}", seed=number, epochs=3 + number, version=BASE.card.version)
        )
    return store


def trainer(folder: Path, rounds: int, **options) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        max_epochs=rounds,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        **options,
    )


def attached(data: SimicData, folder: Path) -> SimicData:
    data.trainer = trainer(folder, 1, enable_checkpointing=False)
    data.trainer.strategy.connect(Simic(policy=BASE))
    return data


def test_a_priority_is_how_far_an_episode_came_otherwise_than_expected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("esper_lightning.simic.learning.round.normalised", lambda found: found)
    found = Simic(policy=BASE).prepare(Recorded(6).episodes())
    shown = [float(found.advantages[found.owners == each].abs().mean()) for each in range(6)]
    assert found.priorities == pytest.approx(shown)
    assert len(set(shown)) == 6


def test_each_step_of_what_was_drawn_has_the_weight_of_its_episode(found: Round) -> None:
    """By hand: odds p^0.6, so many draws, each of (N P)^-0.4 times the most."""
    rows, made = drawn(found, 300, seed=3)
    p = (np.array(found.priorities) + LEAST) ** 0.6
    odds = p / p.sum()
    points = (np.arange(300) + np.random.default_rng(3).random(300)) / 300
    often = np.bincount(np.searchsorted(np.cumsum(odds), points, side="right"), minlength=12)
    expected = often * (odds / odds.min()) ** -0.4
    assert often.min() > 0
    assert len(set(often)) > 1
    by_step = expected[found.owners.numpy()]
    by_step /= by_step[rows.numpy()].mean()
    batch = made.minibatch(rows)
    assert batch.weights.tolist() == pytest.approx(list(by_step[rows.numpy()]), rel=1e-5)
    assert batch.logged.tolist() == found.logged[rows].tolist()


def test_what_was_not_drawn_is_not_learned_from(found: Round) -> None:
    rows, made = drawn(found, 3, seed=0)
    owners = set(found.owners[rows].tolist())
    assert 1 <= len(owners) <= 3
    assert rows.tolist() == [n for n, owner in enumerate(found.owners.tolist()) if owner in owners]
    assert float(made.weights[rows].mean()) == pytest.approx(1.0)
    assert drawn(found, 3, seed=0)[0].tolist() == rows.tolist()
    assert drawn(found, 3, seed=1)[0].tolist() != rows.tolist()


def test_each_pass_has_the_steps_that_were_drawn(tmp_path: Path) -> None:
    source = Recorded(12)
    data = attached(SimicData(source=source, draws=4, held_out=0, passes=3), tmp_path)
    first, *others = data.train_dataloader()
    told = torch.cat([first.logged, *(each.logged for each in others)])
    steps = len(told) // 3
    assert steps < sum(len(each.steps) for each in source.episodes())
    for each in range(3):
        part = told[each * steps : (each + 1) * steps]
        assert sorted(part.tolist()) == sorted(told[:steps].tolist())


def test_of_a_store_what_is_too_old_to_be_learned_from_goes_first(
    tmp_path: Path, experience: Experience
) -> None:
    old = recording("old", seed=3, epochs=5, version=BASE.card.version + 9)
    experience.add(old)
    data = attached(SimicData(source=experience, held_out=0.3, max_lag=8), tmp_path)
    data.train_dataloader()
    data.val_dataloader()
    with Experience(experience.database.path, capacity=9) as full:
        full.add(recording("new", seed=99, version=BASE.card.version))
        assert {each.run_id for each in full.recordings()} == {
            "new",
            *(f"run {number}" for number in range(8)),
        }


def test_a_store_is_told_what_a_round_showed(tmp_path: Path, experience: Experience) -> None:
    data = attached(SimicData(source=experience, held_out=0, max_lag=8), tmp_path)
    data.train_dataloader()
    shown = Simic(policy=BASE).prepare(experience.episodes()).priorities
    told = experience.sample(2000, seed=0)
    odds = {each.id: odd for each, odd in zip(told.recordings, told.probabilities, strict=True)}
    total = sum(shown) + len(shown) * LEAST
    expected = [(each + LEAST) / total for each in shown]
    assert [odds[each.id] for each in experience.episodes()] == pytest.approx(expected)


def test_a_killed_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def data() -> SimicData:
        return SimicData(source=Recorded(12), draws=5, passes=2, held_out=0.2)

    def simic(seed: int) -> Simic:
        torch.manual_seed(seed)  # adapters begin at random
        return Simic(policy=BASE, temperature=3.0)

    whole = simic(0)
    trainer(tmp_path / "whole", 3, enable_checkpointing=False).fit(whole, datamodule=data())
    first, on = simic(0), simic(1)
    stopped = trainer(tmp_path / "first", 2, enable_checkpointing=False)
    stopped.fit(first, datamodule=data())
    stopped.save_checkpoint(tmp_path / "kept.ckpt")
    trainer(tmp_path / "on", 3, enable_checkpointing=False).fit(
        on, datamodule=data(), ckpt_path=tmp_path / "kept.ckpt"
    )
    learned, expected = on.adapted.learned(), whole.adapted.learned()
    assert all(torch.equal(learned[name], expected[name]) for name in expected)
    assert any(
        not torch.equal(value, expected[name]) for name, value in first.adapted.learned().items()
    )


def test_episodes_of_the_package_s_policy_are_learned_from_by_that_one(tmp_path: Path) -> None:
    store = Experience(tmp_path / "experience.sqlite")
    version = StoredPolicy.load().card.version
    for number in range(4):
        store.add(recording(f"run {number}", seed=number, version=version))
    data = SimicData(source=store, draws=2)
    with pytest.raises(InvalidArgument, match="away from 1; begin with the policy that decided"):
        attached(data, tmp_path).train_dataloader()
    data = SimicData(source=store, draws=2)
    data.trainer = trainer(tmp_path, 1, enable_checkpointing=False)
    data.trainer.strategy.connect(Simic(policy=None))
    assert list(data.train_dataloader())


def test_rollouts_are_not_drawn_from() -> None:
    with pytest.raises(InvalidArgument, match="draws=3 are of recorded episodes"):
        SimicData(rollouts=lambda policy, number: [], draws=3)
