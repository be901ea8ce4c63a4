"""A server and a key for tests of the bus."""

from collections.abc import Iterator

import pytest
from servers import KINDS, Server, started

from esper_lightning.leyline import Signer

KEY = b"the key of these tests"


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One of each kind."""
    with started(request.param) as running:
        yield running


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Of the installation; nothing else of the bus is in the environment."""
    for name in ("REDIS_URL", "ESPER_LEYLINE_PREVIOUS_SECRET"):
        monkeypatch.delenv(name, raising=False)
    for role in ("NORMAL", "EMERGENCY", "TELEMETRY", "POLICY"):
        monkeypatch.delenv(f"OONA_{role}_STREAM", raising=False)
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", KEY.decode())
    return KEY


@pytest.fixture
def signer(key: bytes) -> Signer:
    return Signer(key)
