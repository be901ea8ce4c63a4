"""Small files in the format of the Adult data."""

import random
from pathlib import Path

from esper_lightning.tolaria.data.adult_table import CATEGORIES, COLUMNS, LABELS, NUMBERS

FIRST_LINE_OF_TEST = "|1x3 Cross validator"


def row(number: int = 0, **changes: str) -> dict[str, str]:
    """One example by column; those of two numbers differ, every fourth has class 1.

    Args:
        number: which example.
        changes: values of columns, with ``_`` in place of ``-``.
    """
    draw = random.Random(number)
    values = {column: str(draw.randrange(100)) for column in NUMBERS}
    values |= {column: draw.choice(allowed) for column, allowed in CATEGORIES.items()}
    values |= {"fnlwgt": str(1000 + number), "income": LABELS[number % 4 == 0]}
    return values | {column.replace("_", "-"): value for column, value in changes.items()}


def line(values: dict[str, str]) -> str:
    return ", ".join(values[column] for column in COLUMNS)


def text_of_train(rows: list[dict[str, str]]) -> str:
    """What ``adult.data`` would hold: a blank line at the end."""
    return "".join(f"{line(values)}\n" for values in rows) + "\n"


def text_of_test(rows: list[dict[str, str]]) -> str:
    """What ``adult.test`` would hold: a first line that is no example, a dot after the label."""
    return f"{FIRST_LINE_OF_TEST}\n" + "".join(f"{line(values)}.\n" for values in rows) + "\n"


def write_adult_folder(
    path: Path, num_train: int = 60, num_test: int = 20, *, folder: str = "adult"
) -> Path:
    """Write both files as a data folder has them; returns the folder that holds them."""
    there = path / folder
    there.mkdir(parents=True, exist_ok=True)
    (there / "adult.data").write_text(text_of_train([row(i) for i in range(num_train)]))
    (there / "adult.test").write_text(text_of_test([row(10_000 + i) for i in range(num_test)]))
    return there
