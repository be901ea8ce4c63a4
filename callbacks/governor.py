"""Rolls the network back when an epoch went wrong, and has the suspect culled."""

import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from esper_lightning.callbacks.found import find
from esper_lightning.callbacks.judged_checkpoints import JUDGED, JudgedCheckpoint, newest_judged
from esper_lightning.callbacks.kasmina import Kasmina
from esper_lightning.callbacks.treatment import GOVERNOR, Treatment
from esper_lightning.kasmina import (
    ENOUGH_LOOKS,
    HostGradients,
    Moment,
    SeedSlot,
    acting,
    suspects,
    what_grew,
)
from esper_lightning.leyline import (
    AdaptationCommand,
    AlarmLevel,
    CommandKind,
    CommandRefused,
    Decision,
    Intervention,
    InvalidArgument,
    SeedStage,
    TrainingHalted,
)
from esper_lightning.leyline.arguments import check_whole
from esper_lightning.tolaria import (
    Alarm,
    GroupwiseLR,
    Health,
    HealthRules,
    Reading,
    Snapshot,
    is_finite,
)

log = logging.getLogger(__name__)

NORM_EVERY = 8
"""Steps between two looks at the host's gradient norm."""


class Governor(Callback):
    """Mutates the network: back to what it was, when an epoch went wrong.

    At each boundary Kasmina asks it first. It judges the epoch by ``rules``: by training loss,
    gradient norm of the host, validation objective, and whether everything is finite. An epoch that
    passes is remembered as it is at the end of its boundary. One that does not is undone: weights,
    topology, optimiser state and seeds' generators are again what they were, the seed that is to
    blame is culled, its slot rests, and its blueprint is not planted there again. Steps, epochs,
    learning rates, data order and global generators go on.

    Where one rollback does not help, the next goes one snapshot further back, then to the newest
    checkpoint file that is older still and holds nothing that was not judged; after
    ``rules.max_rollbacks`` the run stops with :class:`TrainingHalted`.

    Args:
        rules: when an epoch is not to be kept.
        snapshots: how many boundaries are kept in memory, each a copy of weights and optimiser
            state.

    Raises:
        InvalidArgument: an argument that is not allowed.
    """

    def __init__(self, *, rules: HealthRules | None = None, snapshots: int = 5) -> None:
        super().__init__()
        check_whole("snapshots", snapshots, least=1)
        if not isinstance(rules, HealthRules | None):
            raise InvalidArgument(f"rules must be HealthRules, got {rules!r}")
        self.rules = rules or HealthRules()
        self.health = Health(self.rules)
        self.snapshots: deque[Snapshot] = deque(maxlen=snapshots)
        self._rollbacks: list[int] = []
        self._in_a_row = 0
        self._warned = False
        self._gradients = HostGradients()
        self._fits = True
        self._judged: int | None = None
        self._loaded: dict[str, Any] | None = None
        self._kasmina: Kasmina
        self._trainer: Trainer
        self._module: LightningModule

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Register with Kasmina, wherever it stands in the list of callbacks."""
        self._fits = stage == "fit"
        if self._fits:
            self._kasmina = find(trainer)
            self._kasmina.governor = self
            self._trainer, self._module = trainer, pl_module

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the beginning, or the boundary before what was resumed; go on in its epoch."""
        loaded, self._loaded = self._loaded or {}, None
        self.snapshots.clear()
        if loaded.get("boundary") is not None:
            self._judged = None
            self.snapshots.append(Snapshot(**loaded["boundary"]))
        else:
            told = loaded.get(JUDGED)
            self._remember(trainer.current_epoch - 1 if told is None else told)
        self.on_train_epoch_start(trainer, pl_module)
        if "gradients" in loaded:
            device = trainer.strategy.root_device
            self._gradients.load_state_dict(
                tree_map_only(Tensor, lambda t: t.to(device), loaded["gradients"])
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to measure anew."""
        alive = {
            id(parameter)
            for slot in self._kasmina.bed.slots.values()
            if slot.seed is not None
            for parameter in slot.seed.parameters()
        }
        self._gradients.start_epoch(
            {name: p for name, p in pl_module.named_parameters() if id(p) not in alive}
        )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Nobody has judged what comes from here on."""
        self._judged = None

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Measure the host's gradient in the first steps of an epoch, and then every few."""
        if self._gradients.num_looks < ENOUGH_LOOKS or trainer.global_step % NORM_EVERY == 0:
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            self._gradients.observe(overflow_is_skipped=scaler is not None)

    # -- asked by Kasmina at the boundary ---------------------------------------------------------

    def examine(self, moment: Moment) -> Treatment | None:
        """Judge the epoch that has just ended; None when it may be kept.

        Raises:
            TrainingHalted: it was rolled back too often; the network is the last good one.
        """
        reading = self._read(moment)
        alarm = self.health.judge(reading)
        if alarm is None or alarm.level is AlarmLevel.MINOR:
            self.health.accept(reading)
            self._gradients.keep_epoch()
            self._in_a_row = 0
        if alarm is None:
            self._warn_of(moment)
            return None
        blamed = suspects(self._kasmina.bed, since=moment.epoch - self.rules.period)
        if alarm.level is AlarmLevel.MINOR:
            there = [slot for slot in blamed if not _has_ramped_out(slot)]
            names = [slot.path for slot in blamed]
            return self._treatment(moment, alarm, there, names=names, gently=True)
        return self._undo(moment, alarm, blamed)

    def roll_back(self, moment: Moment, reason: str, *, boundaries: int = 1) -> Intervention:
        """Go back some boundaries because a controller says so. Nobody is blamed.

        Raises:
            CommandRefused: it was rolled back too often, or that one is not kept any more.
        """
        if not 1 <= boundaries <= len(self.snapshots):
            raise CommandRefused(
                f"ROLLBACK by {boundaries} boundaries is refused: those of epochs "
                f"{[snapshot.epoch for snapshot in self.snapshots]} are kept, 1 to "
                f"{len(self.snapshots)} can be undone"
            )
        recent = self._recent(moment)
        if len(recent) >= self.rules.max_rollbacks:
            raise CommandRefused(
                f"ROLLBACK is refused: {len(recent)} rollbacks in the last {self.rules.period} "
                f"epochs (epochs {recent}) are the most allowed; raise max_rollbacks for more"
            )
        self._rollbacks = [*recent, moment.epoch]
        for _ in range(boundaries - 1):
            self.snapshots.pop()
        self._restore(self.snapshots[-1], moment)
        return self._intervention(
            moment,
            Alarm(level=AlarmLevel.SEVERE, what=f"asked for: {reason}"),
            restored=self.snapshots[-1].epoch,
        )

    def keep(self, moment: Moment, treatment: Treatment | None) -> None:
        """The boundary is over: remember the network as it is."""
        epoch = moment.epoch if self._judged is None else self._judged
        if treatment is None or not treatment.undone:
            self._remember(epoch)
        elif treatment.decisions:  # a later rollback must not bring the culled seed back
            self.snapshots.pop()
            self._remember(epoch)

    def state_dict(self) -> dict[str, Any]:
        """What epochs are judged by, the rollbacks so far, and how far the network was judged.

        Within an epoch also the snapshot of the boundary before it. Others are taken anew.
        """
        within = self._judged is None and self.snapshots
        return {
            "health": self.health.state_dict(),
            "rollbacks": list(self._rollbacks),
            "in_a_row": self._in_a_row,
            "gradients": self._gradients.state_dict(),
            JUDGED: self._judged,
            "boundary": self.snapshots[-1].state_dict() if within else None,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`; to evaluate a checkpoint rewinds nothing."""
        if not self._fits:
            return
        self.health.load_state_dict(state_dict["health"])
        self._rollbacks = list(state_dict["rollbacks"])
        self._in_a_row = state_dict["in_a_row"]
        self._loaded = {name: state_dict[name] for name in ("gradients", JUDGED, "boundary")}

    # -- inside -----------------------------------------------------------------------------------

    def _read(self, moment: Moment) -> Reading:
        bed = self._kasmina.bed
        isolated = [
            slot.seed
            for slot in bed.slots.values()
            if slot.seed is not None
            and slot.record.stage in (SeedStage.GERMINATED, SeedStage.TRAINING)
        ]
        return Reading(
            loss=bed.watch.loss.mean(),
            loss_deviation=bed.watch.loss.deviation(),
            gradient_norm=self._gradients.norm(),
            objective=moment.not_finite.get(moment.objective.name, moment.objective.value),
            mode=moment.objective.mode,
            finite=is_finite(self._module, without=isolated),
            blocked=self._gradients.num_blocked(),
            grown=bool(acting(bed) or suspects(bed, since=moment.epoch - self.rules.period)),
        )

    def _warn_of(self, moment: Moment) -> None:
        """Tell, once, of an objective that is not finite in an epoch that is kept."""
        told = moment.not_finite.get(moment.objective.name)
        if told is not None and not self._warned and self._trainer.is_global_zero:
            self._warned = True
            log.warning(
                "epoch %d: %s is %s, while all weights are finite and nothing has grown that could "
                "have done it; no gate passes on it. Look at the validation data and at how it is "
                "computed",
                moment.epoch,
                moment.objective.name,
                told,
            )

    def _undo(self, moment: Moment, alarm: Alarm, blamed: list[SeedSlot]) -> Treatment:
        recent = self._recent(moment)
        if len(recent) >= self.rules.max_rollbacks:
            self._restore(self.snapshots[-1], moment)
            good = self._newest_judged()
            raise TrainingHalted(
                f"epoch {moment.epoch}: {alarm.what}, after {len(recent)} rollbacks in the last "
                f"{self.rules.period} epochs (epochs {recent}); the network is that of the end of "
                f"epoch {self.snapshots[-1].epoch}, the last good checkpoint is "
                f"{good.path if good else 'none'}. Look at the data and the learning "
                f"rate, or raise max_rollbacks"
            )
        self._rollbacks = [*recent, moment.epoch]
        snapshot, level = self._target()
        self._in_a_row = 0 if blamed else self._in_a_row + 1
        names = [slot.path for slot in blamed]
        grown = [what_grew(slot) for slot in blamed]
        self._restore(snapshot, moment)
        pairs = zip(blamed, grown, strict=True)
        there = [slot for slot, was in pairs if what_grew(slot) == was]
        for slot in there:
            self._kasmina.bed.quarantine(slot.path)
        return self._treatment(
            moment,
            Alarm(level=level, what=alarm.what),
            there,
            names=names,
            restored=snapshot.epoch,
        )

    def _target(self) -> tuple[Snapshot, AlarmLevel]:
        """Strictly further back for every rollback in a row that found nobody to blame."""
        tried = self.snapshots[-1]
        if not self._in_a_row:
            return tried, AlarmLevel.SEVERE
        if any(snapshot.epoch < tried.epoch for snapshot in self.snapshots):
            while self.snapshots[-1].epoch >= tried.epoch:
                self.snapshots.pop()
        elif older := self._newest_judged(before=tried.epoch):
            checkpoint = self._trainer.strategy.load_checkpoint(older.path)
            self.snapshots.clear()
            self.snapshots.append(Snapshot.read(checkpoint, epoch=older.epoch, beside=tried))
            return self.snapshots[-1], AlarmLevel.MAJOR
        return self.snapshots[-1], AlarmLevel.SEVERE

    def _treatment(
        self,
        moment: Moment,
        alarm: Alarm,
        blamed: Sequence[SeedSlot],
        *,
        gently: bool = False,
        names: Sequence[str],
        restored: int | None = None,
    ) -> Treatment:
        intervention = self._intervention(moment, alarm, suspects=names, restored=restored)
        decisions = [
            Decision(
                run_id=moment.run_id,
                epoch=moment.epoch,
                policy=GOVERNOR,
                command=AdaptationCommand(
                    id=f"{moment.run_id}/{moment.epoch}/governor/{number}",
                    run_id=moment.run_id,
                    kind=_removal(slot, gently=gently),
                    slot=slot.path,
                    reason=alarm.what,
                ),
            )
            for number, slot in enumerate(blamed)
        ]
        return Treatment(
            intervention=intervention, decisions=decisions, undone=restored is not None
        )

    def _intervention(
        self,
        moment: Moment,
        alarm: Alarm,
        *,
        suspects: Sequence[str] = (),
        restored: int | None = None,
    ) -> Intervention:
        intervention = Intervention(
            run_id=moment.run_id,
            epoch=moment.epoch,
            step=moment.step,
            level=alarm.level,
            alarm=alarm.what,
            suspects=tuple(suspects),
            restored=restored,
        )
        if self._trainer.is_global_zero:
            log.warning("epoch %d, %s", moment.epoch, intervention)
        return intervention

    def _recent(self, moment: Moment) -> list[int]:
        return [epoch for epoch in self._rollbacks if epoch > moment.epoch - self.rules.period]

    def _remember(self, epoch: int) -> None:
        self._judged = epoch
        self.snapshots.append(
            Snapshot.take(
                self._module,
                self._trainer.optimizers[0],
                epoch=epoch,
                step=self._trainer.global_step,
            )
        )

    def _restore(self, snapshot: Snapshot, moment: Moment) -> None:
        self._judged = snapshot.epoch
        snapshot.restore(
            self._module, self._kasmina.bed, self._trainer.optimizers[0], step=moment.step
        )
        # Rates for the coming step were set for the groups as they were filled until now. Other
        # schedulers give a slot's groups the rate of the group they follow, whatever is in them.
        for config in self._trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, GroupwiseLR):
                config.scheduler.refresh()

    def _newest_judged(self, *, before: int | None = None) -> JudgedCheckpoint | None:
        """The newest file to go back to, of a network of an epoch before ``before``."""
        grown = {
            id(p) for slot in self._kasmina.bed.slots.values() for p in slot.branch_parameters()
        }
        needed = [
            name
            for name, parameter in self._module.named_parameters()
            if parameter.requires_grad and id(parameter) not in grown
        ]
        return self._kasmina.ranks.first(
            lambda: newest_judged(
                self._trainer, state_key=self.state_key, needed=needed, before=before
            )
        )


def _has_ramped_out(slot: SeedSlot) -> bool:
    """Whether a slot was culled, and its seed goes by itself at this boundary."""
    return slot.record.stage is SeedStage.CULLED and float(slot.alpha) == 0.0


def _removal(slot: SeedSlot, *, gently: bool) -> CommandKind:
    """What makes a suspect go; one that is ramping out already has had its cull."""
    ramps_out = slot.record.stage is SeedStage.CULLED
    return CommandKind.CULL if gently and not ramps_out else CommandKind.EMERGENCY
