"""The table of the Adult data: its columns, their values, and how a file of it is read."""

import csv
import math
from pathlib import Path

import torch

from esper_lightning.tolaria.data.errors import DataDamaged
from esper_lightning.tolaria.data.labelled import LabelledTensors

MISSING = "?"

NUMBERS = ("age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week")
"""Columns that hold a number of at least 0."""

CATEGORIES: dict[str, tuple[str, ...]] = {
    "workclass": (
        *("Private", "Self-emp-not-inc", "Self-emp-inc", "Federal-gov", "Local-gov", "State-gov"),
        *("Without-pay", "Never-worked", MISSING),
    ),
    "education": (
        *("Preschool", "1st-4th", "5th-6th", "7th-8th", "9th", "10th", "11th", "12th", "HS-grad"),
        *("Some-college", "Assoc-voc", "Assoc-acdm", "Bachelors", "Masters", "Prof-school"),
        "Doctorate",
    ),
    "marital-status": (
        *("Married-civ-spouse", "Divorced", "Never-married", "Separated", "Widowed"),
        *("Married-spouse-absent", "Married-AF-spouse"),
    ),
    "occupation": (
        *("Tech-support", "Craft-repair", "Other-service", "Sales", "Exec-managerial"),
        *("Prof-specialty", "Handlers-cleaners", "Machine-op-inspct", "Adm-clerical"),
        *("Farming-fishing", "Transport-moving", "Priv-house-serv", "Protective-serv"),
        *("Armed-Forces", MISSING),
    ),
    "relationship": (
        *("Wife", "Own-child", "Husband", "Not-in-family", "Other-relative", "Unmarried"),
    ),
    "race": ("White", "Asian-Pac-Islander", "Amer-Indian-Eskimo", "Other", "Black"),
    "sex": ("Female", "Male"),
    "native-country": (
        *("United-States", "Cambodia", "England", "Puerto-Rico", "Canada", "Germany"),
        *("Outlying-US(Guam-USVI-etc)", "India", "Japan", "Greece", "South", "China", "Cuba"),
        *("Iran", "Honduras", "Philippines", "Italy", "Poland", "Jamaica", "Vietnam", "Mexico"),
        *("Portugal", "Ireland", "France", "Dominican-Republic", "Laos", "Ecuador", "Taiwan"),
        *("Haiti", "Columbia", "Hungary", "Guatemala", "Nicaragua", "Scotland", "Thailand"),
        *("Yugoslavia", "El-Salvador", "Trinadad&Tobago", "Peru", "Hong", "Holand-Netherlands"),
        MISSING,
    ),
}
"""Columns that hold one of these values, spelled as in the published files.

A missing value is a value of its own in the three columns in which it occurs.
"""

LABELS = ("<=50K", ">50K")
"""Income of a year; the position is the class. In ``adult.test`` a dot follows."""

COLUMNS = (
    *("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation"),
    *("relationship", "race", "sex", "capital-gain", "capital-loss", "hours-per-week"),
    *("native-country", "income"),
)
"""In the order of a row; the last is the label."""

NUM_FEATURES = len(NUMBERS) + sum(len(values) for values in CATEGORIES.values())

_CODES = {
    column: {value: code for code, value in enumerate(values)}
    for column, values in CATEGORIES.items()
}
_ORDER = tuple(COLUMNS.index(column) for column in (*NUMBERS, *CATEGORIES))


def read_table(path: Path) -> LabelledTensors:
    """Read a file of rows of 15 values, separated by commas.

    Blank lines are passed over, and a first line that begins with ``|``.

    Args:
        path: of ``adult.data``, ``adult.test``, or a file like them.

    Returns:
        Inputs ``(N, 14)`` float64: the six ``NUMBERS`` as they stand there, then the position of
        each value among its ``CATEGORIES``; labels ``(N,)`` int64.

    Raises:
        DataDamaged: a row that is not what it should be: says the line, the column and the value.
            Or there are no rows.
    """
    rows, labels = [], []
    # Whatever is no text turns up as a value that is not allowed.
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = csv.reader(file, skipinitialspace=True, quoting=csv.QUOTE_NONE)
        try:
            for line in lines:
                values = [value.rstrip() for value in line]
                is_blank = values in ([], [""])
                if is_blank or (lines.line_num == 1 and values[0].startswith("|")):
                    continue
                row, label = _row(values)
                rows.append(row)
                labels.append(label)
        except (csv.Error, ValueError) as error:
            raise DataDamaged(
                f"{path}, line {lines.line_num}: {error}. Put the published file in its place"
            ) from error
    if not rows:
        raise DataDamaged(f"{path} holds no rows. Put the published file in its place")
    return LabelledTensors(torch.tensor(rows, dtype=torch.float64), torch.tensor(labels))


def _row(values: list[str]) -> tuple[list[float], int]:
    if len(values) != len(COLUMNS):
        raise ValueError(
            f"{len(values)} values, expected {len(COLUMNS)} ({', '.join(COLUMNS)}); "
            f"the file may have been cut off"
        )
    row = [_cell(COLUMNS[position], values[position]) for position in _ORDER]
    told = values[-1].removesuffix(".")
    if told not in LABELS:
        raise ValueError(f"income is {values[-1]!r}; allowed are {', '.join(LABELS)}")
    return row, LABELS.index(told)


def _cell(column: str, value: str) -> float:
    if codes := _CODES.get(column):
        if value not in codes:
            raise ValueError(f"{column} is {value!r}; allowed are {', '.join(codes)}")
        return codes[value]
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"{column} is {value!r}; allowed are numbers of at least 0")
    return number
