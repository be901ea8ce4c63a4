"""Runs whose controller is in another thread or process."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from runs import digits_run

from esper_lightning.callbacks import Journal
from esper_lightning.leyline import Decision, Event
from esper_lightning.nissa.journal import read_journal
from esper_lightning.oona import Admission, Consumer, Received, Role, Settings, connect
from esper_lightning.tamiyo import Answers, Periodic, Policy


def periodic() -> Policy:
    return Periodic(period=2, start=1, trial=1)


def run(policy: Policy, folder: Path, **options: Any) -> tuple[Any, list[Event]]:
    """Weights and journal."""
    model, _, _ = digits_run(policy, callbacks=[Journal(dirpath=str(folder))], **options)
    events = read_journal(folder / "events.jsonl")
    weights = {n: w for n, w in model.state_dict().items() if not n.endswith("_extra_state")}
    return weights, events


def decisions(events: list[Event]) -> list[Decision]:
    return [event for event in events if isinstance(event, Decision)]


class Slow(Answers):
    """Answers some questions too late."""

    def __init__(self, *arguments: Any, late: Callable[[int], float]) -> None:
        super().__init__(*arguments)
        self._late = late

    def __call__(self, received: Received, transaction: Any) -> None:
        time.sleep(self._late(received.message.epoch))
        super().__call__(received, transaction)


@contextlib.contextmanager
def controller(
    url: str, folder: Path, *, late: Callable[[int], float] = lambda epoch: 0.0
) -> Iterator[Consumer]:
    """A controller on a thread of its own."""
    settings = Settings()
    with connect(url, folder=folder) as connection:
        signer = connection.signer()
        answers = Slow(periodic, settings, signer, late=late)
        consumer = Consumer(
            connection.client,
            settings,
            Admission(signer),
            group="tamiyo",
            handlers={"question": answers},
            roles=(Role.NORMAL,),
        )
        stop = threading.Event()
        thread = threading.Thread(target=consumer.run, args=(stop,))
        thread.start()
        try:
            yield consumer
        finally:
            stop.set()
            thread.join()
