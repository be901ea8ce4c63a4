"""A library of its own for every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from esper_lightning.leyline import Signer
from esper_lightning.urza import Library

KEY = b"the key of these tests"


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The installation's key, in this process and those that it starts."""
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", KEY.decode())
    return KEY


@pytest.fixture
def signer(key: bytes) -> Signer:
    return Signer(key)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "a library"


@pytest.fixture
def library(root: Path, key: bytes) -> Iterator[Library]:
    with Library(root) as opened:
        yield opened
