"""Episodes come to Simic: which, when, in which order."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import LightningModule, Trainer
from sampled_episodes import episode, episodes

from esper_lightning.leyline import InvalidArgument
from esper_lightning.simic.data import SimicData, split
from esper_lightning.simic.module import Simic
from esper_lightning.tamiyo.learned import StoredPolicy

BASE = StoredPolicy.load("cloned")


class Recorded:
    def __init__(self, found):
        self._found = found

    def episodes(self):
        return self._found


class Rollouts:
    """Two episodes a round, and a note of each call."""

    def __init__(self):
        self.calls = []

    def __call__(self, policy, number):
        self.calls.append((number, policy.card.version, policy.to_bytes()))
        return [episode(policy, seed=100 * number + seed) for seed in range(4)]


def trainer(rounds=1, **options):
    settings = {
        "max_epochs": rounds,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "reload_dataloaders_every_n_epochs": 1,
    }
    return Trainer(**(settings | options))


def attached(data):
    """A data module with a Trainer whose module is Simic."""
    data.trainer = trainer()
    data.trainer.strategy.connect(Simic(policy=BASE))
    return data


def test_each_pass_has_each_boundary_once():
    found = episodes(BASE, 6)
    data = attached(SimicData(source=Recorded(found), batch_size=7, passes=3, held_out=0))
    batches = list(data.train_dataloader())
    num = sum(len(each.steps) for each in found)
    assert [len(each.logged) for each in batches] == 3 * [*[7] * (num // 7), num % 7]
    a_pass = len(batches) // 3
    logged = sorted(step.log_probability for each in found for step in each.steps)
    orders = []
    for first in range(0, len(batches), a_pass):
        told = torch.cat([each.logged for each in batches[first : first + a_pass]])
        assert sorted(told.tolist()) == pytest.approx(logged, abs=1e-6)
        orders.append(told.tolist())
    assert orders[0] != orders[1] != orders[2]
    assert data.val_dataloader() == []


def test_a_minibatch_is_what_its_boundaries_are():
    found = episodes(BASE, 4)
    data = attached(SimicData(source=Recorded(found), batch_size=5, passes=1, held_out=0))
    steps = [step for each in found for step in each.steps]
    for batch in data.train_dataloader():
        rows = batch.rows
        for number, logged in enumerate(batch.logged.tolist()):
            own = [tuple(each) for each in rows.chosen[number][rows.there[number]].tolist()]
            step = next(
                step
                for step in steps
                if step.observation.run.equal(rows.seen.run[number])
                and [dataclasses.astuple(each) for each in step.actions] == own
            )
            seen = step.observation
            shape = seen.pairs.shape
            assert rows.seen.pairs[number, : shape[0], : shape[1]].equal(seen.pairs)
            assert rows.seen.slots[number, : shape[0]].equal(seen.slots)
            assert rows.seen.relations[number].unique().tolist()[-1] == seen.relations.max()
            assert logged == pytest.approx(step.log_probability, abs=1e-6)


def test_orders_are_the_seed_s_and_the_round_s():
    def order(seed, rounds):
        data = attached(SimicData(source=Recorded(episodes(BASE, 4)), seed=seed))
        data.trainer.lightning_module.rounds = rounds
        return [each.logged.tolist() for each in data.train_dataloader()]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1) != order(1, 1)


def test_rollouts_are_made_once_a_round_by_the_policy_as_it_is():
    made = Rollouts()
    module = Simic(policy=BASE, kl_stop=None)
    data = SimicData(rollouts=made, passes=1, held_out=0.3)
    fitted = trainer(3)
    fitted.fit(module, datamodule=data)
    fitted.validate(module, datamodule=data, verbose=False)
    first = BASE.card.version
    assert [call[:2] for call in made.calls] == [(0, first), (1, first + 1), (2, first + 2)]
    assert len({call[2] for call in made.calls}) == 3
    assert module.merged().to_bytes() not in {call[2] for call in made.calls}


def test_what_older_policies_decided_is_left_out():
    old = [
        dataclasses.replace(
            each, steps=tuple(dataclasses.replace(step, version=9) for step in each.steps)
        )
        for each in episodes(BASE, 3)
    ]
    recent = episodes(BASE, 3, first=10)

    def num(max_lag):
        data = SimicData(source=Recorded([*old, *recent]), max_lag=max_lag, held_out=0, passes=1)
        return sum(len(each.logged) for each in attached(data).train_dataloader())

    few = sum(len(each.steps) for each in recent)
    assert num(7) == num(0) == few
    assert num(8) == num(None) == few + sum(len(each.steps) for each in old)
    with pytest.raises(InvalidArgument, match="more than max_lag=0 versions"):
        attached(SimicData(source=Recorded(old), max_lag=0)).train_dataloader()


def test_held_out_are_the_same_in_every_round():
    data = attached(SimicData(source=Recorded(episodes(BASE, 10)), held_out=0.3))
    one, other = ([each.logged.tolist() for each in data.val_dataloader()] for _ in range(2))
    assert one == other
    assert one


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), min_size=1, max_size=20),
    st.floats(0, 0.99),
)
def test_a_split_keeps_runs_of_a_task_and_seed_together(owners, share):
    first = episode(BASE, seed=0, length=1)
    found = [
        dataclasses.replace(first, id=str(number), task=task, seed=seed)
        for number, (task, seed) in enumerate(owners)
    ]
    learned_from, held_out = split(found, share)
    assert sorted([*learned_from, *held_out], key=lambda each: int(each.id)) == found
    told = [{(each.task, each.seed) for each in part} for part in (learned_from, held_out)]
    assert not told[0] & told[1]
    groups = len(set(owners))
    if groups > 1:
        num = min(max(round(share * groups), 1), groups - 1) if share else 0
        assert len(told[1]) == num
    assert split(found[::-1], share)[0] == learned_from[::-1]


def cut_without_tail():
    return [dataclasses.replace(episode(BASE, seed=0, cut=True), tail=None)]


def with_step(**values):
    found = episode(BASE, seed=1)
    steps = (*found.steps[:2], dataclasses.replace(found.steps[2], **values), *found.steps[3:])
    return [dataclasses.replace(found, steps=steps)]


def impossible():
    found = episode(BASE, seed=1)
    action = dataclasses.replace(found.steps[2].actions[-1], kind=7)
    return with_step(actions=(action, *found.steps[2].actions))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (list, "no episodes to learn from"),
        (cut_without_tail, "are cut off and have no tail"),
        (lambda: with_step(potential=float("nan")), "a reward that is not finite, at step 1"),
        (lambda: with_step(log_probability=float("-inf")), "log-probability .* at step 2"),
        (lambda: with_step(log_probability=0.5), "log-probability .* at step 2"),
        (lambda: with_step(actions=()), "at least one action"),
        (impossible, "an action that could not have been chosen, at step 2"),
    ],
)
def test_episodes_that_cannot_be_are_refused(make, message):
    data = attached(SimicData(source=Recorded(make()), held_out=0))
    with pytest.raises(InvalidArgument, match=message):
        data.train_dataloader()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": None}, "either from datamodule.source or"),
        ({"rollouts": Rollouts()}, "give one"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"passes": 0}, "passes must be a whole number of at least 1"),
        ({"held_out": 1.0}, "held_out must be at least 0 and below 1"),
        ({"max_lag": -1}, "max_lag must be a whole number"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(InvalidArgument, match=message):
        SimicData(**({"source": Recorded([])} | options))


def test_without_held_out_episodes_there_is_no_validation():
    fitted = trainer(2)
    data = SimicData(source=Recorded(episodes(BASE, 4)), held_out=0, passes=1)
    fitted.fit(Simic(policy=BASE), datamodule=data)
    assert "simic/train/loss" in fitted.callback_metrics
    assert not [name for name in fitted.callback_metrics if name.startswith("simic/val")]


def test_another_module_is_refused():
    class Other(LightningModule):
        pass

    data = SimicData(source=Recorded([]))
    data.trainer = trainer()
    data.trainer.strategy.connect(Other())
    with pytest.raises(InvalidArgument, match="SimicData serves Simic.*got Other"):
        data.setup("fit")


def test_a_trainer_that_does_not_reload_is_refused():
    data = SimicData(source=Recorded(episodes(BASE, 2)))
    with pytest.raises(InvalidArgument, match="reload_dataloaders_every_n_epochs=1, got 0"):
        trainer(reload_dataloaders_every_n_epochs=0).fit(Simic(policy=BASE), datamodule=data)
