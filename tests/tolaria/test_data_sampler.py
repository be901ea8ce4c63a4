import random
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esper_lightning.leyline import InvalidArgument
from esper_lightning.tolaria.data import EpochShuffle, EpochWindows


def at_epoch(sampler: EpochShuffle, epoch: int) -> EpochShuffle:
    sampler.set_epoch(epoch)
    return sampler


def order(num: int, *, seed: int, epoch: int) -> list[int]:
    return list(at_epoch(EpochShuffle(num, seed=seed), epoch))


@settings(deadline=None)
@given(num=st.integers(1, 60), seed=st.integers(), epoch=st.integers(0, 10**9))
def test_each_epoch_is_a_permutation(num, seed, epoch):
    assert sorted(order(num, seed=seed, epoch=epoch)) == list(range(num))


def test_order_depends_on_seed_and_epoch_alone():
    torch.manual_seed(1)
    first = order(50, seed=3, epoch=4)
    torch.manual_seed(2)
    torch.rand(7)
    later = at_epoch(EpochShuffle(50, seed=3), 4)
    assert list(later) == first
    assert list(later) == first


def test_epochs_and_seeds_differ_also_along_their_sum():
    orders = {tuple(order(50, seed=seed, epoch=epoch)) for seed in range(6) for epoch in range(6)}
    assert len(orders) == 36


def test_the_order_stays_what_it_was_in_earlier_versions():
    assert order(8, seed=0, epoch=0) == [1, 0, 5, 7, 2, 6, 4, 3]
    assert order(8, seed=0, epoch=1) == [7, 6, 5, 4, 1, 2, 0, 3]


def test_an_iterator_made_before_set_epoch_yields_the_new_epoch():
    sampler = EpochShuffle(50, seed=0)
    early = iter(sampler)
    sampler.set_epoch(5)
    assert list(early) == order(50, seed=0, epoch=5)


def test_the_global_generators_are_not_touched():
    before, python_before = torch.get_rng_state(), random.getstate()
    order(50, seed=0, epoch=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == python_before


@settings(deadline=None)
@given(num=st.integers(1, 40), num_replicas=st.integers(1, 6), epoch=st.integers(0, 3))
def test_ranks_share_one_order_and_take_equal_steps(num, num_replicas, epoch):
    shards = [
        at_epoch(EpochShuffle(num, seed=1, rank=rank, num_replicas=num_replicas), epoch)
        for rank in range(num_replicas)
    ]
    parts = [list(shard) for shard in shards]
    assert {len(part) for part in parts} == {len(shards[0])}
    interleaved = [index for together in zip(*parts, strict=True) for index in together]
    whole = order(num, seed=1, epoch=epoch)
    assert interleaved[:num] == whole
    assert set(interleaved) == set(range(num))
    assert len(interleaved) < num + num_replicas


def test_nothing_to_shuffle_is_refused():
    with pytest.raises(InvalidArgument, match="at least 1 example, got 0"):
        EpochShuffle(0, seed=0)


def windows(num: int, *, length: int, epoch: int = 0, seed: int = 0, **options) -> list[int]:
    options = {"num_windows": num // length, **options}
    return list(at_epoch(EpochWindows(num, length=length, seed=seed, **options), epoch))


@settings(deadline=None)
@given(
    num=st.integers(1, 90), length=st.integers(1, 20), seed=st.integers(), epoch=st.integers(0, 99)
)
def test_windows_of_an_epoch_do_not_overlap_and_leave_less_than_one_at_each_end(
    num, length, seed, epoch
):
    if num < length:
        return
    starts = sorted(windows(num, length=length, seed=seed, epoch=epoch))
    assert len(starts) == num // length
    assert {b - a for a, b in pairwise(starts)} <= {length}
    assert 0 <= starts[0] < length
    assert num - 2 * length < starts[-1] < num


def test_fewer_windows_are_the_first_of_the_order():
    whole = windows(90, length=4, epoch=3)
    assert windows(90, length=4, epoch=3, num_windows=5) == whole[:5]
    assert whole != sorted(whole)


def test_windows_depend_on_seed_and_epoch_alone_and_begin_everywhere():
    before = torch.get_rng_state()
    one = {(s, e): windows(90, length=4, seed=s, epoch=e) for s in range(4) for e in range(4)}
    torch.manual_seed(9)
    two = {(s, e): windows(90, length=4, seed=s, epoch=e) for s in range(4) for e in range(4)}
    assert one == two
    assert len({tuple(order) for order in one.values()}) == 16
    torch.set_rng_state(before)
    firsts = {min(windows(90, length=4, epoch=epoch)) for epoch in range(40)}
    assert firsts == {0, 1, 2, 3}


def test_windows_stay_what_they_were_in_earlier_versions():
    assert windows(30, length=5, epoch=0) == [6, 11, 26, 16, 1, 21]
    assert windows(30, length=5, epoch=1) == [27, 17, 7, 22, 12, 2]


def test_ranks_share_the_windows():
    parts = [windows(90, length=4, rank=rank, num_replicas=2) for rank in range(2)]
    together = [start for pair in zip(*parts, strict=True) for start in pair]
    assert together == windows(90, length=4)


@pytest.mark.parametrize(("num", "asked"), [(9, 0), (9, 3), (3, 1)])
def test_windows_that_are_not_there_are_refused(num, asked):
    with pytest.raises(InvalidArgument, match=f"num_windows must be .* got {asked}"):
        EpochWindows(num, length=4, num_windows=asked, seed=0)
