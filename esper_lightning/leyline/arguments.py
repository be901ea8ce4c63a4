"""Whether an argument is of its kind, asked before whether it is in its range.

What is read from YAML or a command line can be anything: ``width=abc`` is text, ``flag=maybe`` is
text that counts as true, ``null`` is None. A whole number is any integer but a boolean, a number
any real one but a boolean, NumPy's included.
"""

from collections.abc import Sequence
from numbers import Integral, Real

from esper_lightning.leyline.errors import InvalidArgument


def check_whole(
    name: str, value: object, *, least: int | None = None, or_none: bool = False
) -> None:
    """Refuse what is no whole number.

    Args:
        name: of the argument, for the error.
        value: as it was given.
        least: the smallest that is allowed; None for any.
        or_none: None is allowed as well.

    Raises:
        InvalidArgument: it is of another kind, or below ``least``.

    >>> check_whole("width", 8, least=1)
    >>> check_whole("width", "abc")
    Traceback (most recent call last):
    esper_lightning.leyline.errors.InvalidArgument: width must be a whole number, got 'abc'
    """
    if value is None and or_none:
        return
    if _is_kind(value, Integral) and (least is None or value >= least):  # type: ignore[operator]
        return
    most = "" if least is None else f" of at least {least}"
    raise InvalidArgument(f"{name} must be a whole number{most}{_none(or_none)}, got {value!r}")


def check_number(name: str, value: object, *, or_none: bool = False) -> None:
    """Refuse what is no number; whether it is finite and in range is for the caller to say.

    Args:
        name: of the argument, for the error.
        value: as it was given.
        or_none: None is allowed as well.

    Raises:
        InvalidArgument: it is of another kind.
    """
    if not (is_number(value) or (value is None and or_none)):
        raise InvalidArgument(f"{name} must be a number{_none(or_none)}, got {value!r}")


def check_flag(name: str, value: object) -> None:
    """Refuse what is neither True nor False.

    Args:
        name: of the argument, for the error.
        value: as it was given.

    Raises:
        InvalidArgument: it is something else, whatever it would count as.
    """
    if not isinstance(value, bool):
        raise InvalidArgument(f"{name} must be true or false, got {value!r}")


def check_names(name: str, value: object) -> None:
    """Refuse what is no list of texts; one text alone would be taken letter by letter.

    Args:
        name: of the argument, for the error.
        value: as it was given.

    Raises:
        InvalidArgument: it is something else.
    """
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if not is_list or not all(isinstance(item, str) for item in value):  # type: ignore[attr-defined]
        raise InvalidArgument(
            f"{name} must be a list of names, such as [first, second], got {value!r}"
        )


def is_number(value: object) -> bool:
    """Whether it is a real number and no boolean; infinity and NaN are."""
    return _is_kind(value, Real)


def _is_kind(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _none(or_none: bool) -> str:
    return ", or null for none" if or_none else ""
