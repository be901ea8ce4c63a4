"""A command that fails, whatever is wrong with it, changes nothing at all."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from seedlings import SEEDLINGS, Conv, moment
from test_kasmina_lifecycle import Run, equal, snapshot
from torch import Tensor, nn

from esper_lightning import karn
from esper_lightning.kasmina import Branch, GateRules, LifecycleRules
from esper_lightning.leyline import (
    AdaptationCommand,
    CommandKind,
    CommandRefused,
    EsperError,
    GateFailed,
    IllegalTransition,
    Incubation,
    InvalidArgument,
    ParameterValue,
    SeedStage,
    SlotShape,
    UnknownBlueprint,
    UnknownSlot,
)


class Awkward(Conv):
    """Fails in the way that its parameter names."""

    def __init__(self, shape: SlotShape, *, how: str = "build") -> None:
        super().__init__(shape)
        torch.rand(3)
        random.random()
        np.random.rand()
        self.how = how
        if how == "build":
            raise RuntimeError("built in vain")
        if how == "memory":
            raise MemoryError("too large")
        if how == "integers":
            self.table = nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "forward":
            torch.rand(3)
            raise RuntimeError("run in vain")
        return super().forward(x)


def build(name: str, parameters: Mapping[str, ParameterValue], shape: SlotShape) -> Branch:
    if name == "awkward":
        return Awkward(shape, **parameters)  # type: ignore[arg-type]
    if name == "nothing":
        return None  # type: ignore[return-value]
    if name in SEEDLINGS:
        return SEEDLINGS[name](shape)
    return karn.build(name, parameters, shape)


def run(incubation: Incubation = Incubation.STRAIGHT_THROUGH, **kwargs: Any) -> Run:
    started = Run(incubation=incubation, build=build, **kwargs)
    started.boundary()
    return started


def everything(run: Run) -> dict[str, Any]:
    """What a command could change, the run's other random streams included."""
    return snapshot(run) | {
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
        "history": list(run.bed.history),
        "modes": [module.training for module in run.bed.network.modules()],
        "modules": [id(module) for module in run.bed.network.modules()],
        "stream": run.slot.random.state(),
        "trust": run.slot.trust_radius,
        "sample": list(run.slot.sample or ()),
        "optimiser": [id(p) for p in run.optimizer.state],
    }


def command(**changes: Any) -> AdaptationCommand:
    asked: dict[str, Any] = {
        "id": "1",
        "run_id": "run",
        "kind": CommandKind.GERMINATE,
        "slot": "mix",
        "blueprint": "conv",
    }
    return AdaptationCommand(**(asked | changes))


REFUSED: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "an unknown slot": ({"slot": "nowhere"}, UnknownSlot),
    "no slot": ({"slot": ""}, UnknownSlot),
    "an unknown blueprint": ({"blueprint": "rose"}, UnknownBlueprint),
    "no blueprint": ({"blueprint": ""}, UnknownBlueprint),
    "a blueprint for another kind": ({"blueprint": "low_rank"}, InvalidArgument),
    "a number out of range": (
        {"blueprint": "parallel_conv", "parameters": {"expansion": 99.0}},
        InvalidArgument,
    ),
    "a number that is none": (
        {"blueprint": "parallel_conv", "parameters": {"expansion": float("nan")}},
        InvalidArgument,
    ),
    "text for a number": (
        {"blueprint": "parallel_conv", "parameters": {"expansion": "wide"}},
        InvalidArgument,
    ),
    "a truth value for a number": (
        {"blueprint": "parallel_conv", "parameters": {"expansion": True}},
        InvalidArgument,
    ),
    "an unknown parameter": (
        {"blueprint": "parallel_conv", "parameters": {"colour": "red"}},
        InvalidArgument,
    ),
    "a branch that speaks at once, directly": (
        {"blueprint": "loud", "incubation": Incubation.DIRECT},
        InvalidArgument,
    ),
    "shadow without second passes": ({"incubation": Incubation.SHADOW}, InvalidArgument),
    "advance where nothing is": ({"kind": CommandKind.ADVANCE}, IllegalTransition),
    "fossilise where nothing is": ({"kind": CommandKind.FOSSILIZE}, IllegalTransition),
    "cull where nothing is": ({"kind": CommandKind.CULL}, IllegalTransition),
    "pause where nothing is": ({"kind": CommandKind.PAUSE}, IllegalTransition),
    "resume where nothing is": ({"kind": CommandKind.RESUME}, IllegalTransition),
    "an emergency where nothing is": ({"kind": CommandKind.EMERGENCY}, IllegalTransition),
    "a command for no slot": ({"kind": CommandKind.ROLLBACK}, EsperError),
}
BROKEN: dict[str, dict[str, Any]] = {
    "raises when it is built": {"blueprint": "awkward", "parameters": {"how": "build"}},
    "asks for too much memory": {"blueprint": "awkward", "parameters": {"how": "memory"}},
    "takes no such parameter": {"blueprint": "awkward", "parameters": {"why": "not"}},
    "is no module": {"blueprint": "nothing"},
    "raises when it is run": {"blueprint": "awkward", "parameters": {"how": "forward"}},
    "cannot be trained": {"blueprint": "awkward", "parameters": {"how": "integers"}},
}


def fails_and_changes_nothing(run: Run, asked: AdaptationCommand, error: type[Exception]) -> None:
    before = everything(run)
    with pytest.raises(error):
        run.bed.apply(asked, moment(run.epoch, objective=run.objective))
    after = everything(run)
    changed = [name for name in before if not equal(before[name], after[name])]
    assert changed == []
    # It is as good as new: the same command, put right, is carried out.
    if run.slot.record.stage is SeedStage.DORMANT:
        run.bed.apply(command(), moment(run.epoch))
        assert run.slot.record.stage in (SeedStage.TRAINING, SeedStage.PROBATIONARY)


@pytest.mark.parametrize(("changes", "error"), [*REFUSED.values()], ids=[*REFUSED])
@pytest.mark.parametrize("incubation", [Incubation.STRAIGHT_THROUGH, Incubation.DIRECT])
def test_a_command_that_is_refused(
    incubation: Incubation, changes: dict[str, Any], error: type[Exception]
) -> None:
    asked = command(**changes)
    fails_and_changes_nothing(run(incubation), asked, error)


@pytest.mark.parametrize("changes", [*BROKEN.values()], ids=[*BROKEN])
def test_a_blueprint_that_does_not_work(changes: dict[str, Any]) -> None:
    fails_and_changes_nothing(run(), command(**changes), CommandRefused)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "cull"},
        {"kind": None},
        {"slot": ["mix"]},
        {"slot": None},
        {"blueprint": None},
        {"parameters": None},
        {"parameters": ["expansion"]},
        {"incubation": "direct", "blueprint": "loud"},
        {"incubation": "nowhere"},
        {"blend": 5},
    ],
    ids=str,
)
def test_a_command_of_wrong_types(changes: dict[str, Any]) -> None:
    fails_and_changes_nothing(run(), command(**changes), EsperError)


def test_a_bed_without_an_optimiser() -> None:
    torch.manual_seed(0)
    started = run()
    started.bed._groups = None
    before = everything(started)
    with pytest.raises(EsperError, match="no optimiser"):
        started.bed.apply(command(), moment(started.epoch))
    assert equal(before, everything(started))


def test_a_slot_that_has_seen_no_forward_pass() -> None:
    torch.manual_seed(0)
    started = run()
    started.slot.record.shape = None
    before = everything(started)
    with pytest.raises(InvalidArgument, match="has seen no forward pass"):
        started.bed.apply(command(), moment(started.epoch))
    assert equal(before, everything(started))


def test_a_second_command_for_the_same_slot() -> None:
    started = run()
    started.bed.apply(command(), moment(started.epoch))
    fails_and_changes_nothing(started, command(), IllegalTransition)
    fails_and_changes_nothing(started, command(kind=CommandKind.FOSSILIZE), IllegalTransition)


@pytest.mark.parametrize("kind", [CommandKind.ADVANCE, CommandKind.FOSSILIZE])
def test_a_gate_that_does_not_pass(kind: CommandKind) -> None:
    incubation = Incubation.DIRECT if kind is CommandKind.FOSSILIZE else Incubation.STRAIGHT_THROUGH
    started = run(incubation)
    started.bed.apply(command(), moment(started.epoch))
    fails_and_changes_nothing(started, command(kind=kind), GateFailed)


def test_a_seed_that_fails_g0_costs_its_slot_an_embargo_and_nothing_else() -> None:
    """That is no failure of the command: the seed is planted, judged and culled."""
    started = run(rules=_strict())
    before = everything(started)
    changes = started.bed.apply(command(blueprint="loud"), moment(started.epoch))
    assert [change.after for change in changes] == [SeedStage.GERMINATED, SeedStage.CULLED]
    after = everything(started)
    changed = {name for name in before if not equal(before[name], after[name])}
    assert changed == {"record", "tensors", "stream"}
    kept = {key for key in before["tensors"] if not key.endswith("_extra_state")}
    assert equal(
        {key: before["tensors"][key] for key in kept},
        {key: after["tensors"][key] for key in after["tensors"] if key in kept},
    )
    assert "output ratio" in started.slot.record.reason


def _strict() -> LifecycleRules:
    return LifecycleRules(gates=GateRules(max_output_ratio=1e-9))
