"""Envelopes: what a message travels in, sealed: who lacks the key can neither make nor change one.

Sealed bytes are a version (1 byte, 1), an HMAC-SHA256 (32 bytes) and the packed envelope. The HMAC
covers ``esper.envelope.1``, a zero byte, the role of the stream, a zero byte and the packed
envelope. So neither a signature of other bytes nor a message of another stream can pass for one.
"""

import math
from enum import IntEnum

import msgspec

from esper_lightning.leyline.errors import DecodeError, InvalidArgument, NotAuthentic
from esper_lightning.leyline.signing import DIGEST_BYTES, Signer
from esper_lightning.leyline.wire import MAX_PACKED_BYTES, pack, unpack

MAX_ENVELOPE_BYTES = MAX_PACKED_BYTES
"""Largest sealed envelope that is made or read, in bytes."""

_VERSION = 1
_DOMAIN = b"esper.envelope.1\0"
_HEAD = bytes([_VERSION])
_HEAD_BYTES = len(_HEAD) + DIGEST_BYTES


class Priority(IntEnum):
    """How urgent a message is. The numbers are those of every message under way: keep them."""

    NORMAL = 0
    HIGH = 1
    CRITICAL = 2
    EMERGENCY = 3


class EventEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """A message under way.

    Attributes:
        id: unique, 1 to 64 characters; whoever has seen it before drops the message.
        kind: which of ``MESSAGES`` the payload is, 1 to 64 characters.
        source: who sent it, such as a run id, 1 to 256 characters.
        priority: how urgent it is.
        created_at: Unix time in seconds.
        ttl_s: seconds from then on after which it is worth nothing, more than 0.
        correlation_id: id of the envelope that this one answers, or empty; at most 64 characters.
        attempt: how often it was sent before.
        payload: the packed message.
    """

    id: str
    kind: str
    source: str
    priority: Priority = Priority.NORMAL
    created_at: float
    ttl_s: float
    correlation_id: str = ""
    attempt: int = 0
    payload: bytes


def seal(envelope: EventEnvelope, signer: Signer, *, stream: str) -> bytes:
    """The bytes that travel.

    Args:
        envelope: what is to travel.
        signer: signs it.
        stream: role of the stream it will travel on; it can be unsealed for that one only.

    Raises:
        InvalidArgument: a field is out of its range or of a wrong type, or it is too large.
    """
    packed = pack(envelope)
    flaw = _flaw(envelope)
    if flaw:
        raise InvalidArgument(f"an envelope cannot be sealed: {flaw}")
    size = _HEAD_BYTES + len(packed)
    if size > MAX_ENVELOPE_BYTES:
        raise InvalidArgument(
            f"a {envelope.kind} has {size} bytes sealed; at most {MAX_ENVELOPE_BYTES} can travel"
        )
    return _HEAD + signer.digest(_signed(packed, stream)) + packed


def unseal(data: bytes, signer: Signer, *, stream: str) -> EventEnvelope:
    """The envelope in ``data``, if it is authentic. Nothing is decoded before that is known.

    It may be old, and it may have come before: that is for the receiver to judge.

    Args:
        data: what :func:`seal` made.
        signer: with one of the keys that the sender may have.
        stream: role of the stream it came by.

    Raises:
        NotAuthentic: the keys did not sign these bytes for this stream.
        DecodeError: too large, too short, of an unknown version; or authentic and still no
            envelope, or with a field out of its range. The text names the field.
    """
    if not _HEAD_BYTES < len(data) <= MAX_ENVELOPE_BYTES:
        raise DecodeError(
            f"a sealed envelope has {_HEAD_BYTES + 1} to {MAX_ENVELOPE_BYTES} bytes, "
            f"got {len(data)}"
        )
    if data[0] != _VERSION:
        raise DecodeError(
            f"a sealed envelope of version {data[0]} cannot be read; known: {_VERSION}. A later "
            "release of esper_lightning may have sent it: use the same everywhere"
        )
    packed = data[_HEAD_BYTES:]
    if not signer.check(_signed(packed, stream), data[1:_HEAD_BYTES]):
        raise NotAuthentic(
            f"an envelope on the {stream} stream is not signed with a key that holds here; who may "
            "send needs the same ESPER_LEYLINE_SECRET"
        )
    envelope = unpack(packed, EventEnvelope, what="an envelope")
    flaw = _flaw(envelope)
    if flaw:
        raise DecodeError(f"an envelope is not valid: {flaw}")
    return envelope


def _signed(packed: bytes, stream: str) -> bytes:
    return b"%b%b\0%b" % (_DOMAIN, stream.encode(), packed)


def _flaw(envelope: EventEnvelope) -> str:
    """What is out of its range, in words, or empty."""
    for name, text, least, most in (
        ("id", envelope.id, 1, 64),
        ("kind", envelope.kind, 1, 64),
        ("source", envelope.source, 1, 256),
        ("correlation_id", envelope.correlation_id, 0, 64),
    ):
        if not least <= len(text) <= most:
            return f"{name} has {least} to {most} characters, got {len(text)}: {text[:80]!r}"
    if not math.isfinite(envelope.created_at):
        return f"created_at is a finite time in seconds, got {envelope.created_at}"
    if not 0 < envelope.ttl_s < math.inf:
        return f"ttl_s is finite and more than 0 seconds, got {envelope.ttl_s}"
    if envelope.attempt < 0:
        return f"attempt is at least 0, got {envelope.attempt}"
    return ""
