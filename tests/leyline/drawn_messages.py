"""Values of every type that a message may hold: any, one, and one whose fields all differ."""

import enum
import functools
import itertools
import types
import typing
from typing import Any

import msgspec
from hypothesis import strategies as st

from esper_lightning import leyline
from esper_lightning.leyline import (
    BlendSchedule,
    FeatureKind,
    FeatureMap,
    FieldReport,
    PolicyUpdate,
    Question,
)

RANKS = {FeatureKind.SPATIAL: 3, FeatureKind.TOKENS: 2, FeatureKind.VECTOR: 1}

PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    float: st.floats(allow_nan=False, allow_infinity=False),
    int: st.integers(-(2**63), 2**63 - 1),
    str: st.text(max_size=6),
    bool: st.booleans(),
    bytes: st.binary(max_size=6),
    type(None): st.none(),
    FeatureMap: st.sampled_from(FeatureKind).flatmap(
        lambda kind: st.builds(
            FeatureMap,
            st.just(kind),
            st.tuples(*[st.integers(1, 2**31)] * RANKS[kind]),
        )
    ),
}

RULED: dict[Any, dict[str, st.SearchStrategy[Any]]] = {
    BlendSchedule: {"num_steps": st.integers(1, 10**9)},
    FieldReport: {"first_epoch": st.integers(-1, 10), "last_epoch": st.integers(10, 2**63 - 1)},
    PolicyUpdate: {
        "version": st.integers(1, 2**63 - 1),
        "digest": st.text("0123456789abcdef", min_size=64, max_size=64),
    },
    Question: {"deadline_s": st.floats(min_value=0, exclude_min=True, allow_infinity=False)},
}
"""Fields that may not have any value of their type."""


@functools.cache
def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a type that a message may hold."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in PLAIN:
        return PLAIN[hint]
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(values(arg) for arg in args))
    if origin is tuple:
        return st.lists(values(args[0]), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(values(args[0]), values(args[1]), max_size=2)
    if issubclass(hint, enum.Enum):
        return st.sampled_from(hint)
    fields = {name: values(field) for name, field in typing.get_type_hints(hint).items()}
    return st.builds(hint, **{**fields, **RULED.get(hint, {})})


def first_of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """One message as builtins, with every field there."""
    plain: dict[Any, Any] = {
        float: 0.5, int: 1, str: "x", bool: True, FeatureMap: FeatureMap(FeatureKind.VECTOR, (3,)),
        PolicyUpdate: PolicyUpdate(name="x", version=1, digest="0" * 64, reference="x"),
    }  # fmt: skip

    def one(hint: Any) -> Any:
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if hint in plain:
            return plain[hint]
        if origin in (typing.Union, types.UnionType):
            return one(args[0])
        if origin is not None:
            return origin()
        if issubclass(hint, enum.Enum):
            return next(iter(hint))
        return hint(**{name: one(field) for name, field in typing.get_type_hints(hint).items()})

    made = msgspec.to_builtins(one(kind))
    assert isinstance(made, dict)
    return made


def full(kind: type[msgspec.Struct]) -> Any:
    """The one message in which nothing is missing, nothing empty, and no two fields are equal.

    It depends on nothing but the definition of the message.
    """
    numbers = itertools.count(1)

    def one(hint: Any) -> Any:
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if hint is leyline.ParameterValue:
            return f"p{next(numbers)}"
        if origin in (typing.Union, types.UnionType):
            return one(next(arg for arg in args if arg is not type(None)))
        if origin is tuple:
            return (one(args[0]),)
        if origin is dict:
            return {one(args[0]): one(args[1])}
        number = next(numbers)
        if hint in (int, float):
            return hint(number)
        if hint in (str, bytes):
            return f"t{number}" if hint is str else f"b{number}".encode()
        if hint is bool:
            return True
        if issubclass(hint, enum.Enum):
            members = list(hint)
            return members[number % len(members)]
        if hint is FeatureMap:
            return FeatureMap(FeatureKind.TOKENS, (number, next(numbers)))
        if hint is PolicyUpdate:
            return PolicyUpdate(
                name="t1", version=2, digest="0123456789abcdef" * 4, reference="t3", reason="t4"
            )
        return hint(**{name: one(field) for name, field in typing.get_type_hints(hint).items()})

    return one(kind)
