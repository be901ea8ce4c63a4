"""A controller in another process that is silent, and one whose answers somebody forges."""

import contextlib
import secrets
import threading
from collections.abc import Iterator
from typing import Any

from esper_lightning.leyline import (
    Answer,
    CommandKind,
    Decision,
    Event,
    Proposal,
    Raised,
    SeedStage,
    Signer,
    StageChanged,
    SystemState,
)
from esper_lightning.nissa.drills.policies import PLANTED, SLOT
from esper_lightning.nissa.drills.scene import LIMIT_S, Drill, Scene
from esper_lightning.nissa.journal import JOURNAL_NAME, read_journal
from esper_lightning.nissa.metrics import NissaIngestor
from esper_lightning.oona import (
    FIELD,
    Admission,
    Connection,
    Consumer,
    Received,
    Role,
    Settings,
    connect,
    envelope_of,
    sealed,
)
from esper_lightning.tamiyo import Answers, Choice, Policy, Remote
from esper_lightning.tamiyo.policy import wait
from esper_lightning.tamiyo.service import GROUP

URL = "embedded://"

DEADLINE_S = 0.25
"""Seconds that a boundary waits for the controller."""

FORGED = 4
"""Messages that are forged between two boundaries."""

ANSWER = "the controller says: wait"


class _Controller(Policy):
    """Decides at the other end of the bus."""

    name = "drill"

    def decide(self, state: SystemState) -> list[Choice]:  # noqa: ARG002
        """Wait."""
        return wait(ANSWER)


class _Hanging(Answers):
    """Answers, unless it hangs."""

    def __init__(self, settings: Settings, signer: Signer, answers: threading.Event) -> None:
        super().__init__(_Controller, settings, signer)
        self._answers = answers

    def __call__(self, received: Received, transaction: Any) -> None:
        self._answers.wait(LIMIT_S)
        super().__call__(received, transaction)


@contextlib.contextmanager
def _serving(scene: Scene, answers: threading.Event) -> Iterator[Connection]:
    """A controller on the bus of the scene's folder, on a thread of its own."""
    settings = Settings.from_environment(URL)
    with connect(URL, folder=scene.folder) as connection:
        signer = connection.signer()
        consumer = Consumer(
            connection.client,
            settings,
            Admission(signer),
            group=GROUP,
            handlers={"question": _Hanging(settings, signer, answers)},
            roles=(Role.NORMAL,),
        )
        stop = threading.Event()
        thread = threading.Thread(target=consumer.run, args=(stop,), name="drill-controller")
        thread.start()
        try:
            yield connection
        finally:
            answers.set()
            stop.set()
            thread.join()


def _answered(event: Event) -> bool:
    return isinstance(event, Decision) and event.command.reason == ANSWER and not event.refused


def _controller_timeout(scene: Scene) -> None:
    answers = threading.Event()
    answers.set()

    def at_epoch(epoch: int) -> None:
        if epoch == PLANTED:
            scene.fail("the controller hangs")
            answers.clear()
        elif scene.fired:
            answers.set()

    def waited(event: Event) -> str:
        if isinstance(event, Decision) and "no answer of the controller" in event.command.reason:
            return f"nothing is decided at epoch {event.epoch}: {event.command.reason}"
        return ""

    def returned(event: Event) -> str:
        is_back = _answered(event) and scene.fired
        return "its answers count again" if is_back else ""

    with _serving(scene, answers):
        scene.fit(
            Remote(url=URL, folder=scene.folder, deadline_s=DEADLINE_S),
            seen={"wait": waited, "return": returned},
            at_epoch=at_epoch,
        )


def _forged_command(scene: Scene) -> None:
    answers = threading.Event()
    answers.set()
    attacker = Signer(secrets.token_bytes(32))

    def returned(event: Event) -> str:
        is_back = _answered(event) and scene.fired
        return "the mode is off, and answers count again" if is_back else ""

    def at_epoch(epoch: int) -> None:
        if epoch == PLANTED:
            scene.fail("somebody without the key answers in the controller's place: plant a seed")
            for _ in range(FORGED):
                _forge(connection, attacker, epoch)
        for _ in _alarms(scene, connection, read):
            scene.react("refuse", "the signature is wrong, the answer is dropped, an alert is sent")

    read = [b"0"]
    with _serving(scene, answers) as connection:
        scene.fit(
            Remote(url=URL, folder=scene.folder, deadline_s=DEADLINE_S),
            seen={"return": returned},
            at_epoch=at_epoch,
        )
    for event in read_journal(scene.folder / JOURNAL_NAME):
        if isinstance(event, StageChanged) and event.after is SeedStage.GERMINATED:
            scene.wrong(f"a forged command took effect: {event}")


def _forge(connection: Connection, attacker: Signer, epoch: int) -> None:
    seed = Proposal(kind=CommandKind.GERMINATE, slot=SLOT, blueprint="parallel_conv")
    answer = Answer(run_id="run", attempt="1", epoch=epoch, policy="attacker", choices=(seed,))
    stream = Settings.from_environment(URL).streams[Role.NORMAL]
    connection.add(stream, {FIELD: sealed(envelope_of(answer, source="attacker"), attacker)})


def _alarms(scene: Scene, connection: Connection, read: list[bytes]) -> Iterator[Raised]:
    """What came on the emergency stream, counted among the run's metrics as mission control does.

    Args:
        scene: whose metrics.
        connection: to the bus.
        read: the last entry that was read; is moved on.
    """
    assert scene.nissa.registry is not None
    ingestor = NissaIngestor(scene.nissa.registry)
    admission = Admission(connection.signer())
    stream = Settings.from_environment(URL).streams[Role.EMERGENCY]
    for entry, fields in connection.read(stream, after=read[0]):
        read[0] = entry
        message = admission.admit(Role.EMERGENCY, fields.get(FIELD)).message
        if isinstance(message, Raised):
            ingestor.take(message)
            yield message


DRILLS = (
    Drill(
        name="controller_timeout",
        text="the controller in another process hangs; training goes on, and nothing is decided.",
        alerts=("tamiyo_controller_silent",),
        reactions=("wait", "return"),
        play=_controller_timeout,
    ),
    Drill(
        name="forged_command",
        text="somebody forges commands; none takes effect, and growth becomes conservative.",
        alerts=("oona_rejected_signatures", "tamiyo_conservative_mode"),
        reactions=("refuse", "return"),
        play=_forged_command,
    ),
)
