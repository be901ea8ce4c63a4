"""What the learned policy promises about its choices."""

import json
import math
import random
from collections import Counter

import msgspec
import numpy as np
import pytest
import torch
from growing_run import CATALOGUE, WIDE, GrowingRun, g4, slot, state
from observing import busy, chain, learned, observer, stored

from esper_lightning.karn import Tier
from esper_lightning.leyline import CommandKind, InvalidArgument, SeedStage
from esper_lightning.simic.validation.hostile_states import boundaries, violations
from esper_lightning.tamiyo import Choice, GrowthBudget
from esper_lightning.tamiyo.learned import Learned

BUDGETS = [
    GrowthBudget(),
    GrowthBudget(max_growth=None),
    GrowthBudget(max_parameters=5000, max_growth=None, max_flops_growth=3.0),
]


def done(choices: list[Choice]) -> set[tuple[str, str, str, float | None]]:
    return {(each.kind.name, each.slot, each.blueprint, each.share) for each in choices}


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("sample", [False, True])
def test_choices_are_legal_and_within_the_budget_on_any_boundary(budget, sample):
    policy = Learned(policy=stored(1), sample=sample, budget=budget, tiers=list(Tier))
    planted = 0
    for each in boundaries(70, seed=7):
        choices = policy.decide(each)
        assert violations(each, choices, budget=budget) == []
        assert all(choice.policy_version == 3 for choice in choices)
        candidates = policy.candidates(each)
        assert all(choice.kind is CommandKind.GERMINATE for choice in candidates)
        assert not candidates or violations(each, candidates, budget=budget) == []
        planted += sum(choice.kind is CommandKind.GERMINATE for choice in choices)
    assert planted


@pytest.mark.parametrize("seed", range(4))
def test_permuted_slots_are_a_permuted_decision(seed):
    plain = busy(seed)
    order = random.Random(seed).sample(range(6), 6)
    shuffled = msgspec.structs.replace(plain, slots=tuple(plain.slots[place] for place in order))
    one, other = learned(seed).decide(plain), learned(seed).decide(shuffled)
    assert done(one) == done(other)
    assert [each.kind for each in one] == [each.kind for each in other]
    for first, second in zip(one, other, strict=True):
        assert first.slot == second.slot
        assert first.log_probability == pytest.approx(second.log_probability, abs=1e-4)
        assert first.value == pytest.approx(second.value, abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_the_catalogue_does_not_matter(seed):
    turned = dict(reversed(CATALOGUE.items()))
    one = learned(seed).decide(busy(seed))
    other = learned(seed, catalogue=turned).decide(busy(seed))
    assert done(one) == done(other)


def test_slots_that_are_told_apart_are_decided_apart():
    """An untrained network is not a constant: what it sees changes what it does."""
    decided = {tuple(sorted(done(learned().decide(busy(seed))), key=str)) for seed in range(8)}
    assert len(decided) > 4


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (state(), "no slots"),
        (state(slot("a", shape=None)), "no shape, so nothing fits"),
        (state(slot("a", SeedStage.EMBARGOED)), "nothing may be done"),
    ],
)
def test_where_nothing_can_be_done_it_waits_for_certain(given, why):
    (choice,) = learned().decide(given)
    assert choice.kind is CommandKind.NOOP
    assert choice.log_probability == pytest.approx(0.0, abs=1e-6)
    assert choice.value is not None


def test_an_empty_catalogue_and_a_spent_budget_plant_nothing():
    free = state(slot("a"), slot("b"))
    for policy in (learned(catalogue={}), learned(budget=GrowthBudget(max_growth=0.0))):
        assert [choice.kind for choice in policy.decide(free)] == [CommandKind.NOOP]
        assert policy.candidates(free) == []


def test_any_number_of_slots_layers_and_blueprints():
    for num in (1, 3, 40):
        names = [f"s{number}" for number in range(num)]
        for layers in ((), chain(*names), chain(*(f"l{number}.x" for number in range(90)))):
            given = state(
                *(slot(name, shape=WIDE, pressure=1.0) for name in names),
                layers=layers,
                host_parameters=10**6,
                num_parameters=10**6,
            )
            choices = learned(blueprints=["behind"]).decide(given)
            assert violations(given, choices, budget=GrowthBudget(), catalogue=CATALOGUE) == []


def test_candidates_are_a_cohort_for_every_free_slot_that_gets_a_share():
    policy = learned(2, budget=GrowthBudget(max_growth=None))
    given = busy(3)
    before = policy.state_dict()
    found = policy.candidates(given)
    assert policy.state_dict() == before
    free = {each.slot for each in given.slots if CommandKind.GERMINATE in each.legal}
    assert {choice.slot for choice in found} == free
    assert policy.candidates(given) == found


def test_the_last_boundary_is_settled_and_not_drawn():
    passed = slot("a", SeedStage.PROBATIONARY, gate=g4(True))
    choices = learned(sample=True).decide(state(passed, slot("b", SeedStage.TRAINING), epoch=23))
    assert done(choices) == {("FOSSILIZE", "a", "", None), ("CULL", "b", "", None)}
    assert all(each.log_probability is None and each.value is None for each in choices)
    assert [each.kind for each in learned().decide(state(epoch=23))] == [CommandKind.NOOP]


def test_reasons_say_how_likely_what_and_why():
    choices = [each for seed in range(12) for each in learned(seed).decide(busy(seed))]
    planted = next(each for each in choices if each.kind is CommandKind.GERMINATE)
    assert (
        f"test 3 gives this probability {math.exp(planted.log_probability):.2g}" in planted.reason
    )
    assert f"1/{round(1 / planted.share)} of what is left" in planted.reason
    assert planted.blueprint in planted.reason


def test_what_is_drawn_has_the_probability_that_is_told():
    policy = learned(5, sample=True, budget=GrowthBudget(max_growth=None))
    given = busy(1, names="ab")
    counts: Counter[tuple[str, str, str, float | None]] = Counter()
    told = {}
    num = 400
    for _ in range(num):
        first = policy.decide(given)[0]
        key = (first.kind.name, first.slot, first.blueprint, first.share)
        counts[key] += 1
        told[key] = math.exp(first.log_probability)
    assert len(counts) > 2
    for key, probability in told.items():
        spread = math.sqrt(num * probability * (1 - probability))
        assert abs(counts[key] - num * probability) < 5 * spread + 1


@pytest.mark.parametrize("sample", [False, True])
def test_a_resumed_one_decides_as_the_uninterrupted_one(sample):
    whole, resumed = (
        Learned(policy=stored(1), sample=sample, seed=4, tiers=list(Tier)) for _ in range(2)
    )
    for each in boundaries(40, seed=11):
        resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
        assert resumed.decide(each) == whole.decide(each)
        assert resumed.state_dict() == whole.state_dict()


def test_seeds_draw_differently_and_the_same_one_alike():
    def drawn(seed):
        policy = learned(5, sample=True, seed=seed)
        return [done(policy.decide(busy(number))) for number in range(12)]

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)


@pytest.mark.parametrize("saved", [{"weights": [1.0]}, {}, {"history": {}, "stream": None}])
def test_a_foreign_state_is_refused_and_changes_nothing(saved):
    policy = learned(sample=True)
    policy.decide(busy())
    before = policy.state_dict()
    with pytest.raises(InvalidArgument, match="resume with the policy"):
        policy.load_state_dict(saved)
    broken = policy.state_dict()
    broken["stream"]["words"] = [1, 2]
    with pytest.raises(InvalidArgument, match="not a saved state"):
        policy.load_state_dict(broken)
    assert policy.state_dict() == before


def test_deciding_touches_neither_global_random_numbers_nor_threads():
    policies = [learned(sample=sample) for sample in (False, True)]
    torch.manual_seed(3)
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())
    threads = torch.get_num_threads()
    for policy in [*policies, learned(9)]:
        policy.decide(busy())
        policy.candidates(busy())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()
    assert torch.get_num_threads() == threads


def test_a_network_that_overflows_waits():
    made = stored()
    for parameter in made.network.parameters():
        parameter.mul_(1e30)
    (choice,) = Learned(policy=made, catalogue=CATALOGUE).decide(busy())
    assert choice.kind is CommandKind.NOOP
    assert choice.log_probability is None
    assert "no finite numbers" in choice.reason


def test_a_run_from_end_to_end():
    """Every stage of a seed's life is met, and no seed is left alive."""

    class Unwatched(GrowingRun):
        def run(self, policy, start=0, end=None):
            for epoch in range(start, self.epochs if end is None else end):
                self.slots = [self._aged(each) for each in self.slots]
                seen = self.at(epoch)
                choices = policy.decide(seen)
                assert violations(seen, choices, budget=GrowthBudget(), catalogue=CATALOGUE) == []
                for choice in choices:
                    if choice.slot:
                        place = [each.slot for each in self.slots].index(choice.slot)
                        self.slots[place] = self._carried_out(self.slots[place], choice, epoch)
                        self.log.append((epoch, [choice]))
            return self

    run = Unwatched().run(learned(5, sample=True))
    assert {kind for _, kind, _ in run.kinds()} >= {"GERMINATE", "CULL"}
    assert not [each for each in run.slots if each.stage is SeedStage.PROBATIONARY]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": "yes"}, "sample must be true or false"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"budget": 3}, "budget must be a GrowthBudget"),
        ({"kinds": []}, "kinds must be some of"),
    ],
)
def test_arguments_outside_of_what_is_allowed(options, message):
    with pytest.raises(InvalidArgument, match=message):
        learned(**options)


def test_observing_does_not_depend_on_who_decides():
    """What is cloned from a record is what is seen when it decides."""
    policy, watcher = learned(1), observer()
    for epoch in range(4, 10):
        given = busy(epoch, epoch=epoch)
        watcher.observe(given)
        watcher.note(given, policy.decide(given))
        assert policy.state_dict()["history"] == watcher.state_dict()
