"""Boundaries for the drills of the risk engine: a quiet run, and what can happen to it."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from growing_run import slot, state

from esper_lightning.karn import query
from esper_lightning.leyline import CommandKind, Objective, RiskLevel, SeedState, SystemState
from esper_lightning.tamiyo import Choice
from esper_lightning.tamiyo.risk import RiskEngine

TRUSTED = [blueprint.name for blueprint in query(conservative=True)]
QUIET = [2.3, 1.4, 1.0, 0.8, 0.7, 0.62, 0.58, 0.55, 0.53, 0.52]


def plant(name: str, blueprint: str = TRUSTED[0]) -> Choice:
    return Choice(
        kind=CommandKind.GERMINATE, slot=name, blueprint=blueprint, reason="the curve is flat"
    )


def choose(kind: CommandKind, name: str = "") -> Choice:
    return Choice(kind=kind, slot=name, reason="the policy says so")


NOOP = choose(CommandKind.NOOP)


class Drill:
    """An engine in a run whose loss falls quietly, one boundary after the other.

    Attributes:
        engine: that reviews it; another one may take over.
        epoch: of the next boundary.
    """

    def __init__(
        self,
        engine: RiskEngine | None = None,
        *,
        fallback: Callable[[SystemState], Sequence[Choice]] = lambda _: [],
        **values: Any,
    ) -> None:
        self.engine = engine or RiskEngine()
        self.fallback = fallback
        self.values = {"max_epochs": None, "rollbacks": None} | values
        self.epoch = 0

    def quiet(self, num: int, *slots: SeedState) -> "Drill":
        for _ in range(num):
            self.at(*slots)
        return self

    def at(
        self,
        *slots: SeedState,
        loss: float | None = None,
        choices: Sequence[Choice] = (NOOP,),
        **values: Any,
    ) -> list[Choice]:
        """One boundary; the loss is the quiet one unless it is given."""
        falls = QUIET[self.epoch] if self.epoch < len(QUIET) else QUIET[-1]
        now = state(
            *(slots or (slot("a"), slot("b"), slot("c"))),
            epoch=self.epoch,
            **{
                "objective": Objective(name="val/loss", value=falls if loss is None else loss),
                **self.values,
                **values,
            },
        )
        self.epoch += 1
        return self.engine.review(now, choices, fallback=self.fallback)


def level(choices: Sequence[Choice]) -> RiskLevel:
    """That of a boundary, which all of its choices bear."""
    levels = {choice.risk.level for choice in choices if choice.risk is not None}
    assert len(levels) == 1
    assert all(choice.risk is not None for choice in choices)
    return levels.pop()


def done(choices: Sequence[Choice]) -> list[tuple[str, str]]:
    """What is carried out."""
    return [(choice.kind.name, choice.slot) for choice in choices if not choice.refused]


def refused(choices: Sequence[Choice]) -> list[tuple[str, str]]:
    """What is not, with the engine's reason."""
    assert all(each.refused.startswith("risk: ") for each in choices if each.refused)
    return [(choice.kind.name, choice.slot) for choice in choices if choice.refused]


def resumed(engine: RiskEngine) -> RiskEngine:
    """Another engine that continues from what one saved, by way of strict JSON."""
    copy = RiskEngine()
    copy.load_state_dict(json.loads(json.dumps(engine.state_dict(), allow_nan=False)))
    return copy
