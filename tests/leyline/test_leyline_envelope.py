"""What is sealed comes out as it went in, or not at all."""

import hashlib
import hmac
import random
from typing import Any

import msgspec
import pytest

from esper_lightning.leyline import (
    MAX_ENVELOPE_BYTES,
    DecodeError,
    EventEnvelope,
    InvalidArgument,
    NotAuthentic,
    Priority,
    Signer,
    pack,
    seal,
    unseal,
)
from esper_lightning.leyline import envelope as envelopes

KEY, OTHER = b"k" * 32, b"o" * 32
SIGNER = Signer(KEY)
ENVELOPE = EventEnvelope(
    id="0123456789abcdef0123456789abcdef",
    kind="report",
    source="20261125-140000-ab12",
    priority=Priority.HIGH,
    created_at=1795615200.25,
    ttl_s=86400.0,
    correlation_id="fedcba9876543210fedcba9876543210",
    attempt=2,
    payload=b"what travels",
)
SEALED = seal(ENVELOPE, SIGNER, stream="normal")
HEAD = 33

GOLDEN = """
    011b301ec34bac2b7c2fa89ec28604cd7c1217a100841e2d1185c8f01733c7712b99d92030313233343536373839
    61626364656630313233343536373839616263646566a67265706f7274b432303236313132352d3134303030302d
    6162313201cb41dac1ba78100000cb40f5180000000000d920666564636261393837363534333231306665646362
    613938373635343332313002c40c776861742074726176656c73
"""
"""ENVELOPE, sealed with KEY for the normal stream."""


def changed(**fields: Any) -> EventEnvelope:
    return msgspec.structs.replace(ENVELOPE, **fields)


def signed(packed: bytes, *, key: bytes = KEY, stream: bytes = b"normal") -> bytes:
    """Sealed bytes as the page says they are, whatever is in them."""
    text = b"esper.envelope.1\0" + stream + b"\0" + packed
    return b"\x01" + hmac.new(key, text, hashlib.sha256).digest() + packed


def test_what_is_sealed_comes_out_as_it_went_in() -> None:
    for envelope in (ENVELOPE, changed(priority=Priority.NORMAL, correlation_id="", payload=b"")):
        assert unseal(seal(envelope, SIGNER, stream="s"), SIGNER, stream="s") == envelope


def test_only_what_is_needed_must_be_said() -> None:
    envelope = EventEnvelope(
        id="1", kind="state", source="r", created_at=0.0, ttl_s=1.0, payload=b""
    )
    assert (envelope.priority, envelope.correlation_id, envelope.attempt) == (0, "", 0)


def test_sealed_bytes_are_those_of_every_release() -> None:
    assert SEALED.hex() == "".join(GOLDEN.split())
    assert signed(pack(ENVELOPE)) == SEALED


# What is not authentic


def test_one_flipped_bit_anywhere_is_refused() -> None:
    for position in range(len(SEALED)):
        for bit in range(8):
            data = bytearray(SEALED)
            data[position] ^= 1 << bit
            error = DecodeError if position == 0 else NotAuthentic
            with pytest.raises(error):
                unseal(bytes(data), SIGNER, stream="normal")


def test_every_truncation_is_refused() -> None:
    for length in range(len(SEALED)):
        error = DecodeError if length <= HEAD else NotAuthentic
        with pytest.raises(error):
            unseal(SEALED[:length], SIGNER, stream="normal")


@pytest.mark.parametrize("more", [b"\0", b"more", SEALED])
def test_what_is_appended_is_refused(more: bytes) -> None:
    with pytest.raises(NotAuthentic):
        unseal(SEALED + more, SIGNER, stream="normal")


def test_another_key_is_refused_and_the_remedy_said() -> None:
    told = "normal stream is not signed with a key that holds here.*same ESPER_LEYLINE_SECRET"
    with pytest.raises(NotAuthentic, match=told) as error:
        unseal(SEALED, Signer(OTHER), stream="normal")
    assert not isinstance(error.value, InvalidArgument)


@pytest.mark.parametrize("stream", ["emergency", "policy", "telemetry", "", "Normal", "normal\0"])
def test_another_stream_is_refused(stream: str) -> None:
    with pytest.raises(NotAuthentic):
        unseal(SEALED, SIGNER, stream=stream)


def test_a_signature_of_something_else_is_refused() -> None:
    packed = pack(ENVELOPE)
    for text in (packed, b"normal\0" + packed, b"esper.envelope.2\0normal\0" + packed):
        with pytest.raises(NotAuthentic):
            unseal(b"\x01" + SIGNER.digest(text) + packed, SIGNER, stream="normal")


def test_a_previous_key_is_accepted_and_does_not_seal() -> None:
    old, both, new = Signer(OTHER), Signer(KEY, previous=[OTHER]), Signer(KEY)
    of_old = seal(ENVELOPE, old, stream="normal")
    assert unseal(of_old, both, stream="normal") == ENVELOPE
    assert unseal(SEALED, both, stream="normal") == ENVELOPE
    assert seal(ENVELOPE, both, stream="normal") == SEALED
    with pytest.raises(NotAuthentic):
        unseal(of_old, new, stream="normal")
    with pytest.raises(NotAuthentic):
        unseal(SEALED, old, stream="normal")


def test_nothing_is_decoded_before_it_is_known_to_be_authentic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded = []
    monkeypatch.setattr(envelopes, "unpack", lambda data, *_, **__: decoded.append(data))
    for data in (SEALED[:-1], SEALED[:1] + b"\0" * 32 + SEALED[HEAD:], b"\x02" + SEALED[1:], b""):
        with pytest.raises(DecodeError):
            unseal(data, SIGNER, stream="normal")
    assert decoded == []


def test_random_damage_is_never_accepted() -> None:
    draw = random.Random(1)
    other = seal(changed(id="2", payload=b"another that travels"), SIGNER, stream="normal")
    authentic = {SEALED, other}
    num_refused = 0
    while num_refused < 5000:
        data = bytearray(draw.choice([SEALED, other]))
        for _ in range(draw.randint(1, 3)):
            start, end = sorted(draw.randrange(len(data) + 1) for _ in range(2))
            match draw.randrange(5):
                case 0:  # noise in place
                    data[start:end] = draw.randbytes(end - start)
                case 1:  # a part goes
                    del data[start:end]
                case 2:  # a part comes twice
                    data[end:end] = data[start:end]
                case 3:  # a part of another message
                    data[start:end] = other[start:end]
                case 4:  # one byte more
                    data.insert(start, draw.randrange(256))
        if bytes(data) in authentic:
            continue
        with pytest.raises(DecodeError):
            unseal(bytes(data), SIGNER, stream="normal")
        num_refused += 1


def test_noise_is_refused() -> None:
    draw = random.Random(2)
    for _ in range(1000):
        noise = draw.randbytes(draw.randrange(200))
        for data in (noise, b"\x01" + noise):
            with pytest.raises(DecodeError):
                unseal(data, SIGNER, stream="normal")


# Size and version


@pytest.mark.parametrize("version", [0, 2, 255])
def test_an_unknown_version_is_said(version: int) -> None:
    told = f"version {version} cannot be read; known: 1. A later release"
    with pytest.raises(DecodeError, match=told) as error:
        unseal(bytes([version]) + SEALED[1:], SIGNER, stream="normal")
    assert not isinstance(error.value, NotAuthentic)


@pytest.mark.parametrize("size", [0, 1, HEAD, MAX_ENVELOPE_BYTES + 1])
def test_too_few_and_too_many_bytes_are_said_before_anything_is_computed(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envelopes, "_signed", None)
    told = f"a sealed envelope has 34 to {MAX_ENVELOPE_BYTES} bytes, got {size}"
    with pytest.raises(DecodeError, match=told):
        unseal(b"\x01" * size, SIGNER, stream="normal")


def test_an_envelope_is_at_most_so_large() -> None:
    room = MAX_ENVELOPE_BYTES - len(seal(changed(payload=b"x" * 2**16), SIGNER, stream="s")) + 2**16
    fits = changed(payload=b"x" * room)
    sealed = seal(fits, SIGNER, stream="s")
    assert len(sealed) == MAX_ENVELOPE_BYTES
    assert unseal(sealed, SIGNER, stream="s") == fits
    told = f"a report has {MAX_ENVELOPE_BYTES + 1} bytes sealed; at most {MAX_ENVELOPE_BYTES}"
    with pytest.raises(InvalidArgument, match=told):
        seal(changed(payload=b"x" * (room + 1)), SIGNER, stream="s")


# Ranges

FLAWS: list[tuple[dict[str, Any], str]] = [
    ({"id": ""}, "id has 1 to 64 characters, got 0: ''"),
    ({"id": "x" * 65}, "id has 1 to 64 characters, got 65: 'xxx"),
    ({"kind": ""}, "kind has 1 to 64 characters, got 0"),
    ({"kind": "x" * 65}, "kind has 1 to 64 characters, got 65"),
    ({"source": ""}, "source has 1 to 256 characters, got 0"),
    ({"source": "x" * 257}, "source has 1 to 256 characters, got 257: 'x{80}'$"),
    ({"correlation_id": "x" * 65}, "correlation_id has 0 to 64 characters, got 65"),
    ({"created_at": float("nan")}, "created_at is a finite time in seconds, got nan"),
    ({"created_at": float("inf")}, "created_at is a finite time in seconds, got inf"),
    ({"ttl_s": 0.0}, "ttl_s is finite and more than 0 seconds, got 0.0"),
    ({"ttl_s": -1.0}, "ttl_s is finite and more than 0 seconds, got -1.0"),
    ({"ttl_s": float("nan")}, "ttl_s is finite and more than 0 seconds, got nan"),
    ({"ttl_s": float("inf")}, "ttl_s is finite and more than 0 seconds, got inf"),
    ({"attempt": -1}, "attempt is at least 0, got -1"),
]
TYPES: list[tuple[dict[str, Any], str]] = [
    ({"id": 3}, r"Expected `str`, got `int` - at `\$\.id`"),
    ({"created_at": None}, r"Expected `float`, got `null` - at `\$\.created_at`"),
    ({"created_at": "now"}, r"Expected `float`, got `str` - at `\$\.created_at`"),
    ({"priority": 4}, r"Invalid enum value 4 - at `\$\.priority`"),
    ({"priority": "high"}, r"Expected `int`, got `str` - at `\$\.priority`"),
    ({"payload": {"a": 1}}, r"Expected `bytes`, got `object` - at `\$\.payload`"),
]


@pytest.mark.parametrize(("fields", "says"), FLAWS + TYPES)
def test_a_field_out_of_its_range_is_not_sealed(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        seal(changed(**fields), SIGNER, stream="normal")


@pytest.mark.parametrize(("fields", "says"), FLAWS + TYPES)
def test_an_authentic_field_out_of_its_range_is_refused(fields: dict[str, Any], says: str) -> None:
    values = list(msgspec.structs.asdict(changed(**fields)).values())
    data = signed(msgspec.msgpack.encode(values))
    with pytest.raises(DecodeError, match=f"an envelope is not valid: {says}") as error:
        unseal(data, SIGNER, stream="normal")
    assert not isinstance(error.value, NotAuthentic)


@pytest.mark.parametrize("packed", [b"\xc0", b"\x90", b"{}", b"\xff", b"\x91" * 10_000])
def test_authentic_bytes_that_are_no_envelope_are_refused(packed: bytes) -> None:
    with pytest.raises(DecodeError, match="an envelope is not"):
        unseal(signed(packed), SIGNER, stream="normal")


def test_an_envelope_of_a_later_release_can_be_read() -> None:
    values = list(msgspec.structs.asdict(ENVELOPE).values())
    data = signed(msgspec.msgpack.encode([*values, {"more": 1}]))
    assert unseal(data, SIGNER, stream="normal") == ENVELOPE


def test_the_numbers_of_priorities_are_those_of_every_message_under_way() -> None:
    assert {each.name: each.value for each in Priority} == {
        "NORMAL": 0,
        "HIGH": 1,
        "CRITICAL": 2,
        "EMERGENCY": 3,
    }
