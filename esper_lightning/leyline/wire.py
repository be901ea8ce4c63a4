"""Msgpack for the bus: the messages that files hold as JSON, packed by position instead of by name.

The form is made from the same Structs. A message is an array: its tag if it has one, then its
fields in the order of their definition. A definition therefore grows only at its end, with fields
that have defaults; then a message of a later release can be read, and so can one of an earlier one.
"""

import types
import typing
from functools import cache
from typing import Any, TypeVar

import msgspec

from esper_lightning.leyline.errors import DecodeError, InvalidArgument

T = TypeVar("T", bound=msgspec.Struct)

MAX_PACKED_BYTES = 2**20
"""Largest packed message that is read, in bytes."""

_FAILURES = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)

_encoder = msgspec.msgpack.Encoder()


def pack(message: msgspec.Struct) -> bytes:
    """``message`` as msgpack. NaN and infinities travel as they are.

    Raises:
        InvalidArgument: a field has a value that its type does not allow, or that does not fit: a
            whole number of more than 64 bits, text that is not UTF-8. Of a wrong type the text
            names the field.
    """
    try:
        positional = msgspec.convert(message, _positional(type(message)), from_attributes=True)
        return _encoder.encode(positional)
    except _FAILURES as error:
        raise InvalidArgument(f"{type(message).__name__} cannot be packed: {error}") from error


def unpack(data: bytes, kind: type[T], *, what: str = "message") -> T:
    """Read one message of type ``kind``.

    Args:
        data: what :func:`pack` made.
        kind: a Struct.
        what: what the bytes should be, for the error.

    Raises:
        DecodeError: too large, truncated, wrong type, unknown enum value, missing field, something
            behind its end. The text names the field.
        InvalidArgument: ``kind`` is no Struct.
    """
    if len(data) > MAX_PACKED_BYTES:
        raise DecodeError(f"{what} has {len(data)} bytes; at most {MAX_PACKED_BYTES} are read")
    decoder = _decoder(kind)
    try:
        positional = decoder.decode(data)
        message: T = msgspec.convert(positional, kind, from_attributes=True)
    except msgspec.ValidationError as error:
        raise DecodeError(f"{what} is not valid: {_explained(data, kind, error)}") from error
    except msgspec.DecodeError as error:
        raise DecodeError(f"{what} is not complete msgpack: {error}") from error
    except _FAILURES as error:
        raise DecodeError(f"{what} is not valid: {error}") from error
    return message


@cache
def _decoder(kind: type) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(_positional(kind))


@cache
def _positional(kind: type) -> type[msgspec.Struct]:
    """The Struct of the same fields that is an array."""
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        raise InvalidArgument(f"{kind!r} is no message; what is packed is a Struct")
    hints = typing.get_type_hints(kind)
    config = kind.__struct_config__
    return msgspec.defstruct(
        kind.__name__,
        [
            (field.name, _positional_hint(hints[field.name]), _default(field))
            for field in msgspec.structs.fields(kind)
        ],
        array_like=True,
        frozen=True,
        kw_only=True,
        tag=config.tag,
        tag_field=config.tag_field,
    )


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if callable(field.default_factory):
        return msgspec.field(default_factory=field.default_factory)
    return msgspec.field(default=field.default)


def _positional_hint(hint: Any) -> Any:
    """``hint``, with every Struct in it replaced."""
    if _is_struct(hint):
        return _positional(hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is None:
        return hint
    replaced = tuple(_positional_hint(each) for each in inner)
    return typing.Union[replaced] if _is_union(origin) else origin[replaced]  # noqa: UP007


def _explained(data: bytes, kind: type, error: msgspec.ValidationError) -> str:
    """What is wrong, with the names of fields where ``error`` has positions."""
    try:
        msgspec.convert(_named(msgspec.msgpack.decode(data), kind), kind, builtin_types=(bytes,))
    except msgspec.ValidationError as named:
        return str(named)
    except _FAILURES:
        pass
    return str(error)


def _named(value: Any, hint: Any) -> Any:
    """Arrays that stand for a Struct as mappings from names, as files have them."""
    inner = typing.get_args(hint)
    if _is_union(typing.get_origin(hint)):
        return _named(value, next((each for each in inner if _is_struct(each)), None))
    if isinstance(value, list):
        if _is_struct(hint):
            tag_field, hints = hint.__struct_config__.tag_field, typing.get_type_hints(hint)
            names = [tag_field] * bool(tag_field) + list(hint.__struct_fields__)
            return {
                name: _named(each, hints.get(name))
                for name, each in zip(names, value, strict=False)
            }
        return [_named(each, inner[0] if inner else None) for each in value]
    if isinstance(value, dict) and len(inner) == 2:
        return {key: _named(each, inner[1]) for key, each in value.items()}
    return value


def _is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _is_union(origin: Any) -> bool:
    return origin in (typing.Union, types.UnionType)
