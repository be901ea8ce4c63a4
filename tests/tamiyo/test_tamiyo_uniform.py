import math
from collections import Counter

import pytest
from growing_run import CATALOGUE, slot, state

from esper_lightning.leyline import CommandKind, InvalidArgument, SeedStage
from esper_lightning.tamiyo import GrowthBudget, RandomPolicy

UNLIMITED = GrowthBudget(max_growth=None)


def policy(**options) -> RandomPolicy:
    return RandomPolicy(**({"catalogue": CATALOGUE, "budget": UNLIMITED} | options))


def outcome(choices) -> frozenset:
    return frozenset((choice.slot, choice.kind, choice.blueprint) for choice in choices)


def test_log_probabilities_are_those_of_an_enumeration():
    """Two blueprints in a DORMANT slot, one of two kinds in a PROBATIONARY one, rate 0.4."""
    seen = state(slot("a"), slot("b", SeedStage.PROBATIONARY), slot("c", SeedStage.CULLED))
    rate = 0.4
    of_a = {("a", CommandKind.GERMINATE, name): rate / 2 for name in ("around", "behind")}
    of_b = {("b", kind, ""): rate / 2 for kind in (CommandKind.FOSSILIZE, CommandKind.CULL)}
    expected = {frozenset({("", CommandKind.NOOP, "")}): (1 - rate) ** 2}
    expected |= {frozenset({a}): p * (1 - rate) for a, p in of_a.items()}
    expected |= {frozenset({b}): p * (1 - rate) for b, p in of_b.items()}
    expected |= {frozenset({a, b}): p * q for a, p in of_a.items() for b, q in of_b.items()}
    assert sum(expected.values()) == pytest.approx(1.0)

    drawing = policy(action_rate=rate)
    counts: Counter[frozenset] = Counter()
    for _ in range(4000):
        choices = drawing.decide(seen)
        key = outcome(choices)
        counts[key] += 1
        probability = math.exp(sum(choice.log_probability for choice in choices))
        idle = 0 if key == frozenset({("", CommandKind.NOOP, "")}) else 2 - len(choices)
        assert probability * (1 - rate) ** idle == pytest.approx(expected[key])
    assert set(counts) == set(expected)
    for key, probability in expected.items():
        error = math.sqrt(probability * (1 - probability) / 4000)
        assert abs(counts[key] / 4000 - probability) < 4 * error


@pytest.mark.parametrize("rate", [0.05, 0.5, 1.0])
def test_the_options_of_a_slot_sum_to_the_rate(rate):
    seen = state(slot("a"), slot("b", SeedStage.PROBATIONARY))
    kinds = [kind for kind in CommandKind if kind is not CommandKind.NOOP]
    drawing = policy(action_rate=rate, kinds=kinds)
    for each in seen.slots:
        options = drawing.options(each, UNLIMITED.room(seen))
        total = math.fsum(math.exp(choice.log_probability) for choice, _ in options)
        assert total == pytest.approx(rate)


def test_what_an_earlier_slot_took_is_gone_for_the_later_ones():
    seen = state(slot("a"), slot("b"), slot("c"))
    drawing = policy(
        action_rate=1.0, blueprints=["around"], budget=GrowthBudget(max_parameters=1100)
    )
    choices = drawing.decide(seen)  # 512 parameters each
    assert [choice.slot for choice in choices] == ["a", "b"]
    assert [choice.log_probability for choice in choices] == [0.0, 0.0]


def test_rate_0_never_acts_and_says_so_with_certainty():
    choices = policy(action_rate=0.0).decide(state(slot("a")))
    assert [choice.kind for choice in choices] == [CommandKind.NOOP]
    assert choices[0].log_probability == 0.0


def test_the_seed_decides():
    def drawn(seed):
        drawing = policy(seed=seed, action_rate=0.5)
        seen = state(slot("a"), slot("b", SeedStage.PROBATIONARY))
        return [drawing.decide(seen) for _ in range(20)]

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


def test_the_last_boundary_is_settled_not_drawn():
    seen = state(slot("a"), slot("b", SeedStage.TRAINING), epoch=23)
    drawing = policy(action_rate=1.0)
    before = drawing.state_dict()
    assert outcome(drawing.decide(seen)) == {("b", CommandKind.CULL, "")}
    assert drawing.state_dict() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action_rate": 1.5}, "a probability, 0 to 1, got 1.5"),
        ({"action_rate": math.nan}, "a probability, 0 to 1, got nan"),
        ({"kinds": []}, "at least one thing to do"),
        ({"kinds": ["noop"]}, "and not NOOP"),
    ],
)
def test_arguments(options, message):
    with pytest.raises(InvalidArgument, match=message):
        policy(**options)


def test_a_stream_of_another_length_is_refused():
    drawing = policy()
    saved = drawing.state_dict()
    with pytest.raises(InvalidArgument, match="not a saved state of the policy 'random'"):
        drawing.load_state_dict(saved | {"words": [1, 2, 3]})
    assert drawing.state_dict() == saved
