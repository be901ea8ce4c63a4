"""What became of every seed of a run, rollbacks included."""

from dataclasses import dataclass, field, replace

from esper_lightning.leyline import (
    LIVE_STAGES,
    Intervention,
    ParameterValue,
    SeedStage,
    SeedState,
    StageChanged,
    SystemState,
)
from esper_lightning.nissa.explanation.markdown import quoted
from esper_lightning.nissa.explanation.seen import gate
from esper_lightning.nissa.explanation.story import Act, Chapter, Story


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """A seed, or what became of it.

    Attributes:
        slot: where it is.
        blueprint: what it is made from.
        parameters: of the blueprint.
        num_parameters: of the seed.
        planted: 0-based epoch at whose end it was planted; -1 for one that the run began with.
        ended: epoch at whose end it became permanent or went; None while it is on trial.
        stage: where it stands while it is on trial.
        why: it ended so, in Markdown.
    """

    slot: str
    blueprint: str
    parameters: dict[str, ParameterValue]
    num_parameters: int
    planted: int
    ended: int | None = None
    stage: SeedStage = SeedStage.UNKNOWN
    why: str = ""


@dataclass(slots=True)
class Fates:
    """Seeds of a run at its end.

    Attributes:
        grown: by slot, those that are part of the network, the oldest first.
        live: by slot, those that are on trial.
        culled: removed, pruned fossils included, in order.
        lost: went with an epoch that was undone.
    """

    grown: dict[str, tuple[Seed, ...]] = field(default_factory=dict)
    live: dict[str, Seed] = field(default_factory=dict)
    culled: list[Seed] = field(default_factory=list)
    lost: list[Seed] = field(default_factory=list)
    _saved: dict[int, tuple[dict[str, tuple[Seed, ...]], dict[str, Seed]]] = field(
        default_factory=dict
    )

    def follow(self, chapter: Chapter) -> None:
        """Take in what happened at the next boundary."""
        for intervention in chapter.interventions:
            self._go_back(intervention)
        for change in chapter.moves:
            self._change(change)
        for act in chapter.governed:
            self._act(act)
        if chapter.state is not None:
            self._look(chapter.state)
        for act in chapter.acts:
            self._act(act)
        for change in chapter.afterwards:
            self._change(change)
        self._saved[chapter.epoch] = (dict(self.grown), dict(self.live))

    def _go_back(self, event: Intervention) -> None:
        if event.restored is None:
            return
        grown, live = self._saved.get(event.restored, ({}, {}))
        kept = {(seed.slot, seed.planted) for seed in _all(grown, live)}
        for seed in _all(self.grown, self.live):
            if (seed.slot, seed.planted) not in kept:
                why = f"planted in an epoch that was undone at the end of epoch {event.epoch + 1}"
                self.lost.append(replace(seed, ended=event.epoch, why=why))
        self.grown, self.live = dict(grown), dict(live)

    def _change(self, event: StageChanged) -> None:
        seed = self.live.get(event.slot) or Seed(
            slot=event.slot,
            blueprint=event.blueprint,
            parameters=event.parameters,
            num_parameters=event.num_parameters,
            planted=event.epoch,
        )
        if event.after in LIVE_STAGES:
            self.live[event.slot] = replace(seed, stage=event.after)
            return
        ended = replace(seed, ended=event.epoch, stage=event.after, why=_why(event))
        if event.after is SeedStage.FOSSILIZED:
            self.grown[event.slot] = (*self.grown.get(event.slot, ()), ended)
        elif event.after is SeedStage.CULLED:
            if event.prunes and self.grown.get(event.slot):
                *rest, last = self.grown[event.slot]
                self.grown[event.slot] = tuple(rest)
                ended = replace(ended, planted=last.planted)
            self.culled.append(ended)
        self.live.pop(event.slot, None)

    def _look(self, state: SystemState) -> None:
        """A state knows better than the moves: a record may begin in the middle of a run."""
        for slot in state.slots:
            known = {seed.ended: seed.why for seed in self.grown.get(slot.slot, ())}
            self.grown[slot.slot] = tuple(
                Seed(
                    slot=slot.slot,
                    blueprint=fossil.blueprint,
                    parameters=fossil.parameters,
                    num_parameters=fossil.num_parameters,
                    planted=fossil.planted_epoch,
                    ended=fossil.fossilized_epoch,
                    stage=SeedStage.FOSSILIZED,
                    why=known.get(fossil.fossilized_epoch, ""),
                )
                for fossil in slot.fossils
            )
            if slot.stage in LIVE_STAGES:
                self.live[slot.slot] = _of(slot, state.epoch, self.live.get(slot.slot))
            else:
                self.live.pop(slot.slot, None)

    def _act(self, act: Act) -> None:
        for event in act.happened:
            if isinstance(event, StageChanged):
                self._change(event)
            else:
                self._go_back(event)


def fates(told: Story) -> Fates:
    """Follow every seed of a run."""
    found = Fates()
    for chapter in told.chapters:
        found.follow(chapter)
    return found


def _all(grown: dict[str, tuple[Seed, ...]], live: dict[str, Seed]) -> list[Seed]:
    return [*(seed for seeds in grown.values() for seed in seeds), *live.values()]


def _of(slot: SeedState, epoch: int, known: Seed | None) -> Seed:
    planted = epoch - slot.seed_age if slot.seed_age is not None else None
    return Seed(
        slot=slot.slot,
        blueprint=slot.blueprint,
        parameters=slot.parameters,
        num_parameters=slot.num_parameters,
        planted=planted if planted is not None else known.planted if known else epoch,
        stage=slot.stage,
    )


def _why(event: StageChanged) -> str:
    reason = quoted(event.reason)
    if reason:
        return reason
    return gate(event.gate) if event.gate is not None else "no reason was recorded"
