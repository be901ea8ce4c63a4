"""A policy that is published and does harm."""

from esper_lightning.leyline import (
    CommandKind,
    DecodeError,
    Event,
    PolicyChanged,
    PolicyStep,
    SystemState,
)
from esper_lightning.nissa.drills.policies import PLANTED, SLOT
from esper_lightning.nissa.drills.scene import Drill, Scene
from esper_lightning.nissa.drills.seeds import rolled_back
from esper_lightning.oona import Publisher, Settings, connect
from esper_lightning.tamiyo import Choice, Policy
from esper_lightning.tamiyo.policy import wait
from esper_lightning.tamiyo.reload import BusPolicies, Reloading, from_library, publish_policy
from esper_lightning.urza import Library

NAME = "drill"
POISON = b"poison"
"""The bytes of the policy that does harm."""


class _Own(Policy):
    """Waits: the policy that the run begins with."""

    name = NAME

    def decide(self, state: SystemState) -> list[Choice]:  # noqa: ARG002
        """Wait."""
        return wait("the run's own policy waits")


class _Poisoned(Policy):
    """Legal in all that it chooses, so that its trial finds nothing; what it plants is NaN."""

    name = NAME

    def decide(self, state: SystemState) -> list[Choice]:
        """Plant the seed wherever that is legal."""
        slot = state.slot(SLOT)
        if CommandKind.GERMINATE not in slot.legal or "nan_emitter" in slot.quarantined:
            return wait("the poisoned policy waits")
        return [
            Choice(
                kind=CommandKind.GERMINATE,
                slot=SLOT,
                blueprint="nan_emitter",
                parameters={"onset": 0},
                reason="it looks good",
            )
        ]


def _make(data: bytes) -> Policy:
    if data != POISON:
        raise DecodeError(f"this is no policy of a drill: {data[:20]!r}")
    return _Poisoned()


def _poisoned_policy(scene: Scene) -> None:
    url, folder = "embedded://", scene.folder

    def taken_out(event: Event) -> str:
        if isinstance(event, PolicyChanged) and event.step is PolicyStep.ROLLED_BACK:
            return f"version {event.offered} goes, version {event.after} decides: {event.reason}"
        return ""

    def installed(event: Event) -> str:
        if isinstance(event, PolicyChanged) and event.step is PolicyStep.INSTALLED:
            return f"version {event.offered} decides from epoch {event.epoch} on"
        return ""

    with connect(url, folder=folder) as connection, Library(folder / "library") as library:
        settings = Settings.from_environment(url)
        publisher = Publisher(
            lambda: connect(url, folder=folder), connection.signer(), settings, source="drill"
        )

        def at_epoch(epoch: int) -> None:
            if epoch == PLANTED:
                scene.fail("a policy is published that plants NaN and passes every check")
                publish_policy(
                    library, publisher.publish, POISON, name=NAME, version=2, reason="poison"
                )
                publisher.flush(timeout_s=5.0)

        try:
            scene.fit(
                Reloading(
                    _Own(),
                    source=BusPolicies(url=url, folder=folder),
                    load=from_library(library, _make),
                    version=1,
                ),
                seen={"install": installed, "rollback": rolled_back, "take out": taken_out},
                at_epoch=at_epoch,
            )
        finally:
            publisher.close()


DRILLS = (
    Drill(
        name="poisoned_policy",
        text="a published policy does harm; the epoch is undone, and the policy taken out.",
        alerts=("tolaria_rollback",),
        reactions=("install", "rollback", "take out"),
        play=_poisoned_policy,
    ),
)
