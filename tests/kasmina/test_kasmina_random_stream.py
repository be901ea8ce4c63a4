"""A seed draws from its own stream; the run's generators never notice."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from esper_lightning.kasmina.random_stream import RandomStream, undisturbed_random
from esper_lightning.leyline import decode, encode

CONTEXTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "undisturbed": undisturbed_random,
    "stream": lambda: RandomStream(3).use(),
}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with undisturbed_random():
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        yield


def outer() -> tuple[bytes, Any, Any]:
    """Where the global generators stand."""
    return (
        torch.get_rng_state().numpy().tobytes(),
        [np.asarray(part).tolist() for part in np.random.get_state(legacy=True)],
        random.getstate(),
    )


def draw_from_all_and_fail() -> None:
    draw_from_all()
    raise ZeroDivisionError


def draw_from_all() -> None:
    torch.randn(16)
    torch.randperm(7)
    np.random.standard_normal(3)
    random.gauss(0.0, 1.0)


def drawn(stream: RandomStream, num: int = 3) -> Tensor:
    with stream.use():
        return torch.randn(num)


@pytest.mark.parametrize("name", CONTEXTS)
def test_the_global_generators_stand_as_before(name: str) -> None:
    before = outer()
    with CONTEXTS[name]():
        draw_from_all()
        torch.manual_seed(99)
        np.random.seed(99)
        random.seed(99)
    assert outer() == before


@pytest.mark.parametrize("name", CONTEXTS)
def test_the_global_generators_stand_as_before_after_an_error(name: str) -> None:
    before = outer()
    with pytest.raises(ZeroDivisionError), CONTEXTS[name]():
        draw_from_all_and_fail()
    assert outer() == before


def test_undisturbed_random_goes_on_where_the_global_generators_are() -> None:
    with undisturbed_random():
        inside = torch.randn(3)
    assert torch.equal(torch.randn(3), inside)


def test_a_stream_depends_on_its_seed_alone() -> None:
    first = drawn(RandomStream(3))
    draw_from_all()
    assert torch.equal(drawn(RandomStream(3)), first)
    assert not torch.equal(drawn(RandomStream(4)), first)
    torch.manual_seed(3)
    assert torch.equal(torch.randn(3), first)


def test_a_stream_goes_on_where_it_stopped() -> None:
    stream, whole = RandomStream(3), drawn(RandomStream(3), 32)
    first = drawn(stream, 16)
    draw_from_all()
    assert torch.equal(torch.cat([first, drawn(stream, 16)]), whole)


def test_what_was_drawn_before_an_error_is_spent() -> None:
    stream = RandomStream(3)
    with pytest.raises(ZeroDivisionError), stream.use():
        draw_from_all_and_fail()
    again = RandomStream(3)
    with again.use():
        draw_from_all()
    assert torch.equal(drawn(stream), drawn(again))


def test_streams_can_be_nested() -> None:
    one, other = RandomStream(1), RandomStream(2)
    before = outer()
    with one.use():
        first = torch.randn(16)
        inside = drawn(other, 16)
        second = torch.randn(16)
    assert outer() == before
    assert torch.equal(torch.cat([first, second]), drawn(RandomStream(1), 32))
    assert torch.equal(inside, drawn(RandomStream(2), 16))
    assert torch.equal(drawn(other, 16), drawn(RandomStream(2), 32)[16:])


def test_a_stream_is_restored_exactly_through_its_bytes() -> None:
    stream = RandomStream(3)
    drawn(stream, 5)
    state: dict[str, bytes] = decode(encode(stream.state()), dict[str, bytes])
    expected = drawn(stream, 40)
    again = RandomStream(77)
    again.restore(state)
    assert torch.equal(drawn(again, 40), expected)
    assert again.state() == stream.state()


def test_taking_the_state_draws_nothing_and_a_state_is_not_alive() -> None:
    stream = RandomStream(3)
    state = stream.state()
    assert stream.state() == state
    drawn(stream)
    assert stream.state() != state
    stream.restore(state)
    assert torch.equal(drawn(stream), drawn(RandomStream(3)))


def test_an_unused_stream_leaves_everything_as_it_was() -> None:
    stream, before = RandomStream(3), outer()
    state = stream.state()
    with stream.use(torch.device("cpu")):
        pass
    assert outer() == before
    assert stream.state() == state
