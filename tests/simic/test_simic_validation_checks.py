"""Checks of conduct: what each finds, and that those who behave pass."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from judging import stored

from esper_lightning.leyline import CommandKind, InvalidArgument, SystemState
from esper_lightning.simic.adapters import digest_of
from esper_lightning.simic.validation import check_conduct, check_policy
from esper_lightning.simic.validation.checks import round_trip
from esper_lightning.simic.validation.digests import weights_digest
from esper_lightning.simic.validation.hostile_states import CROWDS, crowds
from esper_lightning.tamiyo import Choice, Policy
from esper_lightning.tamiyo.learned import StoredPolicy
from esper_lightning.tamiyo.policy import wait

NAMES = ["legality", "equivariance", "determinism", "isolation"]


class Odd(Policy):
    """Does one thing at every boundary; options of a learned policy are taken and left aside."""

    name = "odd"

    def __init__(self, does: Callable[["Odd", SystemState], list[Choice]], **_: Any) -> None:
        self._does = does
        self.asked = 0

    def decide(self, state: SystemState) -> list[Choice]:
        return self._does(self, state)

    def state_dict(self) -> dict[str, Any]:
        return {"asked": self.asked}

    def load_state_dict(self, state: Any) -> None:
        self.asked = state["asked"]


def culls(slot: str, **options: Any) -> list[Choice]:
    return [Choice(kind=CommandKind.CULL, slot=slot, reason="test", **options)]


def waits(_: Odd, state: SystemState) -> list[Choice]:
    return wait("test")


def raises(_: Odd, state: SystemState) -> list[Choice]:
    if len(state.slots) > 100:
        raise RuntimeError("so many slots")
    return wait("test")


def culls_nothing(_: Odd, state: SystemState) -> list[Choice]:
    return culls("nowhere")


def culls_what_may_not_be(_: Odd, state: SystemState) -> list[Choice]:
    bad = [slot.slot for slot in state.slots if CommandKind.CULL not in slot.legal]
    return culls(bad[0]) if bad else wait("test")


def is_not_finite(_: Odd, state: SystemState) -> list[Choice]:
    return wait("test", log_probability=float("-inf"))


def plants_in_quarantine(_: Odd, state: SystemState) -> list[Choice]:
    for slot in state.slots:
        if slot.quarantined and CommandKind.GERMINATE in slot.legal:
            blueprint = slot.quarantined[0]
            kind = CommandKind.GERMINATE
            return [Choice(kind=kind, slot=slot.slot, blueprint=blueprint, reason="test")]
    return wait("test")


def culls_the_first(_: Odd, state: SystemState) -> list[Choice]:
    good = [slot.slot for slot in state.slots if CommandKind.CULL in slot.legal]
    return culls(good[0]) if good else wait("test")


def tells_its_place(_: Odd, state: SystemState) -> list[Choice]:
    good = [n for n, slot in enumerate(state.slots) if CommandKind.CULL in slot.legal]
    if not good:
        return wait("test")
    least = min(good, key=lambda place: state.slots[place].slot)
    return culls(state.slots[least].slot, log_probability=-0.01 * least)


def counts(policy: Odd, state: SystemState) -> list[Choice]:
    COUNT[0] += 1
    return wait(f"test {COUNT[0]}")


COUNT = [0]


def draws_from_torch(_: Odd, state: SystemState) -> list[Choice]:
    torch.rand(())
    return wait("test")


def draws_from_numpy(_: Odd, state: SystemState) -> list[Choice]:
    np.random.random()
    return wait("test")


def draws_from_python(_: Odd, state: SystemState) -> list[Choice]:
    random.random()
    return wait("test")


@pytest.mark.parametrize(
    ("does", "check", "why"),
    [
        (raises, "legality", "so many slots"),
        (culls_nothing, "legality", "nowhere"),
        (culls_what_may_not_be, "legality", "it decided CULL"),
        (is_not_finite, "legality", "it is finite"),
        (plants_in_quarantine, "legality", "quarantine"),
        (culls_the_first, "equivariance", "other choices"),
        (tells_its_place, "equivariance", "with permuted slots"),
        (counts, "determinism", "differ"),
        (draws_from_torch, "isolation", "global generator"),
        (draws_from_numpy, "isolation", "global generator"),
        (draws_from_python, "isolation", "global generator"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_misconduct_is_found_with_an_example(
    does: Callable[[Odd, SystemState], list[Choice]], check: str, why: str
) -> None:
    found, _ = check_conduct(partial(Odd, does), num=40)
    told = {each.name: each for each in found}
    assert list(told) == NAMES
    assert not told[check].passed
    assert any(why in example for example in told[check].examples), told[check]
    assert str(told[check]).startswith(f"{check} failed {told[check].failures} of")


def test_asking_for_candidates_must_change_nothing() -> None:
    class Asked(Odd):
        def candidates(self, state: SystemState) -> list[Choice]:
            self.asked += 1
            return []

    found, _ = check_conduct(partial(Asked, waits), num=10)
    assert [each.name for each in found if not each.passed] == ["isolation"]
    assert "candidates" in found[-1].examples[0]


def test_candidates_must_be_what_could_be_planted() -> None:
    class Offers(Odd):
        def candidates(self, state: SystemState) -> list[Choice]:
            return culls("nowhere")

    found, _ = check_conduct(partial(Offers, waits), num=10)
    assert [each.name for each in found if not each.passed] == ["legality"]


def test_who_cannot_be_made_has_failed() -> None:
    def broken(**_: Any) -> Policy:
        raise ValueError("no")

    found, timing = check_conduct(broken, num=10)
    assert not any(each.passed for each in found)
    assert "it cannot be made: it raised ValueError('no')" in found[0].examples
    assert (timing.num, timing.p50_ms) == (0, None)


def test_those_who_behave_pass_and_time_is_told() -> None:
    found, timing = check_conduct(partial(Odd, waits), num=10)
    assert all(each.passed for each in found)
    assert [each.num > 5 for each in found] == [True] * 4
    assert timing.num > 10
    assert timing.p50_ms is not None
    assert 0 < timing.p50_ms <= timing.p95_ms  # type: ignore[operator]


@pytest.mark.parametrize("policy", [None, 1], ids=["package", "untrained"])
def test_learned_policies_pass(policy: int | None) -> None:
    made = StoredPolicy.load() if policy is None else stored(policy)
    found, _ = check_policy(made, num=10)
    assert [str(each) for each in found if not each.passed] == []
    assert [each.name for each in found] == [*NAMES, "round trip"]


def test_weights_that_overflow_are_found() -> None:
    made = stored()
    for parameter in made.network.parameters():
        parameter.mul_(1e30)
    found, _ = check_policy(made, num=10)
    told = {each.name: each for each in found}
    assert not told["legality"].passed
    assert "value of its choice is nan" in told["legality"].examples[0]


def test_a_file_that_is_not_read_back_as_it_was_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert round_trip(stored()).passed
    other = stored(1).to_bytes()
    monkeypatch.setattr(StoredPolicy, "to_bytes", lambda _: other)
    found = round_trip(stored())
    assert not found.passed
    assert "the card is another one" in found.examples


def test_a_check_that_was_never_tried_has_not_passed() -> None:
    found, _ = check_conduct(partial(Odd, waits), num=10)
    assert not type(found[0])(name="empty", num=0, failures=0).passed


@pytest.mark.parametrize("options", [{"num": 9}, {"seed": -1}])
def test_numbers_that_are_not_allowed(options: dict[str, int]) -> None:
    with pytest.raises(InvalidArgument):
        check_conduct(partial(Odd, waits), **options)


def test_crowds_have_none_one_and_hundreds_of_slots() -> None:
    assert [len(state.slots) for state in crowds(seed=0)] == [*CROWDS] == [0, 1, 300]
    assert repr(crowds(seed=1)) == repr(crowds(seed=1)) != repr(crowds(seed=2))


def test_the_digest_of_weights_is_that_of_adapters_and_of_no_version() -> None:
    assert weights_digest(stored(0).network) == digest_of(stored(0).network)
    assert weights_digest(stored(0, version=7).network) == weights_digest(stored(0).network)
    assert weights_digest(stored(0).network) != weights_digest(stored(1).network)
