"""The application: routes, and what keeps it up to date."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from esper_lightning.nissa.alerts import AlertBook
from esper_lightning.nissa.events.store import EventStore
from esper_lightning.nissa.server.accountability import AUDIT_NAME, AuditLog, token_from
from esper_lightning.nissa.server.folders import FolderSource
from esper_lightning.nissa.server.guard import CHANGES, READS, Guard
from esper_lightning.nissa.server.mission import Alerts, Events, Mission
from esper_lightning.nissa.server.routes import error_handlers, routes
from esper_lightning.nissa.server.signals import call_at_signals
from esper_lightning.nissa.server.sources import Listener, Source

if TYPE_CHECKING:
    from esper_lightning.nissa.server.bus import BusReader

log = logging.getLogger(__name__)

RUNS_VARIABLE = "ESPER_RUNS"
"""Folders with runs, separated as in ``PATH``."""

HOSTS_VARIABLE = "NISSA_HOSTS"
"""Names under which the server may be asked besides those of this machine, with commas."""

BUS_VARIABLE = "NISSA_BUS"
"""Address of the bus on which runs are heard."""

FOLDER_VARIABLE = "NISSA_FOLDER"
"""Where token and audit log are."""

DEFAULT_ROOTS = ("outputs", "multirun")
DEFAULT_FOLDER = "outputs/.nissa"
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")


def create_app(
    *,
    runs: Sequence[Path | str] | None = None,
    sources: Iterable[Source] = (),
    alerts: Alerts | None = None,
    events: Events | None = None,
    exposition: Callable[[], bytes] | None = None,
    bus: str | None = None,
    folder: Path | str | None = None,
    token: str | None = None,
    hosts: Sequence[str] | None = None,
    every_s: float = 0.1,
    reads: tuple[float, float] = READS,
    changes: tuple[float, float] = CHANGES,
) -> Starlette:
    """Mission control: ``uvicorn esper_lightning.nissa.server:create_app --factory``.

    Args:
        runs: folders below which runs are; None takes those of ``ESPER_RUNS``, or ``outputs`` and
            ``multirun``. An empty one looks in no folder.
        sources: other sources of runs, such as a
            :class:`~esper_lightning.nissa.server.sources.Listener`.
        alerts: alerts that somebody else raises; None raises them from the records of live runs.
        events: events that can be searched; None keeps those of live runs in memory.
        exposition: what ``/metrics`` answers; None answers the metrics of live runs.
        bus: address of a bus on which runs are heard, as ``oona.url`` takes it; None takes that of
            ``NISSA_BUS``, where it is set.
        folder: of token and audit log; None takes that of ``NISSA_FOLDER``, or ``outputs/.nissa``.
        token: for what changes state; None takes ``NISSA_TOKEN``, or one that is made on first use.
        hosts: names under which it may be asked, besides those of this machine; None takes those
            of ``NISSA_HOSTS``.
        every_s: seconds between two looks for news.
        reads: requests a second and at once that one address is allowed.
        changes: likewise of those that change state.

    Raises:
        InvalidArgument: the token is too short, others may read its file, or the address of the
            bus is none.
        KeyRequired: the bus is shared and there is no key, in ``ESPER_LEYLINE_SECRET``.
    """
    kept = Path(folder or os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)
    roots = _roots() if runs is None else [Path(run) for run in runs]
    folders: list[Source] = [FolderSource(roots)] if roots else []
    at = bus or os.environ.get(BUS_VARIABLE, "")
    published = Listener("bus") if at else None
    mission = Mission(
        [*folders, *sources, *([published] if published else [])],
        alerts=AlertBook() if alerts is None else alerts,
        raises_alerts=alerts is None,
        events=EventStore(most=20_000) if events is None else events,
        keeps_events=events is None,
        exposition=exposition,
        audit=AuditLog(kept / AUDIT_NAME),
        token=token_from(kept) if token is None else token,
        every_s=every_s,
    )
    reader = None if published is None else _reader(published, at, mission)
    named = named_hosts() if hosts is None else hosts
    app = Starlette(
        routes=routes(mission),
        exception_handlers=error_handlers(),
        lifespan=_lifespan(mission, reader),
        middleware=[
            Middleware(Guard, reads=reads, changes=changes),
            Middleware(
                TrustedHostMiddleware,
                allowed_hosts=[*LOCAL_HOSTS, *named],
                www_redirect=False,
            ),
            Middleware(GZipMiddleware, minimum_size=1024),
        ],
    )
    app.router.redirect_slashes = False
    app.state.mission = mission
    return app


def named_hosts() -> list[str]:
    """The names of ``NISSA_HOSTS``."""
    named = os.environ.get(HOSTS_VARIABLE, "").split(",")
    return [name.strip() for name in named if name.strip()]


def _reader(published: Listener, at: str, mission: Mission) -> "BusReader":
    # Here, since who hears of runs from folders alone need not wait for redis.
    from esper_lightning.nissa.server.bus import (  # pylint: disable=import-outside-toplevel
        BusReader,
    )

    return BusReader(published, at, raised=mission.hear_raised)


def _roots() -> list[Path]:
    named = os.environ.get(RUNS_VARIABLE, "")
    return [Path(root) for root in named.split(os.pathsep) if root] or [
        Path(root) for root in DEFAULT_ROOTS
    ]


def _lifespan(mission: Mission, reader: "BusReader | None") -> Any:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        restore = call_at_signals(asyncio.get_running_loop(), mission.feed.close)
        if reader is not None:
            reader.start()
        task = asyncio.create_task(mission.watch(), name="nissa-watch")
        try:
            yield
        finally:
            restore()
            mission.feed.close()
            await task
            if reader is not None:
                await asyncio.to_thread(reader.close)

    return lifespan
