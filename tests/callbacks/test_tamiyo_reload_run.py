"""A policy that is published while a run goes on takes over between two of its epochs."""

from pathlib import Path

from runs import digits_run, listen

from esper_lightning.callbacks import Tamiyo
from esper_lightning.leyline import Decision, PolicyChanged, PolicyStep, PolicyUpdate, SystemState
from esper_lightning.tamiyo import Choice
from esper_lightning.tamiyo.learned import Learned, StoredPolicy
from esper_lightning.tamiyo.policy import Policy, wait
from esper_lightning.tamiyo.reload import Reloading, Source, from_library, publish_policy
from esper_lightning.urza import Library


class Shelf(Source):
    """Hands out what lies on it, once."""

    def __init__(self) -> None:
        self.updates: list[PolicyUpdate] = []

    def poll(self) -> list[PolicyUpdate]:
        updates, self.updates = self.updates, []
        return updates


class Publishes(Policy):
    """The run's own, at whose third boundary somebody publishes."""

    name = "learned"

    def __init__(self, library: Library, shelf: Shelf, data: bytes) -> None:
        self._library, self._shelf, self._data = library, shelf, data

    def decide(self, state: SystemState) -> list[Choice]:
        if state.epoch == 2:
            publish_policy(
                self._library,
                self._shelf.updates.append,
                self._data,
                name=self.name,
                version=7,
                reason="it is better",
            )
        return wait("version 6 waits")


def run(folder: Path, data: bytes) -> tuple[list[PolicyChanged], list[Decision]]:
    library, shelf = Library(folder), Shelf()
    policy = Reloading(
        Publishes(library, shelf, data),
        source=shelf,
        load=from_library(library, Learned.from_bytes),
        version=6,
    )
    _, kasmina, _ = digits_run(policy, epochs=6, grower=Tamiyo(policy=policy))
    events = listen(kasmina)
    changed = [event for event in events if isinstance(event, PolicyChanged)]
    return changed, [event for event in events if isinstance(event, Decision)]


def test_it_decides_from_the_next_boundary_on(tmp_path: Path) -> None:
    changed, decisions = run(tmp_path, StoredPolicy.load().to_bytes())
    assert [(each.epoch, each.step, each.before, each.after) for each in changed] == [
        (3, PolicyStep.INSTALLED, 6, 7)
    ]
    assert changed[0].reason == "it is better"
    versions = {each.epoch: each.policy_version for each in decisions}
    assert versions == {0: None, 1: None, 2: None, 3: 7, 4: 7, 5: 7}
    later = [each for each in decisions if each.epoch in (3, 4)]
    assert all(each.log_probability is not None and each.value is not None for each in later)
    assert all(each.risk is not None for each in decisions)


def test_one_that_is_broken_changes_nothing_and_is_recorded(tmp_path: Path) -> None:
    changed, decisions = run(tmp_path, StoredPolicy.load().to_bytes()[:-1])
    assert [(each.epoch, each.step, each.after) for each in changed] == [(3, PolicyStep.REFUSED, 6)]
    assert {each.command.reason for each in decisions} == {"version 6 waits"}
