"""What a policy must keep to whatever it has learned: checks on states that no run should have.

They need no training, and are the same for every policy; how well it decides is for
:mod:`~esper_lightning.simic.validation.gate` to say.
"""

import json
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import msgspec
import numpy as np
import torch

from esper_lightning.karn import CATALOGUE, Blueprint, Tier
from esper_lightning.leyline import EsperError, SeedState, SystemState
from esper_lightning.leyline.arguments import check_whole
from esper_lightning.simic.validation.digests import weights_digest
from esper_lightning.simic.validation.hostile_states import CROWDS, boundaries, crowds, violations
from esper_lightning.tamiyo import Choice, GrowthBudget, Policy
from esper_lightning.tamiyo.learned import Learned, StoredPolicy
from esper_lightning.tamiyo.reload.checking import checked

Maker = Callable[..., Policy]
"""Makes a policy that remembers nothing yet; takes options of
:class:`~esper_lightning.tamiyo.learned.Learned`."""

TIE = 1e-3
"""Two choices whose log-probabilities differ by less may change places when slots do: sums in
another order are rounded in another way."""

BUDGETS = (
    GrowthBudget(),
    GrowthBudget(max_growth=None),
    GrowthBudget(max_growth=0.0),
    GrowthBudget(max_parameters=10**6, max_growth=2.0, max_flops_growth=2.0),
)

MAX_EXAMPLES = 3
"""Of what went wrong that are told."""


class Check(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of one check.

    Attributes:
        name: of it.
        num: times it was tried.
        failures: how many of them failed.
        examples: of what went wrong, in words.
    """

    name: str
    num: int
    failures: int
    examples: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether it was tried, and nothing went wrong."""
        return self.num > 0 and not self.failures

    def __str__(self) -> str:
        told = f": {'; '.join(self.examples)}" if self.examples else ""
        return f"{self.name} failed {self.failures} of {self.num} times{told}"


class Timing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long decisions took, in milliseconds. It is told and never judged.

    Attributes:
        p50_ms: median; None if there was none.
        p95_ms: of twenty, one is longer; likewise.
        num: decisions.
    """

    p50_ms: float | None
    p95_ms: float | None
    num: int


def check_policy(
    stored: StoredPolicy, *, num: int = 60, seed: int = 0
) -> tuple[tuple[Check, ...], Timing]:
    """All checks of a stored policy.

    Args:
        stored: the policy.
        num: hostile states for each of the checks that use them, at least 10.
        seed: of the states.

    Raises:
        InvalidArgument: a number below what is allowed.
    """
    conduct, timing = check_conduct(partial(Learned, policy=stored), num=num, seed=seed)
    return (*conduct, round_trip(stored, num=num, seed=seed)), timing


def check_conduct(make: Maker, *, num: int = 60, seed: int = 0) -> tuple[tuple[Check, ...], Timing]:
    """The checks that ask a policy what it does, and how long it takes.

    Args:
        make: makes it.
        num: hostile states for each check, at least 10.
        seed: of the states.

    Raises:
        InvalidArgument: a number below what is allowed.
    """
    check_whole("num", num, least=10)
    check_whole("seed", seed, least=0)
    hostile = [*crowds(seed=seed), *boundaries(num, seed=seed)]
    took: list[float] = []
    found = (
        legality(make, hostile, took),
        equivariance(make, hostile, seed=seed),
        determinism(make, hostile),
        isolation(make, hostile),
    )
    if not took:
        return found, Timing(p50_ms=None, p95_ms=None, num=0)
    p50, p95 = (1e3 * np.percentile(np.asarray(took), [50, 95])).tolist()
    return found, Timing(p50_ms=p50, p95_ms=p95, num=len(took))


def legality(make: Maker, states: Sequence[SystemState], took: list[float]) -> Check:
    """All that is chosen could be carried out: masks and budgets are kept, numbers are finite.

    With each of several budgets and catalogues, an empty one among them, what is likeliest and
    what is drawn; a run's memory goes on from state to state. What a policy tells as candidates is
    looked at too.

    Args:
        make: makes the policy.
        states: to decide at, those of ``crowds`` first.
        took: gets the seconds that each decision took.
    """
    catalogues: list[Mapping[str, Blueprint]] = [CATALOGUE, {}]
    cases = list(product(BUDGETS, catalogues, (False, True)))
    flaws: list[str | None] = []
    first = len(CROWDS)
    for number, (budget, catalogue, sample) in enumerate(cases):
        policy = _made(make, flaws, budget=budget, catalogue=catalogue, sample=sample)
        if policy is None:
            continue
        # The first states, with no slots or hundreds, are there in every case.
        share = [*states[:first], *states[first + number :: len(cases)]]
        flaws += [_flaw(policy, state, budget, catalogue, took) for state in share]
    return _check("legality", flaws)


def equivariance(make: Maker, states: Sequence[SystemState], *, seed: int) -> Check:
    """Slots in another order are the same decision: nothing hangs on where one stands in a list.

    Seeds of one cohort share what was measured of it, as in any run.
    """
    draw = random.Random(seed)
    flaws: list[str | None] = []
    for state in states:
        if len(state.slots) < 2:
            continue
        slots = _sharing(state.slots)
        one, other = (
            msgspec.structs.replace(state, slots=tuple(each))
            for each in (slots, draw.sample(slots, len(slots)))
        )
        flaws.append(_tried(partial(_same_up_to_ties, make, one, other)))
    return _check("equivariance", flaws)


def determinism(make: Maker, states: Sequence[SystemState]) -> Check:
    """The same state twice is the same decision, drawn or not, and so it is after a resume."""
    flaws: list[str | None] = []
    for sample in (False, True):
        pair = [_made(make, flaws, sample=sample, seed=1) for _ in range(2)]
        one, other = pair
        if one is None or other is None:
            continue
        flaws += [_tried(partial(_differ_after_resume, one, other, each)) for each in states]
    return _check("determinism", flaws)


def isolation(make: Maker, states: Sequence[SystemState]) -> Check:
    """Deciding draws nothing from global generators, and asking for candidates changes nothing."""
    flaws: list[str | None] = []
    policy = _made(make, flaws, sample=True)
    if policy is not None:
        flaws += [_tried(partial(_disturbs, policy, each)) for each in states]
    return _check("isolation", flaws)


def round_trip(stored: StoredPolicy, *, num: int = 20, seed: int = 0) -> Check:
    """What is read back from its file is the same policy, to the bit and in what it decides."""

    def differs() -> str | None:
        data = stored.to_bytes()
        again = StoredPolicy.from_bytes(data)
        if again.card != stored.card:
            return "the card is another one"
        if weights_digest(again.network) != weights_digest(stored.network):
            return "the weights are other ones"
        if again.to_bytes() != data:
            return "it is not written as it was"
        one, other = Learned(policy=stored), Learned(policy=again)
        for state in boundaries(num, seed=seed):
            if not _equal(one.decide(state), other.decide(state)):
                return f"it decides otherwise at epoch {state.epoch}"
        return None

    return _check("round trip", [_tried(differs)])


def _made(make: Maker, flaws: list[str | None], **options: Any) -> Policy | None:
    made: list[Policy] = []
    flaw = _tried(lambda: made.append(make(tiers=list(Tier), **options)))
    if flaw is not None:
        flaws.append(f"it cannot be made: {flaw}")
    return made[0] if made else None


def _flaw(
    policy: Policy,
    state: SystemState,
    budget: GrowthBudget,
    catalogue: Mapping[str, Blueprint],
    took: list[float],
) -> str | None:
    def tried() -> str | None:
        begun = time.perf_counter()
        choices = policy.decide(state)
        took.append(time.perf_counter() - begun)
        found = violations(state, checked(choices, state), budget=budget, catalogue=catalogue)
        named = policy.candidates(state)
        if named:
            found += violations(state, named, budget=budget, catalogue=catalogue)
        return "; ".join(found) or None

    return _tried(tried)


def _sharing(slots: Sequence[SeedState]) -> list[SeedState]:
    """With the gain and the rent of the first of a cohort on all of it."""
    first: dict[int | None, SeedState] = {}
    for each in slots:
        first.setdefault(each.cohort, each)
    return [
        msgspec.structs.replace(each, gain=first[each.cohort].gain, rent=first[each.cohort].rent)
        for each in slots
    ]


def _same_up_to_ties(make: Maker, state: SystemState, shuffled: SystemState) -> str | None:
    one, other = (make(tiers=list(Tier)).decide(each) for each in (state, shuffled))
    for first, second in zip(one, other, strict=False):
        near = _near(first.log_probability, second.log_probability)
        if not near:
            return (
                f"with permuted slots, {_named(second)} at {second.log_probability} instead of "
                f"{_named(first)} at {first.log_probability}"
            )
        if _named(first) != _named(second):
            # What has no probability is settled by rule, in the order of the slots.
            return None if first.log_probability is not None else _unequal_sets(one, other)
    return None if len(one) == len(other) else "with permuted slots, another number of choices"


def _unequal_sets(one: Iterable[Choice], other: Iterable[Choice]) -> str | None:
    same = sorted(map(_named, one)) == sorted(map(_named, other))
    return None if same else "with permuted slots, other choices"


def _near(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) < TIE


def _differ_after_resume(one: Policy, other: Policy, state: SystemState) -> str | None:
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    if not _equal(one.decide(state), other.decide(state)):
        return f"two decisions at epoch {state.epoch} differ"
    if one.state_dict() != other.state_dict():
        return f"what it remembers of epoch {state.epoch} differs"
    return None


def _disturbs(policy: Policy, state: SystemState) -> str | None:
    before = _generators()
    policy.decide(state)
    remembered = policy.state_dict()
    policy.candidates(state)
    if policy.state_dict() != remembered:
        return "asking for candidates changes what it remembers"
    return None if _generators() == before else "it draws from a global generator"


def _generators() -> tuple[object, ...]:
    own: Any = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), own[1].tobytes(), own[2:]


def _equal(one: Sequence[Choice], other: Sequence[Choice]) -> bool:
    """Also where both have the same number that is none."""
    return repr(one) == repr(other)


def _named(choice: Choice) -> tuple[str, str, str, float]:
    share = -1.0 if choice.share is None else choice.share
    return choice.kind.value, choice.slot, choice.blueprint, share


def _tried(function: Callable[[], str | None]) -> str | None:
    """What is wrong, whatever way it comes out."""
    try:
        return function()
    except EsperError as error:
        return str(error)
    except Exception as error:  # pylint: disable=broad-exception-caught
        return f"it raised {error!r}"


def _check(name: str, flaws: Sequence[str | None]) -> Check:
    found = [flaw for flaw in flaws if flaw is not None]
    examples = tuple(each[:300] for each in dict.fromkeys(found))[:MAX_EXAMPLES]
    return Check(name=name, num=len(flaws), failures=len(found), examples=examples)
