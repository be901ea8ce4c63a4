"""All slots of one network at an epoch boundary: clocks, gates, commands."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace
from torch import nn
from torch.optim import Optimizer

from esper_lightning.kasmina import gates, lifecycle
from esper_lightning.kasmina.checks import check_incubation, checked, tried_out
from esper_lightning.kasmina.judgement import Verdict, ask, gather, why_unfit
from esper_lightning.kasmina.moment import Moment
from esper_lightning.kasmina.parameter_groups import SlotGroups
from esper_lightning.kasmina.random_stream import derived_seed
from esper_lightning.kasmina.record import SeedRecord
from esper_lightning.kasmina.reduction import syncs_batch_norm
from esper_lightning.kasmina.rules import LifecycleRules
from esper_lightning.kasmina.slot import SeedSlot
from esper_lightning.kasmina.watch import StepWatch
from esper_lightning.leyline import (
    LEGAL_COMMANDS,
    LIVE_STAGES,
    AdaptationCommand,
    CommandKind,
    CommandRefused,
    GateFailed,
    GateResult,
    GrownSeed,
    IllegalTransition,
    Incubation,
    InvalidArgument,
    NonFiniteTraining,
    SeedStage,
    SlotShape,
    SlotUnsuitable,
    StageChanged,
    UnknownSlot,
    legal_commands,
)

_NEXT = {
    SeedStage.TRAINING: SeedStage.BLENDING,
    SeedStage.BLENDING: SeedStage.SHADOWING,
    SeedStage.SHADOWING: SeedStage.PROBATIONARY,
}


class SeedBed:
    """The slots of one network and the rules they live by. Knows no Trainer.

    :attr:`watch` accompanies every training step; at an epoch boundary come :meth:`close_epoch` and
    then :meth:`apply` for each command.

    Args:
        network: what grows; its parameters are counted.
        slots: by module path, from :func:`~esper_lightning.kasmina.graft.insert_slots`.
        rules: of the lifecycle.
        incubation: how a seed is raised unless its command says otherwise.
        fits: whether any blueprint fits a shape.
        second_passes: whether the loss can be run again, beside the step: shadow incubation and the
            isolation monitor need it.

    Raises:
        InvalidArgument: ``incubation`` needs second passes, and there are none.
    """

    def __init__(
        self,
        network: nn.Module,
        slots: Mapping[str, SeedSlot],
        *,
        rules: LifecycleRules,
        incubation: Incubation = Incubation.DIRECT,
        fits: Callable[[SlotShape], bool],
        second_passes: bool = False,
    ) -> None:
        self.network = network
        self.incubation = incubation
        self._fits = fits
        self._second_passes = second_passes
        check_incubation(incubation, second_passes=second_passes)
        self.slots = dict(slots)
        self.rules = rules
        self.watch = StepWatch(self.slots)
        self.history: list[float | None] = []
        self._groups: SlotGroups | None = None
        for slot in self.slots.values():
            slot.trust_radius = rules.trust_radius

    @property
    def groups(self) -> SlotGroups:
        """The optimiser's groups."""
        if self._groups is None:
            raise CommandRefused("the slots have no optimiser yet; call bind(optimizer) first")
        return self._groups

    @property
    def is_bound(self) -> bool:
        """True once there is an optimiser."""
        return self._groups is not None

    def bind(self, optimizer: Optimizer) -> None:
        """Use ``optimizer``, which has the slots' empty groups; fill them with what is there."""
        self._groups = SlotGroups(optimizer, self.slots)
        self._groups.refill(self.slots)
        for slot in self.slots.values():
            slot.syncs_batch_norm = syncs_batch_norm(self.network)

    def rewound(self, elapsed: int) -> None:
        """Set the clocks and fill the groups after slots were set back, ``elapsed`` steps ago."""
        for slot in self.slots.values():
            lifecycle.delay(slot, elapsed)
        self.groups.refill(self.slots)

    def quarantine(self, path: str) -> None:
        """Never plant in a slot again what grew there last: its live seed, or else a fossil."""
        record = self.slots[path].record
        grown = record.seed or (record.fossils[-1] if record.fossils else None)
        if grown is not None:
            record.quarantined = [*record.quarantined, grown.blueprint]

    def check_shapes(self) -> None:
        """After a forward pass: every slot was called, and something can grow in it.

        Raises:
            SlotUnsuitable: naming the slot, and why.
        """
        for path, slot in self.slots.items():
            if slot.record.shape is None:
                raise SlotUnsuitable(
                    f"the forward pass never calls slot {path!r}: it is bypassed (its weights are "
                    f"used directly, for example); choose a module that is called"
                )
            if not self._fits(slot.record.shape):
                raise SlotUnsuitable(f"no blueprint fits slot {path!r} ({slot.record.shape})")

    def forget_epochs(self, *, after: int) -> None:
        """No gate is to hear of epochs that were undone."""
        self.history = [None if e > after else value for e, value in enumerate(self.history)]

    def end(self) -> None:
        """Training is over: nothing that was culled is left in the network."""
        for slot in self.slots.values():
            lifecycle.remove_culled(slot)

    def has_live_seeds(self) -> bool:
        """True when a seed is on its way through the lifecycle."""
        return any(slot.record.stage in LIVE_STAGES for slot in self.slots.values())

    def check_clocks(self) -> None:
        """At the start of a run that resumes no other: no seed lives by an earlier run's clocks.

        Raises:
            InvalidArgument: a slot holds a live seed.
        """
        live = [
            module.path
            for module in self.network.modules()
            if isinstance(module, SeedSlot) and module.record.seed is not None
        ]
        if live:
            raise InvalidArgument(
                f"slots {live} hold live seeds of an earlier run; continue it with "
                f"Trainer.fit(ckpt_path=...), which restores their clocks"
            )

    def start_with(self, branches: Sequence[GrownSeed]) -> None:
        """Begin with branches in place as fossils, freshly initialised: a static network.

        Raises:
            UnknownSlot, UnknownBlueprint, InvalidArgument: what cannot be built.
        """
        for branch in branches:
            slot = self.slots.get(branch.slot)
            if slot is None:
                raise UnknownSlot(f"{branch.slot!r} is not a slot; slots: {list(self.slots)}")
            number = len(slot.record.fossils)
            module = slot.construct(
                branch.blueprint,
                branch.parameters,
                rng_seed=derived_seed(self.rules.seed, slot.path, "fossil", number),
            )
            counted = sum(parameter.numel() for parameter in module.parameters())
            lifecycle.add_fossil(slot, module, replace(branch, num_parameters=counted))

    def num_parameters(self) -> int:
        """Of the network as it stands, seeds included."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def topology(self) -> Hashable:
        """Equal for two steps that run the same operations."""
        return tuple(
            (
                slot.record.stage if slot.record.seed else None,
                slot.record.paused,
                slot.record.seed and (slot.record.seed.blueprint, str(slot.record.seed.parameters)),
                tuple((f.blueprint, str(f.parameters)) for f in slot.record.fossils),
            )
            for slot in self.slots.values()
        )

    # -- the boundary -----------------------------------------------------------------------------

    def wake(self, moment: Moment) -> list[StageChanged]:
        """UNKNOWN slots whose shape is known by now become DORMANT."""
        return [
            self._move(slot, SeedStage.DORMANT, moment, f"maps {slot.record.shape}")
            for slot in self.slots.values()
            if slot.record.stage is SeedStage.UNKNOWN and slot.record.shape is not None
        ]

    def close_epoch(self, moment: Moment) -> list[StageChanged]:
        """End an epoch: health, evidence, clocks, gates, and the moves that need no command.

        Raises:
            NonFiniteTraining: the training loss of the epoch is NaN or infinite.
            SlotUnsuitable: the forward pass never reached a slot, or nothing fits it.
        """
        loss = self.watch.loss.mean()
        if loss is not None and not math.isfinite(loss):
            raise NonFiniteTraining(
                f"the training loss of epoch {moment.epoch} is {loss}: NaN or infinity in the "
                f"data, or a learning rate that is too high; the last checkpoint is from before it"
            )
        changes = self.wake(moment)
        self.check_shapes()
        missing = moment.epoch - len(self.history)
        self.history = [*self.history[: moment.epoch], *[None] * missing, moment.objective.value]
        for slot in self.slots.values():
            slot.record.age += not slot.record.paused
            if slot.record.seed is not None:
                slot.record.seed.evidence.append(gather(slot, self.watch, moment))
        for slot in self.slots.values():
            if not slot.record.paused or _is_quarantined(slot):
                changes += self._move_by_itself(slot, moment)
        return changes

    def apply(self, command: AdaptationCommand, moment: Moment) -> list[StageChanged]:
        """Carry out one command; everything is checked before anything is changed.

        Raises:
            CommandRefused: it cannot be carried out now (IllegalTransition, GateFailed).
            InvalidArgument: unknown slot or blueprint, parameter out of range.
        """
        command = checked(command)
        if command.kind not in LEGAL_COMMANDS:
            known = ", ".join(kind.name for kind in LEGAL_COMMANDS)
            raise CommandRefused(f"{command.kind.name} is not a command for a slot; those: {known}")
        if command.kind is CommandKind.NOOP:
            return []
        slot = self.slots.get(command.slot)
        if slot is None:
            raise UnknownSlot(
                f"{command.kind.name}: {command.slot!r} is not a slot; slots: {list(self.slots)}"
            )
        paused, fossils = slot.record.paused, slot.record.fossils
        allowed = legal_commands(slot.record.stage, paused=paused, has_fossils=bool(fossils))
        if command.kind not in allowed:
            why = "the seed is paused" if paused else ""
            if command.kind in (CommandKind.PRUNE, CommandKind.EMERGENCY) and not fossils:
                why = "it has no fossil"
            names = [kind.name for kind in allowed]
            raise IllegalTransition(slot.path, slot.record.stage, command.kind.name, names, why)
        match command.kind:
            case CommandKind.GERMINATE:
                return self._germinate(slot, command, moment)
            case CommandKind.ADVANCE | CommandKind.FOSSILIZE:
                return self._pass_gate(slot, command, moment)
            case CommandKind.CULL:
                return [self._move(slot, SeedStage.CULLED, moment, command.reason)]
            case CommandKind.PRUNE:
                return self._prune(slot, command, moment)
            case CommandKind.EMERGENCY if slot.record.stage is SeedStage.CULLED:
                lifecycle.remove_seed(slot)
            case CommandKind.EMERGENCY if slot.record.seed is None:
                return self._prune(slot, command, moment, at_once=True)
            case CommandKind.EMERGENCY:
                return [self._move(slot, SeedStage.CULLED, moment, command.reason, at_once=True)]
            case CommandKind.PAUSE:
                lifecycle.pause(slot, moment, command.reason)
            case CommandKind.RESUME:
                lifecycle.resume(slot, moment, command.reason)
        return []

    def state_dict(self) -> dict[str, Any]:
        """What the slots' own records do not hold."""
        return {"history": list(self.history)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.history = list(state["history"])

    # -- commands ---------------------------------------------------------------------------------

    def _germinate(
        self, slot: SeedSlot, command: AdaptationCommand, moment: Moment
    ) -> list[StageChanged]:
        _ = self.groups  # there must be some before anything is planted
        incubation = command.incubation or self.incubation
        check_incubation(incubation, second_passes=self._second_passes)
        rng_seed = derived_seed(self.rules.seed, slot.path, slot.record.num_planted)
        branch = tried_out(slot, command, incubation=incubation, rng_seed=rng_seed)
        record = SeedRecord(
            blueprint=command.blueprint,
            parameters=dict(command.parameters),
            incubation=incubation,
            blend=command.blend or self.rules.blend,
            num_parameters=sum(parameter.numel() for parameter in branch.parameters()),
            planted_epoch=moment.epoch,
            planted_step=moment.step,
            rng_seed=rng_seed,
            network_parameters_before=self.num_parameters(),
            flops_before=moment.flops,
        )
        lifecycle.plant(slot, branch, record)
        planted = self._move(slot, SeedStage.GERMINATED, moment, command.reason)
        return [planted, *self._pass_sanity(slot, moment)]

    def _prune(
        self,
        slot: SeedSlot,
        command: AdaptationCommand,
        moment: Moment,
        *,
        at_once: bool = False,
    ) -> list[StageChanged]:
        """The last fossil becomes a seed again, and is culled."""
        self.groups.unfossilize(slot.path, slot.fossils[-1])
        lifecycle.take_last_fossil(
            slot,
            moment,
            blend=command.blend or self.rules.blend,
            rng_seed=derived_seed(self.rules.seed, slot.path, "prune", len(slot.record.culls)),
            num_parameters=self.num_parameters(),
        )
        return [self._move(slot, SeedStage.CULLED, moment, command.reason, at_once=at_once)]

    def _pass_gate(
        self, slot: SeedSlot, command: AdaptationCommand, moment: Moment
    ) -> list[StageChanged]:
        """ADVANCE and FOSSILIZE: ask now, whatever the age."""
        if slot.record.stage is SeedStage.GERMINATED:
            return self._pass_sanity(slot, moment)
        result = self._ask(slot, moment).gate
        if not result.passed:
            raise GateFailed(f"{command.kind.name} {slot.path!r} is refused: {result}")
        after = _NEXT.get(slot.record.stage, SeedStage.FOSSILIZED)
        return [self._move(slot, after, moment, command.reason, gate=result)]

    # -- moves without a command ------------------------------------------------------------------

    def _move_by_itself(self, slot: SeedSlot, moment: Moment) -> list[StageChanged]:
        record, stage = slot.record, slot.record.stage
        if why := why_unfit(record, self.rules):
            self.quarantine(slot.path)
            return [self._move(slot, SeedStage.CULLED, moment, why)]
        if stage in LIVE_STAGES and record.age >= self.rules.max_age(stage):
            result = self._judge(slot, moment)
            why = f"{record.age} epochs in {stage.name} are the most allowed; {result}"
            return [self._move(slot, SeedStage.CULLED, moment, why, gate=result)]
        match stage:
            case SeedStage.GERMINATED:
                return self._pass_sanity(slot, moment)
            case SeedStage.TRAINING | SeedStage.BLENDING | SeedStage.SHADOWING:
                if record.age >= self.rules.min_age(stage):
                    result = self._judge(slot, moment)
                    record.reason = str(result)
                    if result.passed:
                        return [self._move(slot, _NEXT[stage], moment, str(result), gate=result)]
            case SeedStage.PROBATIONARY if record.age >= self.rules.min_age(stage):
                record.reason = str(self._judge(slot, moment))
            case SeedStage.FOSSILIZED:
                most = self.rules.max_fossils
                if most is not None and len(record.fossils) >= most:
                    why = f"{most} fossils are the most allowed here"
                    return [self._move(slot, SeedStage.TERMINATED, moment, why)]
                return [self._move(slot, SeedStage.DORMANT, moment, "free to grow again")]
            case SeedStage.CULLED if slot.seed is None or float(slot.alpha) == 0.0:
                return [self._move(slot, SeedStage.EMBARGOED, moment, "the seed is gone")]
            case SeedStage.EMBARGOED if record.age >= self.rules.embargo:
                return [self._move(slot, SeedStage.RESETTING, moment, "the embargo is over")]
            case SeedStage.RESETTING:
                held = self.groups.num_held(slot.path)
                result = gates.reset(tensors_held=held, seed_present=slot.seed is not None)
                if result.passed:
                    return [self._move(slot, SeedStage.DORMANT, moment, str(result), gate=result)]
        return []

    def _pass_sanity(self, slot: SeedSlot, moment: Moment) -> list[StageChanged]:
        if slot.sample is None:
            slot.record.reason = "waits for a forward pass"
            return []
        result = self._judge(slot, moment)
        if not result.passed:
            after = SeedStage.CULLED
        elif slot.record.seed is not None and slot.record.seed.incubation is Incubation.DIRECT:
            after = SeedStage.PROBATIONARY
        else:
            after = SeedStage.TRAINING
        return [self._move(slot, after, moment, str(result), gate=result)]

    def _judge(self, slot: SeedSlot, moment: Moment) -> GateResult:
        """Ask the gate and keep its answer in the record."""
        seed = slot.record.seed
        assert seed is not None
        seed.gate, seed.gain, seed.rent = self._ask(slot, moment)
        return seed.gate

    def _ask(self, slot: SeedSlot, moment: Moment) -> Verdict:
        seed = slot.record.seed
        assert seed is not None
        live = (s.record.seed for s in self.slots.values() if s.record.stage in LIVE_STAGES)
        return ask(
            slot,
            cohort=[m for m in live if m is not None and m.planted_epoch == seed.planted_epoch],
            history=self.history,
            moment=moment,
            network_parameters=self.num_parameters(),
            rules=self.rules,
            monitored=self._second_passes and self.rules.monitor_every is not None,
        )

    def _move(
        self,
        slot: SeedSlot,
        after: SeedStage,
        moment: Moment,
        reason: str,
        *,
        gate: GateResult | None = None,
        at_once: bool = False,
    ) -> StageChanged:
        return lifecycle.move(
            slot,
            after,
            groups=self.groups,
            moment=moment,
            reason=reason,
            gate=gate,
            at_once=at_once,
        )


def _is_quarantined(slot: SeedSlot) -> bool:
    seed = slot.record.seed
    return seed is not None and seed.quarantined and slot.record.stage in LIVE_STAGES
