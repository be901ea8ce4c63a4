"""What is expected to teach more is learned from more often, and counts as much less."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from sampled_episodes import episodes
from synthetic_runs import recording

from esper_lightning.leyline import InvalidArgument
from esper_lightning.simic.data import SimicData
from esper_lightning.simic.experience import Experience
from esper_lightning.simic.experience.prioritised import LEAST
from esper_lightning.simic.module import Simic
from esper_lightning.tamiyo.learned import StoredPolicy

BASE = StoredPolicy.load("cloned")


class Told(Simic):
    """Notes what it is given to prepare."""

    def __init__(self):
        super().__init__(policy=BASE, rank=4)
        self.told = []

    def prepare(self, episodes, split="train", *, weights=None):
        found = super().prepare(episodes, split, weights=weights)
        self.told.append((split, [each.id for each in episodes], weights, found))
        return found


@pytest.fixture
def experience(tmp_path: Path) -> Experience:
    found = Experience(tmp_path / "experience.sqlite", exponent=1.0)
    for number in range(8):
        found.add(
            recording(f"run {number}", seed=number, epochs=3 + number, version=BASE.card.version)
        )
    return found


def attached(data: SimicData, module: Simic) -> SimicData:
    data.trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        reload_dataloaders_every_n_epochs=1,
    )
    data.trainer.strategy.connect(module)
    return data


def test_a_round_is_what_was_drawn(experience: Experience) -> None:
    ids = experience.ids()
    experience.update_priorities({ids[0]: 1e6, **dict.fromkeys(ids[1:], 0.0)})
    module = Told()
    data = attached(SimicData(source=experience, draws=4, held_out=0, passes=1), module)
    batches = list(data.train_dataloader())
    assert [each[1] for each in module.told] == [[ids[0]]]
    assert torch.cat([each.weights for each in batches]).tolist() == pytest.approx([1.0, 1.0])


def test_what_is_drawn_more_often_counts_less_each_time(experience: Experience) -> None:
    """Four times as often as another, and 4 ** 0.4 less each time."""
    ids = experience.ids()
    experience.update_priorities({ids[0]: 4.0, **dict.fromkeys(ids[1:], 1.0)})
    drawn = experience.sample(1100, seed=0)
    expected: Counter[str] = Counter()
    for each, weight in zip(drawn.recordings, drawn.weights, strict=True):
        expected[each.id] += weight
    assert expected[ids[0]] / expected[ids[1]] == pytest.approx(4**0.6, rel=0.02)
    module = Told()
    data = attached(SimicData(source=experience, draws=1100, held_out=0, passes=1), module)
    data.train_dataloader()
    _, drawn_ids, weights, found = module.told[0]
    told = dict(zip(drawn_ids, weights, strict=True))
    assert told[ids[0]] / told[ids[1]] == pytest.approx(4**0.6, rel=0.02)
    assert float(found.weights.mean()) == pytest.approx(1.0)


def test_priorities_are_renewed_by_what_a_round_shows(experience: Experience) -> None:
    module = Told()
    data = attached(SimicData(source=experience, draws=500, held_out=0, passes=1), module)
    data.train_dataloader()
    shown = dict(module.told[0][3].priorities)
    assert set(shown) == set(experience.ids())
    drawn = experience.sample(1000, seed=0)
    odds = {each.id: odd for each, odd in zip(drawn.recordings, drawn.probabilities, strict=True)}
    total = sum(value + LEAST for value in shown.values())
    assert odds == pytest.approx({name: (shown[name] + LEAST) / total for name in odds})
    assert max(odds.values()) > 1.01 * min(odds.values())


def test_the_same_store_and_seed_draw_the_same_and_another_round_draws_anew(tmp_path: Path) -> None:
    def drawn(name: str, rounds: int) -> list[str]:
        own = Experience(tmp_path / name)
        for number in range(8):
            own.add(recording(f"run {number}", seed=number, version=BASE.card.version))
        module = Told()
        module.rounds = rounds
        attached(SimicData(source=own, draws=4, held_out=0), module).train_dataloader()
        ids: list[str] = module.told[0][1]
        return ids

    assert drawn("one", 0) == drawn("other", 0)
    assert drawn("one more", 1) != drawn("other", 0)


def test_held_out_episodes_are_never_drawn(experience: Experience) -> None:
    module = Told()
    data = attached(SimicData(source=experience, draws=500, held_out=0.5, passes=1), module)
    data.train_dataloader()
    data.val_dataloader()
    (_, learned, _, _), (_, held, _, _) = module.told
    assert sorted([*learned, *held]) == sorted(experience.ids())
    assert not set(learned) & set(held)


def test_a_source_without_priorities_is_refused() -> None:
    class Recorded:
        def episodes(self):
            return episodes(BASE, 2)

    with pytest.raises(InvalidArgument, match="source with priorities.*got Recorded"):
        SimicData(source=Recorded(), draws=3)
