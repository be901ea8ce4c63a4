"""PPO on adapters learns what pays, from its own tries."""

import random
from math import exp

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from sampled_episodes import observations

from esper_lightning.leyline import InvalidArgument
from esper_lightning.simic.adapters import digest_of
from esper_lightning.simic.data import SimicData
from esper_lightning.simic.episode import Episode, Step
from esper_lightning.simic.learning.round import tell
from esper_lightning.simic.learning.rows import collate
from esper_lightning.simic.module import Simic
from esper_lightning.simic.softening import softened
from esper_lightning.tamiyo.learned import Action, Actor, StoredPolicy

BASE = StoredPolicy.load("cloned")
EARLY, PLACES = 15, 30


def bandit(policy, number, num=192):
    """One boundary each: to plant in the first half pays 1, to wait in the second one does.

    What the policy of the package does is about the opposite.
    """
    draw, actor = random.Random(number), Actor(policy.network)

    def pick(odds):
        return draw.choices(range(len(odds)), weights=[exp(x) for x in odds])[0]

    found = []
    for one in range(num):
        place = draw.randrange(PLACES)
        seen = observations()[place]
        answered = actor.choose(seen, pick)
        step = Step(
            observation=seen,
            actions=answered.actions,
            log_probability=sum(answered.log_probabilities),
            version=policy.card.version,
            potential=0.0,
        )
        found.append(
            Episode(
                id=f"{number}-{one}",
                task="bandit",
                seed=one,
                policy=policy.card.name,
                steps=(step,),
                utility=float((len(answered.actions) > 1) == (place < EARLY)),
            )
        )
    return found


def mean_return(policy):
    """Over draws that no round had."""
    found = bandit(policy, 10_000, 400)
    return sum(each.utility for each in found) / len(found)


def test_it_learns_what_pays():
    seed_everything(0, verbose=False)
    module = Simic(policy=BASE, temperature=3.0, rate=2e-3, kl_stop=0.05)
    start = mean_return(module.policy_for_rollouts())
    trainer = Trainer(
        max_epochs=8,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        gradient_clip_val=0.5,
    )
    trainer.fit(module, datamodule=SimicData(rollouts=bandit, batch_size=64, held_out=0))
    end = mean_return(module.policy_for_rollouts())
    assert mean_return(BASE) < 0.5
    assert start < 0.5  # worse than a coin, which it still tries
    assert end > 0.75
    module.adapted.check_frozen()
    assert digest_of(module.adapted.network) == digest_of(softened(BASE, 3.0).network)
    assert module.version == BASE.card.version + 8


def chances(policy):
    """That it waits, at each boundary of the run."""
    seen = observations()
    rows = collate(seen, [(Action(0),)] * len(seen))
    return tell(policy.network, rows).log_probabilities.exp()


def test_a_softened_policy_tries_more_and_prefers_the_same():
    before, after = chances(BASE), chances(softened(BASE, 3.0))
    surest = before > 0.999
    assert surest.sum() > 15
    assert (after[surest] < 0.995).all()
    assert ((before > 0.5) == (after > 0.5)).float().mean() > 0.8
    assert softened(BASE, 1.0) is BASE
    card = softened(BASE, 3.0).card
    assert (card.name, card.version) == (BASE.card.name, BASE.card.version)
    assert card.provenance["temperature"] == 3.0


def test_softening_leaves_the_base_and_the_value():
    digest = digest_of(BASE.network)
    seen = observations()
    rows = collate(seen, [(Action(0),)] * len(seen))
    assert tell(softened(BASE, 2.0).network, rows).values.equal(tell(BASE.network, rows).values)
    assert digest_of(BASE.network) == digest


@pytest.mark.parametrize("temperature", [0, -1, float("inf"), "x", None])
def test_a_temperature_is_above_0(temperature):
    with pytest.raises(InvalidArgument, match="temperature must be"):
        softened(BASE, temperature)


def test_scores_are_divided():
    """With one kind to choose, the odds of places are the root of what they were."""
    seen = observations()[0]
    place = [(Action(1, number, 0, 0), Action(0)) for number in range(len(seen.slot_names))]
    told = []
    for policy in (BASE, softened(BASE, 2.0)):
        with torch.no_grad():
            turn = policy.network.decoder.begin(
                collate([seen], [place[0]]).seen,
                policy.network.encode(collate([seen], [place[0]]).seen)[0],
            )
            told.append(policy.network.decoder.what(turn)[1][0, 0])
    torch.testing.assert_close(told[1], told[0] / 2, rtol=1e-4, atol=1e-4)
