"""The live stream: server-sent events, which a browser takes up again where it lost them."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec

from esper_lightning.nissa.server.feed import frame
from esper_lightning.nissa.server.mission import ALERTS, MAX_VIEWERS, RUNS, Mission

PING_S = 15.0
"""Seconds after which silence is broken, so that a line that is down is noticed."""

MAX_WATCHED = 5
"""Runs of one stream."""


async def stream(mission: Mission, runs: Sequence[str], last_event_id: str) -> AsyncIterator[bytes]:
    """The events for one viewer.

    Args:
        mission: what is watched.
        runs: ids of the runs whose changes are told beside the list and the alerts.
        last_event_id: of the last event that the viewer has; one that is not known here, or too
            old, begins anew.
    """
    feed = mission.feed
    topics = {RUNS, ALERTS, *runs}
    number = feed.number_of(last_event_id)
    messages = None if number is None else feed.since(number, topics)
    mission.num_viewers += 1
    try:
        yield b"retry: 1000\n\n"
        while not feed.closed:
            if messages is None:
                number = feed.last
                async for part in _everything(mission, runs, feed.id_of(number)):
                    yield part
            else:
                for message in messages:
                    yield frame(message.event, message.data, feed.id_of(message.number))
                number = feed.last if not messages else max(messages[-1].number, number or 0)
            assert number is not None
            at = number
            await feed.wait(at, PING_S)
            messages = feed.since(at, topics)
            if not messages and messages is not None:
                number = feed.last
                yield b": ping\n\n" if feed.last == at else b""
    finally:
        mission.num_viewers -= 1


async def _everything(mission: Mission, runs: Sequence[str], event_id: str) -> AsyncIterator[bytes]:
    """How all that is watched stands now."""
    yield frame("runs", msgspec.json.encode(mission.library.entries), event_id)
    yield frame("alerts", await asyncio.to_thread(mission.alerts_now), event_id)
    for run in runs:
        patch = await asyncio.to_thread(mission.library.open, run)
        if patch is not None:
            yield frame("run", msgspec.json.encode(patch), event_id)


def is_full(mission: Mission) -> bool:
    """Whether no more viewers are taken."""
    return mission.num_viewers >= MAX_VIEWERS
