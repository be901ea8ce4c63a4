"""A policy as a file: what it keeps, and what is refused."""

import pickle

import msgspec
import pytest
import torch
from growing_run import CATALOGUE
from observing import SMALL, busy, network, stored
from safetensors.torch import load, save

from esper_lightning.leyline import DecodeError, InvalidArgument
from esper_lightning.tamiyo.learned import (
    MAX_POLICY_BYTES,
    Architecture,
    Card,
    Learned,
    PolicyNetwork,
    StoredPolicy,
)

DATA = stored().to_bytes()


def rewritten(*, weights=None, card=None, **changes):
    """The file with other weights, or with another card."""
    told = msgspec.to_builtins(stored().card) | changes
    text = msgspec.json.encode(told).decode() if card is None else card
    return save(weights or load(DATA), metadata={"esper_policy": text})


def test_what_was_written_decides_the_same():
    made = StoredPolicy.of(network(4), name="grown", version=7, provenance={"seeds": [1, 2]})
    data = made.to_bytes()
    policy = Learned.from_bytes(data, catalogue=CATALOGUE)
    assert policy.to_bytes() == data
    assert policy.card == Card(
        name="grown", version=7, architecture=SMALL, provenance={"seeds": [1, 2]}
    )
    original = Learned(policy=made, catalogue=CATALOGUE)
    for number in range(5):
        assert policy.decide(busy(number)) == original.decide(busy(number))


def test_fitted_scales_are_part_of_it():
    made = network()
    made.encoder.standard["run"].mean.fill_(0.25)
    read = StoredPolicy.from_bytes(StoredPolicy.of(made, name="a", version=1).to_bytes())
    assert (read.network.encoder.standard["run"].mean == 0.25).all()


def test_the_largest_architecture_fits():
    largest = PolicyNetwork(Architecture(width=256, depth=8, heads=8))
    data = StoredPolicy.of(largest, name="a", version=1).to_bytes()
    assert len(data) < MAX_POLICY_BYTES
    assert StoredPolicy.from_bytes(data).card.architecture.depth == 8


def test_what_is_stored_is_a_copy_that_does_not_train():
    made = network()
    kept = StoredPolicy.of(made, name="a", version=1)
    before = kept.to_bytes()
    with torch.no_grad():
        made.value.weight.add_(1.0)
    assert kept.to_bytes() == before
    assert not kept.network.training
    assert not any(parameter.requires_grad for parameter in kept.network.parameters())


def test_reading_draws_no_random_numbers():
    before = torch.get_rng_state()
    StoredPolicy.from_bytes(DATA)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_file_is_read(tmp_path):
    path = tmp_path / "policy.safetensors"
    path.write_bytes(DATA)
    assert Learned(policy=path).card == Learned(policy=str(path)).card == stored().card


def test_a_file_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(InvalidArgument, match=r"there is no policy .*absent; name a file"):
        Learned(policy=tmp_path / "absent")


@pytest.mark.parametrize("kept", [0, 4, 8, 9, 200, len(DATA) // 2, len(DATA) - 1])
def test_a_truncated_file_is_refused(kept):
    with pytest.raises(DecodeError, match="this is no policy"):
        StoredPolicy.from_bytes(DATA[:kept])


def test_every_flipped_byte_of_the_header_is_refused_or_harmless():
    length = 8 + int.from_bytes(DATA[:8], "little")
    for place in range(0, length, 61):
        damaged = bytearray(DATA)
        damaged[place] ^= 0x41
        try:
            read = StoredPolicy.from_bytes(bytes(damaged))
        except DecodeError:
            continue
        assert read.card.architecture == SMALL


def test_a_file_that_is_too_large_is_refused(tmp_path):
    huge = DATA + bytes(MAX_POLICY_BYTES)
    with pytest.raises(DecodeError, match="at most"):
        StoredPolicy.from_bytes(huge)
    path = tmp_path / "huge"
    path.write_bytes(huge)
    with pytest.raises(DecodeError, match="a policy at most"):
        StoredPolicy.load(path)


def test_a_pickle_is_refused_and_not_run():
    class Harm:
        def __reduce__(self):
            return pytest.fail, ("it was unpickled",)

    with pytest.raises(DecodeError, match="this is no policy"):
        StoredPolicy.from_bytes(pickle.dumps(Harm()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "a policy of format 2"),
        ({"observation": 99}, "observations of version 99"),
        ({"version": 0}, "a version of at least 1"),
        ({"version": "new"}, "Expected `int`"),
        ({"name": ""}, "a policy has a name"),
        ({"extra": 1}, "unknown field `extra`"),
        ({"kinds": ["noop", "germinate"]}, "chooses between"),
        ({"architecture": {"width": 4096}}, "a width of at most 256"),
        ({"architecture": {"width": 16, "heads": 3}}, "heads that divide"),
        ({"architecture": {"width": 0}}, "width must be a whole number of at least 1"),
        ({"architecture": {"width": 16, "depth": 2, "heads": 2}}, "not those of Architecture"),
        ({"card": "{"}, "this is no policy"),
        ({"card": "[]"}, "this is no policy"),
    ],
)
def test_a_card_of_another_kind_is_refused(changes, message):
    with pytest.raises(DecodeError, match=message):
        StoredPolicy.from_bytes(rewritten(**changes))


def test_a_file_without_a_card_is_refused():
    with pytest.raises(DecodeError, match="this is no policy"):
        StoredPolicy.from_bytes(save(load(DATA)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value):
    weights = load(DATA)
    weights["value.weight"][0, 0] = value
    with pytest.raises(DecodeError, match="weights of value.weight are not finite"):
        StoredPolicy.from_bytes(rewritten(weights=weights))
    made = network()
    with torch.no_grad():
        made.value.weight.fill_(value)
    with pytest.raises(InvalidArgument, match="those of value.weight are not"):
        StoredPolicy.of(made, name="a", version=1)


@pytest.mark.parametrize("change", ["less", "more", "type", "size"])
def test_weights_of_another_network_are_refused(change):
    weights = load(DATA)
    if change == "less":
        del weights["value.bias"]
    elif change == "more":
        weights["value.more"] = torch.zeros(1)
    elif change == "type":
        weights["value.bias"] = weights["value.bias"].double()
    else:
        weights["value.bias"] = torch.zeros(2)
    with pytest.raises(DecodeError, match=r"the weights are not those of .*value\."):
        StoredPolicy.from_bytes(rewritten(weights=weights))
