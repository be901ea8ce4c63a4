"""Commands on a store of experience: fill it from runs or from the bus, and tell what it has."""

import argparse
import logging
import signal
import threading
from pathlib import Path

from esper_lightning.leyline import InvalidArgument
from esper_lightning.simic.experience.bus import BusFeed
from esper_lightning.simic.experience.runs import from_runs
from esper_lightning.simic.experience.store import Experience
from esper_lightning.simic.recording import Recording

log = logging.getLogger(__name__)


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``gather``, ``listen`` and ``show``; ``do`` of what was parsed carries it out."""
    gathering = commands.add_parser("gather", help="keep recorded runs as experience")
    gathering.add_argument("runs", nargs="+", metavar="RUN", help="run, or folder of runs")
    gathering.set_defaults(do=gather)
    listening = commands.add_parser("listen", help="keep runs that the bus tells of, as they end")
    listening.add_argument("--url", help="of the bus, as oona.url; otherwise REDIS_URL, or auto")
    listening.add_argument("--folder", type=Path, help="of a run whose embedded bus it is")
    listening.set_defaults(do=listen)
    showing = commands.add_parser("show", help="what is kept, and where each comes from")
    showing.set_defaults(do=show)
    for each in (gathering, listening, showing):
        each.add_argument(
            "--store", type=Path, default=Path("experience.sqlite"), help="(experience.sqlite)"
        )


def gather(asked: argparse.Namespace) -> None:
    """Keep recorded runs.

    Raises:
        InvalidArgument: there are none.
        ExperienceFailed: the store cannot be used.
    """
    with Experience(asked.store) as experience:
        counts = from_runs(experience, asked.runs)
        log.info("%s: %d recordings", asked.store, len(experience))
    for name, num in sorted(counts.items()):
        log.info("%-10s %d", name, num)


def listen(asked: argparse.Namespace) -> None:
    """Keep runs that the bus tells of, until it is interrupted.

    Raises:
        BusUnavailable: there is no bus to be had.
        KeyRequired: it is shared, and there is no key to verify with.
        ExperienceFailed: the store cannot be used.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with Experience(asked.store) as experience:
        feed = BusFeed(experience)
        log.info("listening; runs are kept in %s", asked.store)
        feed.listen(stop, url=asked.url, folder=asked.folder)
    for name, num in sorted(feed.counts.items()):
        log.info("%-10s %d", name, num)


def show(asked: argparse.Namespace) -> None:
    """One line for each recording, and what is damaged by name.

    Raises:
        ExperienceFailed: the store cannot be used.
    """
    with Experience(asked.store) as experience:
        for each in experience.recordings():
            worth = _worth(experience, each)
            length = f"{len(each.boundaries)} boundaries"
            if each.end is None:
                length += ", cut off"
            print(
                f"{each.id[:12]}  run {each.run_id} from {each.source}  {each.task}, seed "
                f"{each.seed}  {each.policy} {each.version}  {length}  {worth}"
            )
        for identifier, reason in experience.damaged().items():
            print(f"{identifier[:12]}  damaged: {reason}")


def _worth(experience: Experience, recording: Recording) -> str:
    try:
        told = experience.episode(recording)
    except InvalidArgument as error:
        return str(error)
    return "teaches nothing" if told is None else f"utility {told.utility:+.4f}"
