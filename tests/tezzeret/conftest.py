"""A library of its own for every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from esper_lightning.urza import Library


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The installation's key, in this process and those that it starts."""
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", "the key of these tests")


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library(tmp_path / "library") as opened:
        yield opened
