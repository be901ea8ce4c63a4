"""The telemetry hub: everything that parts of a run report stands in one recorded state."""

from typing import Any

import pytest
from lightning.pytorch import Callback
from msgspec.structs import replace
from runs import Script, digits_run, listen, plant

from esper_lightning.callbacks import Governor
from esper_lightning.callbacks.telemetry import catalogue_digest
from esper_lightning.leyline import Services, SystemState


class Station(Callback):
    """Something that runs beside training."""

    def report_services(self, services: Services) -> Services:
        return replace(services, bus="open", waiting=3)


def states(script: Script) -> list[SystemState]:
    assert script.states
    return script.states


def test_one_state_holds_what_all_parts_know() -> None:
    script = Script({1: [plant()]})
    _, kasmina, trainer = digits_run(script, callbacks=[Governor(), Station()])
    state = states(script)[2]
    assert [layer.path for layer in state.layers][:3] == [
        "features.0",
        "features.0.conv",
        "features.0.norm",
    ]
    reads = {layer.path: layer.reads for layer in state.layers}
    assert reads["features.1"] == ("features.0",)
    assert reads["head"] == ("features.2",)
    assert {slot.slot for slot in state.slots} <= set(reads)
    assert state.hardware is not None
    assert (state.hardware.device, state.hardware.processes) == ("cpu", 1)
    assert state.learning_rate is not None
    assert 0 < state.learning_rate <= trainer.optimizers[0].defaults["lr"]
    assert state.rollbacks == 0
    assert state.catalogue == catalogue_digest()
    assert kasmina.witness is not None


def test_it_is_recorded_as_the_policy_saw_it() -> None:
    script = Script({1: [plant()]})
    _, kasmina, _ = digits_run(script)
    told = [event for event in listen(kasmina) if isinstance(event, SystemState)]
    assert told == states(script)


def test_without_a_governor_rollbacks_are_missing() -> None:
    script = Script({})
    digits_run(script, epochs=1)
    assert states(script)[0].rollbacks is None


def test_a_deterministic_run_is_told_nothing_of_clock_and_machine() -> None:
    script = Script({})
    digits_run(script, epochs=2, callbacks=[Station()])
    assert [state.services for state in states(script)] == [None, None]


def test_another_run_is_told_how_what_runs_beside_it_stands() -> None:
    script = Script({})
    digits_run(script, epochs=2, callbacks=[Station()], deterministic=False)
    first, second = (state.services for state in states(script))
    assert first is not None
    assert second is not None
    assert (second.bus, second.waiting, second.compiled) == ("open", 3, None)
    assert second.step_s is not None
    assert 0 < second.step_s < 60
    assert first.boundary_s is None
    assert second.boundary_s is not None


def test_layers_survive_a_resume(tmp_path: Any) -> None:
    script = Script({1: [plant()]})
    _, _, trainer = digits_run(script, epochs=3)
    trainer.save_checkpoint(tmp_path / "at.ckpt")
    again = Script({})
    digits_run(again, epochs=4, ckpt_path=str(tmp_path / "at.ckpt"))
    assert states(again)[-1].layers == states(script)[-1].layers


@pytest.mark.parametrize("seed", [0, 1])
def test_watching_layers_changes_no_weight(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from esper_lightning.kasmina import HostLayers

    watched, _, _ = digits_run(Script({1: [plant()]}), seed=seed)
    monkeypatch.setattr(HostLayers, "open", lambda *_: None)
    alone, _, _ = digits_run(Script({1: [plant()]}), seed=seed)
    for name, value in watched.state_dict().items():
        assert value.equal(alone.state_dict()[name]), name
