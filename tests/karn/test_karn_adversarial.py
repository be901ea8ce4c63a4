"""Blueprints for drills: healthy up to their onset, then each does the one harm that it names."""

import copy
import itertools
import math
import pickle
import random
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from esper_lightning.karn import CATALOGUE, Blueprint, Range, Tier, fitting
from esper_lightning.karn.adversarial import BLOCK, FIRST_DRIFT, MAX_DRIFT, MemoryHog, TurnsBad
from esper_lightning.leyline import (
    Attachment,
    FeatureKind,
    FeatureMap,
    InvalidArgument,
    ParameterValue,
    SlotShape,
)

BATCH, ONSET = 6, 3
ROWS = [row for row in CATALOGUE.values() if row.tier is Tier.ADVERSARIAL]
SIZES = {FeatureKind.SPATIAL: (3, 5, 4), FeatureKind.TOKENS: (6, 8), FeatureKind.VECTOR: (8,)}
TINY = {FeatureKind.SPATIAL: (1, 1, 1), FeatureKind.TOKENS: (1, 1), FeatureKind.VECTOR: (1,)}

every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
every_kind = pytest.mark.parametrize("kind", FeatureKind, ids=lambda kind: kind.value)


@pytest.fixture(autouse=True)
def generators() -> Iterator[None]:
    """Those of numpy and Python go on afterwards as if nothing had happened."""
    states = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        seed_all(0)
        yield
    np.random.set_state(states[0])
    random.setstate(states[1])


def seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def slot(sizes: tuple[int, ...]) -> SlotShape:
    kind = {len(each): kind for kind, each in SIZES.items()}[len(sizes)]
    return SlotShape(FeatureMap(kind, sizes), FeatureMap(kind, sizes))


def batch(kind: FeatureKind, seed: int = 1) -> Tensor:
    return torch.randn(BATCH, *SIZES[kind], generator=torch.Generator().manual_seed(seed))


def build(name: str, kind: FeatureKind, **parameters: ParameterValue) -> TurnsBad:
    """A branch that has learned something."""
    given = {"onset": ONSET, **parameters}
    torch.manual_seed(0)
    branch = CATALOGUE[name].build(slot(SIZES[kind]), given)
    assert isinstance(branch, TurnsBad)
    with torch.no_grad():
        for parameter in branch.last.parameters():
            parameter.normal_()
    return branch


def turned(name: str, kind: FeatureKind, **parameters: ParameterValue) -> TurnsBad:
    """One whose next training pass is its first bad one."""
    branch = build(name, kind, **parameters)
    for _ in range(branch.onset):
        branch(batch(kind))
    return branch


def backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


# What holds for all of them


def test_metadata() -> None:
    assert [row.id for row in ROWS] == [f"BP{number:03}" for number in range(43, 51)]
    for row in ROWS:
        assert row.kinds == set(FeatureKind)
        assert row.attachment is Attachment.SERIES
        assert row.zero_at_birth
        assert 0.9 <= row.risk <= 1
        assert row.curriculum_stage == 9
        assert row.citation
        assert row.resolve()["onset"] == 5


@pytest.mark.parametrize("sizes", [*SIZES.values(), *TINY.values()], ids=str)
def test_they_are_offered_on_request_only(sizes: tuple[int, ...]) -> None:
    assert fitting(slot(sizes), tiers={Tier.ADVERSARIAL}) == ROWS
    assert not [row for row in fitting(slot(sizes)) if row in ROWS]
    assert not [row for row in fitting(slot(sizes), conservative=True) if row in ROWS]


def ends(row: Blueprint) -> Iterator[dict[str, ParameterValue]]:
    ranges = [each for each in row.parameters.values() if isinstance(each, Range)]
    for values in itertools.product(*((each.low, each.default, each.high) for each in ranges)):
        yield dict(zip(row.parameters, values, strict=True))


@every_row
@pytest.mark.parametrize("sizes", [*SIZES.values(), *TINY.values()], ids=str)
def test_silent_at_birth_healthy_before_the_onset_and_counted_by_formula(
    row: Blueprint, sizes: tuple[int, ...]
) -> None:
    for parameters in ends(row):
        branch = row.build(slot(sizes), parameters)
        cost = row.cost(slot(sizes), parameters)
        assert cost.parameters == sum(parameter.numel() for parameter in branch.parameters())
        x = torch.randn(1, *sizes)
        with FlopCounterMode(display=False) as counter:
            assert torch.count_nonzero(branch.eval()(100 * x)) == 0
        assert cost.flops == counter.get_total_flops()
        # It stays silent as long as nothing is learned, and no pass in evaluation counts.
        for _ in range(min(int(parameters["onset"]), 7)):
            assert torch.count_nonzero(branch.train()(x)) == 0
            assert torch.count_nonzero(branch.eval()(x)) == 0


@every_row
def test_parameters_are_checked_at_both_ends(row: Blueprint) -> None:
    shape = slot(SIZES[FeatureKind.VECTOR])
    for name, allowed in row.parameters.items():
        assert isinstance(allowed, Range)
        for value in (allowed.low - 1, allowed.high + 1, math.nan):
            with pytest.raises(InvalidArgument, match=f"takes {name} as"):
                row.build(shape, {name: value})


@every_row
@every_kind
def test_it_learns_like_any_other_before_the_onset(row: Blueprint, kind: FeatureKind) -> None:
    branch, x = row.build(slot(SIZES[kind])), batch(kind)
    optimizer = torch.optim.Adam(branch.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        loss = F.mse_loss(branch(x), x.roll(1, 0))
        optimizer.zero_grad()
        backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert all(torch.count_nonzero(p.grad) for p in branch.parameters() if p.grad is not None)


@every_row
@every_kind
@pytest.mark.parametrize("onset", [0, 2])
def test_the_harm_begins_with_the_pass_after_the_onset(
    row: Blueprint, kind: FeatureKind, onset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch, x = build(row.name, kind, onset=onset), batch(kind)
    late: list[int] = []
    harm = type(branch).harm

    def noted(self: TurnsBad, x: Tensor, out: Tensor, when: int) -> Tensor:
        late.append(when)
        return harm(self, x, out, when)

    monkeypatch.setattr(type(branch), "harm", noted)
    for _ in range(onset):
        assert torch.equal(branch.train()(x), branch.healthy(x))
        assert torch.equal(branch.eval()(x), branch.healthy(x))
    assert late == []
    for training in (True, True, False, False, True):
        branch.train(training)(x)
    assert late == [1, 2, 2, 2, 3]


COPIES: dict[str, Callable[[TurnsBad], TurnsBad]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda branch: pickle.loads(pickle.dumps(branch)),
}


@every_row
@every_kind
@pytest.mark.parametrize("way", [*COPIES, "state_dict"])
def test_a_copy_turns_at_the_same_pass(row: Blueprint, kind: FeatureKind, way: str) -> None:
    branch, x = build(row.name, kind), batch(kind)
    for passes in range(ONSET + 3):
        if way == "state_dict":
            copied = row.build(slot(SIZES[kind]), {"onset": ONSET})
            copied.load_state_dict(branch.state_dict())
        else:
            copied = COPIES[way](branch)
        assert isinstance(copied, TurnsBad)
        assert int(copied.passes) == passes
        seed_all(7)
        one = branch(x)
        seed_all(7)
        assert torch.equal(one, copied(x)) or bool(one.isnan().all() and copied(x).isnan().all())


@every_row
@every_kind
def test_only_the_polluter_is_not_deterministic(row: Blueprint, kind: FeatureKind) -> None:
    x, outs = batch(kind), []
    before = x.clone()
    for _ in range(2):
        branch = turned(row.name, kind)
        outs += [branch(x).nan_to_num(1.0), branch.eval()(x).nan_to_num(1.0)]
    assert torch.equal(x, before)
    same = torch.equal(outs[0], outs[2]) and torch.equal(outs[1], outs[3])
    assert same == (row.name != "rng_polluter")


@every_row
@every_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(row: Blueprint, kind: FeatureKind, dtype: torch.dtype) -> None:
    branch, x = build(row.name, kind).to(dtype), batch(kind).to(dtype)
    assert all(branch(x).dtype is dtype for _ in range(ONSET + 2))
    assert branch.passes.dtype is torch.int64
    branch = build(row.name, kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(branch(x.bfloat16()).dtype is torch.bfloat16 for _ in range(ONSET + 2))


# What each of them does


@every_kind
def test_exploding_gain_floods_what_is_behind_and_before_the_slot(kind: FeatureKind) -> None:
    for gain in (10.0, 1e6):
        branch = turned("exploding_gain", kind, gain=gain).double()
        h = batch(kind).double().requires_grad_()
        out = branch(h)
        torch.testing.assert_close(out, gain * (h + branch.healthy(h)))
        (reached,) = torch.autograd.grad(out.sum(), h)
        (usual,) = torch.autograd.grad((h + branch.healthy(h)).sum(), h)
        torch.testing.assert_close(reached, gain * usual)
        assert bool(torch.isfinite(branch.float()(batch(kind))).all())


@every_kind
def test_nan_emitter_spoils_loss_and_gradients(kind: FeatureKind) -> None:
    branch, h = turned("nan_emitter", kind), batch(kind).requires_grad_()
    for training in (True, False):
        loss = (h + branch.train(training)(h)).square().mean()
        (gradient,) = torch.autograd.grad(loss, h)
        assert bool(loss.isnan() and gradient.isnan().all())


@every_kind
def test_gradient_blocker_adds_nothing_and_no_gradient_passes(kind: FeatureKind) -> None:
    branch, x = turned("gradient_blocker", kind), batch(kind)
    host = torch.full_like(x, 2.0, requires_grad=True)
    h = host * x
    summed = h + branch(h)
    assert torch.equal(summed, h)
    backward(summed.square().mean())
    assert host.grad is not None
    assert torch.count_nonzero(host.grad) == 0
    for parameter in branch.parameters():
        assert parameter.grad is not None
        assert torch.count_nonzero(parameter.grad) == 0


def held(branch: TurnsBad) -> int:
    assert isinstance(branch, MemoryHog)
    distinct = {tensor.untyped_storage().data_ptr() for tensor in branch.held}
    assert len(distinct) == len(branch.held)
    assert all(tensor.untyped_storage().nbytes() == 4 * BLOCK == 2**20 for tensor in branch.held)
    return len(distinct)


@every_kind
@pytest.mark.parametrize("limit", [1, 4])
def test_memory_hog_keeps_more_and_more_up_to_its_limit(kind: FeatureKind, limit: int) -> None:
    branch, x = turned("memory_hog", kind, mebibytes=limit), batch(kind)
    assert held(branch) == 0
    for passes in range(1, 7):
        assert torch.equal(branch.train()(x), branch.healthy(x))
        assert held(branch) == min(passes, limit)
        branch.eval()(x)
        assert held(branch) == min(passes, limit)


def test_memory_hog_gives_it_back_at_its_end_and_no_copy_has_it() -> None:
    branch, x = turned("memory_hog", FeatureKind.VECTOR), batch(FeatureKind.VECTOR)
    for _ in range(3):
        branch(x)
    assert len(pickle.dumps(branch)) < 2**14
    copied = copy.deepcopy(branch)
    assert (held(branch), held(copied)) == (3, 0)
    copied(x)
    assert held(copied) == 4, "in one pass all that is due"
    assert isinstance(branch, MemoryHog)
    tensors = [weakref.ref(tensor) for tensor in branch.held]
    del branch
    assert [tensor() for tensor in tensors] == [None] * 3


STATM = Path("/proc/self/statm")

HOLDING = """
import sys
from pathlib import Path

import torch

from esper_lightning.karn import CATALOGUE
from esper_lightning.leyline import FeatureKind, FeatureMap, SlotShape

statm = Path(sys.argv[1])
features = FeatureMap(FeatureKind.VECTOR, (8,))
hog = CATALOGUE["memory_hog"].build(SlotShape(features, features), {"onset": 1, "mebibytes": 256})
x = torch.ones(2, 8)
hog(x)
before = int(statm.read_text().split()[1])
hog.passes += 255
hog(x)
print(len(hog.held), int(statm.read_text().split()[1]) - before)
"""


@pytest.mark.skipif(not STATM.exists(), reason="how much memory is resident is read from /proc")
def test_memory_hog_holds_memory_that_is_really_there() -> None:
    # In a process of its own: this one may have as much that is resident and free.
    told = subprocess.run(
        [sys.executable, "-c", HOLDING, str(STATM)], capture_output=True, text=True, check=True
    )
    num_blocks, num_pages = map(int, told.stdout.split())
    assert num_blocks == 256
    assert num_pages * 4096 > 250 * 2**20


@every_kind
@pytest.mark.parametrize("factor", [2, 100, 200])
def test_slow_kernel_computes_the_same_many_times(kind: FeatureKind, factor: int) -> None:
    branch, x = turned("slow_kernel", kind, factor=factor), batch(kind)
    healthy = CATALOGUE["slow_kernel"].num_flops(slot(SIZES[kind]))
    for training in (True, False):
        with FlopCounterMode(display=False) as counter:
            out = branch.train(training)(x)
        assert counter.get_total_flops() == factor * BATCH * healthy
        assert torch.equal(out, branch.healthy(x))


@every_kind
def test_slow_kernel_is_slow(kind: FeatureKind) -> None:
    def seconds(branch: TurnsBad) -> float:
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            branch(batch(kind))
            times.append(time.perf_counter() - begin)
        return min(times)

    before = seconds(build("slow_kernel", kind, onset=1000))
    assert seconds(turned("slow_kernel", kind, factor=200)) > 20 * before


@every_kind
def test_label_memoriser_teaches_random_labels_that_fail_in_evaluation(kind: FeatureKind) -> None:
    """Samples nearly alike with labels at random: there is nothing to learn but each by heart."""
    x = batch(kind)[:1] + 0.01 * batch(kind, seed=2)
    labels = torch.tensor([0, 1, 1, 0, 1, 0])

    def losses(branch: TurnsBad) -> tuple[float, float]:
        torch.manual_seed(3)
        head = nn.Linear(math.prod(SIZES[kind]), 2)
        optimizer = torch.optim.SGD(head.parameters(), lr=0.01)
        for _ in range(100):
            loss = F.cross_entropy(head((x + branch.train()(x)).flatten(1)), labels)
            optimizer.zero_grad()
            backward(loss)
            optimizer.step()
        evaluated = F.cross_entropy(head((x + branch.eval()(x)).flatten(1)), labels)
        return loss.item(), evaluated.item()

    healthy = losses(build("label_memoriser", kind, onset=1000))
    trained, evaluated = losses(turned("label_memoriser", kind))
    assert healthy[0] == pytest.approx(math.log(2), abs=0.1)
    assert healthy[1] == pytest.approx(healthy[0], abs=0.1)
    assert trained < 0.1
    assert evaluated > 2 * math.log(2)


@every_kind
def test_label_memoriser_is_as_strong_as_it_says(kind: FeatureKind) -> None:
    for strength in (0.1, 100.0):
        branch, x = turned("label_memoriser", kind, strength=strength), batch(kind)
        key = strength * torch.sin(1000 * x)
        torch.testing.assert_close(branch.train()(x), branch.healthy(x) + key)
        torch.testing.assert_close(branch.eval()(x), branch.healthy(x) - key)


@every_kind
@pytest.mark.parametrize("rate", [1.01, 1.3, 2.0])
def test_scale_drift_moves_the_slot_further_and_further(kind: FeatureKind, rate: float) -> None:
    branch, h = turned("scale_drift", kind, rate=rate), batch(kind)
    for passes in range(1, 9):
        out = branch.train()(h)
        torch.testing.assert_close(out, branch.healthy(h) + FIRST_DRIFT * rate**passes)
        assert torch.equal(branch.eval()(h), out)
    branch.passes += 10**6
    out = branch(h)
    torch.testing.assert_close(out, branch.healthy(h) + MAX_DRIFT)
    assert bool(torch.isfinite(out.square().sum()))


@every_kind
def test_rng_polluter_draws_from_all_three_generators(kind: FeatureKind) -> None:
    def states() -> tuple[Any, ...]:
        numpy: Any = np.random.get_state()
        torchs = torch.get_rng_state().tolist()
        return torchs, (numpy[1].tolist(), *numpy[2:]), random.getstate()

    branch, x = build("rng_polluter", kind), batch(kind)
    before = states()
    for _ in range(ONSET):
        branch(x)
    assert states() == before
    for training in (True, False):
        before = states()
        one = branch.train(training)(x)
        assert all(now != then for now, then in zip(states(), before, strict=True))
        assert not torch.equal(branch(x), one)
        assert not torch.equal(one, branch.healthy(x))
        seed_all(5)
        again = branch(x)
        seed_all(5)
        assert torch.equal(branch(x), again), "there is no other source"
