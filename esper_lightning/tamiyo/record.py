"""What a policy remembers of a run: the objective's curve and how its seeds fared."""

import math
from collections.abc import Sequence

import msgspec

from esper_lightning.leyline import LIVE_STAGES, SeedStage, SeedState, SystemState
from esper_lightning.tamiyo.stopping import Belief, believe, size
from esper_lightning.tamiyo.trial import cohorts


class Planted(msgspec.Struct, forbid_unknown_fields=True):
    """A seed whose fate is open.

    Attributes:
        blueprint: its name.
        epoch: at whose boundary it was planted, or first seen.
        num_fossils: in its slot at that time.
    """

    blueprint: str
    epoch: int
    num_fossils: int


class Tried(msgspec.Struct, forbid_unknown_fields=True):
    """A cohort that was, or is, on trial.

    Attributes:
        cohort: epoch of its planting.
        size: as :func:`~esper_lightning.tamiyo.stopping.size` counts it.
        gain: the last that was measured, None before.
    """

    cohort: int
    size: float
    gain: float | None = None


class Record(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One run as its policy saw it.

    Attributes:
        curve: ``(epoch, objective)`` where the objective was there and finite, epochs ascending.
        open: by slot, the seed whose fate is open.
        culls: by slot and blueprint, seeds that were culled, or refused when they were planted.
        last_change: epoch at which this policy last planted or found a seed culled.
        tried: cohorts, the oldest first.
    """

    curve: list[tuple[int, float]]
    open: dict[str, Planted]
    culls: dict[str, dict[str, int]]
    last_change: int | None
    tried: list[Tried]

    @classmethod
    def empty(cls) -> "Record":
        """Before the first boundary."""
        return cls(curve=[], open={}, culls={}, last_change=None, tried=[])

    def observe(self, state: SystemState) -> None:
        """Take in one boundary. The same boundary a second time changes nothing."""
        value = state.objective.value
        if value is not None and math.isfinite(value):
            self.curve = [point for point in self.curve if point[0] < state.epoch]
            self.curve.append((state.epoch, float(value)))
        for slot in state.slots:
            self._close(slot, epoch=state.epoch)
            if slot.stage in LIVE_STAGES and slot.slot not in self.open:
                self._open(slot, slot.blueprint, epoch=state.epoch)
        for cohort in cohorts(state.slots):
            self._try(cohort, state)

    def plant(self, slot: SeedState, blueprint: str, *, epoch: int) -> None:
        """A seed is planted at this boundary."""
        self._open(slot, blueprint, epoch=epoch)
        self.last_change = epoch

    def changed(self, state: SystemState) -> int | None:
        """Epoch of the last planting, fossilising or cull, by this policy or another hand."""
        epochs = [fossil.fossilized_epoch for slot in state.slots for fossil in slot.fossils]
        epochs += [slot.cohort for slot in state.slots if slot.cohort is not None]
        if self.last_change is not None:
            epochs.append(self.last_change)
        return max(epochs, default=None)

    def trust(self, slot: SeedState, blueprint: str) -> float:
        """How a blueprint fared in a slot: 1 untried, doubled by a fossil, a tenth after a cull."""
        num_fossils = sum(fossil.blueprint == blueprint for fossil in slot.fossils)
        num_culls = self.culls.get(slot.slot, {}).get(blueprint, 0)
        return (1 + num_fossils) * 0.1**num_culls

    def belief(self) -> Belief:
        """What a doubling of the network gains in this run."""
        return believe((each.size, each.gain) for each in self.tried if each.gain is not None)

    def _try(self, cohort: Sequence[SeedState], state: SystemState) -> None:
        """Note how large a live cohort is and what it gains."""
        planted = cohort[0].cohort
        if planted is None:
            return
        tried = next((each for each in self.tried if each.cohort == planted), None)
        if tried is None:
            left = None if state.max_epochs is None else state.max_epochs - 1 - planted
            added = sum(seed.num_parameters for seed in cohort)
            before = state.num_parameters - added
            extent = size(before=before, after=state.num_parameters, left=left)
            tried = Tried(cohort=planted, size=extent)
            self.tried.append(tried)
        gains = [seed.gain for seed in cohort if seed.gain is not None]
        if gains and math.isfinite(gains[0]):
            tried.gain = max(-1.0, min(1.0, gains[0]))  # a gain is all of the objective at most

    def _open(self, slot: SeedState, blueprint: str, *, epoch: int) -> None:
        self.open[slot.slot] = Planted(
            blueprint=blueprint, epoch=epoch, num_fossils=len(slot.fossils)
        )

    def _close(self, slot: SeedState, *, epoch: int) -> None:
        """Note the fate of a seed that is not alive any more."""
        seed = self.open.get(slot.slot)
        if seed is None or slot.stage in LIVE_STAGES or epoch <= seed.epoch:
            return
        del self.open[slot.slot]
        if len(slot.fossils) > seed.num_fossils or slot.stage is SeedStage.FOSSILIZED:
            return
        self.last_change = epoch
        culls = self.culls.setdefault(slot.slot, {})
        culls[seed.blueprint] = culls.get(seed.blueprint, 0) + 1
