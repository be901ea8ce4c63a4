"""The network of the learned policy: exact probabilities, gradients, and what can be learned."""

import itertools
import math
import random

import msgspec
import pytest
import torch
from growing_run import CATALOGUE, WIDE, GrowingRun, slot, state
from observing import SMALL, busy, learned, network, observer, stored
from peft import LoraConfig, get_peft_model

from esper_lightning.karn import CATALOGUE as KARN
from esper_lightning.karn import Tier
from esper_lightning.leyline import CommandKind, FeatureKind, FeatureMap, InvalidArgument, SlotShape
from esper_lightning.simic.validation.hostile_states import boundaries
from esper_lightning.tamiyo import Choice, GrowthBudget, Heuristic
from esper_lightning.tamiyo.learned import (
    Action,
    Actor,
    Architecture,
    PolicyNetwork,
    actions_of,
)
from esper_lightning.tamiyo.observation import KINDS, SHARES, Observer, pairs
from esper_lightning.tamiyo.planting import best, largest, sized
from esper_lightning.tamiyo.shortlist import Shortlist

GERMINATE, CULL = KINDS.index(CommandKind.GERMINATE), KINDS.index(CommandKind.CULL)


def drawing(seed):
    source = random.Random(seed)
    return lambda odds: source.choices(range(len(odds)), weights=[math.exp(x) for x in odds])[0]


def test_training_sees_the_probabilities_that_acting_had():
    """In one padded batch of boundaries of all sizes, within 1e-5 of one by one."""
    made = network(2)
    actor, draw = Actor(made), drawing(3)
    watcher = Observer(Shortlist(tiers=list(Tier)), GrowthBudget(max_growth=None), kinds=KINDS[1:])
    seen = [watcher.observe(each) for each in boundaries(40, seed=5)]
    plain = observer(GrowthBudget(max_growth=3.0))
    seen += [plain.observe(busy(number, epoch=number)) for number in range(20)]
    answered = [actor.choose(each, draw) for each in seen]
    assert {action.kind for each in answered for action in each.actions} >= {0, 1, 2, 3, 4}
    assert any(action.share for each in answered for action in each.actions)
    found = made.evaluate(seen, [each.actions for each in answered])
    for number, each in enumerate(answered):
        own = found.log_probabilities[number][found.there[number]]
        expected = torch.tensor(each.log_probabilities)
        torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)
        assert found.values[number].item() == pytest.approx(each.value, rel=1e-5, abs=1e-5)
    assert (found.log_probabilities[~found.there] == 0).all()
    assert (found.entropies >= 0).all()


def first_actions(found):
    for kind, place in itertools.product(range(1, len(KINDS)), range(len(found.slot_names))):
        if kind != GERMINATE:
            yield Action(kind, place)
            continue
        shape = itertools.product(range(len(found.blueprint_names)), range(len(SHARES)))
        yield from (Action(kind, place, blueprint, share) for blueprint, share in shape)


@pytest.mark.parametrize("budget", [GrowthBudget(), GrowthBudget(max_growth=None)])
def test_probabilities_of_all_first_choices_sum_to_one(budget):
    found = observer(budget).observe(busy(1, names="abc"))
    made = network(1)
    total, possible = math.exp(made.evaluate([found], [[Action(0)]]).log_probabilities.item()), 1
    entropy = 0.0
    for action in first_actions(found):
        try:
            told = made.evaluate([found], [[action]]).log_probabilities.item()
        except InvalidArgument:
            continue
        total += math.exp(told)
        entropy -= math.exp(told) * told
        possible += 1
    assert total == pytest.approx(1.0, abs=1e-5)
    assert possible > 4


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([[Action(CULL, 0)]], "Action.*of boundary 0 could not have been chosen there"),
        ([[Action(GERMINATE, 0), Action(GERMINATE, 0)]], "could not have been chosen"),
        ([[]], "each boundary has at least one action"),
        ([], "each boundary has at least one action"),
    ],
)
def test_what_could_not_have_been_chosen_is_refused(actions, message):
    found = observer().observe(state(slot("a")))
    with pytest.raises(InvalidArgument, match=message):
        network().evaluate([found], actions)


def test_every_weight_gets_a_gradient():
    made = network(2)
    watcher = observer(GrowthBudget(max_growth=None, max_parameters=20_000))
    seen = [watcher.observe(busy(number, epoch=number)) for number in range(12)]
    answered = [Actor(made).choose(each, drawing(number)) for number, each in enumerate(seen)]
    found = made.evaluate(seen, [each.actions for each in answered])
    (found.log_probabilities.sum() + found.entropies.sum() + found.values.square().sum()).backward()
    without = [
        name
        for name, parameter in made.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    # A bias that is added to all keys of an attention changes nothing.
    assert [name for name in without if not name.endswith("key.bias")] == []
    assert all(parameter.grad.isfinite().all() for parameter in made.parameters())


def test_topology_matters():
    """The same slots and layers in another dataflow are another boundary."""
    made = network(4)
    given = busy(2)
    turned = tuple(reversed(given.layers))
    names = [each.path for each in given.layers]
    other = msgspec.structs.replace(
        given,
        layers=tuple(
            msgspec.structs.replace(each, reads=(turned[place].path,))
            for place, each in enumerate(given.layers)
        ),
    )
    assert names == [each.path for each in other.layers]
    one, two = (
        Actor(made).choose(observer().observe(each), drawing(0)).value for each in (given, other)
    )
    assert abs(one - two) > 1e-4


def test_fitted_scales_are_those_of_training():
    made = PolicyNetwork(SMALL)
    watcher = observer()
    seen = [watcher.observe(busy(number, epoch=number)) for number in range(20)]
    made.fit(seen)
    rows = torch.cat([each.slots for each in seen])
    values, there = made.encoder.standard["slots"](rows).chunk(2, dim=-1)
    num = there.sum(dim=0)
    mean = values.sum(dim=0) / num.clamp(min=1)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-4, rtol=0)
    variance = values.square().sum(dim=0) / num.clamp(min=1)
    varies = variance > 1e-6
    assert varies.sum() > 10
    torch.testing.assert_close(variance[varies], torch.ones(int(varies.sum())), atol=1e-2, rtol=0)
    assert (values[there == 0] == 0).all()


def test_lora_trains_adapters_alone():
    made = network()
    targets = ["query", "key", "value", "output", "expand", "project"]
    adapted = get_peft_model(made, LoraConfig(r=2, target_modules=targets))
    trained = {name for name, each in adapted.named_parameters() if each.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    found = observer().observe(busy())
    inner = adapted.base_model.model
    inner.evaluate([found], [[Action(0)]]).log_probabilities.sum().backward()
    assert all(
        each.grad is not None
        for name, each in adapted.named_parameters()
        if "lora_B" in name and "encoder" in name
    )
    with torch.no_grad():
        for name, each in adapted.named_parameters():
            if "lora_" in name:
                each.add_(0.1)
    with pytest.raises(InvalidArgument, match="merge its adapters first"):
        Actor(inner)
    before = inner.evaluate([found], [[Action(0)]]).values.item()
    merged = adapted.merge_and_unload()
    assert Actor(merged).choose(found, drawing(0)).value == pytest.approx(before, abs=1e-4)
    assert before != pytest.approx(Actor(network()).choose(found, drawing(0)).value, abs=1e-3)


def test_its_own_choices_are_its_actions():
    policy = learned(3, sample=True, budget=GrowthBudget(max_growth=6.0))
    watcher = observer(GrowthBudget(max_growth=6.0))
    made = stored(3).network
    planted = 0
    for number in range(15):
        given = busy(number, epoch=number)
        seen = watcher.observe(given)
        choices = policy.decide(given)
        watcher.note(given, choices)
        actions = actions_of(seen, choices, state=given, catalogue=CATALOGUE)
        told = made.evaluate([seen], [actions]).log_probabilities[0]
        expected = torch.tensor([each.log_probability for each in choices])
        torch.testing.assert_close(told, expected, rtol=1e-5, atol=1e-5)
        planted += sum(action.kind == GERMINATE for action in actions)
    assert planted > 3


@pytest.mark.parametrize("num", [1, 2, 3, 4])
def test_a_cohort_of_equal_parts_is_one_that_it_can_plant(num):
    wide = [slot(name, shape=WIDE, pressure=1.0, base_parameters=10**5) for name in "abcd"[:num]]
    given = state(*wide, epoch=20, max_epochs=40, host_parameters=10**5, num_parameters=10**5)
    budget = GrowthBudget(max_growth=1.5)
    policy = Heuristic(catalogue=CATALOGUE, budget=budget, max_live=4)
    cohort = policy.candidates(given)
    assert len(cohort) == num
    seen = observer(budget).observe(given)
    actions = actions_of(seen, cohort, state=given, catalogue=CATALOGUE)
    assert [SHARES[action.share] for action in actions[:-1]] == [1 / n for n in range(num, 0, -1)]
    assert network().evaluate([seen], [actions]).there.sum() == num + 1


def test_what_it_could_not_have_chosen_is_left_out():
    free = slot("a")
    given = state(free, slot("b", quarantined=("behind",)))
    seen = observer().observe(given)

    def plant(place, blueprint, **values):
        parameters = CATALOGUE[blueprint].resolve({}) if blueprint in CATALOGUE else {}
        return Choice(
            kind=CommandKind.GERMINATE,
            slot=place,
            blueprint=blueprint,
            parameters=parameters,
            reason="test",
            **values,
        )

    choices = [
        plant("a", "unheard_of"),
        plant("b", "behind"),
        plant("a", "around", refused="no"),
        Choice(kind=CommandKind.CULL, slot="a", reason="test"),
        plant("elsewhere", "around"),
        plant("b", "around", share=0.5),
        plant("b", "around"),
    ]
    actions = actions_of(seen, choices, state=given, catalogue=CATALOGUE)
    around = seen.blueprint_names.index("around")
    assert actions == [Action(GERMINATE, 1, around, SHARES.index(0.5)), Action(0)]


@pytest.mark.parametrize("share", SHARES)
def test_what_may_be_chosen_is_what_can_be_planted(share):
    """The masks and ``planting.largest`` agree, over the whole catalogue."""
    shapes = {
        name: SlotShape(FeatureMap(kind, before), FeatureMap(kind, after))
        for name, kind, before, after in (
            ("a", FeatureKind.SPATIAL, (8, 16, 16), (16, 8, 8)),
            ("b", FeatureKind.SPATIAL, (16, 8, 8), (16, 8, 8)),
            ("c", FeatureKind.TOKENS, (16, 32), (16, 32)),
            ("d", FeatureKind.VECTOR, (64,), (10,)),
        )
    }
    slots = [slot(name, shape=shape, base_parameters=900) for name, shape in shapes.items()]
    for growth, flops in ((0.01, None), (0.3, 0.2), (4.0, 0.01), (None, 3.0)):
        budget = GrowthBudget(max_growth=growth, max_flops_growth=flops)
        given = state(
            *slots, host_parameters=50_000, num_parameters=50_000, host_flops=3e7, flops=3e7
        )
        found = Observer(Shortlist(tiers=list(Tier)), budget).observe(given)
        room = budget.room(given).scaled(share)
        for row, each in enumerate(slots):
            for column, name in enumerate(found.blueprint_names):
                if not found.fits[row, column]:
                    assert not KARN[name].fits(each.shape)
                    continue
                parameters, cost = found.prices[row, column].tolist()
                may = parameters <= room.parameters and cost <= room.flops
                assert may == (largest(KARN[name], each.shape, room) is not None)


def test_a_small_network_learns_to_decide_as_the_heuristic():
    """Its features and its heads hold what the rules of the heuristic ask for."""
    gains = [lambda _: 0.2, lambda _: -0.1, lambda name: 0.2 if name == "around" else 0.0]
    seen, actions = [], []
    for gain in gains:
        teacher, watcher = Heuristic(catalogue=CATALOGUE, budget=GrowthBudget()), observer()
        met = []

        class Watched(GrowingRun):
            def at(self, epoch, met=met):
                met.append(super().at(epoch))
                return met[-1]

        run = Watched(gain=gain).run(teacher)
        for given, (_, choices) in zip(met[:-1], run.log[:-1], strict=True):
            found = watcher.observe(given)
            watcher.note(given, choices)
            seen.append(found)
            actions.append(actions_of(found, choices, state=given, catalogue=CATALOGUE))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = PolicyNetwork(Architecture(width=32, depth=1, heads=2))
    made.fit(seen)
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    for _ in range(100):
        loss = -made.evaluate(seen, actions).log_probabilities.sum() / len(seen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    actor = Actor(made)

    def kinds_and_places(chosen):
        return {(each.kind, each.slot, each.blueprint, each.share) for each in chosen}

    agreed = [
        kinds_and_places(actor.choose(found, lambda odds: int(odds.argmax())).actions)
        == kinds_and_places(own)
        for found, own in zip(seen, actions, strict=True)
    ]
    acted = [len(own) > 1 for own in actions]
    assert sum(acted) >= 4
    assert sum(agreed) / len(agreed) > 0.95
    assert sum(one and two for one, two in zip(agreed, acted, strict=True)) / sum(acted) > 0.7


def test_pairs_say_which_blueprint_the_heuristic_prefers():
    """The largest ``worth + size + trust - used`` is its choice, but for the steps of a size."""
    draw = random.Random(0)
    shortlist = Shortlist()
    agreed = []
    for _ in range(60):
        channels, side = draw.choice((8, 32, 128)), draw.choice((4, 16))
        shape = SlotShape(*[FeatureMap(FeatureKind.SPATIAL, (channels, side, side))] * 2)
        free = slot("a", shape=shape, base_parameters=9 * channels**2)
        host = 30 * channels**2
        given = state(free, host_parameters=host, num_parameters=host, host_flops=1e7, flops=1e7)
        budget = GrowthBudget(max_growth=draw.choice((0.5, 2.0, 8.0)))
        found = Observer(shortlist, budget).observe(given)
        values = dict(zip(pairs.NAMES, found.pairs[0, :, : len(pairs.NAMES)].T, strict=True))
        told = values["worth"] + values["size_1_1"] + values["trust"] - values["used_1_1"]
        told[found.pairs[0, :, len(pairs.NAMES) + pairs.NAMES.index("size_1_1")] == 0] = -math.inf
        room = budget.room(given)
        wanted = best(
            sized(free, room, shortlist), free, share=room, state=given, trust=lambda *_: 1.0
        )
        agreed.append(found.blueprint_names[int(told.argmax())] == wanted.blueprint.name)
    assert sum(agreed) / len(agreed) > 0.9
