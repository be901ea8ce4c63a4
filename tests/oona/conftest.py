"""A server, a key and a bus for tests."""

import os
from collections.abc import Iterator

import pytest
from bus_helpers import LENGTHS, Bus, bus_at
from servers import KINDS, Server, started

from esper_lightning.leyline import Signer

KEY = b"the key of these tests"

SHARED = os.environ.get("REDIS_URL")
"""A server that others may use, too."""


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


@pytest.fixture(params=[*KINDS, *(["REDIS_URL"] if SHARED else [])])
def everywhere(request: pytest.FixtureRequest, signer: Signer) -> Iterator[Bus]:
    """A bus on one server of each kind, and on that of ``REDIS_URL``."""
    if request.param == "REDIS_URL":
        assert SHARED is not None
        with bus_at(SHARED, signer, lengths=LENGTHS) as opened:
            yield opened
        return
    with (
        started(request.param) as server,
        bus_at(server.url, signer, lengths=LENGTHS) as opened,
    ):
        yield opened
