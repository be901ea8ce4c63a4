"""States, a small catalogue and a simulated run for the tests of the policies."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from esper_lightning.karn import Blueprint, Cost, CountableBranch, Range, Tier
from esper_lightning.leyline import (
    LIVE_STAGES,
    Attachment,
    CommandKind,
    Comparison,
    FeatureKind,
    FeatureMap,
    FossilState,
    Gate,
    GateResult,
    Measurement,
    Objective,
    SeedStage,
    SeedState,
    SlotShape,
    SystemState,
    legal_commands,
)
from esper_lightning.tamiyo import Choice, Policy

NARROW = SlotShape(FeatureMap(FeatureKind.VECTOR, (8,)), FeatureMap(FeatureKind.VECTOR, (8,)))
WIDE = SlotShape(FeatureMap(FeatureKind.VECTOR, (512,)), FeatureMap(FeatureKind.VECTOR, (512,)))


class _Around(CountableBranch):
    """2 * D * hidden parameters, as many multiply-adds."""

    attachment = Attachment.PARALLEL

    @classmethod
    def cost(cls, shape: SlotShape, /, *, expansion: float) -> Cost:
        width = shape.output.features
        weights = 2 * width * max(1, round(expansion * width))
        return Cost(parameters=weights, flops=2 * weights)


class _Behind(CountableBranch):
    attachment = Attachment.SERIES

    @classmethod
    def cost(cls, shape: SlotShape, /, *, rank: int, dropout: float) -> Cost:
        weights = 2 * shape.output.features * rank
        return Cost(parameters=weights, flops=2 * weights)


class _Loud(_Behind):
    zero_at_birth = False


def blueprint(name: str, number: int, branch: type[CountableBranch], **options: Any) -> Blueprint:
    settings: dict[str, Any] = {
        "kinds": frozenset({FeatureKind.VECTOR}),
        "tier": Tier.PRODUCTION,
        "risk": 0.1,
        "curriculum_stage": 1,
        "approval": "test",
        "citation": "none",
    }
    return Blueprint(id=f"BP{number:03d}", name=name, branch=branch, **(settings | options))


_EXPANSION = {"expansion": Range(0.25, 8.0, 4.0)}
_RANK = {"dropout": Range(0.0, 0.5, 0.0), "rank": Range(1, 64, 8)}

CATALOGUE = {
    each.name: each
    for each in (
        blueprint("around", 901, _Around, parameters=_EXPANSION),
        blueprint("behind", 902, _Behind, parameters=_RANK),
        blueprint("loud", 903, _Loud, parameters=_RANK),
        blueprint("trial", 904, _Behind, parameters=_RANK, tier=Tier.EXPERIMENTAL),
    )
}


def g4(passed: bool) -> GateResult:
    measured = Measurement(
        name="gain", value=float(passed), comparison=Comparison.AT_LEAST, threshold=0.5
    )
    return GateResult(gate=Gate.G4_SYSTEM_IMPACT, measurements=(measured,))


def slot(name: str = "a", stage: SeedStage = SeedStage.DORMANT, **values: Any) -> SeedState:
    paused = values.get("paused", False)
    if stage in LIVE_STAGES:
        values = {"blueprint": "around", "num_parameters": 100, "cohort": 3, "age": 1} | values
    settings: dict[str, Any] = {
        "shape": NARROW,
        "base_parameters": 72,
        "legal": legal_commands(stage, paused=paused),
    }
    return SeedState(slot=name, stage=stage, **(settings | values))


def state(*slots: SeedState, epoch: int = 5, **values: Any) -> SystemState:
    settings: dict[str, Any] = {
        "run_id": "run",
        "epoch": epoch,
        "max_epochs": 24,
        "global_step": 10 * (epoch + 1),
        "steps_per_epoch": 10,
        "objective": Objective(name="val/loss", value=1.0),
        "metrics": {},
        "slots": slots,
        "host_parameters": 1000,
        "num_parameters": 1000 + sum(each.num_parameters for each in slots),
    }
    return SystemState(**(settings | values))


def legal_at(seen: SystemState, choices: list[Choice]) -> None:
    """Assert what every policy promises about its choices."""
    assert choices
    assert all(choice.reason for choice in choices)
    if any(choice.kind is CommandKind.NOOP for choice in choices):
        assert len(choices) == 1
        assert choices[0].slot == ""
        return
    names = [choice.slot for choice in choices]
    assert len(set(names)) == len(names)
    for choice in choices:
        assert choice.kind in seen.slot(choice.slot).legal


def added(seen: SystemState, choices: list[Choice]) -> tuple[int, int]:
    """Parameters and training FLOPs per sample that the choices plant."""
    parameters = flops = 0
    for choice in choices:
        if choice.kind is CommandKind.GERMINATE:
            shape = seen.slot(choice.slot).shape
            assert shape is not None
            chosen = CATALOGUE[choice.blueprint]
            parameters += chosen.num_parameters(shape, choice.parameters)
            flops += 3 * chosen.num_flops(shape, choice.parameters)
    return parameters, flops


@dataclass
class GrowingRun:
    """Three slots of a host whose loss flattens, with direct insertion and one epoch of embargo.

    A seed's gain is ``gain(blueprint)``, measured from its second epoch on; its rent is 0.01.
    """

    gain: Callable[[str], float] = lambda _: 0.2
    max_epochs: int | None = 24
    epochs: int = 24
    floor: float = 0.3
    slots: list[SeedState] = field(default_factory=lambda: [slot(name) for name in "abc"])
    log: list[tuple[int, list[Choice]]] = field(default_factory=list)

    def loss(self, epoch: int) -> float:
        good = sum(len(each.fossils) for each in self.slots)
        wobble = 0.002 * math.sin(12.9 * epoch)
        return self.floor * 0.8**good + 2 * math.exp(-0.6 * epoch) + wobble

    def at(self, epoch: int) -> SystemState:
        grown = sum(fossil.num_parameters for each in self.slots for fossil in each.fossils)
        live = sum(each.num_parameters for each in self.slots if each.stage in LIVE_STAGES)
        return state(
            *self.slots,
            epoch=epoch,
            max_epochs=self.max_epochs,
            objective=Objective(name="val/loss", value=self.loss(epoch)),
            num_parameters=1000 + grown + live,
        )

    def run(self, policy: Policy, start: int = 0, end: int | None = None) -> "GrowingRun":
        for epoch in range(start, self.epochs if end is None else end):
            self.slots = [self._aged(each) for each in self.slots]
            seen = self.at(epoch)
            choices = policy.decide(seen)
            legal_at(seen, choices)
            self.log.append((epoch, choices))
            for choice in choices:
                if choice.slot:
                    names = [each.slot for each in self.slots]
                    index = names.index(choice.slot)
                    self.slots[index] = self._carried_out(self.slots[index], choice, epoch)
        return self

    def kinds(self) -> list[tuple[int, str, str]]:
        return [
            (epoch, choice.kind.name, choice.slot)
            for epoch, choices in self.log
            for choice in choices
            if choice.slot
        ]

    def _aged(self, each: SeedState) -> SeedState:
        if each.stage is SeedStage.EMBARGOED:
            return slot(each.slot, fossils=each.fossils, num_culls=each.num_culls)
        if each.stage is not SeedStage.PROBATIONARY or each.paused:
            return each
        measured = self.gain(each.blueprint) if each.age >= 1 else None
        return msgspec.structs.replace(
            each,
            age=each.age + 1,
            gain=measured,
            rent=None if measured is None else 0.01,
            gate=None if measured is None else g4(measured >= 0.01),
        )

    def _carried_out(self, each: SeedState, choice: Choice, epoch: int) -> SeedState:
        if choice.kind is CommandKind.GERMINATE:
            assert each.shape is not None
            return slot(
                each.slot,
                SeedStage.PROBATIONARY,
                age=0,
                cohort=epoch,
                blueprint=choice.blueprint,
                parameters=choice.parameters,
                num_parameters=CATALOGUE[choice.blueprint].num_parameters(
                    each.shape, choice.parameters
                ),
                fossils=each.fossils,
                num_culls=each.num_culls,
            )
        if choice.kind is CommandKind.FOSSILIZE:
            fossil = FossilState(
                blueprint=each.blueprint,
                parameters=each.parameters,
                num_parameters=each.num_parameters,
                planted_epoch=each.cohort or 0,
                fossilized_epoch=epoch,
            )
            return slot(each.slot, fossils=(*each.fossils, fossil), num_culls=each.num_culls)
        if choice.kind in (CommandKind.PAUSE, CommandKind.RESUME):
            paused = choice.kind is CommandKind.PAUSE
            legal = legal_commands(each.stage, paused=paused)
            return msgspec.structs.replace(each, paused=paused, legal=legal)
        assert choice.kind in (CommandKind.CULL, CommandKind.EMERGENCY)
        return slot(
            each.slot, SeedStage.EMBARGOED, fossils=each.fossils, num_culls=each.num_culls + 1
        )
