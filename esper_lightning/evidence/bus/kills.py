"""Whether consumers that are killed lose a message or make one take effect twice.

Every member is a process of its own; one after the other is killed by SIGKILL at a moment that is
drawn from a seed, while messages come in and are handled, and another one takes its place.
"""

import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from scipy import stats

from esper_lightning.evidence.bus.contracts import report
from esper_lightning.evidence.bus.servers import KEY, Server
from esper_lightning.evidence.report import table
from esper_lightning.leyline import Signer
from esper_lightning.oona import (
    OUTBOX_NAME,
    Admission,
    Consumer,
    Received,
    Role,
    Settings,
    connect,
)

GROUP, EFFECTS = "killed", "evidence.effects"
MEMBERS = 3
PER_KILL = 20
"""Messages that are published between two kills."""

_HANDLING_S = 0.004
_LONGEST_S = 0.06
_PATIENCE_S = 120.0


class Kills(msgspec.Struct, frozen=True, kw_only=True):
    """What was found after all kills.

    Attributes:
        server: which.
        kills: members that were killed.
        at_work: of these, how many held messages that they had not finished with.
        messages: that were published.
        missing: messages that took no effect.
        twice: messages that took effect more than once.
        dead_letters: messages that were given up.
        upper: with 95 % confidence, the share of kills that lose or double something is lower.
    """

    server: str
    kills: int
    at_work: int
    messages: int
    missing: int
    twice: int
    dead_letters: int
    upper: float


def consume_for_ever(url: str, key: bytes, name: str) -> None:
    """In another process: be a member until killed; a message's effect is an item of a list."""

    def handler(received: Received, transaction: Any) -> None:
        transaction.rpush(EFFECTS, received.message.id)
        time.sleep(_HANDLING_S)

    with connect(url) as connection:
        consumer = Consumer(
            connection.client,
            Settings.from_environment(url),
            Admission(Signer(key)),
            group=GROUP,
            handlers={"report": handler},
            name=name,
            idle_s=0.3,
            retry_s=0.05,
            max_deliveries=1_000_000,
        )
        while True:
            consumer.poll()


class _Members:
    """Processes by name."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self.living: dict[str, BaseProcess] = {}

    def start(self, name: str) -> None:
        process = self._context.Process(
            target=consume_for_ever, args=(self._server.url, KEY, name), daemon=True
        )
        process.start()
        self.living[name] = process

    def kill(self, name: str) -> None:
        process = self.living.pop(name)
        assert process.is_alive(), f"member {name} ended by itself with {process.exitcode}"
        process.kill()
        process.join()


@contextmanager
def _members(server: Server) -> Iterator[_Members]:
    members = _Members(server)
    try:
        for number in range(MEMBERS):
            members.start(f"first {number}")
        yield members
    finally:
        for name in list(members.living):
            members.kill(name)


def run(server: Server, *, kills: int, seed: int = 0) -> Kills:
    """Kill so many members.

    Args:
        server: emptied first.
        kills: how many, at least 1.
        seed: of the moments, and of who is killed.
    """
    server.empty()
    draw, num = random.Random(seed), kills * PER_KILL
    stream, at_work = server.settings.streams[Role.NORMAL], 0
    with (
        TemporaryDirectory() as folder,
        server.connect() as connection,
        closing(server.publisher(outbox=Path(folder) / OUTBOX_NAME)) as publisher,
        _members(server) as members,
    ):
        client = connection.client
        _wait(lambda: client.exists(stream))
        for number in range(num):
            publisher.publish(report(number))
            if (number + 1) % PER_KILL:
                continue
            time.sleep(draw.uniform(0.0, _LONGEST_S))
            name = draw.choice(list(members.living))
            members.kill(name)
            at_work += bool(client.xpending_range(stream, GROUP, "-", "+", 1, consumername=name))
            members.start(f"after {number}")
        assert publisher.flush(_PATIENCE_S)

        def finished() -> bool:
            return bool(
                client.xlen(stream) >= num
                and not client.xpending(stream, GROUP)["pending"]
                and not client.xinfo_groups(stream)[0].get("lag")
            )

        _wait(finished)
        effects = Counter(client.lrange(EFFECTS, 0, -1))
        letters = client.xlen(server.settings.dead_letters(Role.NORMAL))
    missing, twice = num - len(effects), sum(count > 1 for count in effects.values())
    failed = min(kills, missing + twice)
    bound = stats.binomtest(failed, kills, alternative="less").proportion_ci(0.95, "exact").high
    return Kills(
        server=server.name,
        kills=kills,
        at_work=at_work,
        messages=num,
        missing=missing,
        twice=twice,
        dead_letters=int(letters),
        upper=float(bound),
    )


def _wait(condition: Any) -> None:
    ends = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(f"the members are not done within {_PATIENCE_S:.0f} s")
        time.sleep(0.01)


def render(found: list[Kills]) -> str:
    """A Markdown table."""
    header = ["server", "kills", "at work", "messages", "missing", "twice", "given up"]
    rows = []
    for each in found:
        counts = (each.kills, each.at_work, each.messages, each.missing, each.twice)
        cells = [each.server, *map(str, counts), str(each.dead_letters)]
        rows.append([*cells, f"{each.upper:.3f}"])
    return table([*header, "share, below"], rows)
