"""Experience from the bus: runs are put together from messages, and kept when they are over."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from esper_lightning.leyline import (
    EsperError,
    Event,
    RunEnded,
    RunStarted,
    SystemState,
)
from esper_lightning.leyline.arguments import check_whole
from esper_lightning.nissa.journal import timeline
from esper_lightning.oona import (
    Admission,
    Connection,
    Consumer,
    Received,
    Role,
    Settings,
    alarm,
    connect,
)
from esper_lightning.simic.experience.arrivals import Arrival, Arrivals
from esper_lightning.simic.experience.database import ExperienceFailed
from esper_lightning.simic.experience.pairing import beginning, begins, is_alone, seed_of, teaches
from esper_lightning.simic.experience.runs import task_of
from esper_lightning.simic.experience.store import Experience
from esper_lightning.simic.recording import FINISHED, Boundary, Recording, decider
from esper_lightning.simic.reward import standing
from esper_lightning.tamiyo.recorded import RecordedBoundary, recorded

log = logging.getLogger(__name__)

GROUP = "simic"
"""The consumer group; its members share the messages, and one file of experience."""

KINDS = ("run_started", "state", "decision", "run_ended")

NameRun = Callable[[SystemState], tuple[str, int]]
"""Task and seed of a run, from its first boundary."""


def named(first: SystemState) -> tuple[str, int]:
    """Size and length; a number that only runs of the same seed share, for the bus tells no seed.

    Args:
        first: the run's first boundary.
    """
    return task_of(None, first), seed_of(beginning(first))


class BusFeed:
    """Puts runs together from what the bus tells, and keeps each in a store when it is over.

    Each message is on disk before it is acknowledged: whoever dies, nothing is lost, and what comes
    twice changes nothing. Members of the group may be several processes that share one store's
    file; messages of a run may come in any order. A run is kept once its end and all of its
    boundaries were told, and a run without growth that began as it did.

    The bus carries no summary: a run, and its twin, end where they stood at their last boundary,
    before the last seeds were settled. A run that failed counts as cut off; if it is resumed, the
    whole replaces the part.

    Args:
        experience: what keeps them.
        name: tells task and seed.
        max_runs: runs that go on, or wait for their twin, at most; of more, the one that was silent
            longest goes.
        max_bytes: of their messages, likewise.

    Attributes:
        counts: of runs ``added``, ``known`` before, ``twins``, ``others`` (no policy with
            probabilities decided), ``refused`` (what they told cannot be read) and ``forgotten``
            (there was no room).

    Raises:
        InvalidArgument: an argument outside of what is allowed.
    """

    def __init__(
        self,
        experience: Experience,
        *,
        name: NameRun = named,
        max_runs: int = 1000,
        max_bytes: int = 2**28,
    ) -> None:
        check_whole("max_runs", max_runs, least=1)
        check_whole("max_bytes", max_bytes, least=1)
        self.counts: Counter[str] = Counter()
        self._experience = experience
        self._name = name
        self._arrivals = Arrivals(experience.database, max_runs=max_runs, max_bytes=max_bytes)

    def __call__(self, received: Received, transaction: Any) -> None:  # noqa: ARG002
        """Take in a message: the handler of a consumer for each of :data:`KINDS`.

        Raises:
            ExperienceFailed: it could not be kept.
        """
        message, envelope = received.message, received.envelope
        run_id = message.run_id
        if self._experience.knows(run_id):
            self.counts["known"] += isinstance(message, RunEnded)
            return
        arrival = Arrival(
            envelope=envelope.id,
            sent_s=envelope.created_at,
            kind=envelope.kind,
            payload=envelope.payload,
        )
        for each in self._arrivals.add(run_id, arrival, message):
            self.counts["forgotten"] += 1
            log.warning("run %s is forgotten: there is no room for more runs that go on", each)
        if self._arrivals.has_ended(run_id):
            self._settle(run_id)

    def consumer(self, connection: Connection, settings: Settings, **options: Any) -> Consumer:
        """A member of the group that feeds the store.

        Args:
            connection: of this consumer alone.
            settings: streams.
            options: of the consumer, such as ``idle_s``.
        """
        signer = connection.signer()
        return Consumer(
            connection.client,
            settings,
            Admission(signer, on_forged=alarm(connection, settings, signer, source=GROUP)),
            group=GROUP,
            handlers=dict.fromkeys(KINDS, self),
            roles=(Role.NORMAL,),
            **options,
        )

    def listen(
        self, stop: threading.Event, *, url: str | None = None, folder: Path | None = None
    ) -> None:
        """Feed the store until ``stop`` is set.

        Args:
            stop: ends it.
            url: of the bus; None and ``auto`` take ``REDIS_URL`` if that is set.
            folder: of an embedded server.

        Raises:
            BusUnavailable: there is no bus to be had.
            KeyRequired: it is shared, and there is no key to verify with.
        """
        settings = Settings.from_environment(url)
        with connect(settings.url, folder=folder) as connection:
            self.consumer(connection, settings).run(stop)

    def _settle(self, run_id: str) -> None:
        """Keep a run that is over, if all of it is there."""
        try:
            events = timeline(self._arrivals.events(run_id))
            found = recorded(events)
            # None where one that failed goes on.
            end = next((each for each in events if isinstance(each, RunEnded)), None)
            if end is not None and _is_whole(found, end):
                self._keep(run_id, found, events, is_over=end.outcome == FINISHED)
        except ExperienceFailed:
            raise
        except EsperError as error:
            self.counts["refused"] += 1
            log.warning("run %s is left out: %s", run_id, error)
            self._arrivals.forget(run_id)

    def _keep(
        self,
        run_id: str,
        found: Sequence[RecordedBoundary],
        told: Sequence[Event],
        *,
        is_over: bool,
    ) -> None:
        states = [each.state for each in found]
        began = beginning(states[0])
        is_twin = is_over and is_alone(states)
        if is_twin:
            self.counts["twins"] += 1
            self._arrivals.keep_twin(began, list(map(standing, states)))
        twin = self._arrivals.twin(began)
        boundaries = tuple(
            Boundary(state=each.state, decisions=tuple(each.decisions)) for each in found
        )
        if not teaches(boundaries):
            self.counts.update(() if is_twin else ("others",))
        elif twin is None:
            log.info("run %s waits for a run of its task and seed without growth", run_id)
            return
        else:
            task, seed = self._name(states[0])
            recording = Recording(
                task=task,
                seed=seed,
                run_id=run_id,
                policy=decider(boundaries),
                boundaries=boundaries,
                twin=tuple(twin),
                end=standing(states[-1]) if is_over else None,
                twin_end=twin[-1],
                versions=_versions(told),
                source="bus",
            )
            self.counts["added" if self._experience.add(recording) else "known"] += 1
        if is_over:  # one that failed may be resumed, and then these are its first epochs
            self._arrivals.forget(run_id)
        if is_twin:
            for waiting in self._arrivals.that_wait(began):
                self._settle(waiting)


def _is_whole(found: Sequence[RecordedBoundary], end: RunEnded) -> bool:
    """Whether every boundary is there with all that was decided there.

    A policy always decides something, and numbers what it decides; of the boundary at which a run
    broke nothing may have been decided. A finished run ends with its last boundary's step.
    """
    if not begins([each.state for each in found]):
        return False
    is_over = end.outcome == FINISHED
    if is_over and end.step != found[-1].state.global_step:
        return False
    return all(
        _numbers(each) == list(range(len(each.decisions)))
        and (bool(each.decisions) or (not is_over and each is found[-1]))
        for each in found
    )


def _numbers(boundary: RecordedBoundary) -> list[int]:
    """Of its decisions, from 0: a run that ends early has two boundaries in its last epoch."""
    told = [each.command.id.rpartition("/")[2] for each in boundary.decisions]
    numbers = sorted(int(each) if each.isdecimal() else -1 for each in told)
    return [number - numbers[0] for number in numbers]


def _versions(events: Sequence[Event]) -> dict[str, str]:
    return next((dict(e.versions) for e in events if isinstance(e, RunStarted)), {})
