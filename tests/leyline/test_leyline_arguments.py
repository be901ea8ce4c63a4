"""An argument is of its kind before it is in its range."""

from typing import Any

import numpy as np
import pytest

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_flag, check_names, check_number, check_whole

ODD = ["abc", "", None, [], {}, b"1", 1j]


@pytest.mark.parametrize("value", [*ODD, True, 2.0, float("nan"), 0, -1])
def test_a_whole_number_is_no_other_and_not_too_small(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="width must be a whole number of at least 1, got"):
        check_whole("width", value, least=1)


@pytest.mark.parametrize("value", [*ODD, True])
def test_a_number_is_nothing_else(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="lr must be a number, got"):
        check_number("lr", value)


@pytest.mark.parametrize("value", [*ODD, 0, 1, "true", np.True_])
def test_a_flag_is_nothing_that_counts_as_one(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="download must be true or false, got"):
        check_flag("download", value)


@pytest.mark.parametrize("value", ["abc", 5, None, [5], ["a", None], {"a"}, {"a": 1}])
def test_names_are_a_list_of_texts(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="tags must be a list of names.*got"):
        check_names("tags", value)


def test_what_is_allowed_is_taken() -> None:
    for whole in (1, np.int64(3), 10**30):
        check_whole("width", whole, least=1)
    check_whole("seed", -5)
    check_whole("subset", None, or_none=True)
    for number in (0, 0.5, np.float32(0.5), np.int64(3), float("inf")):
        check_number("lr", number)
    check_number("limit", None, or_none=True)
    check_flag("download", False)
    for names in ([], ["a"], ("a", "b")):
        check_names("tags", names)
    with pytest.raises(InvalidArgument, match="or null for none, got 'abc'"):
        check_whole("subset", "abc", or_none=True)
