"""A library of its own for every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from esper_lightning.urza import Library


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The installation's key, in this process and those that it starts."""
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", "the key of these tests")


@pytest.fixture(autouse=True)
def not_deterministic() -> Iterator[None]:
    """Compiled code is for the state it was compiled in, which a Trainer may have changed."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library(tmp_path / "library") as opened:
        yield opened
