"""JSON for files: one definition of every message, validated when it is read."""

from typing import Any, TypeVar

import msgspec

from esper_lightning.leyline.errors import DecodeError

T = TypeVar("T")

MAX_MESSAGE_BYTES = 4 * 2**20
"""Largest message that is read from a file or a state_dict, in bytes."""

_encoder = msgspec.json.Encoder(order="deterministic")


def encode(message: Any) -> bytes:
    """``message`` as one line of canonical JSON (keys of free mappings sorted)."""
    return _encoder.encode(message)


def decode(data: bytes, kind: type[T] | Any, *, what: str = "message") -> T:
    """Read one message of type ``kind``.

    Args:
        data: JSON.
        kind: a Struct or a union of tagged Structs.
        what: what the bytes should be, for the error.

    Raises:
        DecodeError: too large, truncated, nested too deeply, wrong type, unknown enum value,
            missing field. The text names the field.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise DecodeError(f"{what} has {len(data)} bytes; at most {MAX_MESSAGE_BYTES} are read")
    try:
        message: T = msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise DecodeError(f"{what} is not valid: {error}") from error
    except msgspec.DecodeError as error:
        raise DecodeError(f"{what} is not complete JSON: {error}") from error
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"{what} is not valid: {error}") from error
    return message


def pretty(message: Any) -> bytes:
    """``message`` as indented JSON, for files that people open."""
    return msgspec.json.format(encode(message), indent=2) + b"\n"
