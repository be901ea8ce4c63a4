"""Consumers that are killed, whenever it is, lose no message and make none take effect twice.

Every member is a process of its own. Kills fall at moments drawn from a seed while messages come
in and are handled. If n kills leave no trace, then with 95 % confidence less than a share of 3/n
would (the rule of three): the 100 of this test bound it to 0.03.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bus_helpers import Bus, bus_at, python, report, told, until
from servers import started

from esper_lightning.leyline import Signer, installation_key
from esper_lightning.oona import Outbox, Received, Role

pytestmark = [pytest.mark.slow, pytest.mark.integration]

KILLS = 100
MESSAGES = 2_000
MEMBERS = 3


def consume(url: str, prefix: str, name: str) -> None:
    """Be a member until killed. A message takes it some milliseconds."""
    bus = Bus(url, Signer(installation_key()), prefix=prefix)

    def handler(received: Received, transaction: Any) -> None:
        transaction.rpush(f"{prefix}.effects.group", told(received.message))
        time.sleep(0.006)

    consumer = bus.consumer(
        handlers={"report": handler}, name=name, idle_s=0.3, max_deliveries=1_000_000
    )
    while True:
        consumer.poll()


def fork_members() -> None:
    """In a process that has imported everything: a member for each line, and its process's id."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            consume(*json.loads(line))
        print(pid, flush=True)


class Members:
    """Processes by name."""

    def __init__(self, bus: Bus, parent: "subprocess.Popen[str]") -> None:
        self.pids: dict[str, int] = {}
        self._bus = bus
        self._parent = parent

    def start(self, name: str) -> None:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        print(json.dumps([self._bus.url, self._bus.prefix, name]), file=self._parent.stdin)
        self._parent.stdin.flush()
        self.pids[name] = int(self._parent.stdout.readline())

    def kill(self, name: str) -> None:
        pid = self.pids.pop(name)
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(pid, 0)
                time.sleep(0.001)


@contextlib.contextmanager
def members(bus: Bus) -> Iterator[Members]:
    """All are killed at the end."""
    command, environ = python("-c", "import test_oona_kills as it; it.fork_members()")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environ, stdin=pipe, stdout=pipe, text=True) as parent:
        living = Members(bus, parent)
        try:
            yield living
        finally:
            for name in list(living.pids):
                living.kill(name)


@pytest.mark.parametrize("kind", ["embedded", "redis"])
def test_every_message_takes_effect_once(kind: str, signer: Signer, tmp_path: Path) -> None:
    draw, held = random.Random(0), 0
    with (
        started(kind) as server,
        bus_at(server.url, signer) as bus,
        members(bus) as living,
    ):
        publisher = bus.publisher(outbox=Outbox(tmp_path / "box"))
        for number in range(MEMBERS):
            living.start(f"first {number}")
        until(lambda: bus.client.exists(bus.settings.streams[Role.NORMAL]))
        for number in range(MESSAGES):
            publisher.publish(report(number))
            if (number + 1) % (MESSAGES // KILLS):
                continue
            assert publisher.flush(20)
            time.sleep(draw.uniform(0.0, 0.06))
            name = draw.choice(list(living.pids))
            living.kill(name)
            held += is_holding(bus, name)
            living.start(f"after {number}")
        assert publisher.flush(20)
        until(lambda: len(bus.effects()) >= MESSAGES and not bus.pending(), timeout_s=60)
        assert sorted(map(int, bus.effects())) == list(range(MESSAGES))
        assert bus.letters() == []
        assert publisher.figures().lost == 0
        assert held > KILLS / 20, "too few kills hit a member at work"


def is_holding(bus: Bus, name: str) -> bool:
    """Whether a member had messages that it had not finished with."""
    stream = bus.settings.streams[Role.NORMAL]
    return bool(bus.client.xpending_range(stream, "group", "-", "+", 1, consumername=name))
